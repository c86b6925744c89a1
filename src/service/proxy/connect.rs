//! Connecting to a backend without blocking: an attempt, and how it ends. A backend that speaks TLS is reached when its
//! handshake is over.

use super::address::{BackendAddress, TlsTarget};
use super::backends::Unreached;
use super::socket::{BackendSocket, Store};
use crate::clock::{Nanos, nanos};
use crate::reason::BackendFailure;
use crate::transport::address::UnixName;
use crate::transport::socket::{new_socket, send};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, connect, sockopt};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The first pause before a Unix socket whose backlog is full is tried again; each is twice the last.
const FIRST_PAUSE: Nanos = 1_000_000;
const LONGEST_PAUSE: Nanos = 64_000_000;

/// After this silence the kernel begins to probe a quiet connection, and repeats the probe in this interval. A peer that
/// vanished without closing is found out that way.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// An attempt to connect to a backend. It never blocks: call [`poll`](Self::poll) when its socket has an event, and at
/// the latest at the time that [`Arrival::Wait`] names.
#[derive(Debug)]
pub(crate) struct Connecting {
    stage: AttemptStage,
    /// Present if the backend speaks TLS.
    tls: Option<Arc<TlsTarget>>,
    /// What is sent first, before any TLS.
    greeting: Box<[u8]>,
    /// Whether the caller was told to watch the socket.
    watched: bool,
    is_tcp: bool,
    began: Instant,
    deadline: Nanos,
}

#[derive(Debug)]
enum AttemptStage {
    /// The kernel is connecting. An event will say that it has succeeded or failed.
    Under(OwnedFd, SocketAddr),
    /// The backlog of a Unix socket is full. The kernel sends no event when there is room, so the attempt is repeated.
    Full { address: Arc<UnixName>, next: Nanos, pause: Nanos },
    /// The connection stands, and its TLS handshake is under way.
    Shaking(BackendSocket),
    /// The connected socket was handed out.
    Over,
}

/// The state of an attempt that has not failed.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// The backend is connected. `took` is how long that took. `told` says that the caller watches the socket already.
    Made { socket: BackendSocket, took: Nanos, told: bool },
    /// The attempt goes on. Poll it at an event on its socket, and at this time at the latest.
    Wait { until: Nanos },
}

impl Connecting {
    /// Begins an attempt, which fails if it has not succeeded by `deadline`. A backend that is connected is sent `greeting`
    /// first.
    pub(crate) fn start(
        to: &BackendAddress,
        greeting: Vec<u8>,
        (now, deadline): (Nanos, Nanos),
        store: Store<'_>,
    ) -> Result<(Self, Arrival), Unreached> {
        let began = Instant::now();
        let (socket, tls) = match to {
            BackendAddress::Tls(target) => (&target.socket, Some(target.clone())),
            plain => (plain, None),
        };
        let (connected, stage) = match socket {
            BackendAddress::Tcp(address) => match try_tcp(*address)? {
                (socket, true) => (Some(socket), AttemptStage::Over),
                (socket, false) => (None, AttemptStage::Under(socket, *address)),
            },
            BackendAddress::Unix(address) => match try_unix(**address)? {
                Some(socket) => (Some(socket), AttemptStage::Over),
                None => {
                    (None, AttemptStage::Full { address: address.clone(), next: now, pause: FIRST_PAUSE })
                }
            },
            // A target's socket has no TLS of its own.
            BackendAddress::Tls(_) => return Err(BackendFailure::Local.into()),
        };
        let greeting = greeting.into_boxed_slice();
        let mut connecting =
            Self { stage, tls, greeting, watched: false, is_tcp: socket.is_tcp(), began, deadline };
        let step = match connected {
            Some(socket) => connecting.connected(socket, now, store)?,
            None => connecting.wait(now)?,
        };
        Ok((connecting, step))
    }

    /// The socket whose events say how the attempt goes, and which events; `None` if there will be no event.
    pub(crate) fn awaits(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.stage {
            AttemptStage::Under(socket, _) => Some((socket.as_fd(), PollFlags::OUT)),
            AttemptStage::Shaking(socket) if socket.has_unsent() => {
                Some((socket.as_fd(), PollFlags::IN | PollFlags::OUT))
            }
            AttemptStage::Shaking(socket) => Some((socket.as_fd(), PollFlags::IN)),
            AttemptStage::Full { .. } | AttemptStage::Over => None,
        }
    }

