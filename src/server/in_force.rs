//! The limits in force: those of the server and of each listener. They can change while the server serves.
//!
//! A thread that needs limits at every turn keeps a [`LimitsView`] of its own and looks before each turn whether they have
//! changed. Other threads ask for the [`InForce`] of the moment.

use crate::clock::Nanos;
use crate::current::{Current, CurrentView};
use crate::limits::Limits;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What makes the limits of a listener of those of its server.
type Change = Box<dyn Fn(Limits) -> Limits + Send + Sync>;

/// The limits that a listener has of its own.
#[derive(Default)]
pub(crate) struct OwnLimits(Option<Change>);

impl OwnLimits {
    pub(crate) fn new(change: Change) -> Self {
        Self(Some(change))
    }

    /// The limits in force at the listener, beside those of the server.
    pub(crate) fn of(&self, server: &Limits) -> Limits {
        match &self.0 {
            Some(change) => change(server.clone()).part_of(server),
            None => server.clone(),
        }
    }
}

/// One set of limits. It is never changed: another one takes its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InForce {
    pub(crate) server: Limits,
    /// Those of each listener for connections, by its number; those of the server at seats that nobody has.
    pub(crate) listeners: Box<[Limits]>,
    /// When it came into force, by the clock of the server.
    pub(crate) since: Nanos,
}

impl InForce {
    /// The shortest time that a request may wait for a worker.
    pub(crate) fn queue_timeout_least(&self) -> Duration {
        let own = self.listeners.iter().map(|listener| listener.queue_timeout);
        own.fold(self.server.queue_timeout, Duration::min)
    }
}

/// Where the set in force is found.
#[derive(Debug)]
pub(crate) struct LiveLimits {
    in_force: Current<InForce>,
    /// Held by the one who changes them.
    changing: Mutex<()>,
}

/// The limits as one thread last saw them.
pub(crate) type LimitsView = CurrentView<InForce>;

impl LiveLimits {
    pub(crate) fn new(first: InForce) -> Self {
        Self { in_force: Current::new(first), changing: Mutex::new(()) }
    }

    /// The set of this moment.
    pub(crate) fn current(&self) -> Arc<InForce> {
        self.in_force.get()
    }

    /// Keeps others from changing them meanwhile.
    pub(crate) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for LiveLimits {
    type Target = Current<InForce>;

    fn deref(&self) -> &Current<InForce> {
        &self.in_force
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_may_have_limits_of_its_own() {
        let second = Duration::from_secs(1);
        let server = Limits::default().queue(7);
        let own = OwnLimits::new(Box::new(move |limits| limits.idle_timeout(second)));
        assert_eq!(own.of(&server), server.clone().idle_timeout(second));
        assert_eq!(OwnLimits::default().of(&server), server);
    }
}
