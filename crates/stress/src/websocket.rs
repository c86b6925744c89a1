//! WebSocket (RFC 6455) for a load generator: the handshake, the frames of requests, and where a reply ends.
//!
//! A request is one message, and its reply is the next message of the server. What a server says unasked between two
//! requests is passed over; its pings are answered at any time.

use super::form::RequestForm;
use super::outcome::Outcome;
use super::payload::Payload;
use super::step::{Step, clear, contains};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

/// The longest head of an answer to a handshake, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Of a message no more than this is kept to look for a text in.
const MAX_KEPT: usize = 64 << 10;
/// The most header lines of an answer to a handshake.
const MAX_HEADERS: usize = 256;
/// The longest payload of a control frame.
const CONTROL_MAX: u64 = 125;
/// The mask of every frame. A mask protects proxies from the scripts of a browser, which a load generator does not run.
const MASK: [u8; 4] = *b"tide";
/// What this client says at random, as the RFC has it, and here always.
const KEY: &str = "dGlkZWdhdGUtc3RyZXNzIQ==";
/// What the RFC has servers append to a client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const BAD: Step = Step::Done(Outcome::BadReply, false);

/// What is sent in a run: the handshake of each connection, and the frames of requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SocketRequest {
    handshake: Box<[u8]>,
    accept: String,
    frames: Payload,
}

impl SocketRequest {
    /// Messages with each part of the payload in turn; text where it is text.
    pub(crate) fn new(authority: &str, path: &str, form: &RequestForm, payload: &Payload) -> Self {
        let own = form.lines(&[
            ("Host", authority),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ]);
        let mut hash = sha1_smol::Sha1::new();
        hash.update(KEY.as_bytes());
        hash.update(GUID.as_bytes());
        Self {
            handshake: format!("GET {path} HTTP/1.1\r\n{own}\r\n").into_bytes().into(),
            accept: BASE64.encode(hash.digest().bytes()),
            frames: Payload::collect((0..payload.parts()).map(|n| {
                let part = payload.part(n);
                let opcode = if std::str::from_utf8(part).is_ok() { TEXT } else { BINARY };
                frame(opcode, part)
            })),
        }
    }

    /// What is said first on each connection.
    pub(crate) fn handshake(&self) -> &[u8] {
        &self.handshake
    }

    /// The bytes of request number `n`.
    pub(crate) fn bytes(&self, n: usize) -> &[u8] {
        self.frames.part(n)
    }

    /// The bytes of the largest request.
    pub(crate) fn largest(&self) -> usize {
        self.frames.largest()
    }
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client's frame.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// The masked payload of a frame that [`frame`] made.
fn masked(frame: &[u8]) -> &[u8] {
    let head = match frame.get(1).map(|byte| byte & 0x7f) {
        Some(126) => 4,
        Some(127) => 10,
        _ => 2,
    };
    frame.get(head + MASK.len()..).unwrap_or_default()
}

/// What the answer to a handshake comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// It is not whole.
    More,
    /// The socket is open; this number of the bytes were the answer's.
    Open(usize),
    /// There is no socket.
    Refused(Outcome),
}

/// What input comes to where nothing was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// The connection goes on.
    Fine,
    /// The server has ended it, or broken the protocol.
    Over,
}

/// How far the server's frames have come.
#[derive(Debug, Default)]
pub(crate) struct SocketReply {
    /// The answer to the handshake, when it came in pieces; then the start of a message, when a text is looked for.
    held: Vec<u8>,
    /// The head of a frame.
    head: [u8; 10],
    filled: usize,
    /// The first byte of the frame whose head is whole, and what is left of its payload.
    frame: Option<(u8, u64)>,
    /// A message has begun and not ended.
    begun: bool,
    /// Bytes of the message.
    got: u64,
    /// It is not what was sent.
    differs: bool,
    /// The payload of a control frame.
    control: Vec<u8>,
    /// Frames that answer pings.
    pongs: Vec<u8>,
    /// The status of the answer to the handshake.
    status: u16,
}

impl SocketReply {
    /// Forgets the message before; half a frame that has come belongs to the next.
    pub(crate) fn reset(&mut self) {
        clear(&mut self.held);
        self.got = 0;
        self.differs = false;
    }