    /// The socket that the caller must watch, for input and output, from now on. Ask after each [`Arrival::Wait`].
    pub(crate) fn unwatched(&mut self) -> Option<BorrowedFd<'_>> {
        if self.awaits().is_none() || std::mem::replace(&mut self.watched, true) {
            return None;
        }
        self.awaits().map(|(socket, _)| socket)
    }

    /// Checks how the attempt goes. Do not call it again once it has returned a socket or an error.
    pub(crate) fn poll(&mut self, now: Nanos, store: Store<'_>) -> Result<Arrival, Unreached> {
        let connected = match &mut self.stage {
            AttemptStage::Under(socket, address) => again(socket.as_fd(), *address)?,
            AttemptStage::Full { next, .. } if now < *next => false,
            AttemptStage::Full { address, .. } => match try_unix(**address)? {
                Some(socket) => return self.connected(socket, now, store),
                None => false,
            },
            AttemptStage::Shaking(_) => return self.shake(now, store),
            AttemptStage::Over => false,
        };
        if !connected {
            return self.wait(now);
        }
        match std::mem::replace(&mut self.stage, AttemptStage::Over) {
            AttemptStage::Under(socket, _) => self.connected(socket, now, store),
            _ => Err(BackendFailure::Local.into()),
        }
    }

    /// The connection stands. A TLS handshake may have to follow.
    fn connected(&mut self, socket: OwnedFd, now: Nanos, store: Store<'_>) -> Result<Arrival, Unreached> {
        // The send buffer of a new socket is empty, so there is room for the whole greeting.
        if !self.greeting.is_empty() && !send(&socket, &self.greeting).is_ok_and(|n| n == self.greeting.len())
        {
            return Err(BackendFailure::Reset.into());
        }
        match &self.tls {
            None => Ok(self.arrived(BackendSocket::plain(socket, self.is_tcp))),
            Some(target) => {
                self.stage = AttemptStage::Shaking(BackendSocket::secured(socket, target)?);
                self.shake(now, store)
            }
        }
    }

    fn shake(&mut self, now: Nanos, store: Store<'_>) -> Result<Arrival, Unreached> {
        let AttemptStage::Shaking(socket) = &mut self.stage else { return Err(BackendFailure::Local.into()) };
        if !socket.shake(store)? {
            return self.wait(now);
        }
        match std::mem::replace(&mut self.stage, AttemptStage::Over) {
            AttemptStage::Shaking(socket) => Ok(self.arrived(socket)),
            _ => Err(BackendFailure::Local.into()),
        }
    }

    fn arrived(&mut self, socket: BackendSocket) -> Arrival {
        self.stage = AttemptStage::Over;
        // The turn's own time is that of its start: a backend that is connected within the turn would seem to take no time.
        Arrival::Made { socket, took: nanos(self.began.elapsed()), told: self.watched }
    }

    /// When the attempt must be polled again; an error if its time is over.
    fn wait(&mut self, now: Nanos) -> Result<Arrival, Unreached> {
        if now >= self.deadline {
            let why = match self.stage {
                AttemptStage::Shaking(_) => "its TLS handshake was not over in time",
                _ => "",
            };
            return Err(Unreached { failure: BackendFailure::Timeout, why: Cow::Borrowed(why) });
        }
        let until = match &mut self.stage {
            AttemptStage::Full { next, pause, .. } => {
                if now >= *next {
                    *next = now.saturating_add(*pause);
                    *pause = (*pause * 2).min(LONGEST_PAUSE);
                }
                self.deadline.min(*next)
            }
            AttemptStage::Under(..) | AttemptStage::Shaking(_) | AttemptStage::Over => self.deadline,
        };
        Ok(Arrival::Wait { until })
    }
}

/// A new socket on which `connect` was called, and whether it is connected already.
fn try_tcp(to: SocketAddr) -> Result<(OwnedFd, bool), BackendFailure> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = new_socket(family).map_err(failure)?;
    // This fails only on a broken socket, and then connecting fails too.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    // A backend on this machine has answered by the time of the second call, which saves waiting for the event.
    let connected = again(socket.as_fd(), to)? || again(socket.as_fd(), to)?;
    Ok((socket, connected))
}

/// Asks the kernel to connect, or whether it has connected: both are the same system call.
fn again(socket: BorrowedFd<'_>, to: SocketAddr) -> Result<bool, BackendFailure> {
    match connect(socket, &to) {
        Ok(()) | Err(Errno::ISCONN) if is_self(socket, to) => Err(BackendFailure::Refused),
        Ok(()) | Err(Errno::ISCONN) => Ok(true),
        Err(Errno::INPROGRESS | Errno::ALREADY | Errno::INTR) => Ok(false),
        Err(error) => Err(failure(error)),
    }
}

