//! The counters of HTTP and WebSockets, for each listener that speaks them. Each worker has its own counters for what
//! changes with each request and message. Handshakes and ends of WebSockets are rare, so threads share their counters.

use super::histogram::{Histogram, HistogramSnapshot};
use super::tally::Tally;
use crate::reason::SocketHandshake;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The first digits of an answer's status, as labels.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The close codes that have a label of their own, the ranges that share one, and what stands for no code.
pub(crate) const CLOSES: [&str; 14] = [
    "1000", "1001", "1002", "1003", "1007", "1008", "1009", "1011", "1013", "other", "3xxx", "4xxx", "none",
    "lost",
];

/// How a WebSocket ended, as far as close frames tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketEnd {
    /// With this code, or with a close frame that had none.
    Code(Option<u16>),
    /// Without a close frame.
    Lost,
}

impl SocketEnd {
    /// Its place in [`CLOSES`].
    fn place(self) -> usize {
        match self {
            SocketEnd::Code(Some(code)) => match code {
                1000..=1003 => usize::from(code - 1000),
                1007..=1009 => usize::from(code - 1003),
                1011 => 7,
                1013 => 8,
                3000..=3999 => 10,
                4000..=4999 => 11,
                _ => 9,
            },
            SocketEnd::Code(None) => 12,
            SocketEnd::Lost => 13,
        }
    }
}

/// One worker's counts for one listener; only that worker writes there.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WebLedger {
    requests: [Tally; CLASSES.len()],
    duration: Histogram,
    request_body: Tally,
    response_body: Tally,
    messages_received: Tally,
    messages_sent: Tally,
}

impl WebLedger {
    /// What it takes of the machine.
    pub(crate) const BYTES: usize = size_of::<Self>() + Histogram::BYTES;

    /// A request was answered with this status.
    pub(crate) fn answered(&self, status: u16) {
        if let Some(count) = self.requests.get((usize::from(status) / 100).wrapping_sub(1)) {
            count.add(1);
        }
    }

    /// A request took this time, from its first byte to the end of its answer.
    pub(crate) fn took(&self, nanos: u64) {
        self.duration.observe(nanos);
    }

    /// Bytes of a request's body came.
    pub(crate) fn request_body(&self, bytes: usize) {
        self.request_body.add(bytes as i64);
    }

    /// Bytes of an answer's body were sent.
    pub(crate) fn response_body(&self, bytes: usize) {
        self.response_body.add(bytes as i64);
    }

    /// A message came over a WebSocket.
    pub(crate) fn message_received(&self) {
        self.messages_received.add(1);
    }

    /// A message was sent over a WebSocket.
    pub(crate) fn message_sent(&self) {
        self.messages_sent.add(1);
    }
}

/// The counts of one listener.
#[derive(Debug)]
pub(crate) struct WebCounts {
    workers: Box<[WebLedger]>,
    handshakes: [AtomicU64; SocketHandshake::COUNT],
    closes: [AtomicU64; CLOSES.len()],
}

/// What is known of the HTTP and the WebSockets of one listener.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WebSnapshot {
    /// Requests that were answered, by the first digit of the status: see [`CLASSES`].
    pub requests: [u64; CLASSES.len()],
    /// From a request's first byte to the end of its answer.
    pub duration: HistogramSnapshot,
    /// Bytes of the bodies of requests.
    pub request_body_bytes: u64,
    /// Bytes of the bodies of answers.
    pub response_body_bytes: u64,
    /// Messages that came over WebSockets.
    pub messages_received: u64,
    /// Messages that were sent over WebSockets.
    pub messages_sent: u64,
    /// Requests for a WebSocket, by [`SocketHandshake`].
    pub handshakes: [u64; SocketHandshake::COUNT],
    /// WebSockets that ended, by close code.
    pub closes: [u64; CLOSES.len()],
}

