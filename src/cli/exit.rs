//! How the program ends: the exit codes, on which scripts may rely, and the line that says why.

use super::log;
use crate::server::BuildError;
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
    line.trim_start_matches("error: ").to_owned()
}

/// Says one line of what went wrong and gives the code to exit with.
pub(super) fn fail(code: u8, message: impl std::fmt::Display) -> ExitCode {
    log::say(&format!("tidegate: {message}"));
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
