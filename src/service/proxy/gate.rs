//! What all connections of one gate share: its settings, its backends, and the pipes that pairs borrow.

use super::backends::{BackendClock, BackendId, BackendLimits, Backends, WaitLimits};
use super::http::HttpGateConfig;
use super::pipes::Pipes;
use super::relay::Patience;
use super::resolve::{BACKENDS_MAX, Lookups};
use super::socket::BackendSocket;
use crate::admit::turns::accounts::SourceId;
use crate::clock::{Nanos, nanos};
use crate::current::Current;
use crate::limits::{Fair, Limits, Overload, QueueOrder};
use crate::service::TlsBuffers;
use crate::sys::Clock;
use crate::transport::address::{ClientAddress, SourceAddress};
use crate::transport::proxy_header::ProxyVersion;
use crate::transport::tls::{BackendTls, ToBackends};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// When the gate connects to a backend for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectOn {
    /// As soon as the client is accepted. This works with every protocol, also with those where the server speaks first.
    Accept,
    /// When the client has sent its first byte. Silent clients and port scanners then never reach a backend. Protocols
    /// where the server speaks first do not work.
    FirstByte,
}

impl std::str::FromStr for ConnectOn {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "accept" => Ok(ConnectOn::Accept),
            "first-byte" => Ok(ConnectOn::FirstByte),
            _ => Err("write `accept` or `first-byte`: when the gate connects to a backend"),
        }
    }
}

impl std::fmt::Display for ConnectOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ConnectOn::Accept => "accept",
            ConnectOn::FirstByte => "first-byte",
        })
    }
}

/// A gate's settings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) connect_on: ConnectOn,
    pub(super) connections: usize,
    pub(super) total: Option<usize>,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) half_close_timeout: Duration,
    pub(super) send_header: Option<ProxyVersion>,
    pub(super) check_every: Option<Duration>,
    /// Checks are HTTP requests: the house-keeping thread of the gate for HTTP makes them, and the thread of `tend` makes
    /// none.
    pub(super) checks_ask: bool,
    /// Requests for some paths go first, and a place is kept for them.
    pub(super) has_priority: bool,
    pub(super) resolve_every: Duration,
    pub(super) ready_needs_backend: bool,
    /// Those of a gate for HTTP; without use in another.
    pub(super) http: HttpGateConfig,
    /// How TLS is spoken with backends, if it is.
    pub(super) tls: Option<BackendTls>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_on: ConnectOn::Accept,
            connections: 100,
            total: None,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(600),
            half_close_timeout: Duration::from_secs(60),
            send_header: None,
            check_every: None,
            checks_ask: false,
            has_priority: false,
            resolve_every: Duration::from_secs(30),
            ready_needs_backend: false,
            http: HttpGateConfig::default(),
            tls: None,
        }
    }
}

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    /// A session keeps a view of them, and looks at it at each turn.
    pub(super) settings: Current<Settings>,
    /// The thread of `tend` uses it, and a change of the settings.
    lookups: Mutex<Lookups>,
    pub(super) clock: Clock,
    pub(super) backends: Arc<Backends>,
    /// Made at the first turn, when the server's limits are known.
    pipes: OnceLock<Arc<Pipes>>,
}

/// The most pipes of one gate. A pipe is in use during a turn in bulk, and for longer while the reader is slow. When all
/// are in use, bytes are copied.
const PIPES_MAX: usize = 128;

/// The threads of a gate that speak TLS beside the workers.
const THREADS: usize = 2;

impl Gate {
    pub(super) fn new(settings: Settings, lookups: Lookups) -> Arc<Self> {
        let clock = Clock::start();
        // Gates should not all retry at the same moment. Any number that differs between processes does for that.
        let seed = RandomState::new().hash_one(std::process::id());
        let limits = settings.backend_limits(wait_limits(&Limits::default()));
        let backends = Backends::new(limits, BackendClock::Real(clock), seed);
        backends.set_addresses(&lookups.addresses());
        let settings = Current::new(settings);
        Arc::new(Self { settings, lookups: lookups.into(), clock, backends, pipes: OnceLock::new() })
    }

    /// The pipes that pairs may borrow.
    pub(super) fn pipes(&self, limits: &Limits) -> &Arc<Pipes> {
        self.pipes.get_or_init(|| Pipes::new(PIPES_MAX.min(limits.max_connections / 4)))
    }

    /// The descriptors that the gate needs beside those of its clients: one for each place, two for each pipe.
    pub(super) fn descriptors(&self) -> usize {
        self.places() + 2 * PIPES_MAX
    }

    /// The bytes that the gate can take beside what is counted for each connection: the book of its places and of the
    /// clients that wait, the lists of backends that clients have tried, and the threads that look up names.
    pub(super) fn memory_ceiling(&self, limits: &Limits) -> usize {
        /// What a lookup takes of its thread's stack and of the heap.
        const LOOKUP_BYTES: usize = 128 * 1024;
        let names = self.lookups().names_that_change();
        // A name may lead to more addresses later.
        let backends = if names > 0 { BACKENDS_MAX } else { self.backends.snapshot().backends.len() };
        // A backend is set aside after a failure, so clients fail at it at most once for each of its places.
        let tried = self.places() * size_of::<BackendId>();
        Backends::memory_ceiling(&wait_limits(limits), backends) + 2 * tried + names * LOOKUP_BYTES
    }

