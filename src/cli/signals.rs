//! The signals that end the program.

use rustix::process::Signal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A supervisor and the process group of a terminal deliver the same order twice, and some supervisors follow
/// SIGTERM with another signal at once: what comes within this time is one order.
const ONE_ORDER: Duration = Duration::from_secs(1);

/// What SIGHUP does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hangup {
    /// It is held for a thread that waits for it: a server outlives the terminal that it was started from, and reads its
    /// configuration again.
    Held,
    /// The same as SIGINT and SIGTERM.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the load generator is for Linux"))]
    Ends,
}

/// Has `first` called on the first order to end, and `again` on each one that comes later than a second after
/// it. A signal that was ignored when this process was started stays ignored.
pub(super) fn on_order(
    hangup: Hangup,
    first: impl Fn() + Send + 'static,
    again: impl Fn() + Send + 'static,
) -> Result<(), String> {
    let orders = Mutex::new(FirstOrder::default());
    let handler = move || {
        let order = orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner).hear(Instant::now());
        match order {
            Meaning::First => first(),
            Meaning::Same => {}
            Meaning::Again => again(),
        }
    };
    let ends = [Signal::INT, Signal::TERM, Signal::HUP];
    if hangup == Hangup::Held {
        // Before the handler's thread starts, so that none of this process is interrupted by it.
        crate::sys::hold(&[Signal::HUP]);
    }
    crate::sys::keep_ignored(&ends, || ctrlc::set_handler(handler)).map_err(|_| {
        "cannot start the signal handler: the system gives no thread or descriptor for it".to_owned()
    })?;
    Ok(())
}

/// Says which of the signals that should end a server do nothing: whoever presses Ctrl-C in vain finds out why.
pub(super) fn tell_of_ignored() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        if crate::sys::is_ignored(signal) {
            tracing::info!(
                "{name} is ignored, since it was when this program was started: a child inherits that, and a shell does it \
                 for `command &` in a script"
            );
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    First,
    Same,
    Again,
}

/// When the first order came.
#[derive(Debug, Default)]
struct FirstOrder(Option<Instant>);

impl FirstOrder {
    fn hear(&mut self, now: Instant) -> Meaning {
        match self.0 {
            None => {
                self.0 = Some(now);
                Meaning::First
            }
            Some(first) if now.saturating_duration_since(first) < ONE_ORDER => Meaning::Same,
            Some(_) => Meaning::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_a_second_are_one_order() {
        let (mut orders, start) = (FirstOrder::default(), Instant::now());
        let mut hear = |millis| orders.hear(start + Duration::from_millis(millis));
        assert_eq!(
            [hear(0), hear(0), hear(50), hear(999)],
            [Meaning::First, Meaning::Same, Meaning::Same, Meaning::Same]
        );
        assert_eq!([hear(1000), hear(1001)], [Meaning::Again, Meaning::Again]);
    }
}
