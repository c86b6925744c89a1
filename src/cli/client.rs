//! `tidegate client`.

use std::process::ExitCode;

/// Options of `tidegate client`.
#[derive(Debug, clap::Args)]
pub(super) struct ClientArgs {}

/// Runs it.
pub(super) fn run(_args: ClientArgs) -> ExitCode {
    super::fail(super::exit::FAILED, "not here yet")
}
