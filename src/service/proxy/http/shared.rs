//! What all connections of one gate for HTTP share.

use super::spares::Spares;
use super::words;
use crate::clock::{Nanos, nanos};
use crate::service::EventRoutes;
use crate::service::proxy::gate::{Gate, Settings};
use crate::service::proxy::resolve::BACKENDS_MAX;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A gate for HTTP.
#[derive(Debug)]
pub(in crate::service::proxy) struct HttpGate {
    pub(in crate::service::proxy) gate: Arc<Gate>,
    pub(super) spares: Spares,
    /// How long a request holds its place, as a moving average; 0 before the first.
    mean: AtomicU64,
}

impl HttpGate {
    pub(in crate::service::proxy) fn new(gate: Arc<Gate>) -> Arc<Self> {
        let spares = Spares::new(nanos(gate.settings.get().spare_time()));
        Arc::new(Self { gate, spares, mean: AtomicU64::new(0) })
    }

    /// Goes on with the settings of another gate, which has been taken over, and closes the spare connections that these
    /// have no use for.
    pub(in crate::service::proxy) fn settings_changed(&self, before: &Settings) {
        let settings = self.gate.settings.get();
        self.spares.set_idle(nanos(settings.spare_time()));
        if before.send_header != settings.send_header || before.tls != settings.tls {
            self.spares.keep(&[]);
        }
        self.tidy();
    }

    /// Closes spare connections that were unused for too long, and those to backends that the gate has no more.
    pub(super) fn tidy(&self) {
        self.spares.expire(self.gate.clock.now());
        self.spares.keep(&self.gate.backends.present());
    }

    /// The bytes that its spare connections and its checks can take.
    pub(in crate::service::proxy) fn memory_ceiling(&self) -> usize {
        /// What a check takes of its thread's stack and of the heap.
        const CHECK_BYTES: usize = 64 * 1024;
        let places = self.gate.places();
        // Each backend has at most one check under way, which holds a place.
        let checks = if self.gate.settings.get().checks_ask { places.min(BACKENDS_MAX) } else { 0 };
        places * (Spares::CONNECTION_BYTES + EventRoutes::ROUTE_BYTES) + checks * CHECK_BYTES
    }

    /// Notes how long a request has held its place.
    pub(super) fn held_for(&self, time: Nanos) {
        let before = self.mean.load(Relaxed);
        // If two threads do this at the same time one sample is lost, which does not matter to an average.
        let mean = if before == 0 { time } else { before - before / 16 + time / 16 };
        self.mean.store(mean, Relaxed);
    }

    /// How many seconds a refused client should wait before it tries again.
    pub(super) fn retry_after(&self) -> u64 {
        let (waiting, places) = self.gate.backends.pressure();
        words::retry_after(waiting, self.mean.load(Relaxed), places)
    }
}
