//! The handle of a running server: its owner reads addresses and figures from it, changes limits, and ends the server.

use super::change::{LimitChange, SetLimitsError};
use super::keep::orders::{Orders, ShutdownReport};
use super::shared::Shared;
use crate::limits::Limits;
use crate::metrics::snapshot::{Observe, Snapshot};
use crate::transport::address::Address;
use std::sync::Arc;
use std::time::Duration;

/// A running server. Dropping it cuts what is open and ends the server; [`shutdown`](Self::shutdown)
/// ends it in good order.
#[must_use = "dropping it ends the server"]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: Arc<Orders>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl Handle {
    /// The real addresses of the listeners, in the order they were given.
    pub fn addresses(&self) -> Vec<Address> {
        self.shared.addresses()
    }

    /// Everything that is counted, consistent in itself.
    pub fn stats(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// What the admin endpoint and the metrics look at.
    pub fn observe(&self) -> Arc<dyn Observe> {
        self.shared.clone()
    }

    /// A cloneable order to end, for signal handlers and other threads.
    pub fn trigger(&self) -> Trigger {
        Trigger { shared: self.shared.clone(), orders: self.orders.clone() }
    }

    /// Changes limits while the server serves, without dropping anyone, and says what has changed. All of them change or,
    /// if one cannot, none. [`LimitRow::live`](crate::limits::LimitRow::live) says which can.
    ///
    /// A turn that is under way ends by the limits that it began with. Connections that are idle have the new times from
    /// when they became idle. A WebSocket keeps the `max_message`, `ws_ping` and `output_per_connection` that it was opened
    /// with.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{Echo, Limits, Server};
    ///
    /// let limits = Limits::default().workers(2);
    /// let handle = Server::builder().limits(limits.clone()).listen("127.0.0.1:0", Echo)?.bind()?.serve()?;
    /// let changes = handle.set_limits(limits.clone().idle_timeout(Duration::from_secs(5)))?;
    /// assert_eq!(changes[0].to_string(), "idle-timeout 60s -> 5s");
    /// let error = handle.set_limits(limits.worker_nice(0)).unwrap_err();
    /// assert_eq!(error.to_string(), "`worker-nice` takes effect at a restart");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A limit is out of its range, a relation between limits does not hold, or a limit changes that is fixed.
    pub fn set_limits(&self, limits: Limits) -> Result<Vec<LimitChange>, SetLimitsError> {
        let listeners = &self.shared.listeners;
        self.shared.set_limits(limits, &|index, server| listeners[index].own.of(server))
    }

    /// What that would change, with what `own` makes of them for the listener at each position, where listeners take `datagrams`
    /// or none does. Nothing changes by the question.
    #[cfg(feature = "cli")]
    pub(crate) fn would_change(
        &self,
        limits: Limits,
        own: &dyn Fn(usize, &Limits) -> Limits,
        datagrams: bool,
    ) -> Result<Vec<LimitChange>, SetLimitsError> {
        let listeners = &self.shared.listeners;
        let own = |index: usize, server: &_| own(listeners[index].position, server);
        let wanted = super::change::WantedListeners { taken: listeners.len(), datagrams };
        self.shared.would_change(limits, &own, wanted).map(|(_, changes)| changes)
    }

    /// Gives a turn to each session of a listener that has asked to be called at a time.
    #[cfg(feature = "cli")]
    pub(crate) fn call_sessions(&self, position: usize) {
        let listeners = self.shared.listeners.iter();
        if let Some(listener) = listeners.map(|listener| listener.position).position(|own| own == position) {
            self.shared.call_sessions(listener);
        }
    }

    /// Clients that are not served at a listener are told this from now on; `None` for what its service says.
    #[cfg(feature = "cli")]
    pub(crate) fn set_busy_reply(&self, position: usize, words: Option<&[u8]>) {
        for listener in self.shared.listeners.iter().filter(|listener| listener.position == position) {
            listener.set_words(words);
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.shared.limits.current().server.clone()
    }

    /// Waits until the server has ended, by a [`Trigger`] or [`end_after`](super::Builder::end_after).
    pub fn wait(&self) -> ShutdownReport {
        self.orders.wait()
    }

    /// Waits until the server has ended, for this time at most; `None` if it has not ended by then.
    pub fn wait_timeout(&self, time: Duration) -> Option<ShutdownReport> {
        self.orders.wait_timeout(time)
    }

    /// Ends the server: listeners close, idle connections end, requests already sent are answered,
    /// and what is left after `grace` is cut. Waits for that. The grace counts from the end of
    /// `drain_delay`, and stands in for `drain_timeout`.
    pub fn shutdown(self, grace: Duration) -> ShutdownReport {
        self.orders.set_grace(grace);
        self.trigger().drain();
        self.orders.wait()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.trigger().cut();
        self.orders.wait();
    }
}

/// The order to end a server.
#[derive(Clone)]
pub struct Trigger {
    pub(super) shared: Arc<Shared>,
    pub(super) orders: Arc<Orders>,
}

impl std::fmt::Debug for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trigger").finish_non_exhaustive()
    }
}

impl Trigger {
    /// Ends the server in good order; returns at once.
    pub fn drain(&self) {
        self.orders.drain();
        self.shared.crew.wake_keeper();
    }

    /// Cuts what is open and ends the server; returns at once.
    pub fn cut(&self) {
        self.orders.cut();
        self.shared.crew.wake_keeper();
    }
}
