//! Recording what happens in a load thread. Counts and histograms of one second at a time are handed to the main thread,
//! so load threads share nothing, and memory does not grow with the length of the run.
//!
//! The seconds are those of the schedule: the first second begins when the schedule begins. An event is counted in the
//! second in which it is recorded, so a second is one second long even if the thread was busy when it ended.

use super::answers::{Answer, Answers};
use super::clock::{Nanos, seconds};
use super::outcome::{Outcome, Outcomes};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use hdrhistogram::Histogram;

/// Times longer than this are recorded as this: an hour.
const LONGEST: Nanos = 3_600_000_000_000;
/// Decimal digits that histograms keep: 264 KiB for each.
const DIGITS: u8 = 3;
/// The same of those of which less is asked: 36 KiB.
const FEW_DIGITS: u8 = 2;
/// How long a second is.
pub(crate) const SECOND: Nanos = 1_000_000_000;
/// The number of the schedule's first second. Those before it are of the time in which connections are opened.
pub(crate) const FIRST: u64 = 1 << 32;
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
    /// Of the good replies, those that came after the client's patience was over.
    pub(crate) too_late: u64,
    pub(crate) outcomes: Outcomes,
    /// Replies over HTTP.
    pub(crate) answers: Answers,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.offered += other.offered;
        self.sent_late += other.sent_late;
        self.too_late += other.too_late;
        self.outcomes += &other.outcomes;
        self.answers.add(&other.answers);
    }

    /// Good replies that came in time.
    pub(crate) fn useful(&self) -> u64 {
        self.outcomes[Outcome::Ok].saturating_sub(self.too_late)
    }
}

/// Counts of connections, warm-up included.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ConnectionCounts {
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

impl ConnectionCounts {
    fn add(&mut self, other: &ConnectionCounts) {
        self.opened += other.opened;
        self.open_failed += other.open_failed;
        self.closed_idle += other.closed_idle;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
    }
}

/// The part of a run that an interval belongs to. An interval that touches several parts belongs to the last of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Connections are opened before the run begins.
    #[default]
    Opening,
    /// Before what is measured.
    Warmup,
    /// After it: replies are on their way.
    Draining,
    /// What is measured.
    Measured,
}

impl Part {
    /// The name in reports.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Part::Opening => "opening",
            Part::Warmup => "warmup",
            Part::Draining => "draining",
            Part::Measured => "measured",
        }
    }
}

/// Everything measured between two instants.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// The number of its second; of several, that of the first.
    pub(crate) number: u64,
    pub(crate) part: Part,
    /// It lies within the measured part, and nothing of it is missing.
    pub(crate) whole: bool,
    pub(crate) begin: Nanos,
    pub(crate) end: Nanos,
    /// The measured part of the run.
    pub(crate) tally: Tally,
    /// The warm-up.
    pub(crate) warm: Tally,
    pub(crate) connections: ConnectionCounts,
    /// From the intended instant to the whole reply.
    pub(crate) response: Times,
    /// From sending to the whole reply.
    pub(crate) service: Times,
    /// Both of these, where a request was sent the instant it was intended, as most of a closed loop are: recorded
    /// once, and part of both as soon as the interval is added to another.
    both: Times,
    /// From the start of a connection to its establishment; warm-up included.
    pub(crate) connect: Times,
    /// Of that, the handshake of TLS.
    pub(crate) handshake: Times,
    /// From the intended instant to the generator's noticing it.
    pub(crate) lag: Times,
    /// When the last measured request was answered.
    pub(crate) last_done: Nanos,
    /// Good replies that came in the measured part, whenever their requests began.
    pub(crate) replies: u64,
    /// Of those, the ones that came in time.
    pub(crate) useful: u64,
}

impl Interval {
    /// Nothing yet.
    pub(crate) fn new(begin: Nanos) -> Self {
        Self {
            number: 0,
            part: Part::Opening,
            whole: true,
            begin,
            end: begin,
            tally: Tally::default(),
            warm: Tally::default(),
            connections: ConnectionCounts::default(),
            response: Times::new(),
            service: Times::new(),
            both: Times::new(),
            connect: Times::coarse(),
            handshake: Times::coarse(),
            lag: Times::coarse(),
            last_done: 0,
            replies: 0,
            useful: 0,
        }
    }

