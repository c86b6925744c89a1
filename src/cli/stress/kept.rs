//! `tidegate stress report|compare|merge`: commands that read reports from files.

use super::form::{ReportForm, noise, print, print_report};
use crate::cli::exit::{self, fail};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_stress::archive::{self, Judgement};
use tidegate_stress::{Report, Threshold};

/// What is done with reports that were kept.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum KeptCommand {
    /// Show reports that were saved.
    Report(ShowArgs),
    /// Compare each report with the first, and exit with 99 if anything is worse.
    Compare(CompareArgs),
    /// Combine the reports of generators that ran at the same time into one.
    Merge(ShowArgs),
}

/// Which reports, and how they are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Reports that `tidegate stress -o json` wrote (- is standard input).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Form of the report on standard output.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    output: ReportForm,
    /// Write the report as a page with plots; for one report only.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with 99 unless this holds; may be repeated.
    #[arg(long, value_name = "CONDITION")]
    threshold: Vec<Threshold>,
}

/// Which reports are compared, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// Reports that `tidegate stress -o json` wrote; the first is what the others are compared with.
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take differences up to this share for noise.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = noise)]
    noise: f64,
    /// Form of the comparison on standard output.
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORM")]
    output: ReportForm,
}

/// Runs it.
pub(super) fn run(kept: &KeptCommand) -> ExitCode {
    let done = match kept {
        KeptCommand::Report(args) => report(args),
        KeptCommand::Merge(args) => merge(args),
        KeptCommand::Compare(args) => compare(args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(message) => fail(exit::FAILED, message),
    }
}

fn report(args: &ShowArgs) -> Result<u8, String> {
    if args.html.is_some() && args.files.len() > 1 {
        return Err("--html shows one report: name one file".to_owned());
    }
    let mut code = exit::OK;
    for file in &args.files {
        code = code.max(show(archive::read(file)?, args)?);
    }
    Ok(code)
}

fn merge(args: &ShowArgs) -> Result<u8, String> {
    let reports: Result<Vec<_>, _> = args.files.iter().map(|file| archive::read(file)).collect();
    show(archive::merge(reports?)?, args)
}

fn show(mut report: Report, args: &ShowArgs) -> Result<u8, String> {
    if !args.threshold.is_empty() {
        report.judge(&args.threshold);
    }
    print_report(&report, args.output)?;
    if let Some(path) = &args.html {
        let written = std::fs::write(path, report.to_html());
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if report.is_empty() {
        return Err("nothing was done in this run: no request was answered well".to_owned());
    }
    match report.thresholds.iter().all(|t| t.passed) {
        true => Ok(exit::OK),
        false => Ok(exit::THRESHOLD),
    }
}

fn compare(args: &CompareArgs) -> Result<u8, String> {
    let (first, others) = args.files.split_first().ok_or("there is nothing to compare")?;
    let before = archive::read(first)?;
    let mut worse = false;
    for file in others {
        let after = archive::read(file)?;
        worse |= print_comparison(&before, &after, args.noise, args.output)?;
    }
    Ok(if worse { exit::THRESHOLD } else { exit::OK })
}

/// Prints a comparison; true if anything is worse.
pub(super) fn print_comparison(
    before: &Report,
    after: &Report,
    noise: f64,
    output: ReportForm,
) -> Result<bool, String> {
    let changes = archive::compare(before, after, noise);
    let doubts = archive::doubts(before, after);
    let text = match output {
        ReportForm::Text => archive::show(&changes, noise) + &doubts,
        ReportForm::Json => {
            // Nobody can be told that stderr is closed.
            let _ = std::io::stderr().write_all(doubts.as_bytes());
            let json = serde_json::to_string_pretty(&changes);
            json.map_err(|error| format!("cannot write the comparison: {error}"))? + "\n"
        }
    };
    print(&text)?;
    Ok(changes.iter().any(|change| change.judgement == Judgement::Worse))
}