/// Whether a socket is connected to itself. If nobody listens on a local port of the kernel's ephemeral range, the kernel
/// may pick that very port for the near side, and TCP then connects the socket to itself.
fn is_self(socket: BorrowedFd<'_>, to: SocketAddr) -> bool {
    to.ip().is_loopback()
        && to.port() >= first_ephemeral_port()
        && rustix::net::getsockname(socket).ok().and_then(|near| SocketAddr::try_from(near).ok()) == Some(to)
}

/// The first port that the kernel picks by itself, as it was when the first socket was connected. Busy servers often set it
/// to 1024.
fn first_ephemeral_port() -> u16 {
    static FIRST: OnceLock<u16> = OnceLock::new();
    *FIRST.get_or_init(|| {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(1024)
    })
}

/// A connected Unix socket; `None` if the backend's backlog is full.
fn try_unix(to: UnixName) -> Result<Option<OwnedFd>, BackendFailure> {
    let name = to.to_kernel().map_err(failure)?;
    let socket = new_socket(AddressFamily::UNIX).map_err(failure)?;
    loop {
        return match connect(&socket, &name) {
            Ok(()) | Err(Errno::ISCONN) => Ok(Some(socket)),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(failure(error)),
        };
    }
}

/// Whether a connection was reset or has failed. Asking clears the error, so only the first call sees it.
pub(super) fn has_failed(socket: BorrowedFd<'_>) -> bool {
    !matches!(sockopt::socket_error(socket), Ok(Ok(())) | Err(Errno::INTR))
}

/// The reason to count for an error of `connect`.
fn failure(error: Errno) -> BackendFailure {
    match error {
        // A Unix socket without a file: the server has not started.
        Errno::CONNREFUSED | Errno::NOENT => BackendFailure::Refused,
        Errno::TIMEDOUT => BackendFailure::Timeout,
        Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE => BackendFailure::Reset,
        Errno::MFILE
        | Errno::NFILE
        | Errno::NOBUFS
        | Errno::NOMEM
        | Errno::ADDRNOTAVAIL
        | Errno::ADDRINUSE => BackendFailure::Local,
        _ => BackendFailure::Unreachable,
    }
}

