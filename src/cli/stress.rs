//! `tidegate stress`.

mod args;

use super::{exit, fail};
use crate::stress::control::Control;
use crate::stress::load::Ending;
use crate::stress::plan::Plan;
use crate::stress::recorder::Interval;
use crate::stress::report::Report;
use crate::stress::run::{Watch, run as run_plan};
use crate::stress::text;
pub(super) use args::StressArgs;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Quiet;

impl Watch for Quiet {
    fn second(&mut self, _measured: &Interval) {}
}

/// Runs it.
pub(super) fn run(args: &StressArgs) -> ExitCode {
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(error) => return fail(error.code, error.message),
    };
    if let Err(message) = plan.check_resources() {
        return fail(exit::FAILED, message);
    }
    match stress(Arc::new(plan), args) {
        Ok(code) => ExitCode::from(code),
        Err(message) => fail(exit::FAILED, message),
    }
}

fn stress(plan: Arc<Plan>, args: &StressArgs) -> Result<u8, String> {
    let control = Arc::new(Control::default());
    stop_on_signal(&control)?;
    let outturn = run_plan(&plan, &control, &mut Quiet)?;
    let report = Report::of(&plan, &outturn);
    if let Ending::Hopeless(outcome) = outturn.ending {
        return Err(format!("no connection to {}: {}", plan.url, outcome.explain(&plan)));
    }
    print_report(&report, args)?;
    if report.interrupted {
        return Ok(exit::INTERRUPTED);
    }
    if report.measured.done == 0 {
        return Err(format!("nothing was done: no request to {} was answered well", plan.url));
    }
    if args.strict && !report.valid {
        return Ok(exit::CUT);
    }
    Ok(exit::OK)
}

/// The first signal ends the run with a report, the second ends the process.
fn stop_on_signal(control: &Arc<Control>) -> Result<(), String> {
    let control = control.clone();
    let asked = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(exit::INTERRUPTED.into());
        }
        control.stop();
    })
    .map_err(|error| format!("cannot handle signals: {error}"))
}

fn print_report(report: &Report, args: &StressArgs) -> Result<(), String> {
    let text = match args.output {
        args::Output::Text => text::render(report),
        args::Output::Json => {
            let json = serde_json::to_string_pretty(report);
            json.map_err(|error| format!("cannot write the report: {error}"))? + "\n"
        }
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("cannot write the report: {error}")),
    }
}
