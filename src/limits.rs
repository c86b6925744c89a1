//! Every limit of a server in one place: what it bounds, its default, and why that default.
//!
//! Nothing in a server grows past a limit that is named here. [`Limits::check`] asserts the
//! relations between them before anything starts.

use std::time::Duration;

/// What is done with a newcomer when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// Refuse it at once: with the service's busy reply, or with RST when it has none.
    Reject,
    /// Stop accepting for at most so long, then refuse. Meanwhile newcomers wait in the kernel's
    /// backlog. (A datagram is dropped at once.)
    Wait(Duration),
    /// Refuse the newcomer that has waited longest, and admit this one.
    DropOldest,
}

impl std::fmt::Display for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Overload::Reject => f.write_str("reject"),
            Overload::Wait(time) => write!(f, "wait:{}", show_time(*time)),
            Overload::DropOldest => f.write_str("drop-oldest"),
        }
    }
}

/// Every limit of a server. Start from [`Limits::default`] and change what must differ.
///
/// ```
/// use std::time::Duration;
/// let limits = tidegate::Limits { queue: 16, idle_timeout: Duration::from_secs(5), ..Default::default() };
/// assert!(limits.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Threads that run services. Default 32.
    pub workers: usize,
    /// Newcomers and datagrams that may wait for a worker; one more is refused. 0 means hand-over only: a
    /// newcomer is admitted while a worker is free. Default 128.
    pub queue: usize,
    /// Connections open at once, whatever they do. Default 10,000.
    pub max_connections: usize,
    /// Connections open at once from one source; 0 means no such limit. Default 0.
    pub max_per_source: usize,
    /// New connections a second from one source, with a burst of as many; 0 means no such limit.
    /// Default 0.
    pub source_rate: f64,
    /// How many leading bits of an IPv4 and of an IPv6 address make a source. Default 32 and 128.
    pub source_prefix: (u8, u8),
    /// What is done with a newcomer when the queue is full. Default [`Overload::Reject`].
    pub overload: Overload,
    /// A newcomer that waited longer for a worker is shed. Default 5 s.
    pub queue_timeout: Duration,
    /// When the queue has not been empty for 100 ms, newcomers that waited longer than this are
    /// shed (controlled delay); zero means off. Default zero.
    pub queue_target: Duration,
    /// Explicit refusals a second; past it newcomers stay in the kernel's backlog, and what does
    /// not fit there the kernel drops (Linux without a word: that client tries again after a second
    /// and more). A refusal costs an accept and a close, work that a flood must not be able to order
    /// without end. Default 500 (measured: 869 of 900 useful replies a second at nine times the
    /// load). Who is refused for its source (`max_per_source`, `source_rate`) has been accepted
    /// already: past this rate such a connection is reset without a word.
    pub refusal_rate: f64,
    /// A request must be whole so long after its first byte. Default 10 s. (A `handler`: see
    /// [`Blocking`](crate::service::Blocking).)
    pub read_timeout: Duration,
    /// A client must take some of its replies within this time. Default 10 s.
    pub write_timeout: Duration,
    /// A connection on which nothing is asked for so long is closed. Default 60 s. (A `handler`: see
    /// [`Blocking`](crate::service::Blocking).)
    pub idle_timeout: Duration,
    /// The longest line of a line service, its end not counted, in bytes. Default 64 KiB.
    pub max_line: usize,
    /// What the half-read lines of all clients may take together, in bytes; a client whose line needs
    /// more room than is left is ended. Default 64 MiB (a thousand lines of the longest kind).
    pub input_total: usize,
    /// Replies kept for one connection whose client does not read, in bytes. Default 1 MiB.
    pub output_per_connection: usize,
    /// Replies kept for all connections together, in bytes. Default 64 MiB.
    pub output_total: usize,
    /// Bytes that one turn may read before others have theirs. Default 256 KiB.
    pub turn_bytes: usize,
    /// Polite closes under way at once; past it a close does not wait for the client. Default 256.
    pub lingering: usize,
    /// How long a polite close waits for the client's FIN. Default 1 s.
    pub linger_timeout: Duration,
    /// Bytes that a polite close reads and discards. Default 64 KiB.
    pub linger_bytes: usize,
    /// After the order to end: how long the server goes on as before while `/readyz` says 503, so
    /// that load balancers can look away. Default 0.
    pub drain_delay: Duration,
    /// How long admitted work may take to finish after that. Default 30 s.
    pub drain_timeout: Duration,
    /// Niceness of the workers above that of the process, 0 to 19: acceptor, parker and admin run
    /// first, or under load the server falls behind its own queue. Default 10.
    pub worker_nice: i32,
    /// How long a worker without work looks on before it sleeps, while clients answer so quickly that
    /// it pays: it saves both sides a switch of threads. 0 turns it off, 10 ms at most. Default 50 us
    /// (what a wake-up costs, twice to ten times over).
    pub busy_poll: Duration,
    /// Connections the kernel may hold for accept, per listener; 0 means as many as `queue`, and
    /// at least 16. Default 0. (A deep backlog is a queue without a bound on time.)
    pub backlog: usize,
    /// A worker in one turn for longer is reported as stuck. Default 10 s.
    pub stuck_threshold: Duration,
    /// Descriptors kept for everything that is not a connection. Default 128.
    pub fd_reserve: usize,
    /// The largest datagram that is taken, in bytes; a reply may have 64 more. Default 2,048.
    pub max_datagram: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: 32,
            queue: 128,
            max_connections: 10_000,
            max_per_source: 0,
            source_rate: 0.0,
            source_prefix: (32, 128),
            overload: Overload::Reject,
            queue_timeout: Duration::from_secs(5),
            queue_target: Duration::ZERO,
            refusal_rate: 500.0,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_line: 64 * 1024,
            input_total: 64 * 1024 * 1024,
            output_per_connection: 1024 * 1024,
            output_total: 64 * 1024 * 1024,
            turn_bytes: 256 * 1024,
            lingering: 256,
            linger_timeout: Duration::from_secs(1),
            linger_bytes: 64 * 1024,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            worker_nice: 10,
            busy_poll: Duration::from_micros(50),
            backlog: 0,
            stuck_threshold: Duration::from_secs(10),
            fd_reserve: 128,
            max_datagram: 2048,
        }
    }
}

