//! Reads a request from a client, until it is complete or `buffer_request` bytes of its body have come.

use super::answer::Asked;
use super::forward::{RequestFraming, Told, wants_websocket, write_request};
use super::pending::{Pending, Upload, add};
use super::settings::{FairBy, HttpGateConfig};
use crate::admit::turns::accounts::SourceId;
use crate::service::held::Held;
use crate::service::http::wire::{
    BodyLength, BodyLimits, BodyReader, Piece, Refused, RequestHead, Scanner, Slots, Version,
};
use crate::service::proxy::gate;
use crate::service::{Context, Fault, Peer};
use crate::transport::socket::ClientSocket;
use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A thread keeps the vector in which it writes heads, unless it has grown larger than this.
const WRITTEN_MAX: usize = 4 * 1024;

thread_local! {
    static WRITTEN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What reading a request depends on besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct IntakeSetting<'s> {
    pub(super) config: &'s HttpGateConfig,
    pub(super) context: &'s Context<'s>,
    pub(super) peer: &'s Peer,
    /// The client's socket. Its local address stands for the host in a request that names none.
    pub(super) client: &'s ClientSocket,
}

impl IntakeSetting<'_> {
    fn max_head(&self) -> usize {
        self.context.limits.max_head.min(self.context.limits.input_total)
    }
}

/// A request that is being read.
#[derive(Debug)]
pub(super) enum RequestIntake {
    Head(Scanner),
    Body(Box<CollectedRequest>),
}

/// A request whose body is still coming.
#[derive(Debug)]
pub(super) struct CollectedRequest {
    head: Held,
    body: Held,
    reader: BodyReader,
    chunked: bool,
}

/// How far the request has come with the last input.
#[derive(Debug)]
pub(super) enum IntakeStep {
    /// More must come.
    More,
    /// The client waits for `100 Continue`, and more must come after that.
    Continue,
    Ready(Box<Pending>),
}

/// Why a request is refused while it is read.
#[derive(Debug)]
pub(super) enum IntakeFault {
    Refused(Refused),
    /// Its method is CONNECT, which asks for a tunnel.
    Connect,
    NoRoom,
}

impl From<Refused> for IntakeFault {
    fn from(refused: Refused) -> Self {
        IntakeFault::Refused(refused)
    }
}

impl From<Fault> for IntakeFault {
    fn from(_: Fault) -> Self {
        IntakeFault::NoRoom
    }
}

impl From<std::io::Error> for IntakeFault {
    fn from(_: std::io::Error) -> Self {
        IntakeFault::NoRoom
    }
}

impl RequestIntake {
    pub(super) const fn new() -> Self {
        RequestIntake::Head(Scanner::requests())
    }

    /// Whether it holds anything of the request.
    pub(super) fn has_inputs(&self) -> bool {
        matches!(self, RequestIntake::Body(_))
    }

    /// What it holds of the request.
    pub(super) fn inputs(&mut self) -> [Option<&mut Held>; 2] {
        match self {
            RequestIntake::Head(_) => [None, None],
            RequestIntake::Body(collected) => {
                let CollectedRequest { head, body, .. } = &mut **collected;
                [Some(head), Some(body)]
            }
        }
    }

    /// Whether not a byte of a request has come.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self, RequestIntake::Head(scanner) if scanner.is_fresh())
    }

    /// Takes input and returns how many bytes were used. Until the head is complete none are: hand them in again with what
    /// follows.
    pub(super) fn take(
        &mut self,
        data: &[u8],
        setting: IntakeSetting<'_>,
    ) -> Result<(usize, IntakeStep), IntakeFault> {
        match self {
            RequestIntake::Head(scanner) => match scanner.find(data, setting.max_head())? {
                None => Ok((0, IntakeStep::More)),
                Some(range) => {
                    let (head, rest) = (&data[range.clone()], &data[range.end..]);
                    let (used, taken) = self.head(head, rest, setting)?;
                    Ok((range.end + used, taken))
                }
            },
            RequestIntake::Body(_) => self.body(data, setting),
        }
    }

    /// Takes a complete head, and `rest`, the bytes that came after it.
    fn head(
        &mut self,
        bytes: &[u8],
        rest: &[u8],
        setting: IntakeSetting<'_>,
    ) -> Result<(usize, IntakeStep), IntakeFault> {
        let mut slots = Slots::new();
        let head = RequestHead::parse(bytes, &mut slots, setting.context.limits.max_headers)?;
        if head.method == "CONNECT" {
            return Err(IntakeFault::Connect);
        }
        let (length, chunked) = match head.body {
            BodyLength::Bytes(length) => (length, false),
            BodyLength::Chunked | BodyLength::UntilClose => (u64::MAX, true),
        };
        if length <= rest.len() as u64 {
            let body = &rest[..length as usize];
            let pending = make(&head, framing_of(&head, length), body, None, setting)?;
            return Ok((body.len(), IntakeStep::Ready(pending)));
        }
        let limits = BodyLimits { max_overhead: setting.max_head(), ..BodyLimits::default() };
        let reader = head.body.reader(limits);
        if head.expects_continue && rest.is_empty() && length > setting.config.buffer_request as u64 {
            // The client is told to go on when the request has a place, so that it does not send a body for nothing.
            let framing = if chunked { RequestFraming::Chunked } else { RequestFraming::Length(length) };
            let upload = Some(Upload { reader, chunked });
            let mut pending = make(&head, framing, &[], upload, setting)?;
            pending.expects_continue = true;
            return Ok((0, IntakeStep::Ready(pending)));
        }
        let mut kept = Held::of_told(setting.peer, setting.context);
        kept.extend(bytes, bytes.len(), setting.context)?;
        let body = Held::of_told(setting.peer, setting.context);
        *self = RequestIntake::Body(Box::new(CollectedRequest { head: kept, body, reader, chunked }));
        if head.expects_continue && rest.is_empty() {
            return Ok((0, IntakeStep::Continue));
        }
        self.body(rest, setting)
    }

    /// Takes a piece of the body.
    fn body(&mut self, data: &[u8], setting: IntakeSetting<'_>) -> Result<(usize, IntakeStep), IntakeFault> {
        let RequestIntake::Body(collected) = self else { return Ok((0, IntakeStep::More)) };
        let most = setting.config.buffer_request;
        let mut used = 0;
        let whole = loop {
            let (n, piece) = collected.reader.next(&data[used..])?;
            used += n;
            match piece {
                Piece::Data(piece) => {
                    collected.body.extend(piece, most.max(piece.len()), setting.context)?;
                }
                Piece::More if collected.body.len() >= most => break false,
                Piece::More => return Ok((used, IntakeStep::More)),
                Piece::End => break true,
            }
        };
        let RequestIntake::Body(collected) = std::mem::replace(self, RequestIntake::new()) else {
            return Ok((used, IntakeStep::More));
        };
        let pending = collected.make(whole, setting)?;
        Ok((used, IntakeStep::Ready(pending)))
    }
}

