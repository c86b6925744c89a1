//! One run: load threads are started, their measurements are gathered, and they are joined.

use super::clock::Clock;
use super::control::Control;
use super::gather::Gathered;
use super::load::{Ending, Loader, Summary};
use super::plan::{Pace, Plan, Think};
use super::recorder::{INTERVALS, Interval, Recorder, Shipment};
use super::timeline::Timeline;
use super::watch::Watch;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::io::Errno;
use std::time::{Duration, SystemTime};

/// How often the end of the threads is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// The stack of a load thread, in bytes; it needs little, since nothing recurses.
const STACK: usize = 512 << 10;

/// What a run measured.
pub(crate) struct Outturn {
    /// Everything.
    pub(crate) total: Interval,
    pub(crate) summaries: Vec<Summary>,
    pub(crate) ending: Ending,
    pub(crate) started: SystemTime,
    /// Second by second, in bounded memory.
    pub(crate) timeline: Timeline,
}

struct Hand {
    thread: Option<std::thread::JoinHandle<Done>>,
    back: Sender<Box<Interval>>,
}

type Done = Result<(Summary, Box<Interval>), Errno>;

/// Runs the plan to its end, or until `control` says stop.
pub(crate) fn run(
    plan: &std::sync::Arc<Plan>,
    control: &std::sync::Arc<Control>,
    watch: &mut dyn Watch,
) -> Result<Outturn, String> {
    let clock = control.clock();
    watch.begin();
    let started = SystemTime::now();
    let always = plan.pace == Pace::Closed(Think::Fixed(Duration::ZERO));
    let gathered = Gathered::new(clock, plan.threads, Timeline::new(always));
    let (full, shipments) = bounded(INTERVALS * plan.threads);
    let mut hands = Vec::with_capacity(plan.threads);
    for thread in 0..plan.threads {
        match start(plan, control, clock, thread, full.clone()) {
            Ok(hand) => hands.push(hand),
            Err(why) => {
                control.stop();
                let _ = join(hands, &shipments, gathered, watch);
                return Err(why);
            }
        }
    }
    drop(full);
    let (gathered, summaries) = join(hands, &shipments, gathered, watch)?;
    let ending = summaries
        .iter()
        .map(|summary| summary.ending)
        .find(|ending| matches!(ending, Ending::Hopeless(_)))
        .or_else(|| summaries.iter().map(|s| s.ending).find(|e| *e == Ending::Interrupted))
        .unwrap_or(Ending::Complete);
    let Gathered { total, timeline, .. } = gathered;
    Ok(Outturn { total, summaries, ending, started, timeline })
}

fn start(
    plan: &std::sync::Arc<Plan>,
    control: &std::sync::Arc<Control>,
    clock: Clock,
    thread: usize,
    full: Sender<Shipment>,
) -> Result<Hand, String> {
    let (back, empty) = bounded(INTERVALS);
    let (plan, control) = (plan.clone(), control.clone());
    let run = move || {
        let stop_others = StopOthers(&control);
        let recorder = Recorder::new(thread, full, empty, clock.now());
        let done = Loader::new(&plan, &control, clock, recorder, thread)?.run()?;
        if !matches!(done.0.ending, Ending::Hopeless(_)) {
            std::mem::forget(stop_others);
        }
        Ok(done)
    };
    let thread = std::thread::Builder::new()
        .name(format!("stress-{thread}"))
        .stack_size(STACK)
        .spawn(run)
        .map_err(|error| format!("cannot start a load thread: {error}"))?;
    Ok(Hand { thread: Some(thread), back })
}

/// Ends the other threads when this one does, unless it is forgotten: by an error, or a panic too.
struct StopOthers<'a>(&'a Control);

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Gathers what the threads measure until they have all ended.
fn join(
    mut hands: Vec<Hand>,
    shipments: &Receiver<Shipment>,
    mut gathered: Gathered,
    watch: &mut dyn Watch,
) -> Result<(Gathered, Vec<Summary>), String> {
    let mut summaries = Vec::with_capacity(hands.len());
    let mut failure = None;
    while hands.iter().any(|hand| hand.thread.is_some()) {
        match shipments.recv_timeout(LOOK) {
            Ok((thread, mut interval)) => {
                gathered.take(thread, &interval, watch);
                interval.clear();
                // A thread that has ended does not want it back.
                let _ = hands[thread].back.try_send(interval);
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The threads are just ending.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
        }
        for (number, hand) in hands.iter_mut().enumerate() {
            let Some(thread) = hand.thread.take_if(|thread| thread.is_finished()) else { continue };
            // What it handed over before comes first.
            shipments.try_iter().for_each(|(thread, interval)| gathered.take(thread, &interval, watch));
            match thread.join() {
                Ok(Ok((summary, interval))) => {
                    gathered.take(number, &interval, watch);
                    summaries.push(summary);
                }
                Ok(Err(error)) => failure = Some(format!("a load thread failed: {error}")),
                Err(_) => failure = Some("a load thread ended because of a defect in it".to_owned()),
            }
            gathered.end(number, watch);
        }
    }
    gathered.finish(watch);
    match failure {
        None => Ok((gathered, summaries)),
        Some(failure) => Err(failure),
    }
}
