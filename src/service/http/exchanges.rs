//! How a conversation calls its service: a closure for whole requests, or a trait for bodies as they come.

use super::wire::{BodyLength, RequestHead, Slots, decode_path};
use super::{Answer, Config, Request, Response};
use crate::service::held::Held;
use crate::service::{Context, Peer, Seat};
use std::io;

/// An HTTP service that gets bodies as they come, for uploads that are too large to be collected. A service for whole
/// requests is a closure: [`http`](super::http).
///
/// The three methods run on a worker, one after the other for each request. Between them the connection is parked,
/// and owns nothing but the exchange.
///
/// ```no_run
/// use std::io;
/// use tidegate::http::{self, Answer, Head, Request, Response, Streaming};
///
/// /// Counts the bytes of what is uploaded.
/// struct Count;
///
/// impl Streaming for Count {
///     type Exchange = u64;
///
///     fn head(&self, request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Head<u64>> {
///         match request.method() {
///             "PUT" => Ok(Head::Wanted(0)),
///             _ => response.status(405).header("Allow", "PUT").empty().map(Head::Answered),
///         }
///     }
///
///     fn piece(&self, count: &mut u64, piece: &[u8]) -> io::Result<()> {
///         *count += piece.len() as u64;
///         Ok(())
///     }
///
///     fn end(&self, count: u64, response: Response<'_, '_>) -> io::Result<Answer> {
///         response.text(&format!("{count} bytes\n"))
///     }
/// }
///
/// let mut config = http::Config::default();
/// config.max_body = 1 << 40;
/// let server = tidegate::Server::builder().listen("127.0.0.1:0", http::streaming(Count).config(config))?.bind()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Streaming: Send + Sync + 'static {
    /// What the service keeps of a request while its body comes.
    type Exchange: Send + 'static;

    /// The head of a request has come, its body has not. Return whether the body is wanted. If it is, a client that
    /// waits for `100 Continue` is told to send it.
    fn head(&self, request: &Request<'_>, response: Response<'_, '_>) -> io::Result<Head<Self::Exchange>>;

    /// A piece of the body has come; it is never empty. An error is answered 500, or with the
    /// [`status`](super::status) it carries. It ends the connection, since the rest of the body is not read.
    fn piece(&self, exchange: &mut Self::Exchange, piece: &[u8]) -> io::Result<()>;

    /// The body is whole: answer the request. For a request without a body this follows [`head`](Self::head) at once.
    fn end(&self, exchange: Self::Exchange, response: Response<'_, '_>) -> io::Result<Answer>;
}

/// What [`Streaming::head`] makes of a request. No other case will be added, so a `match` needs no wildcard.
#[derive(Debug)]
pub enum Head<E> {
    /// The body is wanted; this value is kept meanwhile.
    Wanted(E),
    /// The request was answered without its body, which is not read. If the body has not come whole, the connection
    /// ends.
    Answered(Answer),
}

/// A head that has come, with what a service needs to judge it.
pub(super) struct Arrived<'h> {
    pub(super) request: Request<'h>,
    /// The bytes of the head.
    pub(super) bytes: &'h [u8],
    /// Whether the request has its whole body already.
    pub(super) whole: bool,
}

/// What all requests of a service go through.
pub(super) trait Exchanges: Send + Sync + 'static {
    type Exchange: Send + 'static;

    fn begin(
        &self,
        arrived: &Arrived<'_>,
        context: &Context<'_>,
        response: Response<'_, '_>,
    ) -> io::Result<Head<Self::Exchange>>;

    fn piece(&self, exchange: &mut Self::Exchange, piece: &[u8], setting: Setting<'_>) -> io::Result<()>;

    fn end(
        &self,
        exchange: Self::Exchange,
        setting: Setting<'_>,
        response: Response<'_, '_>,
    ) -> io::Result<Answer>;

    /// Puts what is held of an exchange where it can be taken away for other sources, until the next turn.
    fn set_aside(&self, exchange: &mut Self::Exchange, seat: Seat, context: &Context<'_>) -> io::Result<()> {
        let _ = (exchange, seat, context);
        Ok(())
    }

    /// Takes it back; an error if it was taken away.
    fn take_back(&self, exchange: &mut Self::Exchange) -> io::Result<()> {
        let _ = exchange;
        Ok(())
    }
}

