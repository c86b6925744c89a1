//! A backend's answer on its way to the client. The gate parses it strictly and writes it anew, with one framing, so that
//! client and gate agree on where it ends.

use super::forward::{Hop, header, pass_header};
use super::words::connection;
use crate::service::Pool;
use crate::service::http::wire::{
    BodyLength, BodyLimits, BodyReader, LAST_CHUNK, Piece, Refused, ResponseHead, Scanner, Slots, Version,
    chunk_head, decimal, list,
};
use crate::service::pool::Buffer;
use std::sync::Arc;

/// The most bytes of an answer's head.
const HEAD_MAX: usize = 64 << 10;

/// The most headers of an answer.
const HEADERS_MAX: usize = 256;

/// The most interim answers (1xx) before the answer itself.
const INTERIM_MAX: u8 = 32;

/// What the answer depends on in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) version: Version,
    pub(super) head_only: bool,
    /// The request asks to turn the connection into a WebSocket.
    pub(super) upgrade: bool,
    /// The client's connection may stay open after the answer.
    pub(super) keep: bool,
}

/// How the client learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerFraming {
    /// There is no body. A `Content-Length` of the backend is passed on: it tells the length that a body would have.
    None,
    Length(u64),
    Chunked,
    /// The body ends with the connection, for clients of HTTP/1.0, which do not know chunks.
    UntilClose,
}

#[derive(Debug)]
enum AnswerStage {
    Head(Scanner),
    Body {
        reader: BodyReader,
        framing: AnswerFraming,
    },
    /// The answer is complete.
    Done,
    /// The connection has become a WebSocket.
    Switched,
}

/// An answer that is being passed on to the client.
#[derive(Debug)]
pub(super) struct AnswerRelay {
    stage: AnswerStage,
    /// Bytes that cannot be used before more come: an incomplete head.
    partial: Option<Box<Buffer>>,
    interims: u8,
    status: u16,
    /// Bytes of the body that were passed on.
    body: u64,
    /// Whether any byte has come from the backend.
    heard: bool,
    /// Whether the client's connection stays open after the answer.
    keep: bool,
    /// Whether the backend's connection can be used again after the answer.
    reusable: bool,
    /// Whether the answer has said itself where it ends.
    framed: bool,
}

/// Why an answer cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerFault {
    #[error("the backend's answer cannot be read: {0}")]
    Unreadable(Refused),
    #[error("the backend sent too many 1xx answers")]
    Interims,
    #[error("the backend switched to a protocol that the client did not ask for")]
    Switched,
    #[error("there is no memory for the head of the backend's answer")]
    NoRoom,
}

impl From<Refused> for AnswerFault {
    fn from(refused: Refused) -> Self {
        AnswerFault::Unreadable(refused)
    }
}

/// How far the answer has come with the last input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// More must come.
    More,
    /// The answer is complete.
    Done,
    /// The connection has become a WebSocket. The number is how many bytes at the end of the input belong to that.
    Switched(usize),
}

impl AnswerRelay {
    pub(super) fn new() -> Self {
        Self {
            stage: AnswerStage::Head(Scanner::responses()),
            partial: None,
            interims: 0,
            status: 0,
            body: 0,
            heard: false,
            keep: false,
            reusable: false,
            framed: false,
        }
    }

    /// Whether a byte of the answer has come.
    pub(super) fn is_heard(&self) -> bool {
        self.heard
    }

    /// Whether any part of an answer was passed on.
    pub(super) fn was_passed_on(&self) -> bool {
        self.has_begun() || self.interims > 0
    }

    /// Whether the head has come and was passed on, so that the gate cannot send an answer of its own any more.
    pub(super) fn has_begun(&self) -> bool {
        self.status != 0
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Bytes of the body that were passed on.
    pub(super) fn body(&self) -> u64 {
        self.body
    }

    /// Whether the client's connection stays open after this answer. Known once the answer is complete.
    pub(super) fn keeps_client(&self) -> bool {
        self.keep
    }

    /// Whether the backend's connection can be used again. Known once the answer is complete.
    pub(super) fn keeps_backend(&self) -> bool {
        self.reusable
    }

    /// Whether the answer has said itself where it ends. Otherwise its request or its status said so, and a backend that does
    /// not know the rules may send a body yet.
    pub(super) fn is_framed(&self) -> bool {
        self.framed
    }

    /// The backend has closed its connection in good order. Returns whether that completes the answer (a body without a
    /// length does end so); if it does, the client's end of body is written.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> bool {
        match &self.stage {
            AnswerStage::Body { reader, framing } if reader.ends_with_connection() => {
                if *framing == AnswerFraming::Chunked {
                    out.extend_from_slice(LAST_CHUNK);
                }
                self.stage = AnswerStage::Done;
                self.reusable = false;
                true
            }
            _ => false,
        }
    }

