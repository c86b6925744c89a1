//! `tidegate stress`.

mod args;
mod kept;
mod outputs;
mod planning;

use super::{exit, fail};
use crate::stress::clock::Clock;
use crate::stress::control::{Control, Start};
use crate::stress::load::Ending;
use crate::stress::plan::{MAX_RATE, Plan};
use crate::stress::recorder::Interval;
use crate::stress::report::{FindMaxReport, Measured, Report};
use crate::stress::run::{Outturn, Watch, run as run_plan};
use crate::stress::search::Search;
use crate::stress::threshold::Threshold;
use crate::stress::{archive, html, text};
pub(super) use args::StressArgs;
use args::{LoadArgs, Output};
use outputs::Outputs;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Hears of nothing.
struct Quiet;

impl Watch for Quiet {
    fn second(&mut self, _measured: &Interval) {}
}

/// Runs it.
pub(super) fn run(args: &StressArgs) -> ExitCode {
    if let Some(kept) = &args.kept {
        return kept::run(kept);
    }
    let args = &args.load;
    let plan = match args.plan() {
        Ok(plan) => plan,
        Err(error) => return fail(error.code, error.message),
    };
    match stress(plan, args) {
        Ok(code) => ExitCode::from(code),
        Err(message) => fail(exit::FAILED, message),
    }
}

fn stress(plan: Plan, args: &LoadArgs) -> Result<u8, String> {
    let probe = args.probe.map(|rate| plan.probe(rate));
    plan.check_resources(probe.as_ref().map_or(0, |probe| probe.connections))?;
    let baseline = args.baseline.as_deref().map(archive::read).transpose()?;
    let mut outputs = Outputs::open(&plan, args)?;
    let stop = Stop::on_signal()?;
    let (mut report, ending) = match &args.find_max {
        Some(condition) => search(&plan, condition, &stop, &mut outputs)?,
        None => load(&plan, probe, &stop, &mut outputs)?,
    };
    let (timeline, file_error) = outputs.finish();
    if let Ending::Hopeless(outcome) = ending {
        return Err(format!("no connection to {}: {}", plan.url, outcome.explain(&plan)));
    }
    if report.find_max.is_none() {
        report.timeline = timeline;
    }
    report.thresholds = args.threshold.iter().map(|t| t.judge(&report)).collect();
    print_report(&report, args.output)?;
    if let Some(path) = &args.html {
        outputs::write_file(path, &html::render(&report))?;
    }
    if let Some(error) = file_error {
        return Err(error);
    }
    let worse = match &baseline {
        Some(before) => compare(before, &report, args)?,
        None => false,
    };
    judge(&report, &plan, args, worse)
}

