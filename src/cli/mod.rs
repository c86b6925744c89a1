//! The command line: parse, run, exit code.

mod args;
mod client;
mod config;
mod limit_options;
mod log;
mod metrics;
mod serve;
#[cfg(target_os = "linux")]
mod stress;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
pub use tidegate_units as units;

/// Exit codes that scripts may rely on.
pub mod exit {
    /// Done; a server: drained clean.
    pub const OK: u8 = 0;
    /// It could not start or run.
    pub const FAILED: u8 = 1;
    /// The command line, the environment or the configuration file is wrong.
    pub const USAGE: u8 = 2;
    /// A server: drained, but work was cut off. A stress run: its result is not valid.
    pub const CUT: u8 = 3;
    /// A threshold of a stress run failed (the number is k6's).
    pub const THRESHOLD: u8 = 99;
    /// A stress run was interrupted; its report covers what ran (the number is k6's).
    pub const INTERRUPTED: u8 = 105;
}

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
    /// Serve (what is done without a subcommand too).
    Serve(args::ServeArgs),
    /// Check options and configuration file, print the effective limits, start nothing.
    Check(args::ServeArgs),
    /// Talk to a server as one polite client: send lines, print the replies and the total time.
    Client(client::ClientArgs),
    /// Load a server and say what it did.
    #[cfg(target_os = "linux")]
    Stress(Box<stress::StressArgs>),
    /// Print the metric catalogue.
    Metrics(metrics::MetricsArgs),
}

/// Runs the program with the process's own arguments.
pub fn run() -> ExitCode {
    crate::sys::save_memory();
    let cli = match Cli::try_parse() {
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
    }
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

/// What is wrong with arguments, in one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<_> = said.filter(|line| !line.is_empty() && !line.starts_with("For more info")).collect();
    let line = said.join(" ").replace(" tip: ", "; ");
    line.trim_start_matches("error: ").to_owned()
}

/// Says one line of what went wrong and gives the code to exit with.
fn fail(code: u8, message: impl std::fmt::Display) -> ExitCode {
    use std::io::Write;
    // Nobody can be told when stderr is closed; the code still says it.
    let _ = writeln!(std::io::stderr(), "tidegate: {message}");
    ExitCode::from(code)
}
