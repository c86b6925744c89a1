//! The options of `serve` and `check`: command line, environment and configuration file are read by
//! one parser, so each value means the same everywhere.

use super::units;
use crate::limits::{Limits, Overload};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What is spoken to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// Options of `tidegate serve`.
#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    /// A listener and its service (echo, hello, time, work), tcp or udp: repeat for more [default: echo=tcp://127.0.0.1:5000]
    #[arg(long, value_name = "SERVICE=URL", env = "TIDEGATE_LISTEN", value_delimiter = ',')]
    pub(super) listen: Vec<String>,
    /// Threads that run services [default: 32]
    #[arg(long, value_name = "N", env = "TIDEGATE_WORKERS", value_parser = units::count)]
    workers: Option<u64>,
    /// Newcomers that may wait for a worker; 0: only while a worker is free [default: 128]
    #[arg(long, value_name = "N", env = "TIDEGATE_QUEUE", value_parser = units::count)]
    queue: Option<u64>,
    /// Where /metrics, /livez, /readyz and /status answer; `off` for nowhere [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", env = "TIDEGATE_ADMIN")]
    pub(super) admin: Option<String>,
    /// What is done with a newcomer when the queue is full: reject, wait:D, drop-oldest [default: reject]
    #[arg(long, value_name = "HOW", env = "TIDEGATE_OVERLOAD", value_parser = overload)]
    overload: Option<Overload>,
    /// What a refused client is told before the close (with \n, \r, \t, \0, \\ and \xHH) [default: nothing, a reset]
    #[arg(long, value_name = "TEXT", env = "TIDEGATE_BUSY_REPLY")]
    pub(super) busy_reply: Option<String>,
    /// Connections open at once [default: 10000, or what descriptors allow]
    #[arg(long, value_name = "N", env = "TIDEGATE_MAX_CONNECTIONS", value_parser = units::count)]
    max_connections: Option<u64>,
    /// Connections open at once from one source; 0: no limit [default: 0]
    #[arg(long, value_name = "N", env = "TIDEGATE_MAX_PER_SOURCE", value_parser = units::count)]
    max_per_source: Option<u64>,
    /// New connections a second from one source; 0: no limit [default: 0]
    #[arg(long, value_name = "N/s", env = "TIDEGATE_SOURCE_RATE", value_parser = units::rate)]
    source_rate: Option<f64>,
    /// Leading bits of an IPv4 and an IPv6 address that make a source [default: 32,128]
    #[arg(long, value_name = "V4,V6", env = "TIDEGATE_SOURCE_PREFIX", value_parser = source_prefix)]
    source_prefix: Option<(u8, u8)>,
    /// A newcomer that waited longer for a worker is shed [default: 5s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_QUEUE_TIMEOUT", value_parser = units::duration)]
    queue_timeout: Option<Duration>,
    /// The wait above which a standing queue sheds newcomers; 0: off [default: 0]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_QUEUE_TARGET", value_parser = units::duration)]
    queue_target: Option<Duration>,
    /// Explicit refusals a second; past it clients wait in the kernel, which drops what its backlog does not hold [default: 500]
    #[arg(long, value_name = "N/s", env = "TIDEGATE_REFUSAL_RATE", value_parser = units::rate)]
    refusal_rate: Option<f64>,
    /// A request must be whole so long after its first byte [default: 10s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_READ_TIMEOUT", value_parser = units::duration)]
    read_timeout: Option<Duration>,
    /// A client that takes none of its replies for so long is ended [default: 10s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_WRITE_TIMEOUT", value_parser = units::duration)]
    write_timeout: Option<Duration>,
    /// A connection without a request for so long is ended [default: 60s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_IDLE_TIMEOUT", value_parser = units::duration)]
    idle_timeout: Option<Duration>,
    /// The longest line of a line service [default: 64KiB]
    #[arg(long, value_name = "SIZE", env = "TIDEGATE_MAX_LINE", value_parser = units::size)]
    max_line: Option<u64>,
    /// Replies kept for one client that does not read [default: 1MiB]
    #[arg(long, value_name = "SIZE", env = "TIDEGATE_OUTPUT_PER_CONNECTION", value_parser = units::size)]
    output_per_connection: Option<u64>,
    /// Replies kept for all clients together [default: 64MiB]
    #[arg(long, value_name = "SIZE", env = "TIDEGATE_OUTPUT_TOTAL", value_parser = units::size)]
    output_total: Option<u64>,
    /// Bytes read in one turn before others have theirs [default: 256KiB]
    #[arg(long, value_name = "SIZE", env = "TIDEGATE_TURN_BYTES", value_parser = units::size)]
    turn_bytes: Option<u64>,
    /// Polite closes under way at once [default: 256]
    #[arg(long, value_name = "N", env = "TIDEGATE_LINGERING", value_parser = units::count)]
    lingering: Option<u64>,
    /// How long a polite close waits for the client's end [default: 1s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_LINGER_TIMEOUT", value_parser = units::duration)]
    linger_timeout: Option<Duration>,
    /// What a polite close reads and discards [default: 64KiB]
    #[arg(long, value_name = "SIZE", env = "TIDEGATE_LINGER_BYTES", value_parser = units::size)]
    linger_bytes: Option<u64>,
    /// The largest datagram that is taken [default: 2KiB]
    #[arg(long, value_name = "SIZE", env = "TIDEGATE_MAX_DATAGRAM", value_parser = units::size)]
    max_datagram: Option<u64>,
    /// How long to serve on after the order to end [default: 0s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_DRAIN_DELAY", value_parser = units::duration)]
    drain_delay: Option<Duration>,
    /// How long admitted work may take to finish after that [default: 30s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_DRAIN_TIMEOUT", value_parser = units::duration)]
    drain_timeout: Option<Duration>,
    /// Niceness of the workers, so that control threads run first; 0: off [default: 10]
    #[arg(long, value_name = "N", env = "TIDEGATE_WORKER_NICE")]
    worker_nice: Option<i32>,
    /// A worker without work looks on before it sleeps, while clients answer that quickly; 0: off [default: 50us]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_BUSY_POLL", value_parser = units::duration)]
    busy_poll: Option<Duration>,
    /// Connections the kernel holds for accept; 0: as many as the queue, at least 16 [default: 0]
    #[arg(long, value_name = "N", env = "TIDEGATE_BACKLOG", value_parser = units::count)]
    backlog: Option<u64>,
    /// A turn that lasts longer is reported as stuck [default: 10s]
    #[arg(long, value_name = "TIME", env = "TIDEGATE_STUCK_THRESHOLD", value_parser = units::duration)]
    stuck_threshold: Option<Duration>,
    /// Descriptors for all that is not a connection [default: 128]
    #[arg(long, value_name = "N", env = "TIDEGATE_FD_RESERVE", value_parser = units::count)]
    fd_reserve: Option<u64>,
    /// What a request of the work service costs: cpu:1ms, sleep:20ms [default: cpu:1ms]
    #[arg(long, value_name = "COST", env = "TIDEGATE_WORK")]
    pub(super) work: Option<crate::service::Cost>,
    /// A TOML file whose keys are these options' names
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORMAT", env = "TIDEGATE_LOG_FORMAT")]
    pub(super) log_format: Option<LogFormat>,
    /// Log more; twice for even more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Log errors only, and print nothing at the start
    #[arg(short, long, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

