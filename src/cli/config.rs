//! The environment and the configuration file, from which options come besides the command line. Their values are read
//! by the option's own parser.

use super::args::ServeArgs;
use super::exit::one_line;
use super::sources::{OptionSources, OptionTexts, values};
use super::{gate_options, tls_options, web_options};
use crate::limits::TABLE;
use crate::limits::show_time;
use clap::parser::ValueSource;
use clap::{Arg, Args, Command, FromArgMatches};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A configuration file larger than this is a mistake.
const SIZE_MAX: u64 = 1024 * 1024;
/// The name of the tables of listeners that have something of their own.
const LISTENER: &str = "listener";
/// How long a configuration that comes through a pipe may be silent.
const SILENCE_MAX: Duration = Duration::from_millis(800);

/// Adds what the environment and the configuration file say to what the command line said.
pub(super) fn merge(args: ServeArgs) -> Result<ServeArgs, String> {
    let parser = Parser::new();
    let environment = variables(&parser)?;
    let args = args.or(environment_args(&parser, &environment)?);
    let file = args.config.as_deref().map(table).transpose()?;
    let of_file = match (&args.config, &file) {
        (Some(path), Some(table)) => file_args(&parser, table).map_err(|why| told(path, &why))?,
        _ => ServeArgs::default(),
    };
    let command_line = command_line();
    let sources = Arc::new(OptionSources { command_line, environment, file });
    Ok(ServeArgs { sources: Some(sources), ..args.or(of_file) })
}

/// The parser of the options, for one option at a time.
struct Parser(Command);

impl Parser {
    fn new() -> Self {
        let mut command = ServeArgs::augment_args(Command::new("option").no_binary_name(true));
        command.build();
        Self(command)
    }

    /// The names of the options that have a value: the others are for the command line only.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.valued().filter_map(|arg| arg.get_long())
    }

    /// Those options.
    fn valued(&self) -> impl Iterator<Item = &Arg> {
        self.0.get_arguments().filter(|arg| arg.get_action().takes_values())
    }

    /// One option with its values.
    fn read(&self, name: &str, values: &[String]) -> Result<ServeArgs, String> {
        let given = values.iter().map(|value| format!("--{name}={value}"));
        let parsed = self.0.clone().try_get_matches_from(given);
        parsed.and_then(|matches| ServeArgs::from_arg_matches(&matches)).map_err(|error| {
            // The place is named by the caller, so only what is wrong with the value.
            match std::error::Error::source(&error) {
                Some(why) => why.to_string(),
                None => one_line(&error),
            }
        })
    }
}

/// The environment variable of an option.
fn variable(name: &str) -> String {
    format!("TIDEGATE_{}", name.to_uppercase().replace('-', "_"))
}

/// What `TIDEGATE_...` variables say, by the names of the options. Variables of other names are none of our business: a
/// container's environment is full of them.
fn variables(parser: &Parser) -> Result<Vec<OptionTexts>, String> {
    let mut said = Vec::new();
    for name in parser.names() {
        let variable = variable(name);
        let Some(value) = std::env::var_os(&variable) else {
            continue;
        };
        let value = value.into_string().map_err(|_| format!("{variable} is not text in UTF-8"))?;
        // Files made on Windows, and tools that read them by lines, leave line ends behind.
        let value = value.trim_end_matches(['\r', '\n']);
        if !value.is_empty() {
            said.push((name.to_owned(), vec![value.to_owned()]));
        }
    }
    Ok(said)
}

/// What they come to.
fn environment_args(parser: &Parser, environment: &[OptionTexts]) -> Result<ServeArgs, String> {
    environment.iter().try_fold(ServeArgs::default(), |args, (name, values)| {
        let said = parser.read(name, values).map_err(|why| format!("{}: {why}", variable(name)))?;
        Ok(args.or(said))
    })
}

