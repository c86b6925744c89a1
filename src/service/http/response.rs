//! The answer to a request: written at once, or pulled piece by piece.

use super::access_entry::AccessEntry;
use super::caller::Caller;
use super::date;
use super::pull::{Framing, NextPiece, Pull, Pulled};
use super::status::{self, reason};
use super::upgrade::Upgraded;
use super::wire::{Version, decimal, is_token, is_value};
use crate::clock::Nanos;
use crate::reason::SocketHandshake;
use crate::service::{Output, Peer, Waker};
use std::io::{self, Read};

/// The header line of an answer that is text.
pub(super) const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\n";

/// What is known of an answer before and after its handler has run.
pub(super) struct Outgoing {
    pub(super) version: Version,
    /// The answer to HEAD has no body.
    pub(super) head_only: bool,
    /// The connection stays open afterwards.
    pub(super) keep: bool,
    /// The head was written: it is too late for another answer.
    pub(super) started: bool,
    /// The body that is to be pulled.
    pub(super) pulled: Option<Pulled>,
    /// What goes on with the connection.
    pub(super) upgraded: Option<Box<dyn Upgraded>>,
    pub(super) noted: Noted,
    /// The status of the head that was written; 0 before.
    pub(super) status: u16,
}

/// What is noted of a request until its answer has ended.
#[derive(Debug)]
pub(super) struct Noted {
    /// When it began.
    pub(super) began: Nanos,
    /// For the access log, if there is one.
    pub(super) entry: Option<Box<AccessEntry>>,
}

impl Outgoing {
    pub(super) fn new(version: Version, head_only: bool, keep: bool, noted: Noted) -> Self {
        let (started, pulled, upgraded) = (false, None, None);
        Self { version, head_only, keep, started, pulled, upgraded, noted, status: 0 }
    }

    /// The head of an answer with this status is written.
    fn has_status(&mut self, status: u16) {
        self.status = status;
        if let Some(entry) = &mut self.noted.entry {
            entry.status = status;
        }
    }
}

/// The proof that a request was answered, which a handler returns. Only a [`Response`] makes it.
#[derive(Debug)]
#[must_use = "return it, so that the server knows that the request was answered"]
pub struct Answer(());

/// The answer to a request. Set the status and headers, then give it a body: that sends it.
///
/// The server sets `Content-Length`, `Transfer-Encoding` and `Connection`; a handler cannot. ([`close`](Self::close)
/// ends the connection.) `Date` and `Server` are added unless the handler sets them. HEAD gets the same headers as
/// GET, and no body.
pub struct Response<'r, 'a> {
    output: &'r mut Output<'a>,
    outgoing: &'r mut Outgoing,
    caller: Caller<'r>,
    status: u16,
    /// Lines with their ends.
    headers: Vec<u8>,
    has: Has,
    wrong: Option<io::Error>,
}

/// Which of the headers that are added by themselves were set.
#[derive(Clone, Copy, Debug, Default)]
struct Has {
    date: bool,
    server: bool,
    content_type: bool,
}

impl<'r, 'a> Response<'r, 'a> {
    pub(super) fn new(output: &'r mut Output<'a>, outgoing: &'r mut Outgoing, caller: Caller<'r>) -> Self {
        Self { output, outgoing, caller, status: 200, headers: Vec::new(), has: Has::default(), wrong: None }
    }

