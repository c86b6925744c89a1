//! What a load thread measured: counts and histograms of one interval at a time, handed to the main
//! thread, so that the load threads share nothing and memory does not grow with the run.

use super::clock::Nanos;
use super::outcome::{Outcome, Outcomes};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use hdrhistogram::Histogram;

/// Times longer than this are recorded as this: an hour.
const LONGEST: Nanos = 3_600_000_000_000;
/// Decimal digits that histograms keep: 264 KiB for each.
const DIGITS: u8 = 3;
/// The same of those of which less is asked: 36 KiB.
const FEW_DIGITS: u8 = 2;
/// How many intervals of one thread exist at once.
pub(crate) const INTERVALS: usize = 3;

/// Times of one kind, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    pub(crate) histogram: Histogram<u64>,
    /// How many of them are "at least this long".
    pub(crate) censored: u64,
}

impl Times {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self::with_digits(DIGITS)
    }

    /// None yet, to be kept in little memory.
    fn coarse() -> Self {
        Self::with_digits(FEW_DIGITS)
    }

    fn with_digits(digits: u8) -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, digits)
            .expect("constant bounds and digits that the histogram documents as valid");
        Self { histogram, censored: 0 }
    }

    /// Adds one time.
    pub(crate) fn record(&mut self, time: Nanos, censored: bool) {
        self.histogram.saturating_record(time.max(1));
        self.censored += u64::from(censored);
    }

    /// Adds all of another's.
    pub(crate) fn add(&mut self, other: &Times) {
        // A histogram is 270 KB to go through, and many stay empty.
        if other.histogram.is_empty() {
            return;
        }
        // Only a histogram with wider bounds could fail to be added, and all have the same; where the digits differ,
        // those of this one count.
        let _ = self.histogram.add(&other.histogram);
        self.censored += other.censored;
    }

    fn clear(&mut self) {
        // An empty one was perhaps never written to, and takes no memory until it is.
        if !self.histogram.is_empty() {
            self.histogram.reset();
        }
        self.censored = 0;
    }
}

/// Counts of one part of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// Requests due.
    pub(crate) offered: u64,
    /// Requests sent more than a millisecond after their intended instant.
    pub(crate) sent_late: u64,
    pub(crate) outcomes: Outcomes,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.offered += other.offered;
        self.sent_late += other.sent_late;
        self.outcomes += &other.outcomes;
    }
}