/// A limit, or a relation between limits, that cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LimitError(pub(crate) String);

impl Limits {
    /// The most workers that make sense to ask for: each is a thread.
    pub const WORKERS_MAX: usize = 4096;
    /// The most connections a table can name.
    pub const CONNECTIONS_MAX: usize = 1 << 24;

    /// The most bytes that a limit of bytes can be: more than any machine has.
    pub const BYTES_MAX: usize = 1 << 44;

    /// The kernel's backlog that follows from these limits.
    pub fn effective_backlog(&self) -> usize {
        match self.backlog {
            0 => self.queue.clamp(16, 4096),
            n => n,
        }
    }

    /// The bytes these limits can make the server hold, thread stacks and what a service keeps in
    /// sessions of its own aside: connections, the queue, workers' buffers, half-read lines and kept
    /// output.
    pub fn memory_ceiling(&self) -> usize {
        self.max_connections * crate::server::CONNECTION_BYTES
            + self.workers * crate::server::WORKER_BUFFER_BYTES
            + self.input_total
            + self.output_total
    }

    /// The bytes that datagrams can make the server hold beside that, where it has a listener for
    /// them: a place for each that waits or is answered, and a batch for each thread that receives.
    pub fn datagram_memory_ceiling(&self) -> usize {
        crate::server::datagram_memory_ceiling(self)
    }

