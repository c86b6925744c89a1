//! `tidegate man`: the manual pages, made from the same command line that is parsed.

use super::exit;
use crate::limits::entry::Limit;
use crate::limits::{Limits, TABLE, Value};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `tidegate man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManualArgs {
    /// The command whose page is printed, like `stress` or `stress compare` [default: the page of tidegate itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write every page into this folder instead, each as a file like tidegate-stress.1
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints the page that was asked for, or writes them all.
pub(super) fn run(program: Command, args: &ManualArgs) -> ExitCode {
    let program = whole(program);
    if let Some(dir) = &args.dir {
        return match write_all(&program, dir) {
            Ok(()) => ExitCode::from(exit::OK),
            Err(why) => exit::fail(exit::FAILED, why),
        };
    }
    let mut command = &program;
    for name in &args.command {
        match command.find_subcommand(name) {
            Some(found) => command = found,
            None => {
                return exit::fail(
                    exit::USAGE,
                    format!("`{name}` is not a command: `tidegate help` lists them"),
                );
            }
        }
    }
    match page(command) {
        Ok(text) => exit::print(&text),
        Err(error) => exit::fail(exit::FAILED, format!("cannot make the manual page: {error}")),
    }
}

/// The command line as the pages show it: with all that clap adds, and with what only a page has room for.
fn whole(program: Command) -> Command {
    // `tidegate help stress` is said in the page of tidegate; it needs no page of its own.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    detailed(program)
}

/// Adds to the option of each limit what the table of limits says beside its sentence.
fn detailed(command: Command) -> Command {
    let command = command.mut_args(|arg| match TABLE.iter().find(|limit| arg.get_id() == limit.name) {
        Some(limit) => arg.long_help(in_full(limit)),
        None => arg,
    });
    command.mut_subcommands(detailed)
}

fn in_full(limit: &'static Limit<Limits>) -> String {
    let row = limit.row(&Limits::default());
    let own = if limit.per_listener { " Each listener can have its own." } else { "" };
    let range = match limit.default {
        Value::Overload(_) => format!("One of {}", row.range),
        _ => format!("From {}", row.range),
    };
    format!("{}. {range}; default {}.{own}", row.why, row.default)
}

fn write_all(command: &Command, dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir)
        .map_err(|error| format!("cannot make the folder {}: {error}", dir.display()))?;
    let path = dir.join(format!("{}.1", name(command)));
    let text = page(command).map_err(|error| format!("cannot make the manual page: {error}"))?;
    std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    command.get_subcommands().try_for_each(|command| write_all(command, dir))
}

/// The name of a page: `tidegate-stress`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// One page, in roff.
fn page(command: &Command) -> io::Result<String> {
    // The usage of `--help`: a list of sixty options in brackets helps nobody.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim_start().to_owned();
    let man = Man::new(command.clone().override_usage(usage));
    // The page has no date, so that the same source makes the same page.
    let (title, version) = (name(command).to_uppercase(), env!("CARGO_PKG_VERSION"));
    let mut out = format!(".TH {title} 1 \"\" \"tidegate {version}\" \"tidegate\"\n").into_bytes();
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    man.render_options_section(&mut out)?;
    sections(command).to_writer(&mut out)?;
    String::from_utf8(out).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The sections that no option stands behind.
fn sections(command: &Command) -> Roff {
    let mut page = Roff::new();
    let serves = TABLE.iter().all(|limit| command.get_arguments().any(|arg| arg.get_id() == limit.name));
    if let Some(sources) = command.get_after_help() {
        section(&mut page, "ENVIRONMENT AND CONFIGURATION FILE", &sources.to_string());
    }
    let name = name(command);
    if name == "tidegate" || name == "tidegate-serve" {
        section(&mut page, "SIGNALS", SIGNALS);
    }
    let codes: &[(u8, &str)] = match name {
        "tidegate" | "tidegate-serve" => &SERVER_CODES,
        "tidegate-check" => &CHECK_CODES,
        "tidegate-stress" => &STRESS_CODES,
        name if name.starts_with("tidegate-stress") => &KEPT_CODES,
        _ => &OTHER_CODES,
    };
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in codes {
        item(&mut page, bold(code.to_string()), meaning);
    }
    if serves {
        page.control("SH", ["EXAMPLES"]);
        for (example, meaning) in EXAMPLES {
            item(&mut page, bold(example), meaning);
        }
    }
    if name != "tidegate" {
        page.control("SH", ["SEE ALSO"]);
        page.text([bold("tidegate"), roman("(1)")]);
    }
    page
}

fn section(page: &mut Roff, heading: &str, text: &str) {
    page.control("SH", [heading]);
    page.text([roman(text)]);
}

fn item(page: &mut Roff, term: Inline, meaning: &str) {
    page.control("TP", []);
    page.text([term]);
    page.text([roman(meaning)]);
}

const SIGNALS: &str = "\
SIGINT and SIGTERM drain the server: it takes no new clients and finishes what it has admitted, for at most \
--drain-timeout. A second one ends it at once, unless it comes within a second of the first. SIGUSR2 starts the program \
anew in its place, from its file and with its arguments, and hands its sockets over; this process then drains. SIGHUP \
has it read its configuration and its certificates again: limits change without losing a client, and if something is \
wrong, nothing changes and the log says why. A signal that was ignored when the program was started stays ignored.";

const SERVER_CODES: [(u8, &str); 5] = [
    (exit::OK, "The server drained, and nothing was cut off."),
    (
        exit::FAILED,
        "It could not start or run: a port in use, a name that does not resolve, no more threads.",
    ),
    (exit::USAGE, "The options, the environment or the configuration file are wrong."),
    (exit::CUT, "Work was cut off, at the end of --drain-timeout or by a second signal."),
    (
        exit::RESTART,
        "check --against: a reload would refuse the configuration, since something needs a restart.",
    ),
];

const STRESS_CODES: [(u8, &str); 6] = [
    (exit::OK, "The run came to its end, and every threshold holds."),
    (exit::FAILED, "It could not run, or no request was answered well."),
    (exit::USAGE, "The options are wrong."),
    (exit::CUT, "With --strict: the result is not valid."),
    (exit::THRESHOLD, "A threshold does not hold, or a comparison found something worse."),
    (exit::INTERRUPTED, "The run was interrupted; its report covers what ran."),
];

const KEPT_CODES: [(u8, &str); 4] = [
    (exit::OK, "Every threshold holds, and nothing is worse."),
    (exit::FAILED, "A report could not be read, or the result could not be written."),
    (exit::USAGE, "The options are wrong."),
    (exit::THRESHOLD, "A threshold does not hold, or a comparison found something worse."),
];

const CHECK_CODES: [(u8, &str); 3] = [
    (exit::OK, "A server can start with these options."),
    (exit::FAILED, "It could not start now: a name does not resolve, or there are too few descriptors."),
    (exit::USAGE, "The options, the environment or the configuration file are wrong."),
];

const OTHER_CODES: [(u8, &str); 3] = [
    (exit::OK, "Done."),
    (exit::FAILED, "It failed; the line on standard error says why."),
    (exit::USAGE, "The options are wrong."),
];

const EXAMPLES: [(&str, &str); 4] = [
    (
        "tidegate --workers 32 --queue 128",
        "Serves echo=tcp://127.0.0.1:5000, with status and metrics on port 9464.",
    ),
    (
        "tidegate --listen hello=tcp://0.0.0.0:5001 --listen time=udp://[::]:5002",
        "Serves two services, which share the workers and the queue.",
    ),
    (
        "tidegate --listen proxy:127.0.0.1:8000=tcp://0.0.0.0:6000 --backend-connections 20",
        "Stands in front of a server that somebody else wrote, which never sees more than 20 connections.",
    ),
    (
        "tidegate check --config tidegate.toml",
        "Prints the limits that the file comes to, and starts nothing.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Args;

    #[test]
    fn the_page_of_a_limit_has_its_sentence_its_range_and_its_default() {
        let command = super::super::args::ServeArgs::augment_args(Command::new("tidegate"));
        let text = page(&whole(command)).unwrap();
        let workers = TABLE.iter().find(|limit| limit.name == "workers").unwrap();
        for words in [workers.sentence().as_str(), "From 1 to 4096; default 32.", "\\-\\-workers"] {
            assert!(text.contains(words), "{words}");
        }
        assert!(text.contains(".SH OVERLOAD") && text.contains(".SH TIMEOUTS"), "grouped as --help is");
    }
}