/// The exit code of a run that came to its end.
fn judge(report: &Report, plan: &Plan, args: &LoadArgs, worse: bool) -> Result<u8, String> {
    if report.interrupted {
        return Ok(exit::INTERRUPTED);
    }
    if archive::is_empty(report) {
        return Err(format!("nothing was done: no request to {} was answered well", plan.url));
    }
    if args.strict && !report.valid {
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
    if args.output == Output::Text {
        return kept::print_comparison(before, after, args.noise, Output::Text);
    }
    let changes = archive::compare(before, after, args.noise);
    let text = archive::show(&changes, args.noise) + &archive::doubts(before, after);
    // The exit code says the same to one who closed stderr.
    let _ = std::io::stderr().write_all(text.as_bytes());
    Ok(changes.iter().any(|change| change.judgement == archive::Judgement::Worse))
}

/// One run, with its probe beside it.
fn load(
    plan: &Plan,
    probe: Option<Plan>,
    stop: &Stop,
    watch: &mut dyn Watch,
) -> Result<(Report, Ending), String> {
    let threads = plan.threads + probe.as_ref().map_or(0, |probe| probe.threads);
    let start = Start::new(Clock::start(), threads);
    let main = stop.control(&start);
    let Some(probe) = probe else {
        let outturn = run_plan(&Arc::new(plan.clone()), &main, watch)?;
        return Ok((Report::of(plan, &outturn), outturn.ending));
    };
    let (probe, control) = (Arc::new(probe), stop.control(&start));
    let beside = {
        let (probe, control, main) = (probe.clone(), control.clone(), main.clone());
        let run = move || {
            let probed = run_plan(&probe, &control, &mut Quiet);
            if probed.is_err() {
                // The load would wait for it for ever.
                main.stop();
            }
            probed
        };
        let thread = std::thread::Builder::new().name("stress-probe".to_owned());
        thread.spawn(run).map_err(|error| format!("cannot start the probe: {error}"))?
    };
    let outturn = run_plan(&Arc::new(plan.clone()), &main, watch);
    if !matches!(&outturn, Ok(outturn) if outturn.ending == Ending::Complete) {
        control.stop();
    }
    let probed: Result<Outturn, String> = match beside.join() {
        Ok(probed) => probed,
        Err(_) => Err("the probe ended by a defect of its own".to_owned()),
    };
    let (outturn, probed) = (outturn?, probed?);
    let mut report = Report::of(plan, &outturn);
    report.probe = Some(Measured::of(&probe, &probed));
    Ok((report, outturn.ending))
}

/// Runs trials until the highest good rate is known; the report is that of the best trial.
fn search(
    plan: &Plan,
    condition: &Threshold,
    stop: &Stop,
    watch: &mut dyn Watch,
) -> Result<(Report, Ending), String> {
    let first = plan.first_rate().unwrap_or(1.0);
    let mut search = Search::new(first);
    let mut best: Option<Report> = None;
    let mut ending = Ending::Complete;
    // One clock for all trials: what is written as they go on has one time.
    let clock = Clock::start();
    while let Some(rate) = search.next(MAX_RATE) {
        let trial = plan.at_rate(rate);
        let control = stop.control(&Start::new(clock, trial.threads));
        let outturn = run_plan(&Arc::new(trial.clone()), &control, watch)?;
        let mut report = Report::of(&trial, &outturn);
        ending = match outturn.ending {
            // It could be reached before: that it no longer can is what this rate did.
            Ending::Hopeless(_) if best.is_some() => Ending::Complete,
            ending => ending,
        };
        if ending != Ending::Complete {
            report.interrupted = ending == Ending::Interrupted;
            let mut shown = best.unwrap_or(report);
            shown.interrupted = ending == Ending::Interrupted;
            best = Some(shown);
            break;
        }
        if search.take(rate, condition, &report) || best.is_none() {
            best = Some(report);
        }
    }
    let mut report = best.ok_or("no trial was made")?;
    report.find_max = Some(FindMaxReport {
        condition: condition.text().to_owned(),
        rate: search.best(),
        trials: search.trials,
    });
    Ok((report, ending))
}

/// What Ctrl-C stops.
struct Stop {
    asked: Arc<AtomicBool>,
    controls: Arc<std::sync::Mutex<Vec<std::sync::Weak<Control>>>>,
}

impl Stop {
    /// The first signal ends the run with a report, the second ends the process.
    fn on_signal() -> Result<Self, String> {
        let stop = Self { asked: Arc::default(), controls: Arc::default() };
        let (asked, controls) = (stop.asked.clone(), stop.controls.clone());
        ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::SeqCst) {
                std::process::exit(exit::INTERRUPTED.into());
            }
            let controls = controls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            controls.iter().filter_map(std::sync::Weak::upgrade).for_each(|control| control.stop());
        })
        .map_err(|error| format!("cannot handle signals: {error}"))?;
        Ok(stop)
    }

    /// The control of a new run, which a signal stops.
    fn control(&self, start: &Arc<Start>) -> Arc<Control> {
        let control = Arc::new(Control::new(start.clone()));
        let mut controls = self.controls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        controls.retain(|control| control.strong_count() > 0);
        controls.push(Arc::downgrade(&control));
        if self.asked.load(Ordering::SeqCst) {
            control.stop();
        }
        control
    }
}

fn print_report(report: &Report, output: Output) -> Result<(), String> {
    match output {
        Output::Text => print(&text::render(report)),
        Output::Json => {
            let json = serde_json::to_string_pretty(report);
            print(&(json.map_err(|error| format!("cannot write the report: {error}"))? + "\n"))
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot write the report: {error}"))
}
