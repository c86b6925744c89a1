//! The connections of a listener that was closed while the server serves on. They stay open until their clients leave. After
//! `drain_timeout` the timekeeper closes those that are between two requests, and a moment later it resets the rest.

use super::drain::{LAST_GRACE, claim_of, end_idle};
use crate::clock::{Nanos, nanos};
use crate::server::listener::Listener;
use crate::server::shared::Shared;
use std::time::Duration;

/// What becomes of the connections of a closed listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosedStage {
    /// They go on.
    GoesOn,
    /// They end between two requests.
    Ends,
    /// They are cut.
    IsCut,
}

impl ClosedStage {
    /// Of a listener that was closed at this time.
    fn at(now: Nanos, closed_at: Nanos, timeout: Duration) -> Self {
        let until = closed_at.saturating_add(nanos(timeout));
        match now {
            now if now < until => ClosedStage::GoesOn,
            now if now < until.saturating_add(nanos(LAST_GRACE)) => ClosedStage::Ends,
            _ => ClosedStage::IsCut,
        }
    }
}

/// Ends the connections whose listener was closed long enough ago.
pub(super) fn see_off(shared: &Shared, now: Nanos) {
    let timeout = shared.limits.current().server.drain_timeout;
    see_off_datagrams(shared, now, timeout);
    let stage = |listener: &Listener| listener.closed_at().map(|at| ClosedStage::at(now, at, timeout));
    let mut are_to_end = false;
    for (number, listener) in shared.listeners.iter().enumerate() {
        if shared.admission.open_at(number) > 0
            && stage(listener).is_some_and(|stage| stage != ClosedStage::GoesOn)
        {
            listener.end_last();
            are_to_end = true;
        }
    }
    if !are_to_end {
        return;
    }
    let in_stage =
        |wanted: ClosedStage| move |number: usize| stage(&shared.listeners[number]) == Some(wanted);
    end_idle(shared, now, in_stage(ClosedStage::Ends));
    cut(shared, now, in_stage(ClosedStage::IsCut));
}

/// Closes the sockets of listeners for datagrams that were closed, once they have answered what they had received, or have
/// had their time.
fn see_off_datagrams(shared: &Shared, now: Nanos, timeout: Duration) {
    for socket in shared.datagrams.sockets.iter() {
        match socket.closed_at().map(|at| ClosedStage::at(now, at, timeout)) {
            Some(ClosedStage::GoesOn) => socket.close_if_done(),
            Some(ClosedStage::Ends | ClosedStage::IsCut) if socket.socket().is_some() => socket.cut(),
            _ => {}
        }
    }
}

/// Cuts connections of these listeners. Those that wait for a turn or have one are cut when they are parked.
fn cut(shared: &Shared, now: Nanos, of: impl Fn(usize) -> bool) {
    for (number, slot) in shared.table.iter() {
        if let Some(owned) = claim_of(shared, (number, slot), now, &of) {
            shared.closer().cut(owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_on_for_the_time_of_a_drain_then_end_then_are_cut() {
        const SECOND: Nanos = 1_000_000_000;
        let stage = |now, closed_at, seconds| ClosedStage::at(now, closed_at, Duration::from_secs(seconds));
        for (now, wanted) in [
            (7, ClosedStage::GoesOn),
            (36, ClosedStage::GoesOn),
            (37, ClosedStage::Ends),
            (41, ClosedStage::Ends),
            (42, ClosedStage::IsCut),
        ] {
            assert_eq!(stage(now * SECOND, 7 * SECOND, 30), wanted, "{now}");
        }
        assert_eq!(stage(u64::MAX - 1, 7, u64::MAX), ClosedStage::GoesOn, "a time without end");
    }
}