    /// How many connections all backends together may have.
    pub(super) fn places(&self) -> usize {
        self.backends.snapshot().limit as usize
    }

    pub(super) fn lookups(&self) -> MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with the backends and the settings of a gate that was made and not used. Connections to backends that it
    /// does not have go on, and get no new ones beside them.
    pub(super) fn take_over(&self, new: &Self) {
        let settings = new.settings.get();
        // Locked until the end: the thread of `tend` must not put back what it has just resolved of the names of before.
        let mut lookups = self.lookups();
        std::mem::swap(&mut *lookups, &mut *new.lookups());
        self.backends.change_to(&lookups.addresses(), |before| settings.backend_limits(before.wait));
        self.settings.replace(Settings::clone(&settings));
    }

    /// The bytes that TLS with its backends may take: of each place, of each worker and thread of the gate, and of the sessions
    /// that can be resumed.
    pub(super) fn tls_bytes(&self, workers: usize) -> usize {
        if self.settings.get().tls.is_none() {
            return 0;
        }
        let seen = self.backends.snapshot();
        seen.limit as usize * BackendSocket::TLS_BYTES
            + (workers + THREADS) * TlsBuffers::BYTES
            + seen.backends.len() * ToBackends::NAME_BYTES
    }
}

impl Settings {
    pub(super) fn patience(&self) -> Patience {
        Patience { idle: self.idle_timeout, half_closed: self.half_close_timeout }
    }

    /// The time by which a backend must be reached.
    pub(super) fn connect_deadline(&self, now: Nanos) -> Nanos {
        now.saturating_add(nanos(self.connect_timeout))
    }

    /// How long a connection of a gate for HTTP is kept without a request. A PROXY header names the client of the whole
    /// connection, so no other client may use that connection.
    pub(super) fn spare_time(&self) -> Duration {
        if self.send_header.is_some() { Duration::ZERO } else { self.http.backend_idle }
    }

    /// How often a check connects to each backend; `None` if checks are HTTP requests, or if there are none.
    pub(super) fn connect_every(&self) -> Option<Duration> {
        self.check_every.filter(|_| !self.checks_ask)
    }

    pub(super) fn backend_limits(&self, wait: WaitLimits) -> BackendLimits {
        BackendLimits {
            connections: self.connections,
            total: self.total,
            checked: self.check_every.is_some(),
            reserve: self.has_priority,
            wait,
        }
    }
}

/// The limits on waiting for a place at a backend: those for newcomers that wait for a worker.
pub(super) fn wait_limits(limits: &Limits) -> WaitLimits {
    WaitLimits {
        most: limits.queue,
        timeout: nanos(limits.queue_timeout),
        target: nanos(limits.queue_target),
        fresh: limits.queue_order == QueueOrder::Fresh,
        fair: limits.fair == Fair::Source,
        drop_oldest: limits.overload == Overload::DropOldest,
    }
}

/// The source that a client belongs to: the leading bits of its address, or its user.
pub(super) fn source(address: ClientAddress, (v4, v6): (u8, u8)) -> SourceId {
    let leading = |bits: u128, of: u32, prefix: u8| {
        let rest = of.saturating_sub(prefix.into());
        bits.checked_shr(rest).and_then(|kept| kept.checked_shl(rest)).unwrap_or(0)
    };
    let ip = match address.source() {
        SourceAddress::Ip(ip) => ip,
        SourceAddress::User(uid) => return SourceId(SourceAddress::user_number(uid)),
    };
    SourceId(match ip.to_canonical() {
        IpAddr::V4(ip) => leading(u32::from(ip).into(), 32, v4) | 0xffff << 32,
        IpAddr::V6(ip) => leading(u128::from(ip), 128, v6),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_network_are_one_source() {
        let source =
            |text: &str, prefix| source(text.parse::<std::net::SocketAddr>().unwrap().into(), prefix);
        assert_eq!(source("10.1.2.3:1", (24, 64)), source("10.1.2.200:9", (24, 64)));
        assert_ne!(source("10.1.2.3:1", (24, 64)), source("10.1.3.3:1", (24, 64)));
        assert_eq!(source("10.1.2.3:1", (32, 128)), source("[::ffff:10.1.2.3]:1", (32, 128)));
        assert_eq!(source("[fd00::1]:1", (32, 64)), source("[fd00::2]:1", (32, 64)));
        assert_ne!(source("[fd00::1]:1", (32, 128)), source("[fd00::2]:1", (32, 128)));
        assert_eq!(source("[fd00::1]:1", (0, 0)), source("[fe00::2]:1", (0, 0)));
    }

    #[test]
    fn when_to_connect_is_read_and_shown() {
        for on in [ConnectOn::Accept, ConnectOn::FirstByte] {
            assert_eq!(on.to_string().parse(), Ok(on));
        }
        assert!("never".parse::<ConnectOn>().is_err());
    }
}