    /// The status of the answer to the handshake; 0 before there is one.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The answers to pings that have come.
    pub(crate) fn take_pongs(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pongs)
    }

    /// Takes the next bytes of the answer to a handshake.
    pub(crate) fn greet(&mut self, request: &SocketRequest, bytes: &[u8]) -> Greeting {
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let used = match response.parse(&self.held) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if self.held.len() <= MAX_HEAD => return Greeting::More,
            _ => return Greeting::Refused(Outcome::BadReply),
        };
        self.status = response.code.unwrap_or_default();
        let is = |name: &str, value: &str| {
            let mut found = response.headers.iter().filter(|it| it.name.eq_ignore_ascii_case(name));
            found.next().is_some_and(|it| it.value.eq_ignore_ascii_case(value.as_bytes()))
        };
        // The key is told apart by case, unlike the name of the protocol.
        let key = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case("sec-websocket-accept"));
        let accepted = key.is_some_and(|key| key.value == request.accept.as_bytes());
        let greeting = match self.status {
            101 if accepted && is("upgrade", "websocket") => Greeting::Open(used.saturating_sub(before)),
            429 | 503 => Greeting::Refused(Outcome::Busy),
            _ => Greeting::Refused(Outcome::BadReply),
        };
        self.held = Vec::new();
        greeting
    }

    /// Takes the next bytes of the reply to a request.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        request: &[u8],
        expect: Option<&[u8]>,
        busy: Option<&[u8]>,
    ) -> Step {
        let (mut rest, mut done) = (bytes, None);
        while let Some((used, event)) = self.next(rest, request, expect.is_some() || busy.is_some()) {
            rest = &rest[used..];
            match event {
                FrameEvent::Part => {}
                // A second message that nobody asked for: which one answers the next request?
                FrameEvent::Message if done.is_some() => return self.out_of_step(done),
                FrameEvent::Message => {
                    done = Some(self.judge(masked(request).len() as u64, expect, busy));
                    self.reset();
                }
                FrameEvent::Close(outcome) => return Step::Done(done.unwrap_or(outcome), false),
                FrameEvent::Wrong => return BAD,
            }
        }
        match done {
            Some(_) if self.begun => self.out_of_step(done),
            Some(outcome) => Step::Done(outcome, true),
            None => Step::More,
        }
    }

    fn out_of_step(&self, done: Option<Outcome>) -> Step {
        Step::Done(done.unwrap_or(Outcome::BadReply), false)
    }

    /// Takes bytes that come while nothing was asked.
    pub(crate) fn unasked(&mut self, bytes: &[u8]) -> Unasked {
        let mut rest = bytes;
        while let Some((used, event)) = self.next(rest, &[], false) {
            rest = &rest[used..];
            match event {
                FrameEvent::Part => {}
                FrameEvent::Message => self.reset(),
                FrameEvent::Close(_) | FrameEvent::Wrong => return Unasked::Over,
            }
        }
        Unasked::Fine
    }

    fn judge(&self, length: u64, expect: Option<&[u8]>, busy: Option<&[u8]>) -> Outcome {
        if busy.is_some_and(|text| self.held.starts_with(text)) {
            return Outcome::Busy;
        }
        let good = match expect {
            Some(text) => contains(&self.held, text),
            None => !self.differs && self.got == length,
        };
        if good { Outcome::Ok } else { Outcome::BadReply }
    }

    /// Takes some bytes: how many, and what they came to. None: there are no more.
    fn next(&mut self, bytes: &[u8], request: &[u8], keeps_text: bool) -> Option<(usize, FrameEvent)> {
        let Some((first, left)) = self.frame else {
            let byte = *bytes.first()?;
            return Some((1, self.take_head(byte)));
        };
        let taken = left.min(bytes.len() as u64);
        if taken == 0 && left > 0 {
            return None;
        }
        let piece = &bytes[..taken as usize];
        if first & 0x0f >= CLOSE {
            self.control.extend_from_slice(piece);
        } else {
            self.take_payload(piece, masked(request), keeps_text);
        }
        self.frame = Some((first, left - taken));
        let event = if left == taken { self.end_frame(first) } else { FrameEvent::Part };
        Some((taken as usize, event))
    }

    /// Compares payload with what was sent, and keeps the start of it where a text is looked for.
    fn take_payload(&mut self, piece: &[u8], sent: &[u8], keeps_text: bool) {
        let at = usize::try_from(self.got).unwrap_or(usize::MAX);
        let expected = sent.get(at..).unwrap_or_default();
        let key = MASK.iter().cycle().skip(at % MASK.len());
        let same = piece.iter().zip(expected).zip(key).all(|((got, sent), key)| *got == sent ^ key);
        self.differs |= !same || piece.len() > expected.len();
        self.got += piece.len() as u64;
        if keeps_text {
            let room = MAX_KEPT.saturating_sub(self.held.len()).min(piece.len());
            self.held.extend_from_slice(&piece[..room]);
        }
    }

    fn take_head(&mut self, byte: u8) -> FrameEvent {
        self.head[self.filled] = byte;
        self.filled += 1;
        let second = self.head[1];
        let more = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.filled < 2 || self.filled < 2 + more {
            return FrameEvent::Part;
        }
        let length = match more {
            0 => u64::from(second & 0x7f),
            _ => self.head[2..2 + more].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let (first, opcode) = (self.head[0], self.head[0] & 0x0f);
        self.filled = 0;
        let in_order = match opcode {
            0 => self.begun,
            TEXT | BINARY => !self.begun,
            CLOSE | PING | PONG => first & 0x80 != 0 && length <= CONTROL_MAX,
            _ => false,
        };
        // A server masks nothing, and no extension was offered.
        if !in_order || first & 0x70 != 0 || second & 0x80 != 0 || length >> 63 == 1 {
            return FrameEvent::Wrong;
        }
        self.begun |= opcode < CLOSE;
        self.frame = Some((first, length));
        match length {
            0 => self.end_frame(first),
            _ => FrameEvent::Part,
        }
    }

    fn end_frame(&mut self, first: u8) -> FrameEvent {
        self.frame = None;
        let control = std::mem::take(&mut self.control);
        match first & 0x0f {
            CLOSE => match control.first_chunk() {
                // "Try again later".
                Some(code) if u16::from_be_bytes(*code) == 1013 => FrameEvent::Close(Outcome::Busy),
                _ => FrameEvent::Close(Outcome::EofEarly),
            },
            PING => {
                self.pongs.extend(frame(PONG, &control));
                FrameEvent::Part
            }
            PONG => FrameEvent::Part,
            _ if first & 0x80 != 0 => {
                self.begun = false;
                FrameEvent::Message
            }
            _ => FrameEvent::Part,
        }
    }
}

