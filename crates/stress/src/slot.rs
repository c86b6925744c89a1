//! A slot is one client of the load: its connection, and the request that is under way on it.

use super::clock::{NEVER, Nanos};
use super::kernel::{Kernel, errno};
use super::numbering::Window;
use super::wire::Reply;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tidegate_protocols::tls::Session;

/// What a slot is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No connection.
    #[default]
    Vacant,
    /// A connection is being established.
    Connecting,
    /// The backlog of a Unix socket is full: connecting is tried again and again.
    Knocking,
    /// It is established, and the handshake of TLS is under way.
    Shaking,
    /// It is established, and the handshake of its WebSocket is under way.
    Greeting,
    /// A connection without a request.
    Idle,
    /// A request was sent, or part of it, and its reply is awaited.
    Busy,
    /// Mode hold: connected and silent.
    Holding,
    /// Mode slow-send: bytes of the request go out one by one.
    Dripping,
    /// Mode slow-read: bytes of the replies come in one by one.
    Sipping,
    /// Our half is closed, the server's end is awaited.
    Closing,
}

impl State {
    /// Whether a connection is being established.
    pub(crate) const fn is_connecting(self) -> bool {
        matches!(self, State::Connecting | State::Knocking | State::Shaking | State::Greeting)
    }

    /// Whether a mode has the connection.
    pub(crate) const fn stays(self) -> bool {
        matches!(self, State::Holding | State::Dripping | State::Sipping)
    }
}

/// One client. What every request touches comes first and fills one line of the processor's cache, since with thousands
/// of clients each is out of the cache when its turn comes.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) fd: Option<OwnedFd>,
    /// Of the connection: events of an older one are not meant for this.
    pub(crate) generation: u32,
    /// Requests made on this connection.
    pub(crate) used: u32,
    pub(crate) state: State,
    /// A request is under way, from its connecting on.
    pub(crate) requesting: bool,
    /// All of the request was sent.
    pub(crate) whole: bool,
    /// Bytes came before anything was asked.
    pub(crate) unread: bool,
    /// Which payload the request carries.
    pub(crate) payload: usize,
    /// Bytes of the request that were sent.
    pub(crate) sent: usize,
    pub(crate) intended: Nanos,
    /// When the request began to be sent; [`NEVER`] before.
    pub(crate) sent_at: Nanos,
    pub(crate) reply: Reply,
    pub(crate) connecting_since: Nanos,
    /// When the handshake of TLS began.
    pub(crate) shaking_since: Nanos,
    /// What is between the client and its socket, where the target speaks TLS.
    pub(crate) tls: Option<Box<Session>>,
    /// Of the newest wake-up; older ones are void.
    pub(crate) wake: u32,
    pub(crate) window: Window,
}

const _: () = assert!(std::mem::offset_of!(Slot, connecting_since) == 64, "the first line is full");

impl Default for Slot {
    fn default() -> Self {
        Self {
            fd: None,
            generation: 0,
            used: 0,
            state: State::Vacant,
            requesting: false,
            whole: false,
            unread: false,
            payload: 0,
            sent: 0,
            intended: 0,
            sent_at: NEVER,
            reply: Reply::default(),
            connecting_since: 0,
            shaking_since: 0,
            tls: None,
            wake: 0,
            window: Window::default(),
        }
    }
}

impl Slot {
    /// Sends some bytes; how many.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let Some(fd) = &self.fd else { return Err(Errno::NOTCONN) };
        match &mut self.tls {
            None => rustix::net::send(fd, bytes, SendFlags::NOSIGNAL),
            Some(session) => session.send(&mut Kernel(fd), bytes).map_err(|error| errno(&error)),
        }
    }

    /// Receives some bytes; how many, 0 at the end.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let Some(fd) = &self.fd else { return Err(Errno::NOTCONN) };
        match &mut self.tls {
            None => rustix::net::recv(fd, buffer, RecvFlags::empty()).map(|(got, _)| got),
            Some(session) => session.receive(&mut Kernel(fd), buffer).map_err(|error| errno(&error)),
        }
    }

    /// The kernel has room again: what TLS keeps goes out. An error shows when the slot reads.
    pub(crate) fn flush(&mut self) {
        if let (Some(fd), Some(session)) = (&self.fd, &mut self.tls) {
            let _ = session.flush(&mut Kernel(fd));
        }
    }

    /// Says the end, where TLS has a word for it.
    pub(crate) fn say_end(&mut self) {
        if let (Some(fd), Some(session)) = (&self.fd, &mut self.tls) {
            session.end(&mut Kernel(fd));
        }
    }
}
