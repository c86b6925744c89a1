//! The orders that end a server, and the report of how it ended.

use crate::clock::{Nanos, nanos};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tidegate_units::counted;

/// How the server ended: what became of the connections and the work that it had when it was told to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// How long it took, `drain_delay` included.
    pub elapsed: Duration,
    /// Connections that ended in good order.
    pub drained: u64,
    /// Connections that were cut.
    pub aborted: u64,
    /// Datagrams that were received and not answered.
    pub datagrams_dropped: u64,
    /// Workers whose turn did not return; their threads are left behind.
    pub workers_left: usize,
    /// Sessions whose connection has ended and that were not told of it (`finish`, `Drop`), since nobody came to it in
    /// time.
    pub sessions_left: usize,
}

impl ShutdownReport {
    /// Whether nothing was cut or dropped.
    pub fn is_clean(&self) -> bool {
        self.aborted == 0 && self.datagrams_dropped == 0 && self.workers_left == 0 && self.sessions_left == 0
    }
}

impl std::fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { elapsed, drained, aborted, datagrams_dropped, workers_left, sessions_left } = self;
        let drained = counted(*drained, "connection");
        write!(f, "drained {drained} in {:.1} s, cut {aborted}", elapsed.as_secs_f64())?;
        if *datagrams_dropped > 0 {
            write!(f, ", dropped {}", counted(*datagrams_dropped, "datagram"))?;
        }
        match *workers_left {
            0 => {}
            1 => f.write_str(", left 1 worker in a turn that does not return")?,
            workers => write!(f, ", left {workers} workers in turns that do not return")?,
        }
        match *sessions_left {
            0 => {}
            1 => f.write_str(", left 1 session that was not told of its end")?,
            sessions => write!(f, ", left {sessions} sessions that were not told of their end")?,
        }
        Ok(())
    }
}

/// The orders to end, and the report when they were carried out.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    drain: AtomicBool,
    cut: AtomicBool,
    hand_over: AtomicBool,
    grace: Mutex<Option<Duration>>,
    report: Mutex<Option<ShutdownReport>>,
    done: Condvar,
}

impl Orders {
    pub(crate) fn drain(&self) {
        self.drain.store(true, SeqCst);
    }

    pub(crate) fn cut(&self) {
        self.drain.store(true, SeqCst);
        self.cut.store(true, SeqCst);
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program replaces itself"))]
    pub(crate) fn hand_over(&self) {
        self.hand_over.store(true, SeqCst);
    }

    /// Whether another process has taken the listening sockets.
    pub(crate) fn are_to_hand_over(&self) -> bool {
        self.hand_over.load(SeqCst)
    }

    pub(crate) fn set_grace(&self, grace: Duration) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = Some(grace);
    }

    /// Whether the server was told to end.
    pub(crate) fn are_to_drain(&self) -> bool {
        self.drain.load(SeqCst)
    }

    /// Whether it was told to end at once.
    pub(crate) fn are_to_cut(&self) -> bool {
        self.cut.load(SeqCst)
    }

    /// The grace that was set since the last call.
    pub(crate) fn take_grace(&self) -> Option<Nanos> {
        self.grace.lock().unwrap_or_else(PoisonError::into_inner).take().map(nanos)
    }

    pub(crate) fn finish(&self, report: ShutdownReport) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        self.done.notify_all();
    }

    /// Waits for the report, for this time at most.
    pub(crate) fn wait_timeout(&self, time: Duration) -> Option<ShutdownReport> {
        let guard = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let report = self.done.wait_timeout_while(guard, time, |report| report.is_none());
        *report.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for the report.
    pub(crate) fn wait(&self) -> ShutdownReport {
        let guard = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let report = self.done.wait_while(guard, |report| report.is_none());
        report.unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
    }
}
