//! How a report is printed on standard output, and the option that says which differences count as noise.

use std::io::Write;
use tidegate_stress::{Report, share};

/// The form of the report on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportForm {
    /// One screen for people.
    Text,
    /// For programs; docs/stress.md describes it.
    Json,
}

pub(super) fn print_report(report: &Report, output: ReportForm) -> Result<(), String> {
    match output {
        ReportForm::Text => print(&report.to_text()),
        ReportForm::Json => print(&(report.to_json()? + "\n")),
    }
}

pub(super) fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has gone, and has what it wanted.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| format!("cannot write the report: {error}")),
    }
}

/// A share, like 5%.
pub(super) fn noise(text: &str) -> Result<f64, String> {
    share(text).ok_or_else(|| format!("`{text}` is not a share: write it like 5% or 0.05"))
}
