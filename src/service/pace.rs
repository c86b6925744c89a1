//! How long a turn has lasted. The clock is read as seldom as the cost of the requests allows.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A turn that has lasted this long leaves the rest of its input to another turn. When a connection begins to wait,
/// every worker may be in such a turn; so this is the most that busy clients add to its wait, for each connection
/// before it in the queue.
const TURN_TIME: Duration = Duration::from_millis(1);

/// If the requests between two readings took less than this together, they are cheap, and the clock is read half as
/// often.
const CHEAP: Duration = Duration::from_micros(20);

/// The clock is read at least once in this number of requests. So a client that hides slow requests among cheap ones
/// overruns [`TURN_TIME`] by fewer than this.
const SELDOM: u32 = 8;

/// The pace of one turn; a worker lends it to one turn after the other.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the turn began, and when the clock was last read. `None` until the first question: a turn with one
    /// request never reads the clock.
    times: Cell<Option<(Instant, Instant)>>,
    /// Requests from one reading of the clock to the next.
    every: Cell<u32>,
    /// Requests since the last reading.
    since: Cell<u32>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { times: Cell::new(None), every: Cell::new(1), since: Cell::new(0) }
    }

    /// Another turn begins.
    pub(super) fn reset(&self) {
        self.times.set(None);
    }

    /// Starts the time of this turn, unless it runs already.
    pub(super) fn begin(&self) {
        if self.times.get().is_none() {
            self.begin_at(Instant::now());
        }
    }

    fn begin_at(&self, now: Instant) {
        self.times.set(Some((now, now)));
        self.every.set(1);
        self.since.set(0);
    }

    /// Whether the turn has lasted too long; asked after each request.
    pub(super) fn is_over(&self) -> bool {
        self.is_over_at(Instant::now)
    }

    /// The same, but the clock is read in any case: asked before a system call.
    pub(super) fn look(&self) -> bool {
        self.since.set(self.every.get());
        self.is_over()
    }

    fn is_over_at(&self, clock: impl Fn() -> Instant) -> bool {
        let Some((began, looked)) = self.times.get() else {
            self.begin_at(clock());
            return false;
        };
        self.since.set(self.since.get() + 1);
        if self.since.get() < self.every.get() {
            return false;
        }
        let now = clock();
        let cheap = now.saturating_duration_since(looked) < CHEAP;
        self.every.set(if cheap { (self.every.get() * 2).min(SELDOM) } else { 1 });
        self.since.set(0);
        self.times.set(Some((began, now)));
        now.saturating_duration_since(began) >= TURN_TIME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests of this length until the turn is over, and how often the clock was read.
    fn run(request: Duration) -> (u32, u32) {
        let pace = Pace::new();
        let (now, readings) = (Cell::new(Instant::now()), Cell::new(0));
        pace.begin_at(now.get());
        for requests in 1.. {
            now.set(now.get() + request);
            let clock = || {
                readings.set(readings.get() + 1);
                now.get()
            };
            if pace.is_over_at(clock) {
                return (requests, readings.get());
            }
        }
        unreachable!("a turn ends")
    }

    #[test]
    fn a_turn_ends_after_the_request_in_which_a_millisecond_has_passed() {
        for (micros, requests) in [(1_000, 1), (20_000, 1), (999, 2), (400, 3), (100, 10)] {
            let (ran, readings) = run(Duration::from_micros(micros));
            assert_eq!((ran, readings), (requests, requests), "requests of {micros} us");
        }
    }

    #[test]
    fn for_cheap_requests_the_clock_is_read_seldom_and_the_turn_hardly_longer() {
        let (requests, readings) = run(Duration::from_nanos(100));
        assert!((10_000..10_000 + SELDOM).contains(&requests), "{requests} requests");
        assert!(readings <= requests.div_ceil(SELDOM) + 3, "{readings} readings");
    }

    #[test]
    fn slow_requests_behind_cheap_ones_are_noticed_within_eight() {
        let pace = Pace::new();
        let now = Cell::new(Instant::now());
        pace.begin_at(now.get());
        for _ in 0..100 {
            assert!(!pace.is_over_at(|| now.get()));
        }
        let slow = (1..).find(|_| {
            now.set(now.get() + Duration::from_millis(1));
            pace.is_over_at(|| now.get())
        });
        assert!(slow.is_some_and(|requests| requests <= SELDOM), "{slow:?}");
    }

    #[test]
    fn another_turn_has_its_own_time() {
        let pace = Pace::new();
        let start = Instant::now();
        pace.begin_at(start);
        assert!(pace.is_over_at(|| start + TURN_TIME));
        pace.reset();
        assert!(!pace.is_over_at(|| start + 2 * TURN_TIME));
    }
}