enum FrameEvent {
    /// Nothing to judge.
    Part,
    /// A message is whole.
    Message,
    /// The server closes; what that makes of a request under way.
    Close(Outcome),
    /// The server breaks the protocol.
    Wrong,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(payload: &[u8]) -> SocketRequest {
        let payload = Payload::whole(payload.to_vec());
        SocketRequest::new("h:1", "/x", &RequestForm::default(), &payload)
    }

    /// A server's frame.
    fn said(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(length as u8),
            length => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    /// Judges bytes that come whole, and the same byte by byte.
    fn judge(payload: &[u8], bytes: &[u8], expect: Option<&[u8]>, busy: Option<&[u8]>) -> Step {
        let request = request(payload);
        let whole = SocketReply::default().read(bytes, request.bytes(0), expect, busy);
        let mut reply = SocketReply::default();
        let mut pieces = Step::More;
        for byte in bytes {
            if pieces != Step::More {
                break;
            }
            pieces = reply.read(&[*byte], request.bytes(0), expect, busy);
        }
        let outcome = |step| match step {
            Step::More => None,
            Step::Done(outcome, _) => Some(outcome),
        };
        assert_eq!(outcome(whole), outcome(pieces), "{bytes:?}");
        whole
    }

    #[test]
    fn the_handshake_is_the_rfcs_and_its_answer_is_checked() {
        let request = request(b"x");
        let text = String::from_utf8(request.handshake().to_vec()).unwrap();
        assert!(text.starts_with("GET /x HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\n"), "{text}");
        let accept = &request.accept;
        let answer = |status: &str, upgrade: &str, accept: &str| {
            format!("HTTP/1.1 {status}\r\nUpgrade: {upgrade}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
        };
        let good = answer("101 Switching Protocols", "WebSocket", accept);
        for (text, greeting) in [
            (format!("{good}\u{81}"), Greeting::Open(good.len())),
            (answer("101 x", "websocket", &accept.to_lowercase()), Greeting::Refused(Outcome::BadReply)),
            (answer("101 x", "h2c", accept), Greeting::Refused(Outcome::BadReply)),
            (answer("200 OK", "websocket", accept), Greeting::Refused(Outcome::BadReply)),
            (answer("503 Busy", "x", ""), Greeting::Refused(Outcome::Busy)),
            ("SSH-2.0-x\r\n".to_owned(), Greeting::Refused(Outcome::BadReply)),
            ("HTTP/1.1 101 x\r\n".to_owned(), Greeting::More),
        ] {
            assert_eq!(SocketReply::default().greet(&request, text.as_bytes()), greeting, "{text:?}");
        }
        // In pieces, where the last one has the beginning of a frame too.
        let mut reply = SocketReply::default();
        assert_eq!(reply.greet(&request, &good.as_bytes()[..20]), Greeting::More);
        let last = [&good.as_bytes()[20..], &[0x81, 0]].concat();
        assert_eq!(reply.greet(&request, &last), Greeting::Open(good.len() - 20));
        assert_eq!(reply.status(), 101);
    }

    #[test]
    fn replies_are_judged() {
        let ok = Step::Done(Outcome::Ok, true);
        let wrong = Step::Done(Outcome::BadReply, true);
        let long: Vec<u8> = (0..70_000u32).map(|n| n as u8).collect();
        let mut long_said = vec![0x82, 127];
        long_said.extend((long.len() as u64).to_be_bytes());
        long_said.extend(&long);
        assert_eq!(SocketReply::default().read(&long_said, request(&long).bytes(0), None, None), ok);
        for (payload, bytes, step) in [
            (&b"hi"[..], said(0x81, b"hi"), ok),
            (b"", said(0x81, b""), ok),
            (&[b'x'; 300], said(0x82, &[b'x'; 300]), ok),
            (b"hi", [said(0x01, b"h"), said(0x89, b"p"), said(0x00, b""), said(0x80, b"i")].concat(), ok),
            (b"hi", said(0x81, b"ho"), wrong),
            (b"hi", said(0x81, b"h"), wrong),
            (b"hi", said(0x81, b"hi!"), wrong),
            (b"hi", said(0x01, b"hi"), Step::More),
            (b"hi", said(0x81, b"hi")[..3].to_vec(), Step::More),
            (b"hi", said(0x88, b"\x03\xf5busy"), Step::Done(Outcome::Busy, false)),
            (b"hi", said(0x88, b"\x03\xe9"), Step::Done(Outcome::EofEarly, false)),
            (b"hi", said(0x88, b""), Step::Done(Outcome::EofEarly, false)),
            (b"hi", said(0x83, b"hi"), BAD),
            (b"hi", said(0xc1, b"hi"), BAD),
            (b"hi", said(0x80, b"hi"), BAD),
            (b"hi", [said(0x01, b"h"), said(0x81, b"i")].concat(), BAD),
            (b"hi", said(0x09, b""), BAD),
            (b"hi", vec![0x81, 0x80, 0, 0, 0, 0], BAD),
        ] {
            assert_eq!(judge(payload, &bytes, None, None), step, "{bytes:?}");
        }
        let (expect, busy) = (Some(&b"ell"[..]), Some(&b"wait"[..]));
        assert_eq!(judge(b"x", &said(0x81, b"hello"), expect, busy), ok);
        assert_eq!(judge(b"x", &said(0x81, b"x"), expect, busy), wrong);
        assert_eq!(judge(b"x", &said(0x81, b"wait a bit"), expect, busy), Step::Done(Outcome::Busy, true));
    }

    #[test]
    fn a_message_too_many_leaves_the_connection_out_of_step() {
        let request = request(b"hi");
        for more in [said(0x81, b"hi"), said(0x01, b"h"), said(0x88, b"")] {
            let bytes = [said(0x81, b"hi"), more].concat();
            let step = SocketReply::default().read(&bytes, request.bytes(0), None, None);
            assert_eq!(step, Step::Done(Outcome::Ok, false), "{bytes:?}");
        }
    }

    #[test]
    fn pings_are_answered_and_what_was_not_asked_for_is_passed_over() {
        let mut reply = SocketReply::default();
        let bytes = [said(0x89, b"abc"), said(0x81, b"news"), said(0x89, b"")].concat();
        assert_eq!(reply.unasked(&bytes[..2]), Unasked::Fine);
        assert_eq!(reply.unasked(&bytes[2..]), Unasked::Fine);
        assert_eq!(reply.take_pongs(), [frame(PONG, b"abc"), frame(PONG, b"")].concat());
        assert!(reply.take_pongs().is_empty());
        assert_eq!(reply.unasked(&said(0x88, b"\x03\xe9")), Unasked::Over);
    }
}
