//! `tidegate stress`.

use std::process::ExitCode;

/// Options of `tidegate stress`.
#[derive(Debug, clap::Args)]
pub(super) struct StressArgs {}

/// Runs it.
pub(super) fn run(_args: StressArgs) -> ExitCode {
    super::fail(super::exit::FAILED, "not here yet")
}
