//! What a turn of an HTTP connection counts, and how its requests are timed.

use super::http::wire::RequestHead;
use super::http::{AccessEntry, AccessLog};
use crate::clock::Nanos;
use crate::metrics::web::{WebCounts, WebLedger};
use crate::sys::Clock;
use crate::transport::address::ClientAddress;
use std::cell::Cell;
use std::sync::Arc;

/// The counts of a listener that speaks HTTP, for one turn.
///
/// Most turns answer one request. The clock that is read at the end of a turn gives the time of that request too, and
/// no other reading is needed.
#[derive(Debug)]
pub(crate) struct WebTurn<'a> {
    pub(crate) counts: &'a Arc<WebCounts>,
    pub(crate) ledger: &'a WebLedger,
    /// Where requests are logged, and the listener's name there.
    log: Option<(&'a AccessLog, &'a str)>,
    clock: Clock,
    /// When the turn began.
    began: Nanos,
    /// When the last answered request began, if its time is not counted yet; 0 for none.
    answered: Cell<Nanos>,
}

impl<'a> WebTurn<'a> {
    /// A turn of this worker begins now.
    pub(crate) fn new(counts: &'a Arc<WebCounts>, worker: usize, clock: Clock, now: Nanos) -> Self {
        let ledger = counts.of_worker(worker);
        Self { counts, ledger, log: None, clock, began: now, answered: Cell::new(0) }
    }

    /// With a log of the requests to this listener.
    pub(crate) fn logged(mut self, log: Option<&'a AccessLog>, listener: &'a str) -> Self {
        self.log = log.map(|log| (log, listener));
        self
    }

    /// What is noted for the log of a request that began then; of one that cannot be read there is no head.
    #[inline]
    pub(super) fn entry(
        &self,
        client: ClientAddress,
        began: Nanos,
        head: Option<&RequestHead<'_>>,
    ) -> Option<Box<AccessEntry>> {
        let (log, listener) = self.log?;
        Some(AccessEntry::new(log, listener, client, (self.clock, began), head))
    }

    /// When the turn began.
    pub(super) fn began(&self) -> Nanos {
        self.began
    }

    /// A request that began at this time has been answered in full.
    pub(super) fn answered(&self, began: Nanos) {
        self.end_of_last(|| self.clock.now());
        self.answered.set(began.max(1));
    }

    /// Another request begins now, in the same turn.
    pub(super) fn another(&self) -> Nanos {
        let now = self.clock.now();
        self.end_of_last(|| now);
        now
    }

    /// The turn ends now.
    pub(crate) fn end(&self, now: Nanos) {
        self.end_of_last(|| now);
    }

    fn end_of_last(&self, now: impl FnOnce() -> Nanos) {
        let began = self.answered.replace(0);
        if began != 0 {
            self.ledger.took(now().saturating_sub(began));
        }
    }
}
