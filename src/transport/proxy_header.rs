//! The PROXY protocol: the header in which a load balancer says who its client is.
//!
//! Version 1 is a line of text, version 2 is binary; both stand before the first byte of the connection.
//! [`parse`] reads either from what has come so far, and says as early as possible that something cannot be a
//! header. [`take`] does so on a socket without a buffer: it looks at what waits in the kernel and takes the
//! header only when it is whole, so a client that sends half a header owns no memory here.
//! [`ProxyVersion::write`] makes one.
//!
//! The text that counts is HAProxy's `doc/proxy-protocol.txt`. Where it leaves a choice:
//!
//! - A version 2 header is at most [`MAX_BYTES`] long. The text allows 64 KiB; HAProxy's own buffer is as small.
//! - `UNKNOWN` (v1), `LOCAL` and the families *unspecified* and *Unix* (v2), and datagrams, carry no address that
//!   a stream could be served under: the connection keeps its own addresses ([`Origin::Connection`]).
//! - The fields that may follow the addresses (TLVs) are walked and skipped. A checksum (CRC32C) among them is
//!   verified. Where the header names no address they cannot be found, and are skipped unseen.

mod header;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use super::address::ClientAddress;
pub use header::{Header, HeaderError, MAX_BYTES, Origin};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// Which form of the header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

impl std::str::FromStr for ProxyVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "v1" => Ok(ProxyVersion::V1),
            "v2" => Ok(ProxyVersion::V2),
            _ => Err("the PROXY protocol has the versions v1 and v2"),
        }
    }
}

impl std::fmt::Display for ProxyVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ProxyVersion::V1 => "v1",
            ProxyVersion::V2 => "v2",
        })
    }
}

/// Reads a header from the first bytes of a connection; `None` while they may become one.
///
/// # Errors
///
/// The bytes are not a header, and no byte that follows can make them one.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    // The first byte tells the versions apart: `P` and `\r`.
    match bytes.first() {
        None => Ok(None),
        Some(first) if *first == v1::GREETING[0] => v1::parse(bytes),
        Some(_) => v2::parse(bytes),
    }
}

/// Why no header could be taken from a socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// What came is not a header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The connection failed, or ended before it said a word (`UnexpectedEof`).
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// Takes the header from a socket without waiting; `None` when not all of it has come. Only the header is
/// taken: the client's own bytes stay in the kernel. More of it is told by another readiness event.
pub(crate) fn take(socket: impl AsFd) -> Result<Option<Origin>, TakeError> {
    let mut bytes = [0; MAX_BYTES];
    let mut seen = None;
    loop {
        let len = match peek(&socket, &mut bytes)? {
            None => return Ok(None),
            Some(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Some(len) => len,
        };
        if let Some(header) = parse(&bytes[..len])? {
            discard(&socket, &mut bytes[..header.len])?;
            return Ok(Some(header.origin));
        }
        // A look does not see the end behind half a header. The rest may have come between the look and the
        // end, so the end counts when a second look finds no more.
        if seen == Some(len) {
            return Err(HeaderError::Cut.into());
        }
        if !has_hung_up(&socket) {
            return Ok(None);
        }
        seen = Some(len);
    }
}

/// What waits in the kernel: `None` for nothing, 0 for the end.
fn peek(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match recv(&socket, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((len, _)) => return Ok(Some(len)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes bytes that were seen before.
fn discard(socket: impl AsFd, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match recv(&socket, &mut *bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((len, _)) => bytes = &mut bytes[len..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether the other side has closed its half, or the connection failed.
fn has_hung_up(socket: impl AsFd) -> bool {
    #[cfg(target_os = "linux")]
    let end = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    #[cfg(not(target_os = "linux"))]
    let end = PollFlags::HUP | PollFlags::ERR;
    let mut look = [PollFd::new(&socket, end)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut look, Some(&now)).is_ok_and(|ready| ready > 0)
}

impl ProxyVersion {
    /// Appends the header of a connection whose client is known: `source` connected to `destination`. Addresses
    /// of two families are both written as IPv6, IPv4 as `::ffff:a.b.c.d`.
    pub fn write(self, source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
        let (source, destination) = same_family(source, destination);
        match self {
            ProxyVersion::V1 => v1::write(source, destination, out),
            ProxyVersion::V2 => v2::write(source, destination, out),
        }
    }

    /// Appends the header of a connection with this client, which connected to `near`. Where the connection has come
    /// over a Unix socket there is no such address; one of zeros stands for it, if the client is known by another header.
    pub(crate) fn write_client(self, client: &ClientAddress, near: Option<SocketAddr>, out: &mut Vec<u8>) {
        let Some(source) = client.socket_addr() else { return self.write_unknown(out) };
        let none = match source {
            SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
            SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
        };
        self.write(source, near.unwrap_or(none), out);
    }

    /// Appends the header of a client without a network address: one of a Unix socket.
    pub fn write_unknown(self, out: &mut Vec<u8>) {
        match self {
            ProxyVersion::V1 => v1::write_unknown(out),
            ProxyVersion::V2 => v2::write_without_address(v2::HeaderCommand::Proxy, out),
        }
    }

    /// Appends the header of a connection that has no client: a check of the backend.
    pub fn write_local(self, out: &mut Vec<u8>) {
        match self {
            ProxyVersion::V1 => v1::write_unknown(out),
            ProxyVersion::V2 => v2::write_without_address(v2::HeaderCommand::Local, out),
        }
    }
}

/// Both addresses in one family, since a header has room for one.
fn same_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let mapped = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    };
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (mapped(source), mapped(destination))
    }
}
