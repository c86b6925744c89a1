//! The limits in force: those of the server and of each listener. They can change while the server serves.
//!
//! A thread that needs limits at every turn keeps a [`LimitsView`] of its own, and compares one number before each turn
//! to see whether they changed. That is a read of a cache line which is written only when limits change, and costs two
//! instructions. Other threads ask for the [`InForce`] of the moment.

use crate::clock::Nanos;
use crate::limits::Limits;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
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
    /// Those of each listener for connections, in their order.
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
    /// Counts the changes.
    version: AtomicU64,
    current: RwLock<Arc<InForce>>,
    /// Held by the one who changes them.
    changing: Mutex<()>,
}

impl LiveLimits {
    pub(crate) fn new(first: InForce) -> Self {
        Self { version: AtomicU64::new(0), current: RwLock::new(Arc::new(first)), changing: Mutex::new(()) }
    }

    /// The set of this moment.
    pub(crate) fn current(&self) -> Arc<InForce> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A view that begins with the set of this moment.
    pub(crate) fn view(&self) -> LimitsView {
        // The number first: a change that comes between the two is found at the next look.
        let version = self.version.load(Acquire);
        LimitsView { version, seen: self.current() }
    }

    /// Keeps others from changing them meanwhile.
    pub(crate) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another set takes the place of the one in force.
    pub(crate) fn replace(&self, new: InForce) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        self.version.fetch_add(1, Release);
    }
}

/// The limits as one thread last saw them.
#[derive(Debug)]
pub(crate) struct LimitsView {
    version: u64,
    seen: Arc<InForce>,
}

impl LimitsView {
    /// Looks whether the limits have changed since the last look, and sees the new ones if so; what it saw before then.
    #[inline]
    pub(crate) fn look(&mut self, live: &LiveLimits) -> Option<Arc<InForce>> {
        if live.version.load(Acquire) == self.version {
            return None;
        }
        self.look_again(live)
    }

    #[cold]
    fn look_again(&mut self, live: &LiveLimits) -> Option<Arc<InForce>> {
        let before = std::mem::replace(self, live.view());
        Some(before.seen)
    }
}

impl Deref for LimitsView {
    type Target = InForce;

    fn deref(&self) -> &InForce {
        &self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(queue: usize) -> InForce {
        InForce { server: Limits::default().queue(queue), listeners: Box::default(), since: 0 }
    }

    #[test]
    fn a_view_sees_a_change_once_and_what_was_before_it() {
        let live = LiveLimits::new(set(1));
        let (mut view, mut other) = (live.view(), live.view());
        assert_eq!((view.look(&live), view.server.queue), (None, 1));
        live.replace(set(2));
        assert_eq!(view.server.queue, 1, "until it looks");
        assert_eq!(view.look(&live).as_deref(), Some(&set(1)));
        assert_eq!((view.look(&live), view.server.queue), (None, 2));
        live.replace(set(3));
        assert_eq!(other.look(&live).as_deref(), Some(&set(1)), "it has not seen the one between");
        assert_eq!((other.server.queue, live.current().server.queue), (3, 3));
    }

    #[test]
    fn a_listener_may_have_limits_of_its_own() {
        let second = Duration::from_secs(1);
        let server = Limits::default().queue(7);
        let own = OwnLimits::new(Box::new(move |limits| limits.idle_timeout(second)));
        assert_eq!(own.of(&server), server.clone().idle_timeout(second));
        assert_eq!(OwnLimits::default().of(&server), server);
    }

    /// Threads that look while another one changes see whole sets only, and at last the last one.
    #[test]
    fn threads_never_see_half_of_a_change() {
        let mut first = set(0);
        first.server.max_connections = 0;
        let live = LiveLimits::new(first);
        let last = 2_000;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (mut view, mut seen) = (live.view(), 0);
                    while seen < last {
                        view.look(&live);
                        let InForce { server, .. } = &*view;
                        assert_eq!(server.queue * 2, server.max_connections);
                        assert!(server.queue >= seen, "never an older one");
                        seen = server.queue;
                    }
                });
            }
            for queue in 1..=last {
                let mut new = set(queue);
                new.server.max_connections = queue * 2;
                live.replace(new);
            }
        });
    }
}