impl CollectedRequest {
    fn make(self, whole: bool, setting: IntakeSetting<'_>) -> Result<Box<Pending>, IntakeFault> {
        let Self { head, body, reader, chunked } = self;
        let mut slots = Slots::new();
        // The head was parsed before, when it came, so this cannot fail.
        let head = RequestHead::parse(head.bytes(), &mut slots, setting.context.limits.max_headers)?;
        let (framing, upload) = match (head.body, whole) {
            (BodyLength::Bytes(length), false) => (RequestFraming::Length(length), false),
            (_, false) => (RequestFraming::Chunked, true),
            // The whole chunked body is here, so its length is known. Every backend understands a length.
            (_, true) => (RequestFraming::Length(body.len() as u64), false),
        };
        debug_assert_eq!(upload, chunked && !whole);
        let upload = (!whole).then_some(Upload { reader, chunked });
        make(&head, framing, body.bytes(), upload, setting)
    }
}

/// The framing of a request whose body is complete.
fn framing_of(head: &RequestHead<'_>, length: u64) -> RequestFraming {
    let says_length = head.headers.get("content-length").is_some();
    // With these methods servers expect a body, so a missing one is announced as a length of 0.
    let expected = matches!(head.method, "POST" | "PUT" | "PATCH");
    if length > 0 || says_length || expected { RequestFraming::Length(length) } else { RequestFraming::None }
}

/// Writes a request anew, with the part of its body that has come.
fn make(
    head: &RequestHead<'_>,
    framing: RequestFraming,
    body: &[u8],
    upload: Option<Upload>,
    setting: IntakeSetting<'_>,
) -> Result<Box<Pending>, IntakeFault> {
    let IntakeSetting { config, context, peer, client: socket } = setting;
    let near = if head.host.is_none() { socket.local_addr().map(|near| near.to_string()) } else { None };
    let host = near.as_deref().unwrap_or("localhost");
    let client = peer.address.ip().map(|client| client.to_canonical());
    let trusted = config.trusted.iter().any(|network| network.has(&peer.address));
    let mut written = WRITTEN.take();
    written.clear();
    let scheme = if peer.tls().is_some() { "https" } else { "http" };
    write_request(head, framing, &Told { client, scheme, trusted, host }, &mut written);
    let mut bytes = Held::of_told(peer, context);
    let kept = bytes.extend(&written, written.len() + body.len(), context);
    if written.capacity() <= WRITTEN_MAX {
        WRITTEN.set(written);
    }
    kept?;
    if !body.is_empty() {
        add(&mut bytes, body, framing == RequestFraming::Chunked, context)?;
    }
    let asked = Asked {
        version: head.version,
        head_only: head.method == "HEAD",
        upgrade: wants_websocket(head) && upload.is_none(),
        keep: head.keep_alive,
    };
    let idempotent = matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE");
    let mut pending = Box::new(Pending::new(bytes, upload, asked, idempotent, source(head, setting)));
    pending.priority = config.priority_paths.iter().any(|path| path == head.target.path());
    pending.entry = context.web.and_then(|web| web.entry(peer.address, web.began(), Some(head)));
    Ok(pending)
}

/// The source that the request counts for when sources take turns.
fn source(head: &RequestHead<'_>, setting: IntakeSetting<'_>) -> SourceId {
    if let FairBy::Header(name) = &setting.config.fair
        && let Some(value) = head.headers.get(name)
    {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        // The first eight bits are ones and the rest of the upper half is zero, as in no address that is in use. So this
        // never equals the source of an address.
        return SourceId(u128::from(hasher.finish()) | 0xff << 120);
    }
    gate::source(setting.peer.address, setting.context.limits.source_prefix)
}

/// The version that a request without a readable head is answered in.
pub(super) const UNKNOWN_VERSION: Version = Version::Http11;
