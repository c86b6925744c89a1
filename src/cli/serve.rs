//! `tidegate serve`.

use std::process::ExitCode;

/// Options of `tidegate serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {}

/// Runs it.
pub(super) fn run(_args: ServeArgs) -> ExitCode {
    super::fail(super::exit::FAILED, "not here yet")
}