    /// Checks each limit and the relations between them.
    pub fn check(&self) -> Result<(), LimitError> {
        let ensure = |ok: bool, why: String| if ok { Ok(()) } else { Err(LimitError(why)) };
        let workers_max = Self::WORKERS_MAX;
        ensure(
            (1..=workers_max).contains(&self.workers),
            format!("workers is {}: it must be from 1 to {workers_max}", self.workers),
        )?;
        ensure(
            (1..=Self::CONNECTIONS_MAX).contains(&self.max_connections),
            format!(
                "max-connections is {}: it must be from 1 to {}",
                self.max_connections,
                Self::CONNECTIONS_MAX
            ),
        )?;
        ensure(
            self.queue <= self.max_connections,
            format!(
                "queue is {} and max-connections {}: who waits is connected, so queue must not be larger",
                self.queue, self.max_connections
            ),
        )?;
        ensure(
            self.source_prefix.0 <= 32 && self.source_prefix.1 <= 128,
            format!("source-prefix is {},{}: at most 32,128", self.source_prefix.0, self.source_prefix.1),
        )?;
        ensure(
            (0..=19).contains(&self.worker_nice),
            format!("worker-nice is {}: it must be from 0 to 19", self.worker_nice),
        )?;
        ensure(
            self.busy_poll <= Duration::from_millis(10),
            format!("busy-poll is {}: it must be at most 10ms", show_time(self.busy_poll)),
        )?;
        ensure(
            self.refusal_rate.is_finite() && self.refusal_rate >= 0.0,
            format!("refusal-rate is {}: it must be 0 or more", self.refusal_rate),
        )?;
        ensure(
            self.source_rate.is_finite() && self.source_rate >= 0.0,
            format!("source-rate is {}: it must be 0 or more", self.source_rate),
        )?;
        let bytes_max = Self::BYTES_MAX;
        let sizes = [
            ("input-total", self.input_total),
            ("output-total", self.output_total),
            ("turn-bytes", self.turn_bytes),
            ("linger-bytes", self.linger_bytes),
        ];
        for (name, bytes) in sizes {
            ensure(
                (1..=bytes_max).contains(&bytes),
                format!("{name} is {bytes}: it must be from 1 to {bytes_max} bytes"),
            )?;
        }
        ensure(
            self.lingering <= Self::CONNECTIONS_MAX && self.fd_reserve <= Self::CONNECTIONS_MAX,
            format!(
                "lingering is {} and fd-reserve {}: at most {}",
                self.lingering,
                self.fd_reserve,
                Self::CONNECTIONS_MAX
            ),
        )?;
        ensure(self.max_line >= 1, "max-line is 0: it must be at least 1 byte".to_owned())?;
        ensure(
            // With the byte that is too many, and a `\r`.
            self.max_line.saturating_add(2) <= self.input_total,
            format!(
                "max-line is {} and input-total {}: the longest line and 2 bytes must fit",
                self.max_line, self.input_total
            ),
        )?;
        ensure(
            self.max_line <= self.output_per_connection,
            format!(
                "max-line is {} and output-per-connection {}: a reply to the longest line must fit",
                self.max_line, self.output_per_connection
            ),
        )?;
        ensure(
            self.output_per_connection <= self.output_total,
            format!(
                "output-per-connection is {} and output-total {}: one must fit in all",
                self.output_per_connection, self.output_total
            ),
        )?;
        ensure(self.backlog <= i32::MAX as usize, format!("backlog is {}: too large", self.backlog))?;
        ensure(
            (1..=65_507).contains(&self.max_datagram),
            format!("max-datagram is {}: it must be from 1 to 65507", self.max_datagram),
        )?;
        let times = [
            ("read-timeout", self.read_timeout),
            ("write-timeout", self.write_timeout),
            ("idle-timeout", self.idle_timeout),
            ("queue-timeout", self.queue_timeout),
        ];
        for (name, time) in times {
            ensure(
                time >= Duration::from_millis(1) && time <= Duration::from_secs(30 * 86_400),
                format!("{name} is {}: it must be from 1ms to 30 days", show_time(time)),
            )?;
        }
        Ok(())
    }

