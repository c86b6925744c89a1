//! What a turn of a connection that speaks HTTP counts, and its time.

use crate::clock::Nanos;
use crate::metrics::web::{WebCounts, WebLedger};
use crate::sys::Clock;
use std::cell::Cell;
use std::sync::Arc;

/// The counts of a listener that speaks HTTP, for one turn.
///
/// Most turns answer one request, so the clock that is read at the end of a turn is that request's too, and no other is
/// read for it.
#[derive(Debug)]
pub(crate) struct WebTurn<'a> {
    pub(crate) counts: &'a Arc<WebCounts>,
    pub(crate) ledger: &'a WebLedger,
    clock: Clock,
    /// When the turn began.
    began: Nanos,
    /// When the request began that was answered last, if its time is not known yet; 0 for none.
    answered: Cell<Nanos>,
}

impl<'a> WebTurn<'a> {
    /// A turn of this worker that begins now.
    pub(crate) fn new(counts: &'a Arc<WebCounts>, worker: usize, clock: Clock, now: Nanos) -> Self {
        let ledger = counts.of_worker(worker);
        Self { counts, ledger, clock, began: now, answered: Cell::new(0) }
    }

    /// When the turn began.
    pub(super) fn began(&self) -> Nanos {
        self.began
    }

    /// A request that began then was answered in whole.
    pub(super) fn answered(&self, began: Nanos) {
        self.end_of_last(|| self.clock.now());
        self.answered.set(began.max(1));
    }

    /// Another request begins in the same turn, now.
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
