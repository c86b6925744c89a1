//! `tidegate stress`: the command line of the load generator in `tidegate-stress`.

mod args;
mod form;
mod kept;

use super::exit::{self, fail};
use super::signals::{Hangup, on_order};
use args::LoadArgs;
pub(super) use args::StressArgs;
use form::{ReportForm, print_report};
use std::io::Write;
use std::process::ExitCode;
use tidegate_stress::{Error, Report, Stop, archive};

/// Runs it.
pub(super) fn run(args: &StressArgs) -> ExitCode {
    if let Some(kept) = &args.kept {
        return kept::run(kept);
    }
    match stress(&args.load) {
        Ok(code) => ExitCode::from(code),
        Err(Error::Usage(message)) => fail(exit::USAGE, message),
        Err(error) => fail(exit::FAILED, error),
    }
}

fn stress(args: &LoadArgs) -> Result<u8, Error> {
    let options = args.options()?;
    let baseline = args.baseline.as_deref().map(archive::read).transpose().map_err(Error::Failed)?;
    let stop = stop_on_signal()?;
    let run = tidegate_stress::run(&options, &stop)?;
    let report = run.report;
    print_report(&report, args.output).map_err(Error::Failed)?;
    if let Some(error) = run.unwritten {
        return Err(Error::Failed(error));
    }
    let worse = match &baseline {
        Some(before) => compare(before, &report, args).map_err(Error::Failed)?,
        None => false,
    };
    judge(&report, args, worse)
}

/// The exit code of a run that came to its end.
fn judge(report: &Report, args: &LoadArgs, worse: bool) -> Result<u8, Error> {
    if report.interrupted {
        return Ok(exit::INTERRUPTED);
    }
    if report.is_empty() {
        let url = &report.plan.url;
        return Err(Error::Failed(format!("nothing was done: no request to {url} was answered well")));
    }
    let unknown = report.find_max.as_ref().is_some_and(|search| search.generator_limited);
    if args.strict && (!report.valid || unknown) {
        return Ok(exit::CUT);
    }
    let found = report.find_max.as_ref().is_none_or(|search| search.rate.is_some());
    match found && !worse && report.thresholds.iter().all(|t| t.passed) {
        true => Ok(exit::OK),
        false => Ok(exit::THRESHOLD),
    }
}

/// The comparison goes where the report does not disturb it: beside text, and to stderr beside JSON.
fn compare(before: &Report, after: &Report, args: &LoadArgs) -> Result<bool, String> {
    if args.output == ReportForm::Text {
        return kept::print_comparison(before, after, args.noise, ReportForm::Text);
    }
    let changes = archive::compare(before, after, args.noise);
    let text = archive::show(&changes, args.noise) + &archive::doubts(before, after);
    // The exit code says the same to one who closed stderr.
    let _ = std::io::stderr().write_all(text.as_bytes());
    Ok(changes.iter().any(|change| change.judgement == archive::Judgement::Worse))
}

/// The first order ends the run with a report, a second one the process.
fn stop_on_signal() -> Result<Stop, Error> {
    let stop = Stop::default();
    let asked = stop.clone();
    let end = || std::process::exit(exit::INTERRUPTED.into());
    on_order(
        Hangup::Ends,
        move || {
            asked.ask();
        },
        end,
    )
    .map_err(Error::Failed)?;
    Ok(stop)
}
