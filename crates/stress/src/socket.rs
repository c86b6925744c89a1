//! The sockets of the load: opening them without waiting, closing them, and sorting their errors into outcomes.

use super::outcome::Outcome;
use super::plan::{Close, Plan};
use super::target::Target;
use rustix::event::epoll::{self, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A slow reader's receive buffer, in bytes: small, so that the server's output backs up soon.
const SLOW_READ_BUFFER: usize = 4096;
/// A payload up to this size goes out in one segment, so Nagle's algorithm cannot delay its end.
const ONE_SEGMENT: usize = 1400;

/// Opens a socket that is not connected.
pub(crate) fn open(plan: &Plan, source: Option<IpAddr>) -> Result<OwnedFd, Errno> {
    let kind = match plan.is_datagram() {
        true => SocketType::DGRAM,
        false => SocketType::STREAM,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(plan.target.family(), kind, flags, None)?;
    if !plan.is_datagram()
        && !plan.target.is_unix()
        && (plan.wire.largest() > ONE_SEGMENT || plan.tls.is_some())
    {
        sockopt::set_tcp_nodelay(&socket, true)?;
    }
    if plan.mode == super::plan::Mode::SlowRead {
        sockopt::set_socket_recv_buffer_size(&socket, SLOW_READ_BUFFER)?;
    }
    if let Some(source) = source {
        super::sys::bind_address_no_port(&socket)?;
        rustix::net::bind(&socket, &SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

/// Begins to connect a socket; false if it has to be tried again: the backlog of a Unix socket is full, and the kernel
/// neither waits nor tells when it is not.
pub(crate) fn connect(plan: &Plan, socket: &OwnedFd) -> Result<bool, Errno> {
    let connected = match &plan.target {
        Target::Inet(address) => rustix::net::connect(socket, address),
        Target::Unix(_, address) => rustix::net::connect(socket, &**address),
    };
    match connected {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(true),
        Err(Errno::AGAIN) if plan.target.is_unix() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Registers a socket for its whole life. Streams are edge-triggered; a datagram socket may hold several
/// replies at once, so it goes on reporting until it is empty.
pub(crate) fn register(epoll: &OwnedFd, socket: &OwnedFd, datagram: bool, token: u64) -> Result<(), Errno> {
    let flags = match datagram {
        true => EventFlags::IN,
        false => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
    };
    epoll::add(epoll, socket, epoll::EventData::new_u64(token), flags)
}

/// What became of a connection that was being established.
pub(crate) fn error(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::socket_error(socket)?
}

/// Ends a connection that was used up. Gives the socket back where the server's end is to be awaited.
pub(crate) fn close(socket: OwnedFd, how: Close) -> Option<OwnedFd> {
    match how {
        Close::Fin => None,
        Close::Rst => {
            // Where it fails the connection is gone already, and closing it is all there is to do.
            let _ = sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
            None
        }
        Close::Half => match rustix::net::shutdown(&socket, rustix::net::Shutdown::Write) {
            Ok(()) => Some(socket),
            Err(_) => None,
        },
    }
}

/// The outcome that an error of the operating system stands for.
pub(crate) fn outcome(error: Errno, connecting: bool) -> Outcome {
    match error {
        Errno::CONNREFUSED => Outcome::Refused,
        // No such Unix socket.
        Errno::NOENT if connecting => Outcome::Refused,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => Outcome::Reset,
        Errno::TIMEDOUT if connecting => Outcome::ConnectTimeout,
        Errno::TIMEDOUT => Outcome::ReadTimeout,
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Outcome::AddressUnavailable,
        // A full port range makes connect() say EAGAIN on some kernels.
        Errno::AGAIN if connecting => Outcome::AddressUnavailable,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Outcome::DescriptorLimit,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::HOSTDOWN => Outcome::Unreachable,
        Errno::ACCESS | Errno::PERM => Outcome::Unreachable,
        // What TLS says of records that are wrong.
        Errno::PROTO => Outcome::TlsFailed,
        _ => Outcome::OtherError,
    }
}
