//! A WebSocket as its service sees it.

use super::config::WebSocketConfig;
use super::frame::{CONTROL_MAX, Opcode, frame_head};
use super::message::Message;
use super::pusher::{Outbox, Pusher};
use super::violation::may_be_sent;
use crate::metrics::web::WebCounts;
use crate::reason::CloseReason;
use crate::service::http::{Caller, Request};
use crate::service::{Output, Peer, Waker};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What happens on a WebSocket.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'e> {
    /// A client asks for a socket: always the first event. If the service returns an error here before it sends
    /// anything, the client gets no socket but an answer over HTTP: 500, or the
    /// [`status`](crate::service::http::status) that the error carries.
    Open(&'e Request<'e>),
    /// A message of text, whole.
    Text(&'e str),
    /// A message of bytes, whole.
    Binary(&'e [u8]),
    /// The time that the service asked for with [`WebSocket::call_in`] is over.
    Timer,
    /// The socket has ended: always the last event, also of a socket at whose opening the service panicked. (One that was
    /// refused over HTTP was none, and has no end.) Nothing can be sent any more.
    Close(&'e Closed),
}

/// How a socket has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// The code that the client gave, if it closed the socket and gave one.
    pub code: Option<u16>,
    /// The reason that the client gave.
    pub reason: String,
    /// Why the connection ended.
    pub why: CloseReason,
}

/// What a session keeps of its socket between turns.
#[derive(Debug)]
pub(super) struct SocketState {
    pub(super) id: u64,
    pub(super) config: WebSocketConfig,
    pub(super) outbox: Option<Arc<Outbox>>,
    /// When the service wants to be called.
    pub(super) timer: Option<Instant>,
    /// Since when the socket is closed from this side.
    pub(super) closing: Option<Instant>,
    /// The code that it was closed with from this side.
    pub(super) close_code: Option<u16>,
    /// Where its end is counted.
    pub(super) counts: Option<Arc<WebCounts>>,
}

impl SocketState {
    pub(super) fn new(config: WebSocketConfig, counts: Option<Arc<WebCounts>>) -> Self {
        static SOCKETS: AtomicU64 = AtomicU64::new(1);
        let id = SOCKETS.fetch_add(1, Ordering::Relaxed);
        Self { id, config, outbox: None, timer: None, closing: None, close_code: None, counts }
    }
}

/// A client's socket during an event.
#[derive(Debug)]
pub struct WebSocket<'s, 'a> {
    /// None when the connection has ended.
    pub(super) output: Option<&'s mut Output<'a>>,
    pub(super) caller: Option<Caller<'s>>,
    pub(super) state: &'s mut SocketState,
    /// The answer that opens the socket, until it is sent.
    pub(super) opening: Option<Vec<u8>>,
}

impl WebSocket<'_, '_> {
    /// Sends a message without waiting: a text from a `&str`, bytes from a `&[u8]`. What the client does not take
    /// at once is kept, up to `output_per_connection`; past that the connection ends.
    pub fn send<'m>(&mut self, message: impl Into<Message<'m>>) -> io::Result<()> {
        let (opcode, payload) = message.into().parts();
        self.send_frame(opcode, payload)
    }

    /// Ends the socket with a code (1000 for a usual end, 4000 to 4999 as the service likes) and a reason of at most
    /// 123 bytes. Nothing can be sent after it.
    pub fn close(&mut self, code: u16, reason: &str) -> io::Result<()> {
        if !may_be_sent(code) || reason.len() + 2 > CONTROL_MAX {
            let why = "a close code that may not be sent, or too long a reason";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.send_frame(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat())?;
        self.state.closing = Some(Instant::now());
        self.state.close_code = Some(code);
        Ok(())
    }

    /// Sends to this socket from any thread.
    pub fn pusher(&mut self) -> io::Result<Pusher> {
        let (Some(output), Some(caller)) = (&self.output, self.caller) else { return Err(gone()) };
        let outbox = self.state.outbox.get_or_insert_with(|| {
            let context = output.context;
            let waker = Waker::new(context.host.clone(), caller.seat);
            let limits = context.limits;
            let total = context.output_total.pool().clone();
            Arc::new(Outbox::new(waker, limits.output_per_connection, total, limits.output_total))
        });
        Ok(outbox.pusher())
    }

    /// Asks for [`Event::Timer`] after this time. A socket has one timer: this replaces the one before.
    pub fn call_in(&mut self, time: Duration) {
        self.state.timer = Instant::now().checked_add(time);
    }

    /// A number that no other socket of this process has.
    pub fn id(&self) -> u64 {
        self.state.id
    }

    /// The client, while it is connected.
    pub fn peer(&self) -> Option<&Peer> {
        self.caller.as_ref().map(|caller| caller.peer)
    }

    pub(super) fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        self.open()?;
        let Some(output) = self.output.as_deref_mut().filter(|_| self.state.closing.is_none()) else {
            return Err(gone());
        };
        output.send(frame_head(opcode, payload.len()).as_ref())?;
        output.send(payload)?;
        if let (Some(web), Opcode::Text | Opcode::Binary) = (output.context.web, opcode) {
            web.ledger.message_sent();
        }
        Ok(())
    }

    /// Sends the answer that opens the socket, if it was not sent.
    pub(super) fn open(&mut self) -> io::Result<()> {
        match (self.opening.take(), &mut self.output) {
            (Some(answer), Some(output)) => output.send(&answer),
            _ => Ok(()),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket was closed")
}
