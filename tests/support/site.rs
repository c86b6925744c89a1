//! A server in this process, whose counts are checked when it ends.

use super::{Client, eventually};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tidegate::metrics::snapshot::{ListenerSnapshot, Observe, Snapshot};
use tidegate::reason::{CloseReason, DropReason, HandshakeFailure};
use tidegate::{Builder, Handle, Limits, Server, Service, ShutdownReport};

pub(crate) struct Site {
    handle: Option<Handle>,
    observe: Arc<dyn Observe>,
    pub(crate) address: SocketAddr,
}

impl Site {
    /// Serves with these limits.
    #[track_caller]
    pub(crate) fn serve(limits: Limits, service: impl Service) -> Self {
        Self::build(Server::builder().limits(limits), service)
    }

    /// Serves what the builder describes, on a port of its own.
    #[track_caller]
    pub(crate) fn build(builder: Builder, service: impl Service) -> Self {
        Self::listening(builder.listen("127.0.0.1:0", service).unwrap())
    }

    /// Serves what the builder describes, with the listener it has.
    #[track_caller]
    pub(crate) fn listening(builder: Builder) -> Self {
        let bound = builder.bind().unwrap();
        let address = bound.addresses()[0].ip().expect("it listens on TCP");
        let handle = bound.serve().unwrap();
        let observe = handle.observe();
        Self { handle: Some(handle), observe, address }
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("it runs until it ends")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// All counts; every reading is conserved.
    #[track_caller]
    pub(crate) fn stats(&self) -> Snapshot {
        let stats = self.observe.snapshot();
        assert!(stats.conserved(), "not conserved: {:?}", stats.listeners);
        stats
    }

    #[track_caller]
    pub(crate) fn counts(&self) -> ListenerSnapshot {
        self.stats().listeners.remove(0)
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.counts().dropped[reason as usize]
    }

    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.counts().closed[reason as usize]
    }

    /// Handshakes of TLS that failed for this reason.
    pub(crate) fn failed(&self, failure: HandshakeFailure) -> u64 {
        self.counts().handshakes.expect("a listener with TLS").failed[failure as usize]
    }

    /// Waits until the counts are as `holds` wants them.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&ListenerSnapshot) -> bool) -> ListenerSnapshot {
        let mut last = self.counts();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                last = self.counts();
                holds(&last).then(|| last.clone())
            })
        }));
        found.unwrap_or_else(|_| panic!("it did not happen: {what}; the counts are {last:#?}"))
    }

    #[track_caller]
    pub(crate) fn until_dropped(&self, reason: DropReason, count: u64) {
        self.until(&format!("{count} dropped as {reason}"), |now| now.dropped[reason as usize] == count);
    }

    #[track_caller]
    pub(crate) fn until_closed(&self, reason: CloseReason, count: u64) {
        self.until(&format!("{count} closed as {reason}"), |now| now.closed[reason as usize] == count);
    }

    /// Ends in good order, and says how that went.
    #[track_caller]
    pub(crate) fn end(self) -> ShutdownReport {
        self.end_within(Duration::from_secs(10))
    }

    #[track_caller]
    pub(crate) fn end_within(mut self, grace: Duration) -> ShutdownReport {
        let report = self.handle.take().expect("it ends once").shutdown(grace);
        self.settled();
        assert!(report.elapsed < grace + Duration::from_secs(5), "{report}");
        report
    }

    /// After the end nothing is open, and every accepted connection was dropped or closed.
    #[track_caller]
    fn settled(&self) {
        let stats = self.stats();
        for now in &stats.listeners {
            assert_eq!(now.accepted, now.dropped_total() + now.closed_total(), "{now:?}");
            assert_eq!(now.open(), 0, "{now:?}");
        }
        assert_eq!(stats.pending_output_bytes, 0, "replies are kept for nobody");
        assert_eq!(stats.pending_input_bytes, 0, "half a line is kept of nobody");
        let most = stats.uptime * stats.workers_limit as u32;
        assert!(stats.worker_busy <= most, "workers were busy for {:?} of {most:?}", stats.worker_busy);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            drop(handle);
            if !std::thread::panicking() {
                self.settled();
            }
        }
    }
}
