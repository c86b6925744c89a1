//! The open loop. A request is noticed when it is due, waits in line until a connection is free, and is sent. Requests
//! leave the line in the order in which they were due.

use super::clock::{NEVER, Nanos};
use super::load::Loader;
use super::outcome::Outcome;
use super::phase::Phase;

/// An arrival noticed later than this is not sent: it would be one of a burst that nobody planned.
const SKIP: Nanos = 100_000_000;
/// A request sent later than this counts as sent late.
pub(super) const LATE: Nanos = 1_000_000;

impl Loader<'_> {
    /// The next intended instant that is to be noticed.
    pub(super) fn next_due(&self) -> Nanos {
        let next = self.open.as_ref().and_then(|open| open.due.peek());
        next.map_or(NEVER, |due| self.start.saturating_add(due))
    }

    /// Whether a request waits in line and a connection is free.
    pub(super) fn can_send(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.waiting > 0 && !open.free.is_empty())
    }

    /// Notices and sends what is due, but not before a thread that was away has read what came meanwhile: a connection that
    /// the server has ended takes no request.
    pub(super) fn dispatch_if_due(&mut self) {
        if let Some(open) = &self.open
            && self.presence.has_caught_up()
            && (open.waiting > 0 || self.next_due() <= self.clock.now())
        {
            self.dispatch(self.clock.now());
        }
    }

    /// Notices the requests that are due, and sends as many as there are free connections, until the pass has taken its time.
    fn dispatch(&mut self, now: Nanos) {
        if self.phase != Phase::Running {
            return;
        }
        self.notice(now);
        while let Some(open) = &mut self.open {
            if open.waiting == 0 {
                return;
            }
            let (Some(slot), Some(due)) = (open.free.pop_front(), open.head.peek()) else {
                return;
            };
            open.waiting -= 1;
            open.head.advance();
            let intended = self.start + due;
            let now = self.clock.now();
            if now.saturating_sub(intended) > LATE {
                self.recorder.sent_late(intended >= self.measure_from);
            }
            self.begin(slot as usize, intended, now);
            if now > self.pass_until {
                return;
            }
        }
    }

    pub(super) fn notice(&mut self, now: Nanos) {
        let Some(open) = &mut self.open else { return };
        while let Some(due) = open.due.peek() {
            let intended = self.start + due;
            let measured = intended >= self.measure_from;
            if intended > now || intended >= self.stop_at || self.quota == 0 {
                return;
            }
            open.due.advance();
            self.quota -= u64::from(measured && self.quota != NEVER);
            let lag = now - intended;
            self.recorder.due(measured, lag, now);
            // With nobody waiting for a connection, it was the generator that came too late.
            if lag > SKIP && open.waiting == 0 {
                open.head.advance();
                self.recorder.ended(measured, Outcome::Skipped, now, Some(lag), None);
            } else {
                open.waiting += 1;
            }
        }
    }
}
