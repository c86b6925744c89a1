//! What is done with a connected socket without waiting: send, receive, look, discard, and how it is closed.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    SocketType, recvmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A client's socket, of TCP or a Unix socket. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct ClientSocket(OwnedFd);

impl ClientSocket {
    /// The internet address that the client has connected to; `None` of a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        SocketAddr::try_from(rustix::net::getsockname(&self.0).ok()?).ok()
    }

    /// Sends the end of what is said.
    pub(crate) fn end_output(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.0, Shutdown::Write)?)
    }
}

impl From<OwnedFd> for ClientSocket {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How bytes are sent: without waiting, and without a signal if the other side has gone.
#[cfg(not(target_vendor = "apple"))]
pub(crate) const SEND_NOW: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// There is no such flag there. A Rust program ignores the signal, and [`new_socket`] asks for none.
#[cfg(target_vendor = "apple")]
pub(crate) const SEND_NOW: SendFlags = SendFlags::DONTWAIT;

/// How the last bytes of a connection are sent: the kernel holds them back for the end that follows, and sends both at once.
/// A segment costs a refusal more than all the rest of it.
#[cfg(target_os = "linux")]
const SEND_LAST: SendFlags = SEND_NOW.union(SendFlags::MORE);
#[cfg(not(target_os = "linux"))]
const SEND_LAST: SendFlags = SEND_NOW;

/// A new stream socket that does not block. Programs that this process starts do not inherit it.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn new_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    use rustix::net::SocketFlags;
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// The same, in four steps.
#[cfg(target_vendor = "apple")]
pub(crate) fn new_socket(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::sockopt::set_socket_nosigpipe(&socket, true)?;
    Ok(socket)
}

/// Sends without waiting; 0 if the kernel takes nothing now.
pub(crate) fn send(socket: impl AsFd, data: &[u8]) -> io::Result<usize> {
    send_as(socket, data, SEND_NOW)
}

fn send_as(socket: impl AsFd, data: &[u8], flags: SendFlags) -> io::Result<usize> {
    loop {
        match rustix::net::send(&socket, data, flags) {
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends two pieces of bytes, one behind the other, with one call and without waiting; 0 if the kernel takes nothing now.
pub(crate) fn send_both(socket: impl AsFd, first: &[u8], second: &[u8]) -> io::Result<usize> {
    let pieces = [IoSlice::new(first), IoSlice::new(second)];
    loop {
        match rustix::net::sendmsg(&socket, &pieces, &mut SendAncillaryBuffer::default(), SEND_NOW) {
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives without waiting: `None` for nothing now, 0 for the end.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match rustix::net::recv(&socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((n, _)) => return Ok(Some(n)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The same from a Unix socket: a read that is shorter than the room for it has emptied the kernel's buffer, unless it is
/// cut. It is cut before what a client has sent together with descriptors, which nobody here wants, and the kernel closes
/// them.
pub(crate) fn receive_unix(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Option<(usize, bool)>> {
    let mut room = [IoSliceMut::new(buffer)];
    loop {
        let mut none = RecvAncillaryBuffer::default();
        match recvmsg(&socket, &mut room, &mut none, RecvFlags::DONTWAIT) {
            Ok(taken) => return Ok(Some((taken.bytes, taken.flags.contains(ReturnFlags::CTRUNC)))),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// One non-blocking send of a few last words: a client that cannot take them at once is not told. Whether it was. The end of
/// the connection has to follow at once, by a close or [`end_output`](ClientSocket::end_output).
pub(crate) fn say_last(socket: impl AsFd, words: &[u8]) -> bool {
    !words.is_empty() && send_as(socket, words, SEND_LAST).is_ok_and(|n| n == words.len())
}

/// Makes the close of this socket a reset: nothing lingers in the kernel, and what it holds for the client is thrown
/// away.
pub(crate) fn reset_on_close(socket: impl AsFd) {
    // It fails only when the connection is gone, and then there is nothing to reset.
    let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
}

/// Whether a client is gone: its connection failed, or it ended without a word where it should have spoken first.
pub(crate) fn has_left(socket: impl AsFd, client_speaks_first: bool) -> bool {
    match peek(&socket) {
        Ok(0) => client_speaks_first,
        // What came before a reset can still be read.
        Ok(_) => has_failed(socket),
        Err(Errno::AGAIN | Errno::INTR) => false,
        Err(_) => true,
    }
}

/// Whether a connection was reset, or failed in another way. The error stays for whoever reads next.
fn has_failed(socket: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut polled = [PollFd::new(&socket, PollFlags::empty())];
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

/// The same for a client that speaks TLS and has hung up. Such a client says `close_notify` before it ends its connection,
/// so one record may be unread. A record of up to three bytes is no request.
pub(crate) fn has_left_tls(socket: impl AsFd, client_speaks_first: bool) -> bool {
    let mut bytes = [0u8; 64];
    match rustix::net::recv(&socket, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => client_speaks_first,
        Ok((n, _)) => client_speaks_first && is_last_record(&bytes[..n]),
        Err(Errno::AGAIN | Errno::INTR) => false,
        Err(_) => true,
    }
}

/// Whether these bytes are one record of TLS, and nothing else, that can only be an alert: TLS 1.2 says so in its type. TLS 1.3
/// calls all records data; the alert is two bytes, with one for its type and 16 for the tag.
fn is_last_record(bytes: &[u8]) -> bool {
    let [kind, _, _, high, low, rest @ ..] = bytes else { return false };
    let length = usize::from(*high) << 8 | usize::from(*low);
    rest.len() == length && (*kind == 21 || *kind == 23 && length <= 19)
}

/// Whether a client has sent something that was not read.
pub(crate) fn has_input(socket: impl AsFd) -> bool {
    peek(socket).is_ok_and(|n| n > 0)
}

/// Whether a client has done something that was not read: sent something, ended, or failed.
pub(crate) fn has_news(socket: impl AsFd) -> bool {
    !matches!(peek(socket), Err(Errno::AGAIN | Errno::INTR))
}

/// Whether a client has taken enough of what it was sent that the kernel takes more.
pub(crate) fn takes_more(socket: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// How many bytes a client has sent that were not read.
pub(crate) fn unread(socket: impl AsFd) -> usize {
    rustix::io::ioctl_fionread(&socket).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn peek(socket: impl AsFd) -> Result<usize, Errno> {
    let mut byte = [0u8; 1];
    rustix::net::recv(&socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT).map(|(n, _)| n)
}

/// What discarding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarded {
    /// The client has not ended yet.
    Open,
    /// It has, or has sent more than is discarded: close.
    Ended,
}

/// Reads once, and throws away what has come; whether that `is_all` that the client sends.
pub(crate) fn has_said_all(socket: impl AsFd, left: &mut usize, is_all: fn(&[u8]) -> bool) -> bool {
    let mut bin = [0u8; 4096];
    let Ok(Some(n)) = receive(&socket, &mut bin) else { return false };
    *left = left.saturating_sub(n);
    n < bin.len() && is_all(&bin[..n])
}

/// Reads and throws away what a client sends, at most `left` bytes.
pub(crate) fn discard(socket: impl AsFd, left: &mut usize) -> Discarded {
    let mut bin = [0u8; 4096];
    loop {
        match receive(&socket, &mut bin) {
            Ok(Some(0)) | Err(_) => return Discarded::Ended,
            Ok(Some(n)) if n < *left => *left -= n,
            Ok(Some(_)) => {
                reset_on_close(&socket);
                return Discarded::Ended;
            }
            Ok(None) => return Discarded::Open,
        }
    }
}
