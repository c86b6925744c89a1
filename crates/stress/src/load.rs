//! The load: one thread, one epoll, many clients.
//!
//! ```text
//! opening -> ready -> running -> draining -> lingering -> done
//! (connections    (until all     (requests)  (replies on  (datagrams
//!  are opened)     threads are)               their way)   that are late)
//! ```
//!
//! Each pass waits for events or the next deadline, whichever is first; [`exchange`](super::exchange) moves
//! the clients on.

use super::clock::{Clock, NEVER, Nanos, nanos, timespec};
use super::control::Control;
use super::generator::{Load, Usage};
use super::line::Open;
use super::numbering::Datagrams;
use super::outcome::Outcome;
use super::phase::Phase;
use super::plan::{Mode, Pace, Plan};
use super::presence::Presence;
use super::random::Random;
use super::recorder::Recorder;
use super::schedule::Arrivals;
use super::slot::Slot;
use super::timers::Timeouts;
use super::wire::Framing;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events taken in one system call. All of them are handled in one pass, so they are not too many.
const EVENTS: usize = 256;
/// The read buffer of a thread, in bytes.
const BUFFER: usize = 256 << 10;
/// Connections being opened at once before the run, and how many are begun at a time. Together with the
/// pause they keep a usual listen backlog from overflowing, which would cost a second for each one dropped.
pub(super) const OPENING: usize = 256;
const OPENING_STEP: usize = 32;
const OPENING_PAUSE: Nanos = 2_000_000;
/// Between the first requests of two clients that have no connection yet.
const START_PAUSE: Nanos = 125_000;
/// Wake-ups handled before events are looked at again; more where the last look found more events, so that a crowd
/// that begins doubles with each look and no reply waits for long.
const WAKES: usize = 64;
/// How often a thread that is ready looks whether all are.
const START_LOOK: Nanos = 1_000_000;
/// How often flags are looked at.
const TICK: Nanos = 50_000_000;
/// How long a pass goes on ending waits and sending requests from the line. Thousands of waits may end in one instant, and
/// everything else would have to wait for all of them.
const PASS: Nanos = 5_000_000;
/// A closed loop's client waits this long after a failure before it tries again.
pub(super) const RETRY: Nanos = 10_000_000;
/// How long a half-closed connection waits for the server's end.
const HALF_CLOSE: Nanos = 1_000_000_000;
/// How long repeated datagrams are awaited after the last request.
const LINGER: Nanos = 200_000_000;
/// How long late datagrams are awaited after a loss: as long as the timeout, and at least this.
const LINGER_LOST: Nanos = 1_000_000_000;

/// Why a thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As planned.
    Complete,
    /// It was asked to.
    Interrupted,
    /// No connection could ever be established; what the last attempt said.
    Hopeless(Outcome),
}

/// What a thread says when it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) ending: Ending,
    /// How busy it was in the measured part.
    pub(crate) load: Load,
    /// When the measured part began and ended.
    pub(crate) measured: (Nanos, Nanos),
    /// The longest it was away from its clients.
    pub(crate) pass_max: Nanos,
}

/// One load thread.
pub(super) struct Loader<'a> {
    pub(super) plan: &'a Plan,
    pub(super) control: &'a Control,
    pub(super) clock: Clock,
    pub(super) epoll: OwnedFd,
    pub(super) slots: Vec<Slot>,
    pub(super) timeouts: Timeouts,
    pub(super) presence: Presence,
    pub(super) wakes: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    pub(super) open: Option<Open>,
    pub(super) recorder: Recorder,
    pub(super) buffer: Box<[u8]>,
    pub(super) datagrams: Datagrams,
    pub(super) random: Random,
    pub(super) phase: Phase,
    /// Requests that may still begin.
    pub(super) quota: u64,
    pub(super) in_flight: usize,
    /// When the last bytes of this pass were read.
    pub(super) read_at: Option<Nanos>,
    pub(super) opening: usize,
    next_to_open: usize,
    next_opening: Nanos,
    pub(super) first_source: u64,
    pub(super) next_source: u64,
    pub(super) next_payload: usize,
    pub(super) connect_failures: usize,
    pub(super) established: bool,
    pub(super) hopeless: Option<Outcome>,
    pub(super) lost: bool,
    pub(super) start: Nanos,
    pub(super) measure_from: Nanos,
    pub(super) stop_at: Nanos,
    linger_until: Nanos,
    next_tick: Nanos,
    /// When this pass should come to its end.
    pub(super) pass_until: Nanos,
    /// The longest pass.
    pass_max: Nanos,
    usage: Option<Usage>,
    load: Option<Load>,
}

