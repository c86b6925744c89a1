//! A server that is only numbers, for tests of the admin endpoint.
#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tidegate::metrics::snapshot::{AcceptQueue, ListenerSnapshot, Observe, Phase, RefusalEntry, Snapshot};

/// Shows whatever snapshot it was given.
pub(crate) struct Fake(Mutex<Snapshot>, AtomicBool);

impl Fake {
    /// A server with a TCP and a UDP listener that serves and has done nothing.
    pub(crate) fn serving() -> Self {
        let mut tcp = listener("tcp://127.0.0.1:5000", "echo");
        let mut queue = AcceptQueue::default();
        queue.limit = 128;
        tcp.backlog = Some(queue);
        let mut udp = listener("udp://127.0.0.1:5000", "time");
        udp.datagram = true;
        let mut seen = Snapshot::default();
        seen.phase = Phase::Serving;
        seen.uptime = Duration::from_secs(5);
        seen.listeners = vec![tcp, udp];
        (seen.connections_limit, seen.queue_limit, seen.workers_limit) = (10_000, 128, 32);
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

fn listener(url: &str, service: &str) -> ListenerSnapshot {
    let mut listener = ListenerSnapshot::default();
    (listener.listener, listener.service) = (url.to_owned(), service.to_owned());
    listener
}

impl Observe for Fake {
    fn snapshot(&self) -> Snapshot {
        assert!(!self.1.load(Ordering::SeqCst), "the test wants a panic");
        self.change().clone()
    }

    fn refusals(&self) -> Vec<RefusalEntry> {
        Vec::new()
    }

    fn limits(&self) -> Vec<(&'static str, String)> {
        vec![("workers", "32".to_owned()), ("queue", "128".to_owned())]
    }
}
