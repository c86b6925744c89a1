//! A slot is one client of the load: its connection, and the request that is under way on it.

use super::clock::{NEVER, Nanos};
use super::numbering::Window;
use super::wire::Reply;
use rustix::fd::OwnedFd;

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
    /// It is established, and its handshake is under way.
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
        matches!(self, State::Connecting | State::Knocking | State::Greeting)
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
            wake: 0,
            window: Window::default(),
        }
    }
}
