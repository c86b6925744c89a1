//! A session: from the options to the report, with the probe beside the load, or with the trials of a search one after
//! the other.

use super::clock::Clock;
use super::control::{Control, Start};
use super::error::Error;
use super::load::Ending;
use super::options::Options;
use super::outputs::{Outputs, cannot_write};
use super::plan::{MAX_RATE, Plan};
use super::recorder::Interval;
use super::report::{FindMax, Measured, ProbePlan, Report};
use super::run::{Outturn, run as run_plan};
use super::search::Search;
use super::threshold::Threshold;
use super::watch::Watch;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Ends a run early. Clones ask for the same end; any thread may ask, a signal handler's too.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    controls: Arc<Mutex<Vec<Weak<Control>>>>,
}

impl Stop {
    /// Asks for the end: the run ends at once, and its report covers what was measured. True if nobody asked
    /// before.
    pub fn ask(&self) -> bool {
        let first = !self.asked.swap(true, Ordering::SeqCst);
        let controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
        controls.iter().filter_map(Weak::upgrade).for_each(|control| control.stop());
        first
    }

    /// The control of a new run, which ends when this is asked to.
    fn control(&self, start: &Arc<Start>) -> Arc<Control> {
        let control = Arc::new(Control::new(start.clone()));
        let mut controls = self.controls.lock().unwrap_or_else(PoisonError::into_inner);
        controls.retain(|control| control.strong_count() > 0);
        controls.push(Arc::downgrade(&control));
        if self.asked.load(Ordering::SeqCst) {
            control.stop();
        }
        control
    }
}

/// What a run gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct Run {
    /// What was measured, with the thresholds judged.
    pub report: Report,
    /// Why a file could not be written, if one could not; the report is whole all the same.
    pub unwritten: Option<String>,
}

/// Makes the run that the options describe. It takes as long as they say, or until `stop` is asked for.
///
/// # Errors
///
/// The options contradict themselves ([`Error::Usage`]); or the target cannot be reached, this process may not open
/// as many connections, or a file cannot be opened ([`Error::Failed`]).
pub fn run(options: &Options, stop: &Stop) -> Result<Run, Error> {
    let plan = options.plan()?;
    let probe = options.probe_plan(&plan)?;
    plan.check_resources(probe.as_ref().map_or(0, |probe| probe.connections)).map_err(Error::Failed)?;
    probe.as_ref().map_or(Ok(()), Plan::check_ports).map_err(Error::Failed)?;
    let mut outputs = Outputs::open(&plan, options).map_err(Error::Failed)?;
    let done = match &options.find_max {
        Some(condition) => search(&plan, condition, stop, &mut outputs),
        None => load(&plan, probe, stop, &mut outputs),
    };
    let (mut report, ending) = done.map_err(Error::Failed)?;
    let mut unwritten = outputs.finish();
    let hopeless = match ending {
        Ending::Hopeless(outcome) => Some(outcome),
        _ => report.measured.never_connected(),
    };
    if let Some(outcome) = hopeless {
        return Err(Error::Failed(format!("no connection to {}: {}", plan.url, plan.explain(outcome))));
    }
    report.judge(&options.thresholds);
    if let Some(path) = &options.html
        && let Err(error) = std::fs::write(path, report.to_html())
    {
        unwritten.get_or_insert_with(|| cannot_write(path, &error));
    }
    Ok(Run { report, unwritten })
}

/// Hears of nothing.
struct Quiet;

impl Watch for Quiet {
    fn second(&mut self, _measured: &Interval) {}
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
        Err(_) => Err("the probe ended because of a defect in it".to_owned()),
    };
    let (outturn, probed) = (outturn?, probed?);
    let mut report = Report::of(plan, &outturn);
    report.probe = Some(Measured::of(&probe, &probed));
    report.plan.probe = Some(ProbePlan::of(&probe));
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
    report.find_max = Some(FindMax {
        condition: condition.text().to_owned(),
        rate: search.best(),
        generator_limited: search.met_the_generator(),
        trials: search.trials,
    });
    Ok((report, ending))
}
