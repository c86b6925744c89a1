//! The table of limits: one entry for each. `entry.rs` says how an entry is written.

use super::entry::{Change, Group, Limit, Trial, kebab, limits, spelt};
use super::value::Value;
use super::{DryRun, Fair, Overload, QueueOrder, RefusalRate};
use crate::reason::WouldDrop;
use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// The most bytes that a limit of bytes can be: more than any machine has.
const BYTES_MAX: usize = 1 << 44;
/// The most connections that a table can name.
const CONNECTIONS_MAX: usize = 1 << 24;
/// The most workers that make sense to ask for: each is a thread.
const WORKERS_MAX: usize = 4096;
/// The most listeners: as many sockets as can be handed over.
const LISTENERS_MAX: usize = 256;
/// The most headers of a request: a place for each is made where more than a hundred may come.
const HEADERS_MAX: usize = 4096;
/// The largest rate a second: more than any machine can do.
const RATE_MAX: f64 = 1e9;
/// The shortest time that a thread can keep.
const SHORTEST: Duration = Duration::from_millis(1);
const MONTH: Duration = Duration::from_secs(30 * 86_400);
/// The longest time that is taken, so that sums of times stay far from what a clock can say.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const OFF: Duration = Duration::ZERO;
/// Why a limit that does not say so cannot be in a dry run.
const NOBODY: &str = "it turns nobody away";