pub(super) fn told(path: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

/// The configuration file as a table.
pub(super) fn table(path: &Path) -> Result<toml::Table, String> {
    let text = read(path).map_err(|why| told(path, &why))?;
    toml::from_str(&text).map_err(|error| told(path, &wrong_toml(&text, &error)))
}

/// What the table of a configuration file says.
fn file_args(parser: &Parser, table: &toml::Table) -> Result<ServeArgs, String> {
    let (mut args, mut own) = (ServeArgs::default(), Vec::new());
    for (key, value) in table {
        if key == LISTENER {
            own = listeners(parser, value)?;
            continue;
        }
        if key == "config" || !parser.names().any(|name| name == key) {
            return Err(format!("`{key}` is not an option: `tidegate --help` lists them"));
        }
        args = with(args, parser, key, value)?;
    }
    args.listeners = own;
    Ok(args)
}

/// One more key with its value.
fn with(args: ServeArgs, parser: &Parser, key: &str, value: &toml::Value) -> Result<ServeArgs, String> {
    let values = values(value).map_err(|why| format!("`{key}` {why}"))?;
    let said = parser.read(key, &values).map_err(|why| format!("`{key}`: {why}"))?;
    Ok(args.or(said))
}

/// The `[[listener]]` tables.
fn listeners(parser: &Parser, value: &toml::Value) -> Result<Vec<ServeArgs>, String> {
    let form = || format!("`{LISTENER}` must be a table with `listen`: write [[{LISTENER}]]");
    let tables = value.as_array().ok_or_else(form)?;
    let tables = tables.iter().enumerate().map(|(index, table)| {
        let mut args = ServeArgs::default();
        for (key, value) in table.as_table().ok_or_else(form)? {
            let why = match own(parser, key) {
                Ok(()) => with(args.clone(), parser, key, value).map(|with| args = with).err(),
                Err(why) => Some(why),
            };
            if let Some(why) = why {
                return Err(format!("[[{LISTENER}]] number {}: {why}", index + 1));
            }
        }
        if args.listen.is_empty() {
            return Err(format!(
                "[[{LISTENER}]] number {} has no `listen`: write one like \"echo=tcp://127.0.0.1:5000\"",
                index + 1
            ));
        }
        Ok(args)
    });
    tables.collect()
}

/// Whether a listener can have a key of its own.
fn own(parser: &Parser, key: &str) -> Result<(), String> {
    let of_its_own = TABLE.iter().any(|limit| limit.per_listener && limit.name == key);
    let of_a_service = gate_options::NAMES.contains(&key) || web_options::NAMES.contains(&key);
    let of_a_service = of_a_service || tls_options::NAMES.contains(&key);
    if of_its_own || of_a_service || matches!(key, "listen" | "busy-reply" | "socket-mode") {
        return Ok(());
    }
    if parser.names().any(|name| name == key) {
        return Err(format!(
            "`{key}` is the same for all listeners: write it above the first [[{LISTENER}]]"
        ));
    }
    Err(format!("`{key}` is not an option: `tidegate --help` lists them"))
}

fn read(path: &Path) -> Result<String, String> {
    // Non-blocking, since opening a FIFO waits for a program that writes to it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io::Error::from(error).to_string())?;
    let text = read_within(&File::from(file), SILENCE_MAX)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(format!("it has more than {SIZE_MAX} bytes, the most a configuration may have"));
    }
    String::from_utf8(text).map_err(|_| "it is not text in UTF-8".to_owned())
}

/// Reads to the end, or to one byte more than [`SIZE_MAX`]; a pipe that is silent for this time is an error.
fn read_within(mut file: &File, silence_max: Duration) -> Result<Vec<u8>, String> {
    // Not by its size, which a device does not have.
    let is_pipe = file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    let (mut text, mut buffer, mut heard) = (Vec::new(), [0; 8192], Instant::now());
    let mut writer_seen = false;
    while text.len() as u64 <= SIZE_MAX {
        match file.read(&mut buffer) {
            // The end; or, of a pipe, that no program has it open for writing yet.
            Ok(0) if !is_pipe || writer_seen => break,
            Ok(0) => {}
            Ok(n) => {
                text.extend_from_slice(&buffer[..n]);
                (writer_seen, heard) = (true, Instant::now());
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writer_seen = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        }
        if heard.elapsed() >= silence_max {
            return Err(format!("nothing was written to it for {}", show_time(silence_max)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(text)
}

/// What is wrong with a text that is not TOML, and in which line.
fn wrong_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let message = error.message().to_string();
    format!("line {line}: {}", message.lines().next().unwrap_or_default())
}

/// What the command line of this process says, of the options that have a value.
fn command_line() -> Vec<OptionTexts> {
    let command = |name: &'static str| ServeArgs::augment_args(Command::new(name));
    let whole = command("tidegate").args_conflicts_with_subcommands(true).subcommand(command("serve"));
    // Other commands serve nobody.
    let Ok(matches) = whole.try_get_matches_from(std::env::args_os()) else {
        return Vec::new();
    };
    let matches = matches.subcommand().map_or(&matches, |(_, of_serve)| of_serve);
    let parser = Parser::new();
    let said = parser.valued().filter_map(|arg| {
        let id = arg.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            return None;
        }
        let values = matches.get_raw(id)?.map(|value| value.to_string_lossy().into_owned());
        Some((arg.get_long()?.to_owned(), values.collect()))
    });
    // Where the file is says nothing of what it says.
    said.filter(|(name, _)| name != "config").collect()
}

/// The options that sources come to, of this process or of another.
pub(super) fn options_of(sources: &OptionSources) -> Result<ServeArgs, String> {
    let parser = Parser::new();
    let of_file = match &sources.file {
        Some(table) => file_args(&parser, table)?,
        None => ServeArgs::default(),
    };
    let command_line =
        sources.command_line.iter().try_fold(ServeArgs::default(), |args, (name, values)| {
            let said = parser.read(name, values).map_err(|why| format!("--{name}: {why}"))?;
            Ok::<_, String>(args.or(said))
        })?;
    Ok(command_line.or(environment_args(&parser, &sources.environment)?).or(of_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_of_another_process_come_to_its_options() {
        let texts = |name: &str, value: &str| vec![(name.to_owned(), vec![value.to_owned()])];
        let file = "queue = 7\nmax-line = \"1KiB\"\nlisten = [\"echo=tcp://h:1\", \"time=udp://h:2\"]\n\
                    [[listener]]\nlisten = \"hello=tcp://h:3\"\n";
        let mut sources = OptionSources {
            command_line: texts("workers", "3"),
            environment: texts("queue", "9"),
            file: Some(toml::from_str(file).unwrap()),
        };
        let args = options_of(&sources).unwrap();
        let limits = args.limits.applied_to(crate::Limits::default());
        assert_eq!((limits.workers, limits.queue, limits.max_line), (3, 9, 1024));
        assert_eq!((args.listen.len(), args.listeners.len()), (2, 1));
        sources.environment = texts("queue", "many");
        let why = options_of(&sources).unwrap_err();
        assert!(why.starts_with("TIDEGATE_QUEUE: "), "{why}");
    }
}
