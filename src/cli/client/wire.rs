//! The client's socket, and how it comes to be connected.

use super::Failure;
use crate::cli::units;
use crate::url::{Scheme, Url};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// The socket, connected and non-blocking.
pub(super) enum Wire {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Wire {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Wire::Tcp(socket) => socket.as_fd(),
            Wire::Udp(socket) => socket.as_fd(),
        }
    }

    pub(super) fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(socket) => (&*socket).write(data),
            Wire::Udp(socket) => socket.send(data),
        }
    }

    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Tcp(socket) => (&*socket).read(buffer),
            Wire::Udp(socket) => socket.recv(buffer),
        }
    }

    pub(super) fn is_tcp(&self) -> bool {
        matches!(self, Wire::Tcp(_))
    }
}

pub(super) fn connect(url: &Url, timeout: Duration) -> Result<Wire, Failure> {
    let deadline = Instant::now() + timeout;
    let failed = |why: String| Failure::Failed(format!("cannot connect to {url}: {why}"));
    let addresses = resolve(url, timeout)?;
    let mut last = None;
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match connect_one(url.scheme, address, left) {
            Ok(wire) => return Ok(wire),
            Err(error) => last = Some(error),
        }
    }
    Err(failed(match last {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there".to_owned()
        }
        Some(error) if error.kind() != io::ErrorKind::TimedOut => error.to_string(),
        _ => format!("no answer within {}", units::show_time(timeout)),
    }))
}

fn connect_one(scheme: Scheme, address: SocketAddr, timeout: Duration) -> io::Result<Wire> {
    if scheme == Scheme::Udp {
        let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        return Ok(Wire::Udp(socket));
    }
    let socket = TcpStream::connect_timeout(&address, timeout)?;
    // Each line is sent with one call, so there is nothing to gather.
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(Wire::Tcp(socket))
}

/// Resolves in a thread of its own, since the system's resolver has no deadline that we can set.
fn resolve(url: &Url, timeout: Duration) -> Result<Vec<SocketAddr>, Failure> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let asked = url.clone();
    std::thread::Builder::new()
        .name("tidegate-resolve".to_owned())
        .spawn(move || {
            // Nobody waits any more after the deadline.
            let _ = sender.send(asked.resolve());
        })
        .map_err(|error| Failure::Failed(format!("cannot start a thread: {error}")))?;
    match receiver.recv_timeout(timeout) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(Failure::Failed(error.to_string())),
        Err(_) => {
            let time = units::show_time(timeout);
            Err(Failure::Failed(format!("cannot resolve {}: no answer within {time}", url.host)))
        }
    }
}