    /// Takes bytes from the backend, and writes to `out` what the client is to get for them.
    pub(super) fn take(
        &mut self,
        data: &[u8],
        asked: Asked,
        (pool, most): (&Arc<Pool>, usize),
        out: &mut Vec<u8>,
    ) -> Result<Answered, AnswerFault> {
        self.heard |= !data.is_empty();
        let Some(mut partial) = self.partial.take() else {
            let (used, answered) = self.advance(data, asked, out)?;
            if answered == Answered::More && used < data.len() {
                let mut partial = Box::new(Buffer::new(pool));
                let kept = partial.extend(&data[used..], HEAD_MAX, most);
                kept.map_err(|_| AnswerFault::NoRoom)?;
                self.partial = Some(partial);
            }
            return Ok(answered);
        };
        partial.extend(data, HEAD_MAX, most).map_err(|_| AnswerFault::NoRoom)?;
        let (used, answered) = self.advance(partial.bytes(), asked, out)?;
        partial.consume(used);
        if !partial.is_empty() && answered == Answered::More {
            self.partial = Some(partial);
        }
        Ok(answered)
    }

    /// Reads as far as the input goes. Returns how much of it was used.
    fn advance(
        &mut self,
        data: &[u8],
        asked: Asked,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Answered), AnswerFault> {
        let mut used = 0;
        loop {
            match &mut self.stage {
                AnswerStage::Head(scanner) => match scanner.find(&data[used..], HEAD_MAX)? {
                    None => return Ok((used, Answered::More)),
                    Some(range) => {
                        let head = &data[used..][range.clone()];
                        used += range.end;
                        self.head(head, asked, out)?;
                    }
                },
                AnswerStage::Body { reader, framing } => {
                    let framing = *framing;
                    let (n, piece) = reader.next(&data[used..])?;
                    used += n;
                    match piece {
                        Piece::Data(data) => {
                            self.body += data.len() as u64;
                            write_piece(data, framing, out);
                        }
                        Piece::More => return Ok((used, Answered::More)),
                        Piece::End => {
                            if framing == AnswerFraming::Chunked {
                                out.extend_from_slice(LAST_CHUNK);
                            }
                            self.stage = AnswerStage::Done;
                        }
                    }
                }
                AnswerStage::Done => {
                    // Bytes after the answer were not asked for. The next request would take them for its answer.
                    self.reusable &= used == data.len();
                    return Ok((used, Answered::Done));
                }
                AnswerStage::Switched => return Ok((used, Answered::Switched(data.len() - used))),
            }
        }
    }

    fn head(&mut self, bytes: &[u8], asked: Asked, out: &mut Vec<u8>) -> Result<(), AnswerFault> {
        let mut slots = Slots::new();
        let method = if asked.head_only { "HEAD" } else { "GET" };
        let head = ResponseHead::parse(bytes, method, &mut slots, HEADERS_MAX)?;
        match head.status {
            101 if !asked.upgrade || !head.upgrade => return Err(AnswerFault::Switched),
            101 => {
                self.status = 101;
                write_switch(&head, out);
                self.stage = AnswerStage::Switched;
                return Ok(());
            }
            100..200 => {
                self.interims += 1;
                if self.interims > INTERIM_MAX {
                    return Err(AnswerFault::Interims);
                }
                // A client of HTTP/1.0 does not know interim answers.
                if asked.version == Version::Http11 {
                    write_first(&head, out);
                    write_headers(&head, out);
                    out.extend_from_slice(b"\r\n");
                }
                self.stage = AnswerStage::Head(Scanner::responses());
                return Ok(());
            }
            _ => {}
        }
        let framing = framing(&head, asked);
        self.status = head.status;
        // Some servers, waitress is one, send the body that a HEAD announces. The next request would take it for its answer.
        self.reusable = head.keep_alive && !asked.head_only;
        self.framed = framing != AnswerFraming::None;
        self.keep = asked.keep && framing != AnswerFraming::UntilClose;
        write_head(&head, framing, asked.version, self.keep, out);
        let limits = BodyLimits::default();
        self.stage = AnswerStage::Body { reader: head.body.reader(limits), framing };
        Ok(())
    }
}