    /// An empty interval to which those of threads are added. `both` stays empty in it, and so takes little memory.
    pub(crate) fn gathering(begin: Nanos) -> Self {
        Self { both: Times::coarse(), ..Self::new(begin) }
    }

    /// Adds what another measured.
    pub(crate) fn add(&mut self, other: &Interval) {
        self.part = self.part.max(other.part);
        self.whole &= other.whole;
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
        self.handshake.add(&other.handshake);
        self.lag.add(&other.lag);
        self.last_done = self.last_done.max(other.last_done);
        self.replies += other.replies;
        self.useful += other.useful;
    }

    /// Whether nothing happened.
    pub(crate) fn is_empty(&self) -> bool {
        let nothing = Tally::default();
        self.tally == nothing && self.warm == nothing && self.connections == ConnectionCounts::default()
    }

    /// How many requests were due, in whatever part of the run.
    pub(crate) fn offered(&self) -> u64 {
        self.tally.offered + self.warm.offered
    }

    /// Useful replies a second.
    pub(crate) fn rate(&self) -> f64 {
        let length = seconds(self.end.saturating_sub(self.begin));
        let useful = self.tally.useful() + self.warm.useful();
        if length > 0.0 { useful as f64 / length } else { 0.0 }
    }

    /// Forgets everything, keeping its memory.
    pub(crate) fn clear(&mut self) {
        self.part = Part::Opening;
        self.whole = true;
        self.tally = Tally::default();
        self.warm = Tally::default();
        self.connections = ConnectionCounts::default();
        self.last_done = 0;
        self.replies = 0;
        self.useful = 0;
        let latencies = [&mut self.response, &mut self.service, &mut self.both];
        for times in latencies.into_iter().chain([&mut self.connect, &mut self.handshake, &mut self.lag]) {
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
    /// When the present second ends.
    second_end: Nanos,
    /// The measured part of the schedule: its beginning and its end.
    measured: (Nanos, Nanos),
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
        let mut current = Box::new(Interval::new(now));
        current.number = now / SECOND;
        let second_end = (current.number + 1) * SECOND;
        Self { thread, current, second_end, measured: (Nanos::MAX, Nanos::MAX), made: 1, full, empty }
    }

    /// The schedule begins. Its seconds count from here, and `measured` is the part of it that is measured.
    pub(crate) fn begin_schedule(&mut self, start: Nanos, measured: (Nanos, Nanos)) {
        self.hand_over(start, start, FIRST);
        // Should it go on, it is the first second's all the same.
        self.current.number = FIRST;
        self.second_end = start.saturating_add(SECOND);
        self.measured = measured;
    }

    /// The measured part ends at this instant, earlier than it was planned.
    pub(crate) fn end_measured(&mut self, at: Nanos) {
        self.measured.1 = self.measured.1.min(at);
    }

    /// When the present second ends, and its measurements are handed over at the latest.
    pub(crate) fn second_end(&self) -> Nanos {
        self.second_end
    }

    /// Hands over the seconds that have ended at this instant.
    pub(crate) fn look(&mut self, now: Nanos) {
        if now < self.second_end {
            return;
        }
        // A second in which the thread recorded nothing is not handed over: the gatherer knows that it was empty.
        let seconds = (now - self.second_end) / SECOND;
        let begin = self.second_end + seconds * SECOND;
        let number = (self.current.number + 1).max(self.number_of(begin));
        self.hand_over(self.second_end, begin, number);
        self.second_end = begin + SECOND;
    }

    /// The number of the second that begins at an instant.
    fn number_of(&self, begin: Nanos) -> u64 {
        match self.current.number >= FIRST {
            true => self.current.number + begin.saturating_sub(self.current.begin) / SECOND,
            false => begin / SECOND,
        }
    }

    fn tally(&mut self, measured: bool) -> &mut Tally {
        if measured { &mut self.current.tally } else { &mut self.current.warm }
    }

    /// A request became due and was noticed `lag` later.
    pub(crate) fn due(&mut self, measured: bool, lag: Nanos, now: Nanos) {
        self.look(now);
        self.tally(measured).offered += 1;
        if measured {
            self.current.lag.record(lag, false);
        }
    }

    /// A closed loop's request: due when it is sent.
    pub(crate) fn offered(&mut self, measured: bool, now: Nanos) {
        self.look(now);
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
        self.look(now);
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

    /// A reply over HTTP is whole.
    pub(crate) fn answered(&mut self, measured: bool, answer: Answer) {
        self.tally(measured).answers.count(answer);
    }

    /// The reply of a request that ended well came after its client's patience was over.
    pub(crate) fn came_too_late(&mut self, measured: bool) {
        self.tally(measured).too_late += 1;
    }

    /// A good reply came in the measured part.
    pub(crate) fn replied(&mut self, useful: bool) {
        self.current.replies += 1;
        self.current.useful += u64::from(useful);
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

    /// The handshake of TLS took this time.
    pub(crate) fn shaken(&mut self, time: Nanos) {
        self.current.handshake.record(time, false);
    }

    /// Counts of connections and bytes.
    pub(crate) fn connections(&mut self) -> &mut ConnectionCounts {
        &mut self.current.connections
    }

    /// Hands over the interval, which ends at `end`; the next begins at `begin` and has this number. While the receiver
    /// is behind, the interval goes on instead: it has several seconds then, and says so by its length.
    fn hand_over(&mut self, end: Nanos, begin: Nanos, number: u64) {
        let next = match self.empty.try_recv() {
            Ok(next) => next,
            Err(_) if self.made < INTERVALS => {
                self.made += 1;
                Box::new(Interval::new(begin))
            }
            Err(_) => return,
        };
        self.close(end);
        let full = std::mem::replace(&mut self.current, next);
        (self.current.begin, self.current.end, self.current.number) = (begin, begin, number);
        let sent = self.full.try_send((self.thread, full));
        if let Err(TrySendError::Full((_, full)) | TrySendError::Disconnected((_, full))) = sent {
            self.current = full;
            self.made -= 1;
        }
    }

    fn close(&mut self, end: Nanos) {
        let current = &mut self.current;
        let (from, to) = self.measured;
        current.end = end.max(current.begin);
        current.whole = current.begin >= from && current.end <= to && current.end > current.begin;
        current.part = match current.number {
            ..FIRST => Part::Opening,
            _ if current.begin >= to => Part::Draining,
            _ if current.end <= from => Part::Warmup,
            _ => Part::Measured,
        };
    }

    /// The last interval.
    pub(crate) fn finish(mut self, now: Nanos) -> Box<Interval> {
        self.look(now);
        // An event of this very instant needs an interval that is not empty.
        self.close(now.max(self.current.begin + 1));
        // The second has not ended.
        self.current.whole = false;
        self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_came_too_late_is_no_useful_one_of_its_second() {
        let (full, _shipments) = crossbeam_channel::bounded(1);
        let (_back, empty) = crossbeam_channel::bounded(1);
        let mut recorder = Recorder::new(0, full, empty, 0);
        for (measured, useful) in [(true, true), (true, false), (true, false), (false, true), (false, false)]
        {
            recorder.ended(measured, Outcome::Ok, 1, None, None);
            if !useful {
                recorder.came_too_late(measured);
            }
            if measured {
                recorder.replied(useful);
            }
        }
        recorder.ended(true, Outcome::ReadTimeout, 1, None, None);
        let interval = recorder.finish(SECOND / 2);
        let mut gathered = Interval::gathering(0);
        for times in 1..=2 {
            gathered.add(&interval);
            assert_eq!((gathered.tally.useful(), gathered.tally.too_late), (times, 2 * times));
            assert_eq!((gathered.replies, gathered.useful), (3 * times, times));
            assert_eq!(gathered.rate(), times as f64 * 4.0, "the warm-up's count too, in half a second");
        }
        gathered.clear();
        assert_eq!((gathered.useful, gathered.tally.too_late, gathered.rate()), (0, 0, 0.0));
    }

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
