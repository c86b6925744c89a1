//! How the program ends: the exit codes, on which scripts may rely, and the line that says why.

use super::log;
use crate::server::BuildError;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::io::{self, Write};
use std::process::ExitCode;

/// Done; a server: drained clean.
pub const OK: u8 = 0;
/// It could not start or run.
pub const FAILED: u8 = 1;
/// The command line, the environment or the configuration file is wrong.
pub const USAGE: u8 = 2;
/// A server: drained, but work was cut off. A stress run: its result is not valid.
pub const CUT: u8 = 3;
/// `check --against`: something needs a restart of the running server.
pub const RESTART: u8 = 4;
/// A threshold of a stress run failed (the number is k6's).
pub const THRESHOLD: u8 = 99;
/// A stress run was interrupted; its report covers what ran (the number is k6's).
pub const INTERRUPTED: u8 = 105;

/// What is wrong with arguments, in one line.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let said: Vec<_> = said.filter(|line| !line.is_empty() && !line.starts_with("For more info")).collect();
    let line = said.join(" ").replace(" tip: ", "; ");
    let line = line.trim_start_matches("error: ");
    match named_otherwise(error) {
        Some(here) => format!("{line}: write {here}"),
        None => line.to_owned(),
    }
}

/// What is called otherwise here than in many programs.
fn named_otherwise(error: &clap::Error) -> Option<&'static str> {
    let told = |kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.as_str()),
        _ => None,
    };
    // These commands have a URL of a server, and no listeners.
    if std::env::args().nth(1).is_some_and(|command| matches!(command.as_str(), "client" | "stress")) {
        return None;
    }
    match error.kind() {
        ErrorKind::UnknownArgument => match told(ContextKind::InvalidArg)?.split(['=', ' ']).next()? {
            "-p" | "--port" | "--bind" | "-b" | "--host" | "--address" | "--addr" | "-l" => {
                Some("--listen echo=tcp://127.0.0.1:5000")
            }
            "--backend" | "--backends" | "--upstream" | "--proxy" | "--target" => {
                Some("--listen proxy:127.0.0.1:8000=tcp://0.0.0.0:6000")
            }
            "--threads" => Some("--workers N"),
            "--timeout" => Some("--read-timeout, --write-timeout or --idle-timeout TIME"),
            "--debug" => Some("-v"),
            _ => None,
        },
        ErrorKind::InvalidSubcommand if told(ContextKind::InvalidSubcommand)?.contains(':') => {
            Some("--listen echo=tcp://127.0.0.1:5000 to serve there, or client URL to talk to a server")
        }
        _ => None,
    }
}

/// A message without the number that the system has for an error: its words are before it.
fn without_numbers(message: &str) -> String {
    let mut pieces = message.split(" (os error ");
    let mut said = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        said.push_str(piece.split_once(')').map_or(piece, |(_, rest)| rest));
    }
    said
}

/// Says one line of what went wrong and gives the code to exit with.
pub(super) fn fail(code: u8, message: impl std::fmt::Display) -> ExitCode {
    log::say(&format!("tidegate: {}", without_numbers(&message.to_string())));
    ExitCode::from(code)
}

/// Why the program ends without having done what it was asked for.
#[derive(Debug)]
pub(super) struct ExitError {
    /// The exit code: [`USAGE`] asks a person to change something, [`FAILED`] may go away by itself.
    pub(super) code: u8,
    pub(super) why: String,
}

impl ExitError {
    pub(super) fn usage(why: impl Into<String>) -> Self {
        Self { code: USAGE, why: why.into() }
    }

    pub(super) fn failed(why: impl Into<String>) -> Self {
        Self { code: FAILED, why: why.into() }
    }
}

impl From<BuildError> for ExitError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Limits(_) => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}

/// Prints a text to stdout; a reader that went away is no failure, a full disk is.
pub(super) fn print(text: &str) -> ExitCode {
    match write_out(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(FAILED, format_args!("cannot write to stdout: {error}"))
        }
        _ => ExitCode::from(OK),
    }
}

pub(super) fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_its_words() {
        for (message, said) in [
            ("/etc: Is a directory (os error 21)", "/etc: Is a directory"),
            ("a (os error 2): try b (os error 13), or c", "a: try b, or c"),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(without_numbers(message), said);
        }
    }
}