/// The framing in which the client gets the body.
fn framing(head: &ResponseHead<'_>, asked: Asked) -> AnswerFraming {
    match (head.body, asked.version) {
        _ if asked.head_only || matches!(head.status, 204 | 304) => AnswerFraming::None,
        (BodyLength::Bytes(length), _) => AnswerFraming::Length(length),
        (_, Version::Http11) => AnswerFraming::Chunked,
        (_, Version::Http10) => AnswerFraming::UntilClose,
    }
}

fn write_piece(data: &[u8], framing: AnswerFraming, out: &mut Vec<u8>) {
    if framing == AnswerFraming::Chunked {
        out.extend_from_slice(chunk_head(data.len()).as_ref());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    } else {
        out.extend_from_slice(data);
    }
}

fn write_first(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    let mut start = *b"HTTP/1.1 000 ";
    for (digit, part) in start[9..12].iter_mut().zip([100, 10, 1]) {
        *digit += (head.status / part % 10) as u8;
    }
    for part in [&start[..], head.reason.as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Writes the headers of the answer, without those that are about the backend's connection or its framing.
fn write_headers(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    let hop = Hop::of(head.headers);
    for (name, value, line) in head.headers.lines() {
        if !hop.has(name) {
            pass_header(out, name, value, line);
        }
    }
}

fn write_head(
    head: &ResponseHead<'_>,
    framing: AnswerFraming,
    version: Version,
    keep: bool,
    out: &mut Vec<u8>,
) {
    write_first(head, out);
    write_headers(head, out);
    match framing {
        AnswerFraming::Length(length) => header(out, "Content-Length", decimal(length).as_ref()),
        AnswerFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        // The length that the body would have. A backend may have sent equal lengths as a list.
        AnswerFraming::None if head.status != 204 => {
            if let Some(length) = head.headers.get("content-length").and_then(|value| list(value).next()) {
                header(out, "Content-Length", length);
            }
        }
        AnswerFraming::None | AnswerFraming::UntilClose => {}
    }
    out.extend_from_slice(connection(version, keep));
    out.extend_from_slice(b"\r\n");
}

fn write_switch(head: &ResponseHead<'_>, out: &mut Vec<u8>) {
    write_first(head, out);
    write_headers(head, out);
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ASKED: Asked = Asked { version: Version::Http11, head_only: false, upgrade: false, keep: true };

    /// Passes an answer on in pieces of this size.
    fn pass(
        answer: &[u8],
        asked: Asked,
        size: usize,
    ) -> Result<(String, Answered, AnswerRelay), AnswerFault> {
        let pool = Arc::new(Pool::default());
        let (mut relay, mut out) = (AnswerRelay::new(), Vec::new());
        let mut answered = Answered::More;
        for piece in answer.chunks(size.max(1)) {
            answered = relay.take(piece, asked, (&pool, 1 << 20), &mut out)?;
            if answered != Answered::More {
                break;
            }
        }
        Ok((String::from_utf8_lossy(&out).into_owned(), answered, relay))
    }

    fn passed(answer: &str, asked: Asked) -> (String, Answered, AnswerRelay) {
        let whole = pass(answer.as_bytes(), asked, usize::MAX).unwrap();
        let bytes = pass(answer.as_bytes(), asked, 1).unwrap();
        assert_eq!(bytes.1, whole.1);
        whole
    }

    #[test]
    fn an_answer_loses_what_belongs_to_its_connection_and_nothing_else() {
        let (text, answered, relay) = passed(
            "HTTP/1.1 200 Fine\r\nX: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 2\r\nKeep-Alive: timeout=5\r\n\
             Content-Length: 05\r\nX: 3\r\n\r\nhello",
            ASKED,
        );
        assert_eq!(text, "HTTP/1.1 200 Fine\r\nX: 1\r\nX: 3\r\nContent-Length: 5\r\n\r\nhello");
        assert!(answered == Answered::Done && relay.keeps_backend() && relay.keeps_client());
    }

    #[test]
    fn chunks_are_kept_trailers_dropped_and_an_open_end_is_made_chunks() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n";
        let (text, answered, relay) = passed(chunked, ASKED);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert!(answered == Answered::Done && relay.keeps_backend());
        let (text, answered, mut relay) = passed("HTTP/1.0 200 OK\r\n\r\nabc", ASKED);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        let mut end = Vec::new();
        assert!(answered == Answered::More && relay.end(&mut end));
        assert!(end == LAST_CHUNK && relay.keeps_client() && !relay.keeps_backend());
        let old = Asked { version: Version::Http10, ..ASKED };
        let (text, _, relay) = passed(chunked, old);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc");
        assert!(!relay.keeps_client() && relay.keeps_backend());
    }

    #[test]
    fn answers_without_a_body_have_none() {
        for (answer, asked) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Asked { head_only: true, ..ASKED }),
            ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", ASKED),
        ] {
            let (text, answered, relay) = passed(answer, asked);
            assert_eq!((text.as_str(), answered), (answer, Answered::Done));
            assert_eq!(relay.keeps_backend(), !asked.head_only, "a body may come after all");
        }
        let (text, answered, _) =
            passed("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", ASKED);
        assert_eq!((text.as_str(), answered), ("HTTP/1.1 204 No Content\r\n\r\n", Answered::Done));
    }

    #[test]
    fn interim_answers_pass_to_those_who_know_them_and_have_an_end() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let answer = format!("{hints}{last}");
        assert_eq!(passed(&answer, ASKED).0, answer);
        let old = passed(&answer, Asked { version: Version::Http10, ..ASKED }).0;
        assert!(old.starts_with("HTTP/1.1 200 OK\r\n"), "{old}");
        let endless = pass(hints.repeat(40).as_bytes(), ASKED, usize::MAX);
        assert_eq!(endless.unwrap_err(), AnswerFault::Interims);
    }

    #[test]
    fn a_protocol_is_changed_only_where_it_was_asked_for() {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                      Sec-WebSocket-Accept: x\r\n\r\nframe";
        assert_eq!(pass(switch.as_bytes(), ASKED, usize::MAX).unwrap_err(), AnswerFault::Switched);
        let asked = Asked { upgrade: true, ..ASKED };
        let (text, answered, _) = pass(switch.as_bytes(), asked, usize::MAX).unwrap();
        assert!(
            text.contains("Sec-WebSocket-Accept: x\r\n") && text.ends_with("Connection: Upgrade\r\n\r\n")
        );
        assert_eq!(answered, Answered::Switched(5));
    }

    #[test]
    fn what_cannot_be_read_or_nobody_asked_for_is_not_passed_on() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "x".repeat(70_000));
        for answer in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            &long,
        ] {
            let fault = pass(answer.as_bytes(), ASKED, 1000).unwrap_err();
            assert!(matches!(fault, AnswerFault::Unreadable(_)), "{fault}");
        }
        let (_, answered, relay) =
            pass(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc", ASKED, usize::MAX).unwrap();
        assert!(answered == Answered::Done && !relay.keeps_backend(), "bytes that nobody asked for");
    }

    proptest! {
        /// However an answer is cut, the client gets the same body, and what it gets can be read.
        #[test]
        fn every_cut_gives_the_same_body(pieces in proptest::collection::vec(1usize..40, 0..20), size in 1usize..60) {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            let mut body = Vec::new();
            for (number, length) in pieces.iter().enumerate() {
                let data = vec![b'a' + (number % 26) as u8; *length];
                answer.extend(format!("{length:x}\r\n").bytes());
                answer.extend(&data);
                answer.extend(b"\r\n");
                body.extend(data);
            }
            answer.extend(LAST_CHUNK);
            let (text, answered, _) = pass(&answer, ASKED, size).unwrap();
            prop_assert_eq!(answered, Answered::Done);
            let start = text.find("\r\n\r\n").unwrap() + 4;
            let mut reader = BodyLength::Chunked.reader(BodyLimits::default());
            let (mut got, mut rest) = (Vec::new(), &text.as_bytes()[start..]);
            while let (used, Piece::Data(data)) = reader.next(rest).unwrap() {
                got.extend_from_slice(data);
                rest = &rest[used..];
            }
            prop_assert_eq!(got, body);
        }
    }
}