    /// Names, values and meanings, in the order people look for them.
    pub fn table(&self) -> Vec<LimitRow> {
        let row = |name, value: String, why| LimitRow { name, value, why };
        let or_off = |on: bool, value: String| if on { value } else { "off".to_owned() };
        vec![
            row("workers", self.workers.to_string(), "threads that run services"),
            row(
                "queue",
                self.queue.to_string(),
                "newcomers that may wait for a worker; 0: only while one is free",
            ),
            row("max-connections", self.max_connections.to_string(), "connections open at once"),
            row(
                "max-per-source",
                or_off(self.max_per_source > 0, self.max_per_source.to_string()),
                "connections open at once from one source",
            ),
            row(
                "source-rate",
                or_off(self.source_rate > 0.0, format!("{}/s", self.source_rate)),
                "new connections a second from one source",
            ),
            row(
                "source-prefix",
                format!("{},{}", self.source_prefix.0, self.source_prefix.1),
                "leading bits of an IPv4 and an IPv6 address that make a source",
            ),
            row("overload", self.overload.to_string(), "what is done with a newcomer when the queue is full"),
            row("queue-timeout", show_time(self.queue_timeout), "a newcomer that waited longer is shed"),
            row(
                "queue-target",
                or_off(!self.queue_target.is_zero(), show_time(self.queue_target)),
                "the wait above which a standing queue sheds newcomers",
            ),
            row(
                "refusal-rate",
                format!("{}/s", self.refusal_rate),
                "explicit refusals; past it clients wait in the kernel, which drops what its backlog \
                 does not hold",
            ),
            row(
                "read-timeout",
                show_time(self.read_timeout),
                "a request must be whole so long after its first byte",
            ),
            row(
                "write-timeout",
                show_time(self.write_timeout),
                "a client that takes none of its replies for so long is ended",
            ),
            row(
                "idle-timeout",
                show_time(self.idle_timeout),
                "a connection without a request for so long is ended",
            ),
            row("max-line", show_size(self.max_line), "the longest line of a line service"),
            row("input-total", show_size(self.input_total), "half-read lines of all clients together"),
            row(
                "output-per-connection",
                show_size(self.output_per_connection),
                "replies kept for a client that does not read",
            ),
            row("output-total", show_size(self.output_total), "replies kept for all clients together"),
            row("turn-bytes", show_size(self.turn_bytes), "read in one turn before others have theirs"),
            row("lingering", self.lingering.to_string(), "polite closes under way at once"),
            row(
                "linger-timeout",
                show_time(self.linger_timeout),
                "how long a polite close waits for the client's end",
            ),
            row("linger-bytes", show_size(self.linger_bytes), "what a polite close reads and discards"),
            row("drain-delay", show_time(self.drain_delay), "how long to serve on after the order to end"),
            row(
                "drain-timeout",
                show_time(self.drain_timeout),
                "how long admitted work may take to finish after that",
            ),
            row(
                "worker-nice",
                self.worker_nice.to_string(),
                "niceness of workers, so that control threads run first",
            ),
            row(
                "busy-poll",
                or_off(!self.busy_poll.is_zero(), show_time(self.busy_poll)),
                "a worker looks on before it sleeps, while clients answer that quickly",
            ),
            row(
                "backlog",
                self.effective_backlog().to_string(),
                "connections the kernel holds for accept; follows queue",
            ),
            row(
                "stuck-threshold",
                show_time(self.stuck_threshold),
                "a turn that lasts longer is reported as stuck",
            ),
            row("fd-reserve", self.fd_reserve.to_string(), "descriptors for all that is not a connection"),
            row("max-datagram", show_size(self.max_datagram), "the largest datagram that is taken"),
        ]
    }
}

/// One limit, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRow {
    /// Its name: the option without `--`.
    pub name: &'static str,
    /// Its value with its unit.
    pub value: String,
    /// What it bounds.
    pub why: &'static str,
}

pub use tidegate_units::{show_size, show_time};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_impossible_relations_do_not() {
        assert_eq!(Limits::default().check(), Ok(()));
        let wrong: [fn(&mut Limits); 10] = [
            |l| l.workers = 0,
            |l| l.max_connections = 0,
            |l| l.queue = 20_000,
            |l| l.source_prefix = (33, 128),
            |l| l.worker_nice = 20,
            |l| l.busy_poll = Duration::from_secs(1),
            |l| l.output_per_connection = 100 << 20,
            |l| l.max_line = 2 << 20,
            |l| l.input_total = l.max_line + 1,
            |l| l.idle_timeout = Duration::ZERO,
        ];
        for change in wrong {
            let mut limits = Limits::default();
            change(&mut limits);
            assert!(limits.check().is_err(), "{limits:?}");
        }
    }
}
