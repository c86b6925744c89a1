//! What all clients of one gate for HTTP share.

use super::settings::HttpGateConfig;
use super::spares::Spares;
use super::words;
use crate::clock::{Nanos, nanos};
use crate::service::proxy::gate::Gate;
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
    /// How long a request has a place, as a moving average; 0 before the first.
    mean: AtomicU64,
}

impl HttpGate {
    pub(in crate::service::proxy) fn new(gate: Arc<Gate>, config: HttpGateConfig) -> Arc<Self> {
        // A backend that is told who its client is when it is connected has one client a connection.
        let one_client = gate.settings.send_header.is_some();
        let idle = if one_client { Duration::ZERO } else { config.backend_idle };
        Arc::new(Self { gate, config, spares: Spares::new(nanos(idle)), mean: AtomicU64::new(0) })
    }

    /// A request has had its place for this long.
    pub(super) fn held_for(&self, time: Nanos) {
        let before = self.mean.load(Relaxed);
        // Two threads that meet here lose one of their samples, which is not missed.
        let mean = if before == 0 { time } else { before - before / 16 + time / 16 };
        self.mean.store(mean, Relaxed);
    }

    /// The seconds after which a client that is turned away should come again.
    pub(super) fn retry_after(&self) -> u64 {
        let (waiting, places) = self.gate.backends.pressure();
        words::retry_after(waiting, self.mean.load(Relaxed), places)
    }
}