/// Counts of connections, warm-up included.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Connections {
    /// Connections that were established.
    pub(crate) opened: u64,
    /// Connections tried before the run began that were not established.
    pub(crate) open_failed: u64,
    /// Connections that the server ended while no request was under way on them.
    pub(crate) closed_idle: u64,
    /// Bytes handed to the kernel, and received.
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl Connections {
    fn add(&mut self, other: &Connections) {
        self.opened += other.opened;
        self.open_failed += other.open_failed;
        self.closed_idle += other.closed_idle;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

/// Everything measured between two instants.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) begin: Nanos,
    pub(crate) end: Nanos,
    /// The measured part of the run.
    pub(crate) tally: Tally,
    /// The warm-up.
    pub(crate) warm: Tally,
    pub(crate) connections: Connections,
    /// From the intended instant to the whole reply.
    pub(crate) response: Times,
    /// From sending to the whole reply.
    pub(crate) service: Times,
    /// Both of these, where a request was sent the instant it was intended, as most of a closed loop are: recorded
    /// once, and part of both as soon as the interval is added to another.
    both: Times,
    /// From the start of a connection to its establishment; warm-up included.
    pub(crate) connect: Times,
    /// From the intended instant to the generator's noticing it.
    pub(crate) lag: Times,
    /// When the last measured request was answered.
    pub(crate) last_done: Nanos,
    /// Good replies that came in the measured part, whenever their requests began.
    pub(crate) replies: u64,
}

impl Interval {
    /// Nothing yet.
    pub(crate) fn new(begin: Nanos) -> Self {
        Self {
            begin,
            end: begin,
            tally: Tally::default(),
            warm: Tally::default(),
            connections: Connections::default(),
            response: Times::new(),
            service: Times::new(),
            both: Times::new(),
            connect: Times::coarse(),
            lag: Times::coarse(),
            last_done: 0,
            replies: 0,
        }
    }

    /// Adds what another measured.
    pub(crate) fn add(&mut self, other: &Interval) {
        self.begin = self.begin.min(other.begin);
        self.end = self.end.max(other.end);
        self.tally.add(&other.tally);
        self.warm.add(&other.warm);
        self.connections.add(&other.connections);
        self.response.add(&other.response);
        self.service.add(&other.service);
        self.response.add(&other.both);
        self.service.add(&other.both);
        self.connect.add(&other.connect);
        self.lag.add(&other.lag);
        self.last_done = self.last_done.max(other.last_done);
        self.replies += other.replies;
    }

    /// Forgets everything, keeping its memory.
    pub(crate) fn clear(&mut self) {
        self.tally = Tally::default();
        self.warm = Tally::default();
        self.connections = Connections::default();
        self.last_done = 0;
        self.replies = 0;
        let latencies = [&mut self.response, &mut self.service, &mut self.both];
        for times in latencies.into_iter().chain([&mut self.connect, &mut self.lag]) {
            times.clear();
        }
    }
}

/// An interval on its way from a thread; its box goes back to that thread when it is empty.
pub(crate) type Shipment = (usize, Box<Interval>);

/// One load thread's end: records, and ships an interval now and then.
pub(crate) struct Recorder {
    thread: usize,
    current: Box<Interval>,
    made: usize,
    full: Sender<Shipment>,
    empty: Receiver<Box<Interval>>,
}

impl Recorder {
    /// A recorder that ships to `full` and takes what was emptied from `empty`.
    pub(crate) fn new(
        thread: usize,
        full: Sender<Shipment>,
        empty: Receiver<Box<Interval>>,
        now: Nanos,
    ) -> Self {
        Self { thread, current: Box::new(Interval::new(now)), made: 1, full, empty }
    }

    fn tally(&mut self, measured: bool) -> &mut Tally {
        if measured { &mut self.current.tally } else { &mut self.current.warm }
    }

    /// A request became due and was noticed `lag` later.
    pub(crate) fn due(&mut self, measured: bool, lag: Nanos) {
        self.tally(measured).offered += 1;
        if measured {
            self.current.lag.record(lag, false);
        }
    }

    /// A closed loop's request: due when it is sent.
    pub(crate) fn offered(&mut self, measured: bool) {
        self.tally(measured).offered += 1;
    }

    /// A request was sent more than a millisecond after its instant.
    pub(crate) fn sent_late(&mut self, measured: bool) {
        self.tally(measured).sent_late += 1;
    }

    /// A request ended: how long after its intended instant, and how long after it was sent, where these
    /// times mean something.
    pub(crate) fn ended(
        &mut self,
        measured: bool,
        outcome: Outcome,
        now: Nanos,
        response: Option<Nanos>,
        service: Option<Nanos>,
    ) {
        self.tally(measured).outcomes[outcome] += 1;
        if !measured {
            return;
        }
        let censored = outcome.is_censored();
        // The time of a refusal or an error says nothing about how long a reply takes.
        if outcome == Outcome::Ok || censored {
            let Interval { response: responses, service: services, both, .. } = &mut *self.current;
            match (response, service) {
                (Some(response), Some(service)) if response == service => both.record(response, censored),
                (response, service) => {
                    response.into_iter().for_each(|time| responses.record(time, censored));
                    service.into_iter().for_each(|time| services.record(time, censored));
                }
            }
        }
        if outcome == Outcome::Ok {
            self.current.last_done = now;
        }
    }

    /// A good reply came in the measured part.
    pub(crate) fn replied(&mut self) {
        self.current.replies += 1;
    }

    /// Something happened that is not the end of a request (late and duplicate datagrams).
    pub(crate) fn noted(&mut self, measured: bool, outcome: Outcome) {
        self.tally(measured).outcomes[outcome] += 1;
    }

    /// A connection was established, or given up on, after this time.
    pub(crate) fn connected(&mut self, time: Nanos, censored: bool) {
        self.current.connect.record(time, censored);
        self.current.connections.opened += u64::from(!censored);
    }

    /// Counts of connections and bytes.
    pub(crate) fn connections(&mut self) -> &mut Connections {
        &mut self.current.connections
    }

    /// Ships the interval that ends now. While the receiver is behind, the interval goes on instead.
    pub(crate) fn ship(&mut self, now: Nanos) {
        let next = match self.empty.try_recv() {
            Ok(next) => next,
            Err(_) if self.made < INTERVALS => {
                self.made += 1;
                Box::new(Interval::new(now))
            }
            Err(_) => return,
        };
        self.current.end = now;
        let full = std::mem::replace(&mut self.current, next);
        self.current.begin = now;
        let sent = self.full.try_send((self.thread, full));
        if let Err(TrySendError::Full((_, full)) | TrySendError::Disconnected((_, full))) = sent {
            self.current = full;
            self.made -= 1;
        }
    }

    /// The last interval.
    pub(crate) fn finish(mut self, now: Nanos) -> Box<Interval> {
        self.current.end = now;
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_times_are_recorded_once_and_gathered_as_both() {
        let (full, _shipments) = crossbeam_channel::bounded(1);
        let (_back, empty) = crossbeam_channel::bounded(1);
        let mut recorder = Recorder::new(0, full, empty, 0);
        recorder.ended(true, Outcome::Ok, 1, Some(10), Some(10));
        recorder.ended(true, Outcome::ReadTimeout, 2, Some(20), Some(20));
        recorder.ended(true, Outcome::Ok, 3, Some(40), Some(30));
        recorder.ended(true, Outcome::Lost, 4, Some(50), None);
        recorder.ended(false, Outcome::Ok, 5, Some(60), Some(60));
        let mut gathered = Interval::new(0);
        gathered.add(&recorder.finish(6));
        let counts = |times: &Times| (times.histogram.len(), times.censored, times.histogram.max());
        assert_eq!((counts(&gathered.response), counts(&gathered.service)), ((4, 2, 50), (3, 1, 30)));
        gathered.clear();
        assert_eq!((counts(&gathered.response), counts(&gathered.service)), ((0, 0, 0), (0, 0, 0)));
    }
}
