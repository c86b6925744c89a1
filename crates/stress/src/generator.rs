//! How busy the generator itself is: the time that its threads ran on a processor, and the time that they waited for one.

use super::clock::Nanos;
use rustix::time::{ClockId, clock_gettime};

/// One reading of the calling thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// When it was read.
    at: Nanos,
    /// Processor time used.
    cpu: Nanos,
    /// Time ready to run without a processor to run on; 0 where the kernel does not say.
    waited: Nanos,
}

/// Shares of the time between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// On a processor, 0 to 1.
    pub(crate) cpu: f64,
    /// On a processor or waiting for one, 0 to 1.
    pub(crate) busy: f64,
}

impl Usage {
    /// Reads the calling thread's own counters.
    pub(crate) fn read(at: Nanos) -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Self {
            at,
            cpu: time.tv_sec as Nanos * 1_000_000_000 + time.tv_nsec as Nanos,
            waited: run_queue_wait().unwrap_or(0),
        }
    }

    /// The load from `self` to a later reading.
    pub(crate) fn until(&self, later: &Usage) -> Load {
        let time = later.at.saturating_sub(self.at).max(1) as f64;
        let cpu = later.cpu.saturating_sub(self.cpu) as f64;
        let waited = later.waited.saturating_sub(self.waited) as f64;
        Load { cpu: (cpu / time).min(1.0), busy: ((cpu + waited) / time).min(1.0) }
    }
}

/// The second number of `schedstat`: nanoseconds spent waiting on a run queue.
fn run_queue_wait() -> Option<Nanos> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}