/// See [`ServeArgs::asked`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) connections: bool,
    pub(super) queue: bool,
    pub(super) fd_reserve: bool,
}

macro_rules! first_said {
    ($mine:ident or $other:ident: $($field:ident),* $(,)?) => { $($mine.$field = $mine.$field.or($other.$field);)* };
}

impl ServeArgs {
    /// These options, and the others' where these say nothing.
    pub(super) fn or(mut self, other: Self) -> Self {
        if self.listen.is_empty() {
            self.listen = other.listen;
        }
        first_said!(self or other:
            workers, queue, admin, overload, busy_reply, max_connections, max_per_source, source_rate,
            source_prefix, queue_timeout, queue_target, refusal_rate, read_timeout, write_timeout, idle_timeout,
            max_line, output_per_connection, output_total, drain_delay, drain_timeout, worker_nice, busy_poll,
            backlog, stuck_threshold, fd_reserve, turn_bytes, lingering, linger_timeout, linger_bytes, max_datagram,
            work, log_format,
        );
        self
    }

    /// Which of the limits that descriptors bound were asked for: they are not lowered.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            connections: self.max_connections.is_some(),
            queue: self.queue.is_some(),
            fd_reserve: self.fd_reserve.is_some(),
        }
    }

    /// The limits these options ask for.
    pub(super) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        fn set<T, V: TryInto<T>>(place: &mut T, value: Option<V>) {
            if let Some(value) = value.and_then(|value| value.try_into().ok()) {
                *place = value;
            }
        }
        set(&mut limits.workers, self.workers);
        set(&mut limits.queue, self.queue);
        set(&mut limits.max_connections, self.max_connections);
        set(&mut limits.max_per_source, self.max_per_source);
        set(&mut limits.source_rate, self.source_rate);
        set(&mut limits.source_prefix, self.source_prefix);
        set(&mut limits.overload, self.overload);
        set(&mut limits.queue_timeout, self.queue_timeout);
        set(&mut limits.queue_target, self.queue_target);
        set(&mut limits.refusal_rate, self.refusal_rate);
        set(&mut limits.read_timeout, self.read_timeout);
        set(&mut limits.write_timeout, self.write_timeout);
        set(&mut limits.idle_timeout, self.idle_timeout);
        set(&mut limits.max_line, self.max_line);
        set(&mut limits.output_per_connection, self.output_per_connection);
        set(&mut limits.output_total, self.output_total);
        set(&mut limits.drain_delay, self.drain_delay);
        set(&mut limits.drain_timeout, self.drain_timeout);
        set(&mut limits.worker_nice, self.worker_nice);
        set(&mut limits.busy_poll, self.busy_poll);
        set(&mut limits.backlog, self.backlog);
        set(&mut limits.stuck_threshold, self.stuck_threshold);
        set(&mut limits.fd_reserve, self.fd_reserve);
        set(&mut limits.turn_bytes, self.turn_bytes);
        set(&mut limits.lingering, self.lingering);
        set(&mut limits.linger_timeout, self.linger_timeout);
        set(&mut limits.linger_bytes, self.linger_bytes);
        set(&mut limits.max_datagram, self.max_datagram);
        limits
    }
}

fn overload(text: &str) -> Result<Overload, String> {
    match text {
        "reject" => Ok(Overload::Reject),
        "drop-oldest" => Ok(Overload::DropOldest),
        _ => match text.strip_prefix("wait:") {
            Some(time) => units::duration(time).map(Overload::Wait),
            None => Err(format!("`{text}` is not a way: write reject, wait:100ms or drop-oldest")),
        },
    }
}

fn source_prefix(text: &str) -> Result<(u8, u8), String> {
    let parsed = text.split_once(',').and_then(|(v4, v6)| Some((v4.parse().ok()?, v6.parse().ok()?)));
    match parsed {
        Some((v4, v6)) if v4 <= 32 && v6 <= 128 => Ok((v4, v6)),
        _ => Err(format!("`{text}` is not a pair of prefix lengths: write 32,128 or 24,64")),
    }
}