limits! {
    Limits {
        /// Threads that run services.
        workers: usize = 32, Count(1..=WORKERS_MAX), Live, hard "threads and memory are calculated from it";

        /// Threads that `workers` can be raised to while the server serves.
        ///
        /// With 0, it is what `workers` is at the start. Memory is calculated for this number.
        workers_ceiling: usize = 0, Count(0..=WORKERS_MAX), Fixed, 0 is "workers", hard "threads and memory are calculated from it";

        /// Newcomers and datagrams that may wait for a worker; with 0 a newcomer is admitted only while a
        /// worker is free.
        ///
        /// At a listener it is how many of its own newcomers may wait; there it is never more than its connections, unless
        /// it is set.
        queue: usize = 128, Count(0..=CONNECTIONS_MAX), Live, per listener, dry QueueFull;

        /// Connections that may be open at once.
        max_connections: usize = 10_000, Count(1..=CONNECTIONS_MAX), Live, per listener,
            hard "memory and file descriptors are calculated from it";

        /// Connections that `max-connections` can be raised to while the server serves.
        ///
        /// With 0, it is what `max-connections` is at the start. Memory and file descriptors are calculated for this number.
        connections_ceiling: usize = 0, Count(0..=CONNECTIONS_MAX), Fixed, 0 is "max-connections", hard "memory and file descriptors are calculated from it";

        /// Listeners that there may be while the server serves: those it starts with and those that are opened later.
        ///
        /// Never fewer than at the start. One that is closed counts, since it keeps its counts and may be opened again.
        /// Memory is calculated for this number.
        listeners_ceiling: usize = 16, Count(0..=LISTENERS_MAX), Fixed, 0 is "those at the start", hard "memory is calculated from it";

        /// Connections that one source may have open at once.
        max_per_source: usize = 0, Count(0..=CONNECTIONS_MAX), Live, 0 is "off", dry PerSource;

        /// New connections that one source may open in a second.
        ///
        /// A source that was quiet may open as many at once.
        source_rate: f64 = 0.0, Rate(0.0..=RATE_MAX), Live, 0 is "off", dry Rate;

        /// Datagrams of one source that are answered in a second; further ones are dropped.
        ///
        /// A source that was quiet may send what it has in four seconds at once, but from one port what it has in a
        /// quarter of a second. The source of a datagram can be forged: without this limit one datagram can make two
        /// servers answer each other for ever, and one source can take the places of all others. With it, one datagram is
        /// not answered after each few (5 at first, 64 for a client that goes on by itself) that came from one port within
        /// a second of each other and repeat the one before: that ends a loop, and a client asks again.
        datagram_source_rate: f64 = 1000.0, Rate(0.0..=RATE_MAX), Live, 0 is "off", dry SourceRate;

        /// Leading bits of an IPv4 and of an IPv6 address that name a source.
        source_prefix: (u8, u8) = (32, 64), Prefix((0, 0)..=(32, 128)), Live;

        /// Longest line that a line service accepts, without its line end.
        max_line: usize = 64 * KIB, Bytes(1..=BYTES_MAX), Live, hard "memory for one client is bounded by it";

        /// Longest head of an HTTP request, its first line and its headers; a longer one is answered 431.
        ///
        /// Never more than `input_total`.
        max_head: usize = 16 * KIB, Bytes(256..=BYTES_MAX), Live, hard "memory for one client is bounded by it";

        /// Headers that an HTTP request may have; one with more is answered 431.
        max_headers: usize = 100, Count(1..=HEADERS_MAX), Live, hard "memory for one client is bounded by it";

        /// Longest body of an HTTP request; a longer one is answered 413, before it is read where its length is known.
        ///
        /// Never more than `input_total`. A [`Streaming`](crate::service::http::Streaming) service takes each piece as
        /// it comes, and can have a [`Config`](crate::service::http::Config) of its own.
        max_body: usize = MIB, Bytes(0..=BYTES_MAX), Live, hard "memory for one client is bounded by it";

        /// Longest message of a WebSocket, all its fragments together; a longer one closes the socket with 1009.
        ///
        /// Never more than `input_total`.
        max_message: usize = MIB, Bytes(1..=BYTES_MAX), Live, hard "memory for one client is bounded by it";

        /// Memory for requests, lines and messages that are not complete yet, of all clients together.
        ///
        /// A client whose request needs more than is left is closed. The default holds a thousand of the longest
        /// lines.
        input_total: usize = 64 * MIB, Bytes(1..=BYTES_MAX), Live, hard "memory is calculated from it";

        /// Memory for replies that one client has not read yet.
        output_per_connection: usize = MIB, Bytes(1..=BYTES_MAX), Live, hard "memory is calculated from it";

        /// Memory for replies that clients have not read yet, of all clients together.
        output_total: usize = 64 * MIB, Bytes(1..=BYTES_MAX), Live, hard "memory is calculated from it";

        /// Bytes that one turn may read before its worker serves the next connection.
        turn_bytes: usize = 256 * KIB, Bytes(1..=BYTES_MAX), Live;

        /// Largest datagram that is accepted; a longer one is dropped and counted.
        ///
        /// A reply may have 64 bytes more. Each place in the queue has a buffer of this size.
        max_datagram: usize = 2 * KIB, Bytes(1..=65_507), Fixed, hard "the buffers have this size";

        /// Connections that may be in a polite close at once; further ones are closed without waiting for the
        /// client.
        lingering: usize = 256, Count(0..=CONNECTIONS_MAX), Live, hard "file descriptors are calculated from it";

        /// Bytes that a polite close reads and discards before it gives up.
        linger_bytes: usize = 64 * KIB, Bytes(1..=BYTES_MAX), Live;

        /// File descriptors kept for everything that is not a connection.
        fd_reserve: usize = 128, Count(0..=CONNECTIONS_MAX), Fixed, hard "these file descriptors are for something else";

        /// Niceness added to the workers, so that the threads which accept and keep time run first.
        ///
        /// Without it the server falls behind its own queue under load.
        worker_nice: i32 = 10, Nice(0..=19), Fixed;

        /// How long an idle worker spins before it sleeps, while that pays.
        ///
        /// It pays while clients send their next request within this time: then neither side has to wake a
        /// thread. The default is two to ten times what a wake-up costs.
        busy_poll: Duration = Duration::from_micros(50), Time(OFF..=Duration::from_millis(10)), Live, 0 is "off";
    }

    Listening {
        /// Connections that the kernel holds for each listener until the server accepts them; `auto` is 4096, and while
        /// the queue stands no more than 128.
        ///
        /// A deep backlog absorbs bursts, and under lasting overload it is a queue without a bound on time.
        backlog: usize = 0, Count(0..=i32::MAX as usize), Live, 0 is "auto", per listener;
    }

    Overload {
        /// What happens to a newcomer when the queue is full: it is refused (reject), it waits in the kernel
        /// for at most this time (wait:100ms), or the one that has waited longest is refused instead
        /// (drop-oldest).
        overload: Overload = Overload::Reject, Overload(Overload::Reject..=Overload::Wait(YEAR)), Live, per listener;

        /// Time a request may wait for a worker before it is given up.
        ///
        /// A newcomer is refused then. An established connection is told that the server is overloaded if its protocol
        /// has words for that; otherwise it is closed.
        queue_timeout: Duration = Duration::from_secs(5), Time(SHORTEST..=MONTH), Live, per listener, dry QueueTimeout;

        /// Wait above which a queue stands, if its oldest request has waited longer for 100 ms.
        ///
        /// While the queue stands, requests are served in `queue_order`, and sources take turns (`fair`). The idea comes
        /// from controlled delay (RFC 8289).
        queue_target: Duration = Duration::from_millis(20), Time(OFF..=YEAR), Live;

        /// Order in which requests are served while the queue stands: the freshest first, unless all are served soon (fresh), or as they came (fifo).
        queue_order: QueueOrder = QueueOrder::Fresh, Order(QueueOrder::Fresh..=QueueOrder::Fifo), Fixed;

        /// Sharing of the workers while the queue stands: sources take turns (source), or all requests are one heap (off).
        ///
        /// A source has its turns at each listener: what it asks of one service takes no turns from it at another.
        fair: Fair = Fair::Source, Fair(Fair::Source..=Fair::Off), Fixed;

        /// Clients that are turned away in a second: every one while processors have rest, and otherwise as many as cost
        /// 3 % of one processor (auto); every one (all); or a number (500/s).
        ///
        /// A refusal costs an accept and a close, work that a flood must not be able to order without end. Clients past
        /// the rate wait in the kernel's backlog. On Linux one that the backlog has no place for is not told: it tries
        /// again after a second. A client that is refused for its source (`max_per_source`, `source_rate`) has been
        /// accepted already: past this rate its connection is reset without a word.
        refusal_rate: RefusalRate = RefusalRate::Auto, Refusals(RefusalRate::Auto..=RefusalRate::PerSecond(RATE_MAX)), Live;

        /// Limits to try in a dry run: a client that one of them would turn away is counted and let through (names with commas, or `all`).
        ///
        /// `tidegate_would_drop_total` counts these clients by reason, so a limit can be tried on a running server. Limits from
        /// which memory or file descriptors are calculated, and deadlines of waits, stay in force: see [`DryRun`].
        dry_run: DryRun = DryRun::OFF, DryRun(DryRun::OFF..=DryRun::ALL), Live, 0 is "off";
    }

    Timeouts {
        /// Time a client has to finish a request, from its first byte.
        ///
        /// For a `handler` see [`Blocking`](crate::service::Blocking).
        read_timeout: Duration = Duration::from_secs(10), Time(SHORTEST..=MONTH), Live, hard "every wait needs a deadline";

        /// Time a client may leave replies unread before it is closed.
        write_timeout: Duration = Duration::from_secs(10), Time(SHORTEST..=MONTH), Live, hard "every wait needs a deadline";

        /// Time a connection may stay open without a request.
        ///
        /// For a `handler` see [`Blocking`](crate::service::Blocking).
        idle_timeout: Duration = Duration::from_secs(60), Time(SHORTEST..=MONTH), Live, per listener, hard "every wait needs a deadline";

        /// Silence of a WebSocket's client after which it is sent a ping; one that stays silent for as long again is
        /// closed.
        ws_ping: Duration = Duration::from_secs(20), Time(SHORTEST..=MONTH), Live, hard "every wait needs a deadline";

        /// Time a polite close waits for the client to close its side.
        linger_timeout: Duration = Duration::from_secs(1), Time(OFF..=YEAR), Live, hard "every wait needs a deadline";

        /// Time after which a running turn is reported as stuck.
        stuck_threshold: Duration = Duration::from_secs(10), Time(SHORTEST..=YEAR), Live;
    }

    Draining {
        /// Time the server goes on serving after the order to stop, while /readyz says 503.
        ///
        /// Load balancers need it to send their clients elsewhere.
        drain_delay: Duration = OFF, Time(OFF..=YEAR), Live;

        /// Time that admitted work has to finish, from the end of drain-delay, before it is cut off.
        drain_timeout: Duration = Duration::from_secs(30), Time(OFF..=YEAR), Live, hard "every wait needs a deadline";
    }
}

impl Limits {
    /// The most workers that make sense to ask for: each is a thread.
    pub const WORKERS_MAX: usize = WORKERS_MAX;
    /// The most connections that a table can name.
    pub const CONNECTIONS_MAX: usize = CONNECTIONS_MAX;
    /// The most bytes that a limit of bytes can be: more than any machine has.
    pub const BYTES_MAX: usize = BYTES_MAX;
}