/// Switches TCP keep-alive on, so that the kernel probes a quiet connection. Callers do so late: it costs three system
/// calls, and most connections end before it would matter.
pub(crate) fn keep_alive(socket: BorrowedFd<'_>) {
    // This fails on a Unix socket, which needs none of it: the kernel itself knows whether the peer is there.
    let _ = sockopt::set_tcp_keepidle(socket, KEEP_ALIVE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(socket, KEEP_ALIVE_EVERY);
    let _ = sockopt::set_socket_keepalive(socket, true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Pool;
    use crate::service::proxy::address::BackendName;
    use crate::sys::Clock;
    use rustix::event::{PollFd, Timespec, poll};
    use rustix::net::{bind, listen};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    const PATIENCE: Nanos = 10_000_000_000;

    fn address(text: &str) -> BackendAddress {
        text.parse::<BackendName>().unwrap().resolve().unwrap().remove(0)
    }

    /// Connects as the gate does: looks at an event, or at the time that was named.
    fn reach(to: &BackendAddress, within: Nanos) -> Result<BackendSocket, BackendFailure> {
        reach_now(to, within).map_err(|unreached| unreached.failure)
    }

    fn reach_now(to: &BackendAddress, within: Nanos) -> Result<BackendSocket, Unreached> {
        let (clock, pool) = (Clock::start(), Arc::new(Pool::default()));
        let (now, store) = (clock.now(), (&pool, 1 << 20));
        let (mut connecting, mut step) = Connecting::start(to, Vec::new(), (now, now + within), store)?;
        loop {
            let until = match step {
                Arrival::Made { socket, .. } => return Ok(socket),
                Arrival::Wait { until } => until.saturating_sub(clock.now()),
            };
            let timeout =
                Timespec { tv_sec: (until / 1_000_000_000) as i64, tv_nsec: (until % 1_000_000_000) as _ };
            let mut wait = Vec::new();
            let awaits = connecting.awaits();
            wait.extend(awaits.as_ref().map(|(socket, flags)| PollFd::new(socket, *flags)));
            poll(&mut wait, Some(&timeout)).unwrap();
            step = connecting.poll(clock.now(), store)?;
        }
    }

    #[test]
    fn a_backend_on_this_machine_is_connected_at_once() {
        for listener in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listener).unwrap();
            let to = BackendAddress::Tcp(listener.local_addr().unwrap());
            let pool = Arc::new(Pool::default());
            let (_, step) = Connecting::start(&to, b"hi".to_vec(), (1, 2), (&pool, 1 << 20)).unwrap();
            let Arrival::Made { socket, took, told: false } = step else { panic!("{step:?}") };
            assert!((1_000..1_000_000_000).contains(&took), "a system call takes a microsecond: {took} ns");
            let mut heard = [0; 2];
            std::io::Read::read_exact(&mut listener.accept().unwrap().0, &mut heard).unwrap();
            assert_eq!(&heard, b"hi");
            assert!(sockopt::tcp_nodelay(&socket).unwrap());
            keep_alive(socket.as_fd());
            assert!(sockopt::socket_keepalive(&socket).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&socket).unwrap(), KEEP_ALIVE_AFTER);
        }
    }

    #[test]
    fn unix_backends_are_connected_by_path_and_by_name() {
        let folder = std::env::temp_dir().join(format!("tidegate-connect-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.sock");
        let to = address(&format!("unix:{}", path.display()));
        assert_eq!(reach(&to, PATIENCE).unwrap_err(), BackendFailure::Refused, "there is no such file");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(reach(&to, PATIENCE).is_ok());
        drop(listener);
        assert_eq!(reach(&to, PATIENCE).unwrap_err(), BackendFailure::Refused, "nobody listens there");
        std::fs::remove_dir_all(&folder).unwrap();
        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = format!("tidegate-connect-{}", std::process::id());
            let to = address(&format!("unix:@{name}"));
            assert_eq!(reach(&to, PATIENCE).unwrap_err(), BackendFailure::Refused);
            let named = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
            let _listener = UnixListener::bind_addr(&named).unwrap();
            assert!(reach(&to, PATIENCE).is_ok());
        }
    }

    #[test]
    fn where_nobody_listens_the_answer_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = BackendAddress::Tcp(listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(reach(&to, PATIENCE).unwrap_err(), BackendFailure::Refused);
    }

    #[test]
    fn a_socket_that_reached_itself_has_reached_nobody() {
        let socket = new_socket(AddressFamily::INET).unwrap();
        bind(&socket, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        let to = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        let reached =
            again(socket.as_fd(), to).and_then(|now| if now { Ok(true) } else { again(socket.as_fd(), to) });
        assert_eq!(reached, Err(BackendFailure::Refused));
    }

    #[test]
    fn a_backend_that_does_not_answer_is_given_up_in_time() {
        // Its backlog is full, so that the kernel drops what comes.
        let socket = new_socket(AddressFamily::INET).unwrap();
        bind(&socket, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        listen(&socket, 0).unwrap();
        let to = rustix::net::getsockname(&socket).unwrap();
        let to = BackendAddress::Tcp(SocketAddr::try_from(to).unwrap());
        let mut held = Vec::new();
        let failed = loop {
            match reach(&to, 50_000_000) {
                Ok(socket) => held.push(socket),
                Err(failed) => break failed,
            }
            assert!(held.len() < 10, "a backlog of 0 holds one");
        };
        assert_eq!(failed, BackendFailure::Timeout);
    }

    #[test]
    fn a_full_unix_socket_is_tried_again_until_there_is_room_or_no_time() {
        let folder = std::env::temp_dir().join(format!("tidegate-full-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("full.sock");
        let socket = new_socket(AddressFamily::UNIX).unwrap();
        bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&socket, 0).unwrap();
        let to = address(&format!("unix:{}", path.display()));
        let first = reach(&to, PATIENCE).unwrap();
        assert_eq!(reach(&to, 20_000_000).unwrap_err(), BackendFailure::Timeout);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| reach(&to, PATIENCE));
            rustix::net::accept(&socket).unwrap();
            assert!(second.join().unwrap().is_ok());
        });
        drop(first);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn errors_are_of_the_classes_that_the_metrics_count() {
        use BackendFailure::{Local, Refused, Reset, Timeout, Unreachable};
        for (error, class) in [
            (Errno::CONNREFUSED, Refused),
            (Errno::NOENT, Refused),
            (Errno::TIMEDOUT, Timeout),
            (Errno::CONNRESET, Reset),
            (Errno::HOSTUNREACH, Unreachable),
            (Errno::NETUNREACH, Unreachable),
            (Errno::ACCESS, Unreachable),
            (Errno::MFILE, Local),
            (Errno::ADDRNOTAVAIL, Local),
        ] {
            assert_eq!(failure(error), class, "{error}");
        }
    }
}