    /// Sets the status: 200 to 599. Default 200.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        if !(200..600).contains(&status) {
            self.wrong = Some(wrong(&format!("{status} is not a status for an answer")));
        }
        self
    }

    /// Adds a header. Several headers of one name stay separate lines.
    ///
    /// A name or value that would change the message (for example one with a line end) turns the answer into an error
    /// 500. So does a header that the server sets itself.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let framing =
            ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"];
        if name.is_empty() || !name.bytes().all(is_token) {
            self.wrong = Some(wrong(&format!("`{}` is not a header's name", name.escape_debug())));
        } else if !value.iter().all(|&byte| is_value(byte)) {
            self.wrong = Some(wrong(&format!("the value of {name} has a control byte")));
        } else if framing.iter().any(|it| name.eq_ignore_ascii_case(it)) {
            self.wrong = Some(wrong(&format!("{name} is set by the server alone")));
        } else {
            self.has.date |= name.eq_ignore_ascii_case("date");
            self.has.server |= name.eq_ignore_ascii_case("server");
            self.has.content_type |= name.eq_ignore_ascii_case("content-type");
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                self.headers.extend_from_slice(part);
            }
        }
        self
    }

    /// Ends the connection after this answer.
    pub fn close(self) -> Self {
        self.outgoing.keep = false;
        self
    }

    /// The client.
    pub fn peer(&self) -> &Peer {
        self.caller.peer
    }

    /// Wakes this connection from any thread. Then a pulled body that returned [`Pull::Later`] is asked again. Use it
    /// to send news as they come (`text/event-stream`).
    pub fn waker(&self) -> Waker {
        Waker::new(self.output.context.host.clone(), self.caller.seat)
    }

    /// Answers without a body.
    pub fn empty(self) -> io::Result<Answer> {
        self.whole(None, &[])
    }

    /// Answers with bytes. What the client does not read at once is kept, up to `output_per_connection`. An answer
    /// that may be larger should be [pulled](Self::pull).
    pub fn bytes(self, body: &[u8]) -> io::Result<Answer> {
        self.whole(None, &[body])
    }

    /// Answers with text: `text/plain` in UTF-8, unless another `Content-Type` was set.
    pub fn text(self, text: &str) -> io::Result<Answer> {
        self.whole(Some(TEXT), &[text.as_bytes()])
    }

    /// Answers with a page: `text/html` in UTF-8, unless another `Content-Type` was set.
    pub fn html(self, page: &str) -> io::Result<Answer> {
        self.whole(Some("Content-Type: text/html; charset=utf-8\r\n"), &[page.as_bytes()])
    }

    /// Answers with a value as JSON. (Feature `json`.)
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(self, value: &T) -> io::Result<Answer> {
        let body = serde_json::to_vec(value)?;
        self.whole(Some("Content-Type: application/json\r\n"), &[&body])
    }

    /// Answers with a body that is pulled. `next` is asked for a piece when the client has read the one before, and
    /// appends it to the vector. So a slow reader of a large answer holds no worker, and the memory of one piece. 16
    /// to 64 KiB are a good size; a piece must fit `output_per_connection`.
    ///
    /// The body is sent in chunks; to a client of HTTP/1.0 it is sent until the connection ends. If `next` fails, the
    /// connection is reset, so that the client sees that the answer is not whole. For HEAD `next` is not called.
    pub fn pull<F>(self, next: F) -> io::Result<Answer>
    where
        F: FnMut(&mut Vec<u8>) -> io::Result<Pull> + Send + 'static,
    {
        let framing =
            if self.outgoing.version == Version::Http10 { Framing::UntilClose } else { Framing::Chunked };
        self.pulled(framing, Box::new(next))
    }

    /// The same for a body whose length is known. If the body turns out shorter or longer, that is an error and the
    /// connection is reset.
    pub fn pull_sized<F>(self, length: u64, next: F) -> io::Result<Answer>
    where
        F: FnMut(&mut Vec<u8>) -> io::Result<Pull> + Send + 'static,
    {
        self.pulled(Framing::Length(length), Box::new(next))
    }

    /// Answers with this many bytes of a reader, for example a file, pulled in pieces of 64 KiB.
    pub fn reader<R>(self, length: u64, mut reader: R) -> io::Result<Answer>
    where
        R: Read + Send + 'static,
    {
        const PIECE: u64 = 64 << 10;
        let mut left = length;
        self.pull_sized(length, move |piece| {
            let read = (&mut reader).take(left.min(PIECE)).read_to_end(piece)? as u64;
            left -= read;
            Ok(if left == 0 || read == 0 { Pull::End } else { Pull::More })
        })
    }

    /// Says which protocols the server would go on with here.
    pub(in crate::service) fn protocols(mut self, names: &str) -> Self {
        self.headers.extend(format!("Upgrade: {names}\r\nConnection: Upgrade\r\n").bytes());
        self
    }

    /// Counts what becomes of a request for a WebSocket.
    pub(in crate::service) fn count(&self, handshake: SocketHandshake) {
        if let Some(web) = self.output.context.web {
            web.counts.handshake(handshake);
        }
    }

    /// Gives the connection to another protocol. `open` answers the request itself. If it fails before it has
    /// answered, it gives no protocol, and the request is answered as if its handler had failed.
    pub(in crate::service) fn upgrade<F>(self, open: F) -> io::Result<Answer>
    where
        F: FnOnce(&mut Output<'a>, Caller<'r>) -> (Option<Box<dyn Upgraded>>, io::Result<()>),
    {
        let (upgraded, opened) = open(self.output, self.caller);
        self.outgoing.started = upgraded.is_some();
        if upgraded.is_some() {
            self.outgoing.has_status(101);
        }
        self.outgoing.upgraded = upgraded;
        opened.map(|()| Answer(()))
    }

    /// Writes an answer whose body is there, in parts that follow each other. `content_type` is a header line.
    pub(super) fn whole(mut self, content_type: Option<&str>, body: &[&[u8]]) -> io::Result<Answer> {
        let length = body.iter().map(|part| part.len() as u64).sum();
        let framing = if has_body(self.status) { Framing::Length(length) } else { Framing::None };
        self.write_head(content_type, framing)?;
        if framing != Framing::None && !self.outgoing.head_only {
            for part in body {
                self.output.send(part)?;
            }
            if let (Some(web), Framing::Length(length)) = (self.output.context.web, framing) {
                web.ledger.response_body(length as usize);
            }
            if let (Some(entry), Framing::Length(length)) = (&mut self.outgoing.noted.entry, framing) {
                entry.sent = length;
            }
        }
        Ok(Answer(()))
    }

    fn pulled(mut self, framing: Framing, next: NextPiece) -> io::Result<Answer> {
        let framing = if has_body(self.status) { framing } else { Framing::None };
        if framing == Framing::UntilClose {
            self.outgoing.keep = false;
        }
        self.write_head(None, framing)?;
        if framing != Framing::None && !self.outgoing.head_only {
            self.outgoing.pulled = Some(Pulled::new(framing, next));
        }
        Ok(Answer(()))
    }

    fn write_head(&mut self, content_type: Option<&str>, framing: Framing) -> io::Result<()> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        let Self { output, outgoing, status, headers, has, .. } = self;
        outgoing.started = true;
        outgoing.has_status(*status);
        let (keep, version) = (outgoing.keep, outgoing.version);
        let content_type = content_type.filter(|_| !has.content_type && framing != Framing::None);
        let content_type = content_type.unwrap_or_default();
        output.compose(HEAD_MAX + headers.len() + content_type.len(), |out| {
            write_status(*status, out);
            match (has.date, has.server) {
                (false, false) => date::with_lines(|lines| out.extend_from_slice(lines)),
                (false, true) => out.extend_from_slice(&date::line()),
                (true, false) => out.extend_from_slice(date::SERVER),
                (true, true) => {}
            }
            out.extend_from_slice(headers);
            out.extend_from_slice(content_type.as_bytes());
            match framing {
                Framing::Length(length) => write_length(length, out),
                Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
                Framing::None | Framing::UntilClose => {}
            }
            out.extend_from_slice(match (keep, version) {
                (false, _) => b"Connection: close\r\n\r\n",
                (true, Version::Http10) => b"Connection: keep-alive\r\n\r\n",
                (true, Version::Http11) => b"\r\n",
            });
        })
    }
}

/// The most bytes of a head without the headers that a handler sets and the type of the body.
const HEAD_MAX: usize = 256;

fn write_status(status: u16, out: &mut Vec<u8>) {
    match status::line(status) {
        Some(line) => out.extend_from_slice(line.as_bytes()),
        None => out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes()),
    }
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(decimal(length).as_ref());
    out.extend_from_slice(b"\r\n");
}

/// Whether an answer with this status has a body (RFC 9110, 6.4.1).
fn has_body(status: u16) -> bool {
    !matches!(status, 100..200 | 204 | 304)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl std::fmt::Debug for Response<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