/// Where a request is answered.
#[derive(Clone, Copy)]
pub(super) struct Setting<'p> {
    pub(super) context: &'p Context<'p>,
    pub(super) config: &'p Config,
    pub(super) peer: &'p Peer,
}

/// Bodies as they come, for a [`Streaming`].
pub(super) struct Passing<S>(pub(super) S);

impl<S: Streaming> Exchanges for Passing<S> {
    type Exchange = S::Exchange;

    fn begin(
        &self,
        arrived: &Arrived<'_>,
        _context: &Context<'_>,
        response: Response<'_, '_>,
    ) -> io::Result<Head<S::Exchange>> {
        let Request { head, path, peer, .. } = &arrived.request;
        let request = Request { head: *head, path: path.clone(), body: &[], peer };
        self.0.head(&request, response)
    }

    fn piece(&self, exchange: &mut S::Exchange, piece: &[u8], _place: Setting<'_>) -> io::Result<()> {
        self.0.piece(exchange, piece)
    }

    fn end(
        &self,
        exchange: S::Exchange,
        _place: Setting<'_>,
        response: Response<'_, '_>,
    ) -> io::Result<Answer> {
        self.0.end(exchange, response)
    }
}

/// Whole requests, for a closure: one whose body has come with it is not copied, others are collected.
pub(super) struct Collecting<F>(pub(super) F);

/// A request whose body is still coming.
pub(super) struct Collected {
    /// Its head, and the body so far.
    held: Held,
    head_len: usize,
    /// How long the body can be at most.
    most: usize,
}

impl<F> Exchanges for Collecting<F>
where
    F: Fn(&Request<'_>, Response<'_, '_>) -> io::Result<Answer> + Send + Sync + 'static,
{
    type Exchange = Collected;

    fn begin(
        &self,
        arrived: &Arrived<'_>,
        context: &Context<'_>,
        response: Response<'_, '_>,
    ) -> io::Result<Head<Collected>> {
        if arrived.whole {
            return (self.0)(&arrived.request, response).map(Head::Answered);
        }
        let peer = arrived.request.peer;
        let (mut held, head_len) = (Held::of_told(peer, context), arrived.bytes.len());
        held.extend(arrived.bytes, head_len, context)?;
        let most = match arrived.request.head.body {
            BodyLength::Bytes(length) => usize::try_from(length).unwrap_or(usize::MAX),
            BodyLength::Chunked | BodyLength::UntilClose => usize::MAX,
        };
        Ok(Head::Wanted(Collected { held, head_len, most }))
    }

    fn piece(&self, exchange: &mut Collected, piece: &[u8], setting: Setting<'_>) -> io::Result<()> {
        let most = exchange.most.min(setting.config.max_body);
        exchange.held.extend(piece, most.saturating_add(exchange.head_len), setting.context)
    }

    fn set_aside(&self, exchange: &mut Collected, seat: Seat, context: &Context<'_>) -> io::Result<()> {
        exchange.held.set_aside(seat, context)
    }

    fn take_back(&self, exchange: &mut Collected) -> io::Result<()> {
        exchange.held.take_back()
    }

    fn end(
        &self,
        exchange: Collected,
        setting: Setting<'_>,
        response: Response<'_, '_>,
    ) -> io::Result<Answer> {
        let mut slots = Slots::new();
        // It was parsed when it came, so it cannot fail.
        let (head, body) = exchange.held.bytes().split_at(exchange.head_len);
        let head = RequestHead::parse(head, &mut slots, setting.config.max_headers)?;
        let path = decode_path(head.target.path())?;
        let request = Request { head, path, body, peer: setting.peer };
        (self.0)(&request, response)
    }
}
