//! WebSockets (RFC 6455): a closure that is called for what happens on each socket.
//!
//! ```no_run
//! use tidegate::websocket::Event;
//! use tidegate::{Server, websocket};
//!
//! let shout = websocket(|event, socket| match event {
//!     Event::Text(text) => socket.send(&text.to_uppercase()),
//!     _ => Ok(()),
//! });
//! let server = Server::builder().listen("127.0.0.1:8083", shout)?.bind()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Between messages a socket owns no thread and no buffer. [`WebSocket::pusher`] gives a [`Pusher`], which sends to
//! the socket from any thread. What a client does not read is kept, up to `output_per_connection`. A message that
//! comes in pieces has `read_timeout` from its first byte to its last, and counts in `input_total`.
//!
//! The server sends pings to silent clients ([`ping_every`](WebSocketConfig::ping_every)), answers pings, joins
//! fragments and checks every rule of the RFC. A client that breaks a rule gets the close code for it. While the
//! server drains, sockets are closed with 1001.

mod config;
mod frame;
mod handshake;
mod message;
mod pusher;
mod ready;
mod session;
mod socket;
mod violation;

pub use config::WebSocketConfig;
pub use frame::{CONTROL_MAX, FramePiece, FrameReader, Opcode, frame_head, unmask};
pub use message::{Message, Prepared};
pub use pusher::{PushError, Pusher};
pub use ready::{echo, hello, time, work};
pub use socket::{Closed, Event, WebSocket};
pub use violation::{Violation, close_payload};

use super::http::{Http, http};
use super::{Peer, Protocol, Service, Session};
use session::OnEvent;
use std::io;
use std::sync::{Arc, OnceLock};

/// A WebSocket service from a closure that is called for each event of each socket: the socket opens, a message has
/// come, the socket has ended.
///
/// If the closure returns an error, the connection is reset. To end a socket in good order, call
/// [`close`](WebSocket::close).
pub fn websocket<F>(on: F) -> WebSockets
where
    F: Fn(Event<'_>, &mut WebSocket<'_, '_>) -> io::Result<()> + Send + Sync + 'static,
{
    let service =
        SocketService { on: Arc::new(on), config: None, protocols: Vec::new(), origins: Vec::new() };
    WebSockets { name: "websocket".to_owned(), service: Arc::new(service), http: OnceLock::new() }
}

/// What all sockets of a service share.
#[derive(Clone)]
struct SocketService {
    on: Arc<OnEvent>,
    /// Limits of this service, if it has its own.
    config: Option<WebSocketConfig>,
    protocols: Vec<String>,
    origins: Vec<String>,
}

/// A WebSocket service, made by [`websocket`]: for a listener of its own, or for some paths of an HTTP service
/// ([`Response::websocket`](super::http::Response::websocket)).
pub struct WebSockets {
    name: String,
    service: Arc<SocketService>,
    /// Made for the first connection.
    http: OnceLock<Http>,
}

impl WebSockets {
    /// The `service` label of its metrics. Default: `websocket`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Limits of this service, instead of those of the server.
    #[must_use]
    pub fn config(mut self, config: WebSocketConfig) -> Self {
        Arc::make_mut(&mut self.service).config = Some(config);
        self
    }

    /// Adds a subprotocol. If a client offers several, the one added first is chosen.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        Arc::make_mut(&mut self.service).protocols.push(protocol.to_owned());
        self
    }

    /// Adds an origin whose pages may connect, for example `https://example.org`. Pages of other origins are answered
    /// 403. Without any origin, pages from everywhere may connect. A service that trusts cookies, or the address of
    /// its clients, must list its origins: browsers let every page connect to every host.
    #[must_use]
    pub fn origin(mut self, origin: &str) -> Self {
        Arc::make_mut(&mut self.service).origins.push(origin.to_owned());
        self
    }
}

impl std::fmt::Debug for WebSockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSockets").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Service for WebSockets {
    fn name(&self) -> &str {
        &self.name
    }

    fn connect(&self, peer: &Peer) -> Box<dyn Session> {
        let http = self.http.get_or_init(|| {
            let (name, service) = (self.name.clone(), self.service.clone());
            let sockets = WebSockets { name, service, http: OnceLock::new() };
            http(move |request, response| response.websocket(request, &sockets))
        });
        http.connect(peer)
    }

    fn busy_reply(&self) -> &[u8] {
        super::http::BUSY
    }

    fn answers_overload(&self, _busy_reply: &[u8]) -> bool {
        true
    }

    fn protocol(&self) -> Protocol {
        Protocol::WebSocket
    }
}
