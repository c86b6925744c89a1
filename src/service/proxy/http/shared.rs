//! What all connections of one gate for HTTP share.

use super::settings::HttpGateConfig;
use super::spares::Spares;
use super::words;
use crate::clock::{Nanos, nanos};
use crate::service::proxy::gate::Gate;
use crate::service::proxy::resolve::BACKENDS_MAX;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A gate for HTTP.
#[derive(Debug)]
pub(in crate::service::proxy) struct HttpGate {
    pub(in crate::service::proxy) gate: Arc<Gate>,
    pub(super) config: HttpGateConfig,
    pub(super) spares: Spares,
    /// How long a request holds its place, as a moving average; 0 before the first.
    mean: AtomicU64,
}

impl HttpGate {
    pub(in crate::service::proxy) fn new(gate: Arc<Gate>, config: HttpGateConfig) -> Arc<Self> {
        // A PROXY header names the client of the whole connection, so no other client may use that connection.
        let one_client = gate.settings.send_header.is_some();
        let idle = if one_client { Duration::ZERO } else { config.backend_idle };
        Arc::new(Self { gate, config, spares: Spares::new(nanos(idle)), mean: AtomicU64::new(0) })
    }

    /// The bytes that its spare connections and its checks can take.
    pub(in crate::service::proxy) fn memory_ceiling(&self) -> usize {
        /// What a check takes of its thread's stack and of the heap.
        const CHECK_BYTES: usize = 64 * 1024;
        let places = self.gate.places();
        // Each backend has at most one check under way, which holds a place.
        let checks = if self.gate.settings.checks_ask { places.min(BACKENDS_MAX) } else { 0 };
        places * Spares::CONNECTION_BYTES + checks * CHECK_BYTES
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
