//! What a person writes: a [`Service`] that opens a [`Session`] for each connection, and the
//! closures for the common cases ([`handler`], [`lines`]).

mod blocking;
mod datagram;
mod echo;
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
mod secured;
mod stream;
mod time;
mod tls_side;
mod waker;
mod web;
pub mod websocket;
mod words;
mod work;

pub use crate::transport::proxy_header::Version as ProxyVersion;
pub use blocking::{Blocking, Handler, handler};
pub use datagram::{DatagramService, Datagrams, Reply, datagrams};
pub use echo::Echo;
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
pub(crate) use secured::TlsBuffers;
pub(crate) use stream::{Buffers, Context, Turned};
pub use stream::{Input, Output, Received, Stream};
pub use time::Time;
pub(crate) use tls_side::{Shake, ShakeTurn, TlsSide};
pub use waker::Waker;
pub(crate) use waker::{Host, Seat, SocketEvent, SocketEvents, WatchFor};
pub(crate) use web::WebTurn;
pub use websocket::websocket;
pub(crate) use words::Words;
pub use work::{Cost, Work};

use crate::metrics::backends::BackendsSnapshot;
use crate::reason::CloseReason;
use crate::transport::tls::TlsFacts;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What the session of a ready service takes of the allocator, at most.
const SESSION_BYTES: usize = 512;

/// What a ready service can make the server hold for one connection, beside what is counted in the
/// pools of input and of replies.
pub(crate) const CONNECTION_BYTES: usize =
    SESSION_BYTES + Kept::BYTES + Pool::SMALL_BYTES + 3 * Holdings::CONNECTION_BYTES;

/// What the pools of input and of replies hold for the next connection.
pub(crate) const SPARE_BYTES: usize = 2 * Pool::SPARE_BYTES;

/// The client of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    tls: Option<Arc<TlsFacts>>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// What was agreed on in its TLS handshake; `None` if it speaks no TLS, or before that is over: in
    /// [`Service::verify`].
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_deref()
    }

    pub(crate) fn known(address: SocketAddr, tls: Option<Arc<TlsFacts>>) -> Self {
        Self { address, tls }
    }
}

/// A stream service: says who it is and opens a session for each connection.
///
/// All methods but [`name`](Self::name) and [`busy_reply`](Self::busy_reply) run on a worker, never
/// on the acceptor, so a slow one costs a worker and nothing else.
///
/// [`Lines`] has these hooks as methods that take closures. [`handler`] has none: to add a hook to
/// one, write a `Service` that holds it and forwards `name`, `connect` and `client_speaks_first`.
pub trait Service: Send + Sync + 'static {
    /// The `service` label of its metrics. Default: `service`.
    fn name(&self) -> &str {
        "service"
    }

    /// Whether this client is served at all, asked before its first turn. One that is not is told
    /// the busy reply, if there is one, and counted as `denied`. With TLS it is asked before the handshake, which costs
    /// nothing then, and the client is told nothing. Default: yes.
    fn verify(&self, peer: &Peer) -> bool {
        let _ = peer;
        true
    }

    /// Opens the session of a connection, at its first turn, or when its TLS handshake is over. A session without
    /// fields costs no allocation.
    fn connect(&self, peer: &Peer) -> Box<dyn Session>;

    /// What a refused client is told, where the protocol has a word for it. `{retry-after}` in it becomes the
    /// number of seconds that the server needs to work off what waits, from 1 to 120. Asked once, when the
    /// server is bound. Default: nothing, and the refusal is a reset.
    fn busy_reply(&self) -> &[u8] {
        b""
    }

    /// Whether [`Session::overloaded`] is called for a request that has waited longer than `queue_timeout`.
    /// Otherwise its connection ends with the busy reply. Asked once, when the server is bound. Default: no.
    fn answers_overload(&self) -> bool {
        false
    }

    /// Whether the client speaks first, so that one that has left without a word needs no turn.
    /// Default: yes.
    fn client_speaks_first(&self) -> bool {
        true
    }

    /// What its clients speak: the scheme of its listener's URL in metrics, in the log and on the status page, and what
    /// is counted for it. Asked once, when the server is bound. Default: a protocol of its own.
    fn protocol(&self) -> Protocol {
        Protocol::Stream
    }

    /// Descriptors that it may have open beside those of its clients, so that the start can say whether the limit of open
    /// files allows them. Default: none.
    fn descriptors(&self) -> usize {
        0
    }

    /// What is known of the backends that connections are passed on to. Default: it has none. Asked for each scrape.
    fn backends(&self) -> Option<BackendsSnapshot> {
        None
    }

    /// A turn returned an error, or panicked (then `error` says so). The connection ends.
    fn turn_failed(&self, peer: &Peer, error: &io::Error) {
        let _ = (peer, error);
    }
}

/// One connection's side of a service.
pub trait Session: Send {
    /// Called when there is something to do: at the start, when the client has sent something, or
    /// when it has taken what it was sent. Do what can be done without waiting, and say what next.
    /// What a session needs to remember of a half request it keeps in its own fields.
    ///
    /// An error ends the connection: `InvalidData` counts as a broken protocol, the errors of a
    /// reset connection as a reset, others as an error. A broken protocol ends with FIN after the
    /// replies, an error with a reset: what the client is to read, send and return
    /// [`Turn::Close`].
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn>;

    /// Called in the place of [`turn`](Self::turn) when the request that waits cannot be served, where
    /// [`Service::answers_overload`] says so: take the request from the stream and tell the client, quickly.
    /// `wait` is the time the server needs to work off what waits, in whole seconds from 1 to 120.
    /// [`Stream::busy_reply`] has the words that are configured. Default: says them, and ends the connection.
    fn overloaded(&mut self, stream: &mut Stream<'_>, wait: Duration) -> io::Result<Turn> {
        let words = stream.busy_reply(wait).into_owned();
        stream.send(&words)?;
        Ok(Turn::Close)
    }

    /// The connection has ended, and why: the last call. Runs on a worker, like a turn; until it
    /// returns the connection keeps its place among `max_connections`. (When a server is cut and no
    /// worker is left for it, it runs on another thread or, after a second, not at all.)
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
    /// Wait for the client, and have a turn after this time at the latest: it may come earlier, when the
    /// client does something or a [`Waker`] wakes the session. Times are kept to about a millisecond.
    /// Meanwhile `idle_timeout` and `read_timeout` do not hold: the session keeps its own time.
    ParkFor(Duration),
    /// There is more to do at once, without waiting for the client: another turn, after those that
    /// wait for one. For a session that keeps requests it has not answered yet, because
    /// [`Output::is_turn_over`] said so. (If the client has not taken its replies, the turn comes when
    /// it has.)
    Again,
    /// Send what is kept and end the connection.
    Close,
}
