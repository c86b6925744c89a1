//! What people write: a [`Service`] that opens a [`Session`] for each connection, and closures for the common cases
//! ([`handler`], [`lines`]).

mod blocking;
mod datagram;
mod echo;
mod event_route;
mod fault;
mod held;
mod hello;
mod holdings;
pub mod http;
mod kept;
mod lines;
mod pace;
mod pool;
mod protocol;
mod proxy;
mod seat;
mod secured;
mod stream;
mod time;
mod tls_side;
mod turn_peer;
mod waker;
mod web;
pub mod websocket;
mod words;
mod work;

pub use crate::transport::proxy_header::ProxyVersion;
pub use crate::transport::tls::BackendTls;
pub use blocking::{Blocking, Handler, handler};
pub use datagram::{DatagramService, Datagrams, Reply, datagrams};
pub use echo::Echo;
pub(crate) use event_route::{EventRoute, EventRoutes, RouteId, RouteNews};
pub use fault::Fault;
pub use hello::{hello, hello_datagrams};
pub(crate) use holdings::Holdings;
pub use http::http;
pub(crate) use kept::Kept;
pub use lines::{AnswerLine, LineReply, Lines, lines, lines_with};
pub(crate) use pool::Pool;
pub use protocol::Protocol;
pub use proxy::{
    BackendName, BackendNameError, ConnectOn, FairBy, FairByError, HttpGateConfig, Network, NetworkError,
    Proxy, ProxyBuilder, proxy,
};
pub(crate) use proxy::{HTTP_GATE_CONNECTION_BYTES, http_gate_worker_bytes};
pub(crate) use seat::Seat;
pub(crate) use secured::{Decrypted, PassRecords, SocketTls, TlsBuffers};
pub(crate) use stream::{Buffers, Context, Turned};
pub use stream::{Input, Output, Received, Stream};
pub use time::Time;
pub(crate) use tls_side::{Shake, ShakeTurn, TlsSide};
pub(crate) use turn_peer::TurnPeer;
pub use waker::Waker;
pub(crate) use waker::{Host, SocketEvent, SocketEvents, WatchFor};
pub(crate) use web::WebTurn;
pub use websocket::websocket;
pub(crate) use words::Words;
pub use work::{Cost, Work};

use crate::limits::Limits;
use crate::metrics::backends::BackendsSnapshot;
use crate::reason::CloseReason;
use crate::transport::address::ClientAddress;
use crate::transport::tls::TlsFacts;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The most that the session of a ready service takes of the allocator: a WebSocket takes most, whose message has begun and to
/// which other threads push.
const SESSION_BYTES: usize = 816;

/// The most that a ready service makes the server hold for one connection, beside what the pools of input and of
/// replies count.
pub(crate) const CONNECTION_BYTES: usize =
    SESSION_BYTES + Kept::BYTES + Pool::SMALL_BYTES + 3 * Holdings::CONNECTION_BYTES;

/// What the pools of input and of replies keep spare for the next connection.
pub(crate) const SPARE_BYTES: usize = 2 * Pool::SPARE_BYTES;

/// The client of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its address: on the network, or as the kernel knows a client of a Unix socket. Where a PROXY header is expected, the
    /// one that the header says.
    pub address: ClientAddress,
    listener: Option<Arc<str>>,
    tls: Option<Arc<TlsFacts>>,
}

impl Peer {
    pub(crate) fn new(address: ClientAddress) -> Self {
        Self { address, listener: None, tls: None }
    }

    /// The listener that it came to, as the `listener` label of metrics has it: `tcp://127.0.0.1:5000`. Empty where no
    /// server is in between, as in a test of a service by itself.
    pub fn listener(&self) -> &str {
        self.listener.as_deref().unwrap_or_default()
    }

    pub(crate) fn at(self, listener: &Arc<str>) -> Self {
        Self { listener: Some(listener.clone()), ..self }
    }

    /// What was agreed on in the TLS handshake. `None` if the client speaks no TLS, and in [`Service::verify`], which
    /// is called before the handshake.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_deref()
    }

    pub(crate) fn known(address: ClientAddress, tls: Option<Arc<TlsFacts>>) -> Self {
        Self { address, listener: None, tls }
    }
}

