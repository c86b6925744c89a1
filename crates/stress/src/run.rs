//! A run: load threads are started, what they measure is gathered, and they are joined.

use super::clock::Clock;
use super::control::Control;
use super::load::{Ending, Loader, Summary};
use super::plan::Plan;
use super::recorder::{INTERVALS, Interval, Recorder, Shipment};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::io::Errno;
use std::time::{Duration, Instant, SystemTime};

/// How often the watcher hears of the run.
const BEAT: Duration = Duration::from_secs(1);
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
}

/// Hears of a run while it goes on.
pub(crate) trait Watch {
    /// A run begins; several may follow each other.
    fn begin(&mut self) {}

    /// What was measured since the last call; about a second.
    fn second(&mut self, measured: &Interval);
}

struct Hand {
    thread: std::thread::JoinHandle<Result<(Summary, Box<Interval>), Errno>>,
    back: Sender<Box<Interval>>,
}

/// Runs the plan to its end, or until `control` says stop.
pub(crate) fn run(
    plan: &std::sync::Arc<Plan>,
    control: &std::sync::Arc<Control>,
    watch: &mut dyn Watch,
) -> Result<Outturn, String> {
    let clock = control.clock();
    watch.begin();
    let started = SystemTime::now();
    let (full, shipments) = bounded(INTERVALS * plan.threads);
    let mut hands = Vec::with_capacity(plan.threads);
    for thread in 0..plan.threads {
        match start(plan, control, clock, thread, full.clone()) {
            Ok(hand) => hands.push(hand),
            Err(why) => {
                control.stop();
                let _ = join(hands, &shipments, Gathered::new(clock), watch);
                return Err(why);
            }
        }
    }
    drop(full);
    let (total, summaries) = join(hands, &shipments, Gathered::new(clock), watch)?;
    let ending = summaries
        .iter()
        .map(|summary| summary.ending)
        .find(|ending| matches!(ending, Ending::Hopeless(_)))
        .or_else(|| summaries.iter().map(|s| s.ending).find(|e| *e == Ending::Interrupted))
        .unwrap_or(Ending::Complete);
    Ok(Outturn { total, summaries, ending, started })
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
    Ok(Hand { thread, back })
}

/// Ends the other threads when this one does, unless it is forgotten: by an error, or a panic too.
struct StopOthers<'a>(&'a Control);

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What has come from the threads.
struct Gathered {
    total: Interval,
    second: Interval,
    beat: Instant,
}

impl Gathered {
    fn new(clock: Clock) -> Self {
        let now = clock.now();
        Self { total: Interval::new(now), second: Interval::new(now), beat: Instant::now() }
    }

    fn beat(&mut self, watch: &mut dyn Watch) {
        watch.second(&self.second);
        self.total.add(&self.second);
        self.second.clear();
        self.second.begin = self.second.end;
        self.beat = Instant::now();
    }
}

/// Gathers what the threads measure until they have all ended.
fn join(
    hands: Vec<Hand>,
    shipments: &Receiver<Shipment>,
    mut gathered: Gathered,
    watch: &mut dyn Watch,
) -> Result<(Interval, Vec<Summary>), String> {
    while hands.iter().any(|hand| !hand.thread.is_finished()) {
        match shipments.recv_timeout(LOOK) {
            Ok((thread, mut interval)) => {
                gathered.second.add(&interval);
                interval.clear();
                // A thread that has ended does not want it back.
                let _ = hands[thread].back.try_send(interval);
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The threads are just ending.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(1)),
        }
        if gathered.beat.elapsed() >= BEAT {
            gathered.beat(watch);
        }
    }
    for (_, interval) in shipments.try_iter() {
        gathered.second.add(&interval);
    }
    let mut summaries = Vec::with_capacity(hands.len());
    let mut failure = None;
    for hand in hands {
        match hand.thread.join() {
            Ok(Ok((summary, interval))) => {
                gathered.second.add(&interval);
                summaries.push(summary);
            }
            Ok(Err(error)) => failure = Some(format!("a load thread failed: {error}")),
            Err(_) => failure = Some("a load thread ended by a defect of its own".to_owned()),
        }
    }
    gathered.beat(watch);
    match failure {
        None => Ok((gathered.total, summaries)),
        Some(failure) => Err(failure),
    }
}
