//! One client of the load: its connection and the request under way on it.

use super::clock::Nanos;
use super::datagram::Window;
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

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) fd: Option<OwnedFd>,
    pub(crate) state: State,
    /// A request is under way, from its connecting on.
    pub(crate) requesting: bool,
    /// The request counts in the measured part.
    pub(crate) measured: bool,
    /// All of the request was sent.
    pub(crate) whole: bool,
    /// Bytes came before anything was asked.
    pub(crate) unread: bool,
    /// Of the connection: events of an older one are not meant for this.
    pub(crate) generation: u32,
    /// Of the newest wake-up; older ones are void.
    pub(crate) wake: u32,
    /// Requests made on this connection.
    pub(crate) used: u32,
    /// Which payload the request carries.
    pub(crate) payload: usize,
    /// Bytes of the request that were sent.
    pub(crate) sent: usize,
    pub(crate) intended: Nanos,
    pub(crate) connecting_since: Nanos,
    /// When the request began to be sent.
    pub(crate) sent_at: Option<Nanos>,
    pub(crate) reply: Reply,
    pub(crate) window: Window,
}