/// A stream service: it opens a session for each connection.
///
/// All methods but [`name`](Self::name) and [`busy_reply`](Self::busy_reply) run on a worker, never on the acceptor.
/// So a slow one delays one worker and nothing else.
///
/// [`Lines`] has these hooks as methods that take closures. [`handler`] has none: to add a hook to
/// one, write a `Service` that holds it and forwards `name`, `connect` and `client_speaks_first`.
pub trait Service: Send + Sync + 'static {
    /// The `service` label of its metrics. Default: `service`.
    fn name(&self) -> &str {
        "service"
    }

    /// Whether this client is served, asked before its first turn. A client that is not is sent the busy reply, if
    /// there is one, and is counted as `denied`. With TLS this is asked before the handshake, so that a refusal costs
    /// no handshake, and the client is sent nothing. Default: yes.
    fn verify(&self, peer: &Peer) -> bool {
        let _ = peer;
        true
    }

    /// Opens the session of a connection: at its first turn, or after its TLS handshake. A session without fields
    /// costs no allocation.
    fn connect(&self, peer: &Peer) -> Box<dyn Session>;

    /// What a refused client is sent, where the protocol has words for it. `{retry-after}` in it becomes the number
    /// of seconds that the server needs to work off its queue, from 1 to 120. Asked once, when the server is bound.
    /// Default: nothing, and the client is reset.
    fn busy_reply(&self) -> &[u8] {
        b""
    }

    /// Whether [`Session::overloaded`] is called for a request that has waited longer than `queue_timeout`. `busy_reply` is
    /// the text for clients of its listener that are not served, which may be empty. If not, the connection of that request
    /// ends with this text. Asked once, when the server is bound. Default: no.
    fn answers_overload(&self, busy_reply: &[u8]) -> bool {
        let _ = busy_reply;
        false
    }

    /// Whether the client speaks first. If it does, a client that has left without sending anything gets no turn.
    /// Default: yes.
    fn client_speaks_first(&self) -> bool {
        true
    }

    /// The protocol of its clients. It decides the scheme of the listener's URL in metrics, in the log and on the
    /// status page, and which counters the listener has. Asked once, when the server is bound. Default: a protocol of
    /// its own.
    fn protocol(&self) -> Protocol {
        Protocol::Stream
    }

    /// How many descriptors the service may open beside those of its clients. The server checks at its start that the
    /// limit of open files allows them. Default: none.
    fn descriptors(&self) -> usize {
        0
    }

    /// The bytes that the service may take at its most, beside what each of its connections takes. The program adds them to
    /// the memory ceiling that it prints. Default: none.
    fn memory(&self, limits: &Limits) -> usize {
        let _ = limits;
        0
    }

    /// A reading of its backends, if it passes connections on to any. Asked for each scrape. Default: `None`.
    fn backends(&self) -> Option<BackendsSnapshot> {
        None
    }

    /// Called when a turn returned an error or panicked; `error` says which. The connection ends.
    fn turn_failed(&self, peer: &Peer, error: &io::Error) {
        let _ = (peer, error);
    }
}

/// One connection's side of a service.
pub trait Session: Send {
    /// Called when there is something to do: at the start, when the client has sent something, or when it has read
    /// what it was sent. Do what can be done without waiting, and return what should happen next. What a session
    /// needs to remember of half a request it keeps in its own fields.
    ///
    /// An error ends the connection. `InvalidData` is counted as a broken protocol, the errors of a reset connection
    /// as a reset, and others as an error. After a broken protocol the client still gets the replies and then FIN;
    /// after another error it is reset. To make sure that a client reads a message, send it and return
    /// [`Turn::Close`].
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn>;

    /// Called instead of [`turn`](Self::turn) when the waiting request cannot be served, if
    /// [`Service::answers_overload`] returns true. Take the request from the stream and answer the client quickly.
    /// `wait` is the time the server needs to work off its queue, in whole seconds from 1 to 120.
    /// [`Stream::busy_reply`] has the configured words. Default: sends them, and ends the connection.
    fn overloaded(&mut self, stream: &mut Stream<'_>, wait: Duration) -> io::Result<Turn> {
        let words = stream.busy_reply(wait).into_owned();
        stream.send(&words)?;
        Ok(Turn::Close)
    }

    /// The last call: the connection has ended for this reason. It runs on a worker, like a turn. Until it returns,
    /// the connection keeps its place among `max_connections`. (When a drain is cut short and no worker is free,
    /// another thread calls it, or after a second nobody does.)
    fn finish(&mut self, reason: CloseReason) {
        let _ = reason;
    }
}

/// What a turn wants next.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Turn {
    /// Between requests: wait for the next one, at most `idle_timeout`.
    Park,
    /// In the middle of a request: wait for its rest, at most `read_timeout` from its first byte.
    Partial,
    /// Wait for the client, but have a turn after this time at the latest. The turn comes earlier when the client
    /// does something or a [`Waker`] wakes the session. The time is kept to about a millisecond. `idle_timeout` and
    /// `read_timeout` do not apply meanwhile: the session keeps its own time.
    ParkFor(Duration),
    /// Have another turn at once, after the connections that already wait for one. Return it when the session has
    /// input left that it has not answered, because [`Output::is_turn_over`] was true. If the client has not read its
    /// replies, the turn comes when it has.
    Again,
    /// Send the replies that are kept, and then end the connection.
    Close,
}
