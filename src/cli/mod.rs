//! The command line: parse, run, exit code.

mod access_options;
mod against;
mod args;
mod beside;
mod checked;
mod clash;
mod client;
mod completions;
mod config;
mod describe;
mod effect;
pub mod exit;
mod file;
mod gate_options;
mod limit_options;
mod live;
mod log;
mod manual;
mod metrics;
mod plan;
mod serve;
mod signals;
mod sources;
#[cfg(target_os = "linux")]
mod stress;
mod threads;
mod tls_options;
mod web_options;

use self::exit::{fail, one_line};
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
pub use tidegate_units as units;

/// A bounded server that stays up when the load does not stop.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: args::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve; without a subcommand tidegate does the same.
    Serve(args::ServeArgs),
    /// Check the options and the configuration file, print the limits in effect, and start nothing.
    Check(args::CheckArgs),
    /// Talk to a server as one polite client: send lines, print the replies and the total time.
    Client(client::ClientArgs),
    /// Put load on a server and report how it did.
    #[cfg(target_os = "linux")]
    Stress(Box<stress::StressArgs>),
    /// Print the metric catalogue.
    Metrics(metrics::MetricsArgs),
    /// Print a manual page, for `man -l -`, or write all of them into a folder.
    Man(manual::ManualArgs),
    /// Print the script with which a shell completes the options.
    Completions(completions::CompletionsArgs),
}

/// Runs the program with the process's own arguments.
pub fn run() -> ExitCode {
    crate::sys::save_memory();
    let cli = match Cli::try_parse_from(numbers_as_values(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match cli.command {
        None => serve::run(cli.serve),
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Check(args)) => serve::check(args),
        Some(Command::Client(args)) => client::run(args),
        #[cfg(target_os = "linux")]
        Some(Command::Stress(args)) => stress::run(&args),
        Some(Command::Metrics(args)) => metrics::run(&args),
        Some(Command::Man(args)) => manual::run(Cli::command(), &args),
        Some(Command::Completions(args)) => completions::run(Cli::command(), &args),
    }
}

/// Has `-1` after an option be its value, of which the option says what is wrong with it: `--queue -1` is read as `--queue=-1`.
/// Otherwise it would be an option that nobody knows.
fn numbers_as_values(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut joined, mut options_end) = (Vec::<OsString>::new(), false);
    for arg in args {
        options_end |= arg == "--";
        let number = matches!(arg.as_encoded_bytes(), [b'-', b'0'..=b'9', ..]);
        match joined.last_mut() {
            Some(option) if number && !options_end && option.as_encoded_bytes().starts_with(b"-") => {
                option.push(if option.as_encoded_bytes().starts_with(b"--") { "=" } else { "" });
                option.push(arg);
            }
            _ => joined.push(arg),
        }
    }
    joined
}

/// Prints what was asked for (help, version), or says in one line what is wrong with the arguments.
fn explain(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // A reader that went away has what it wanted.
        let _ = error.print();
        return ExitCode::from(exit::OK);
    }
    fail(exit::USAGE, one_line(error))
}