/// Share `n` among `threads`: what thread `thread` gets.
fn share(n: u64, thread: usize, threads: usize) -> u64 {
    let (thread, threads) = (thread as u64, threads as u64);
    n / threads + u64::from(thread < n % threads)
}

impl<'a> Loader<'a> {
    /// Thread number `thread` of a run.
    pub(super) fn new(
        plan: &'a Plan,
        control: &'a Control,
        clock: Clock,
        recorder: Recorder,
        thread: usize,
    ) -> Result<Self, Errno> {
        let threads = plan.threads;
        let slots = share(plan.connections as u64, thread, threads) as usize;
        let open = match &plan.pace {
            Pace::Closed(_) => None,
            Pace::Open { profile, spread, .. } => {
                let arrivals = Arrivals::new(profile.clone(), *spread, plan.seed, thread, threads);
                Some(Open {
                    due: arrivals.clone(),
                    head: arrivals,
                    waiting: 0,
                    free: (0..slots as u32).collect(),
                })
            }
        };
        let first_source = (0..thread).map(|thread| share(plan.connections as u64, thread, threads)).sum();
        let numbered = plan.wire.framing == Framing::Datagram { numbered: true };
        Ok(Self {
            plan,
            control,
            clock,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            timeouts: Timeouts::new(slots, nanos(plan.connect_timeout), nanos(plan.timeout), HALF_CLOSE),
            slots: std::iter::repeat_with(Slot::default).take(slots).collect(),
            presence: Presence::default(),
            wakes: BinaryHeap::with_capacity(slots),
            open,
            recorder,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            datagrams: Datagrams::new(numbered, plan.seed),
            random: Random::new(plan.seed, 1000 + thread as u64),
            phase: Phase::Opening,
            quota: plan.requests.map_or(NEVER, |n| share(n, thread, threads)),
            in_flight: 0,
            read_at: None,
            opening: 0,
            next_to_open: 0,
            next_opening: 0,
            // Threads begin far apart in the range of sources, and walk it in the same way.
            first_source,
            next_source: first_source,
            next_payload: thread,
            connect_failures: 0,
            established: false,
            hopeless: None,
            lost: false,
            start: 0,
            measure_from: NEVER,
            stop_at: NEVER,
            linger_until: NEVER,
            next_tick: 0,
            pass_until: NEVER,
            pass_max: 0,
            usage: None,
            load: None,
        })
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Result<(Summary, Box<super::recorder::Interval>), Errno> {
        // The kernel may delay a wake-up by its default slack of 50 us; without leave to, it does not.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let mut events = vec![Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let mut now = self.clock.now();
        self.step(now);
        let mut began = now;
        while self.phase != Phase::Done {
            let asked = self.clock.now();
            self.note_absence(began, asked);
            let deadline = self.next_deadline();
            let wait = timespec(deadline.saturating_sub(asked));
            let found = match epoll::wait(&self.epoll, &mut events[..], Some(&wait)) {
                Ok(count) => Some(count),
                // It may have been stopped just now, and has seen nothing.
                Err(Errno::INTR) => None,
                Err(error) => return Err(error),
            };
            began = self.clock.now();
            // It sleeps past its deadline only if the machine has no processor for it.
            self.note_pass(began.saturating_sub(deadline.max(asked)));
            self.note_absence(deadline.max(asked), began);
            self.pass_until = began + PASS;
            self.dispatch_if_due();
            self.read_at = None;
            let count = found.unwrap_or(0);
            for event in &events[..count] {
                self.on_event(event.data.u64(), event.flags);
                self.dispatch_if_due();
            }
            if found.is_some() {
                self.presence.looked(asked, count, EVENTS, self.slots.len());
            }
            now = match self.read_at {
                // The last reply of the pass came just now. An open loop's instants are not so patient.
                Some(at) if self.open.is_none() => at,
                _ => self.clock.now(),
            };
            self.note_pass(now.saturating_sub(began));
            let expired = self.expire(now, WAKES.max(count));
            self.step(now);
            if expired {
                now = self.clock.now();
                self.note_pass(now.saturating_sub(began));
            }
        }
        let ending = match self.hopeless {
            Some(outcome) => Ending::Hopeless(outcome),
            None if self.control.stopped() => Ending::Interrupted,
            None => Ending::Complete,
        };
        let summary = Summary {
            ending,
            load: self.load.unwrap_or_default(),
            measured: (self.measure_from, self.stop_at),
            pass_max: self.pass_max,
        };
        Ok((summary, self.recorder.finish(now)))
    }

    /// When the thread must wake up at the latest.
    fn next_deadline(&self) -> Nanos {
        let wake = self.wakes.peek().map_or(NEVER, |Reverse((at, ..))| *at);
        let timeout = self.timeouts.next().unwrap_or(NEVER);
        let phase = match self.phase {
            Phase::Opening => self.next_opening,
            // Another thread will say when to start; a millisecond late at most.
            Phase::Ready => self.clock.now() + START_LOOK,
            Phase::Running if self.can_send() => 0,
            Phase::Running => self.stop_at.min(self.next_due()),
            Phase::Lingering => self.linger_until,
            Phase::Draining | Phase::Done => NEVER,
        };
        wake.min(timeout).min(phase).min(self.next_tick).min(self.recorder.second_end())
    }

    /// Remembers the longest time that a client had to wait for this thread.
    fn note_pass(&mut self, time: Nanos) {
        if self.phase == Phase::Running {
            self.pass_max = self.pass_max.max(time);
        }
    }

    /// The thread did not look at its sockets between these instants. If that was long, no wait loses the time.
    fn note_absence(&mut self, from: Nanos, to: Nanos) {
        if let Some(away) = self.presence.absent(from, to) {
            self.timeouts.put_off(away);
            // It may have been stopped after the last reply of a pass, with which the pass ends for the clients.
            self.note_pass(away);
        }
    }

    /// Handles some of the waits that are over, and some of the wake-ups; true if any wait was. A wait is over when all that
    /// had come at its deadline was read.
    fn expire(&mut self, now: Nanos, wakes: usize) -> bool {
        let mut expired = false;
        self.pass_until = now + PASS;
        while let Some((slot, wait, since)) = self.timeouts.expired(now.min(self.presence.seen())) {
            let now = self.clock.now();
            self.note_pass(now - since);
            self.on_timeout(slot, wait, now);
            expired = true;
            if now > self.pass_until {
                break;
            }
            // Requests that are due do not wait for these.
            self.dispatch_if_due();
        }
        // A connection that the server has ended meanwhile takes no request.
        let wakes = if self.presence.has_caught_up() { wakes } else { 0 };
        for _ in 0..wakes {
            match self.wakes.peek() {
                Some(Reverse((at, ..))) if *at <= now => {}
                _ => break,
            }
            if let Some(Reverse((_, slot, wake))) = self.wakes.pop()
                && self.slots[slot as usize].wake == wake
            {
                self.on_wake(slot as usize);
            }
        }
        // Void wake-ups are swept out before they could pile up.
        if self.wakes.len() > 4 * self.slots.len() + WAKES {
            let slots = &self.slots;
            self.wakes.retain(|Reverse((_, slot, wake))| slots[*slot as usize].wake == *wake);
        }
        expired
    }

    /// Wakes a slot at an instant, in place of any other wake-up of it.
    pub(super) fn wake_at(&mut self, slot: usize, at: Nanos) {
        self.slots[slot].wake = self.slots[slot].wake.wrapping_add(1);
        self.wakes.push(Reverse((at, slot as u32, self.slots[slot].wake)));
    }

    /// Moves the run on where its time has come.
    fn step(&mut self, now: Nanos) {
        self.recorder.look(now);
        self.next_tick = now + TICK;
        if self.usage.is_none() && now >= self.measure_from {
            self.usage = Some(Usage::read(now));
        }
        if self.phase != Phase::Done && (self.control.stopped() || self.hopeless.is_some()) {
            self.stop(now);
            self.enter_draining(now);
            self.abandon(now);
            self.phase = Phase::Done;
        }
        match self.phase {
            Phase::Opening => self.open_more(now),
            Phase::Ready => self.start_if_ready(),
            Phase::Running if now >= self.stop_at || self.is_exhausted() => {
                self.stop(now);
                self.enter_draining(now);
            }
            _ => {}
        }
        if self.phase == Phase::Draining && self.in_flight == 0 {
            let linger = match (self.plan.is_datagram(), self.lost) {
                (false, _) => 0,
                (true, false) => LINGER,
                (true, true) => LINGER_LOST.max(nanos(self.plan.timeout)),
            };
            self.linger_until = now + linger;
            self.phase = Phase::Lingering;
        }
        if self.phase == Phase::Lingering && now.min(self.presence.seen()) >= self.linger_until {
            self.phase = Phase::Done;
        }
    }

    /// Begins to open connections, as many as may be under way.
    fn open_more(&mut self, now: Nanos) {
        let all = match self.plan.opens_ahead() {
            true => self.slots.len(),
            false => 0,
        };
        if now >= self.next_opening {
            for _ in 0..OPENING_STEP {
                if self.next_to_open >= all || self.opening >= OPENING {
                    break;
                }
                self.next_to_open += 1;
                self.open_ahead(self.next_to_open - 1);
            }
            self.next_opening = now + OPENING_PAUSE;
        }
        if self.next_to_open >= all && self.opening == 0 && self.hopeless.is_none() {
            self.phase = Phase::Ready;
            self.control.ready(now);
            self.start_if_ready();
        }
    }

    fn start_if_ready(&mut self) {
        let Some(start) = self.control.start() else { return };
        self.start = start;
        self.measure_from = start + nanos(self.plan.warmup);
        self.stop_at = match (self.plan.duration, &self.plan.pace) {
            (Some(duration), _) => self.measure_from.saturating_add(nanos(duration)),
            (None, _) => NEVER,
        };
        self.recorder.begin_schedule(start, (self.measure_from, self.stop_at));
        self.phase = Phase::Running;
        if self.open.is_none() {
            // As wake-ups they begin a few at a time, with replies read in between; and those that have yet to
            // connect, no faster than a usual backlog is emptied.
            let pause = if self.plan.opens_ahead() { 0 } else { START_PAUSE };
            for slot in 0..self.slots.len() {
                self.wake_at(slot, start + slot as Nanos * pause);
            }
        }
    }

    /// Whether every request that the plan has was made.
    fn is_exhausted(&self) -> bool {
        match &self.open {
            None => self.quota == 0,
            Some(open) => self.quota == 0 && open.waiting == 0,
        }
    }

    /// The measured part ends now, unless it has ended before.
    fn stop(&mut self, now: Nanos) {
        self.stop_at = self.stop_at.min(now);
        self.recorder.end_measured(self.stop_at);
    }

    /// No request begins from now on; those that were due and not sent are counted.
    fn enter_draining(&mut self, now: Nanos) {
        if self.phase == Phase::Running {
            self.notice(now);
        }
        if let Some(open) = &mut self.open {
            for _ in 0..open.waiting {
                let Some(due) = open.head.peek() else { break };
                open.head.advance();
                let intended = self.start + due;
                let waited = Some(self.stop_at.saturating_sub(intended));
                let measured = intended >= self.measure_from;
                self.recorder.ended(measured, Outcome::UnsentAtEnd, now, waited, None);
            }
            open.waiting = 0;
        }
        self.phase = Phase::Draining;
        if let Some(usage) = &self.usage {
            self.load = Some(usage.until(&Usage::read(now)));
        }
        if self.plan.mode != Mode::Request {
            self.end_mode(now);
        }
    }

    /// Ends every request that is still under way, without its reply.
    fn abandon(&mut self, now: Nanos) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].requesting {
                self.complete(slot, Outcome::UnansweredAtEnd, false, now);
            } else if self.slots[slot].state.is_connecting() {
                self.disconnect(slot);
            }
        }
    }
}
