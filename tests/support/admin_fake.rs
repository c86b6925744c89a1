//! A server that is only numbers, for tests of the admin endpoint.
#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate::metrics::snapshot::{Backlog, ListenerSnapshot, Observe, Phase, Refusal, Snapshot};

/// Shows whatever snapshot it was given.
pub(crate) struct Fake(Mutex<Snapshot>, AtomicBool);

impl Fake {
    /// A server with a TCP and a UDP listener that serves and has done nothing.
    pub(crate) fn serving() -> Self {
        let tcp = ListenerSnapshot {
            listener: "tcp://127.0.0.1:5000".to_owned(),
            service: "echo".to_owned(),
            backlog: Some(Backlog { connections: 0, limit: 128, drops: 0 }),
            ..ListenerSnapshot::default()
        };
        let udp = ListenerSnapshot {
            listener: "udp://127.0.0.1:5000".to_owned(),
            service: "time".to_owned(),
            datagram: true,
            ..ListenerSnapshot::default()
        };
        let seen = Snapshot {
            phase: Phase::Serving,
            uptime: Duration::from_secs(5),
            listeners: vec![tcp, udp],
            connections_limit: 10_000,
            queue_limit: 128,
            workers_limit: 32,
            ..Snapshot::default()
        };
        Self(Mutex::new(seen), AtomicBool::new(false))
    }

    /// Whether every snapshot panics.
    pub(crate) fn panic(&self, panics: bool) {
        self.1.store(panics, Ordering::SeqCst);
    }

    /// The numbers, to change them.
    pub(crate) fn change(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observe for Fake {
    fn snapshot(&self) -> Snapshot {
        assert!(!self.1.load(Ordering::SeqCst), "the test wants a panic");
        self.change().clone()
    }

    fn refusals(&self) -> Vec<Refusal> {
        Vec::new()
    }

    fn limits(&self) -> Vec<(&'static str, String)> {
        vec![("workers", "32".to_owned()), ("queue", "128".to_owned())]
    }
}