impl WebCounts {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers).map(|_| WebLedger::default()).collect(),
            handshakes: Default::default(),
            closes: Default::default(),
        }
    }

    /// The counts that this worker alone writes.
    pub(crate) fn of_worker(&self, worker: usize) -> &WebLedger {
        &self.workers[worker]
    }

    /// A request for a WebSocket ended so.
    pub(crate) fn handshake(&self, handshake: SocketHandshake) {
        self.handshakes[handshake as usize].fetch_add(1, Relaxed);
    }

    /// A WebSocket ended.
    pub(crate) fn closed(&self, end: SocketEnd) {
        self.closes[end.place()].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> WebSnapshot {
        // Ends before beginnings, so that no more sockets end than were opened.
        let closes = self.closes.each_ref().map(|count| count.load(Relaxed));
        let handshakes = self.handshakes.each_ref().map(|count| count.load(Relaxed));
        let mut out = WebSnapshot { handshakes, closes, ..WebSnapshot::default() };
        for ledger in &self.workers {
            for (sum, count) in out.requests.iter_mut().zip(&ledger.requests) {
                *sum += count.get() as u64;
            }
            ledger.duration.add_to(&mut out.duration);
            out.request_body_bytes += ledger.request_body.get() as u64;
            out.response_body_bytes += ledger.response_body.get() as u64;
            out.messages_received += ledger.messages_received.get() as u64;
            out.messages_sent += ledger.messages_sent.get() as u64;
        }
        out
    }
}

impl WebSnapshot {
    /// All requests that were answered.
    pub fn requests_total(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// WebSockets that are open.
    pub fn sockets(&self) -> u64 {
        let opened = self.handshakes[SocketHandshake::Opened as usize];
        opened.saturating_sub(self.closes.iter().sum())
    }

    /// The ends of WebSockets with their labels.
    pub fn closes_by_code(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        CLOSES.into_iter().zip(self.closes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_count_is_summed() {
        let counts = WebCounts::new(2);
        for (worker, status) in [(0, 200), (0, 204), (1, 101), (1, 503), (1, 404), (0, 302)] {
            counts.of_worker(worker).answered(status);
        }
        counts.of_worker(0).request_body(3);
        counts.of_worker(1).request_body(4);
        counts.of_worker(1).took(2_000_000);
        counts.of_worker(0).message_received();
        counts.of_worker(0).message_sent();
        let seen = counts.snapshot();
        assert_eq!((seen.requests, seen.requests_total()), ([1, 2, 1, 1, 1], 6));
        assert_eq!((seen.request_body_bytes, seen.response_body_bytes, seen.duration.count()), (7, 0, 1));
        assert_eq!((seen.messages_received, seen.messages_sent), (1, 1));
    }

    #[test]
    fn a_status_that_is_none_of_http_is_not_counted() {
        let ledger = WebLedger::default();
        [0, 99, 600, u16::MAX].iter().for_each(|&status| ledger.answered(status));
        assert!(ledger.requests.iter().all(|count| count.get() == 0));
    }

    #[test]
    fn every_close_code_has_its_label() {
        for (code, label) in [
            (1000, "1000"),
            (1001, "1001"),
            (1002, "1002"),
            (1003, "1003"),
            (1007, "1007"),
            (1008, "1008"),
            (1009, "1009"),
            (1010, "other"),
            (1011, "1011"),
            (1012, "other"),
            (1013, "1013"),
            (1014, "other"),
            (3000, "3xxx"),
            (4999, "4xxx"),
        ] {
            assert_eq!(CLOSES[SocketEnd::Code(Some(code)).place()], label, "{code}");
        }
        assert_eq!(CLOSES[SocketEnd::Code(None).place()], "none");
        assert_eq!(CLOSES[SocketEnd::Lost.place()], "lost");
    }

    #[test]
    fn sockets_that_are_open_are_those_that_were_opened_and_have_not_ended() {
        let counts = WebCounts::new(1);
        (0..3).for_each(|_| counts.handshake(SocketHandshake::Opened));
        counts.handshake(SocketHandshake::Origin);
        counts.closed(SocketEnd::Lost);
        counts.closed(SocketEnd::Code(Some(1000)));
        assert_eq!(counts.snapshot().sockets(), 1);
    }
}
