//! WebSocket for a load generator: the handshake and the frames of requests, and how a reply is judged.
//!
//! A request is one message, and its reply is the next message of the server. What a server says unasked between two
//! requests is passed over; its pings are answered at any time.

use super::outcome::Outcome;
use super::payload::Payload;
use super::step::{Step, clear, contains};
use tidegate_protocols::RequestForm;
use tidegate_protocols::websocket::{
    FrameReader, Greeting, GreetingReader, Handshake, MASK, Said, masked, message,
};
use tidegate_units::url::Url;

/// Of a message no more than this is kept to look for a text in.
const MAX_KEPT: usize = 64 << 10;
/// What this client says at random, as the RFC has it, and here always.
const KEY: [u8; 16] = *b"tidegate-stress!";

const BAD: Step = Step::Done(Outcome::BadReply, false);

/// What is sent in a run: the handshake of each connection, and the frames of requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SocketRequest {
    handshake: Handshake,
    frames: Payload,
}

impl SocketRequest {
    /// Messages with each part of the payload in turn. All have one mask: it protects proxies from the scripts of a browser,
    /// which a load generator does not run.
    pub(crate) fn new(url: &Url, form: &RequestForm, payload: &Payload) -> Self {
        let frames = (0..payload.parts()).map(|n| message(payload.part(n), MASK));
        Self { handshake: Handshake::new(url, form, KEY), frames: Payload::collect(frames) }
    }

    /// What is said first on each connection.
    pub(crate) fn handshake(&self) -> &[u8] {
        self.handshake.bytes()
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

/// What the answer to a handshake makes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Welcome {
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
    greeting: GreetingReader,
    frames: FrameReader,
    message: Message,
}

/// What is known of a message that comes in.
#[derive(Debug, Default)]
struct Message {
    /// Its start, when a text is looked for.
    held: Vec<u8>,
    /// Its bytes so far.
    got: u64,
    /// It is not what was sent.
    differs: bool,
}

impl Message {
    fn reset(&mut self) {
        clear(&mut self.held);
        self.got = 0;
        self.differs = false;
    }

    /// Compares payload with what was sent, which is masked, and keeps the start of it where a text is looked for.
    fn take(&mut self, piece: &[u8], sent: &[u8], keeps_text: bool) {
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
}

impl SocketReply {
    /// Forgets the message before; half a frame that has come belongs to the next.
    pub(crate) fn reset(&mut self) {
        self.message.reset();
    }

    /// The status of the answer to the handshake; 0 before there is one.
    pub(crate) fn status(&self) -> u16 {
        self.greeting.status()
    }

    /// The answers to pings that have come.
    pub(crate) fn take_pongs(&mut self) -> Vec<u8> {
        self.frames.take_pongs()
    }

    /// Takes the next bytes of the answer to a handshake.
    pub(crate) fn greet(&mut self, request: &SocketRequest, bytes: &[u8]) -> Welcome {
        match self.greeting.read(&request.handshake, bytes) {
            Greeting::More => Welcome::More,
            Greeting::Open(used) => Welcome::Open(used),
            Greeting::Refused if matches!(self.status(), 429 | 503) => Welcome::Refused(Outcome::Busy),
            Greeting::Refused | Greeting::Wrong => Welcome::Refused(Outcome::BadReply),
        }
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
        while let Some((used, said)) = self.next(rest, request, expect.is_some() || busy.is_some()) {
            rest = &rest[used..];
            match said {
                Said::Part => {}
                // A second message that nobody asked for: which one answers the next request?
                Said::Message if done.is_some() => return out_of_step(done),
                Said::Message => {
                    done = Some(self.message.judge(masked(request).len() as u64, expect, busy));
                    self.reset();
                }
                // "Try again later".
                Said::Close(Some(1013)) => return Step::Done(done.unwrap_or(Outcome::Busy), false),
                Said::Close(_) => return Step::Done(done.unwrap_or(Outcome::EofEarly), false),
                Said::Wrong => return BAD,
            }
        }
        match done {
            Some(_) if self.frames.is_in_a_message() => out_of_step(done),
            Some(outcome) => Step::Done(outcome, true),
            None => Step::More,
        }
    }

    /// Takes bytes that come while nothing was asked.
    pub(crate) fn unasked(&mut self, bytes: &[u8]) -> Unasked {
        let mut rest = bytes;
        while let Some((used, said)) = self.next(rest, &[], false) {
            rest = &rest[used..];
            match said {
                Said::Part => {}
                Said::Message => self.reset(),
                Said::Close(_) | Said::Wrong => return Unasked::Over,
            }
        }
        Unasked::Fine
    }

    /// Takes some bytes: how many, and what they came to. None: there are no more.
    fn next(&mut self, bytes: &[u8], request: &[u8], keeps_text: bool) -> Option<(usize, Said)> {
        let Self { frames, message, .. } = self;
        frames.next(bytes, &mut |piece| message.take(piece, masked(request), keeps_text))
    }
}

fn out_of_step(done: Option<Outcome>) -> Step {
    Step::Done(done.unwrap_or(Outcome::BadReply), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(payload: &[u8]) -> SocketRequest {
        let payload = Payload::whole(payload.to_vec());
        SocketRequest::new(&"ws://h:1/x".parse().unwrap(), &RequestForm::default(), &payload)
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
    fn an_answer_to_a_handshake_that_opens_nothing_is_bad_or_busy() {
        for (status, outcome) in
            [("503 x", Outcome::Busy), ("429 x", Outcome::Busy), ("200 OK", Outcome::BadReply)]
        {
            let answer = format!("HTTP/1.1 {status}\r\n\r\n");
            let welcome = SocketReply::default().greet(&request(b"x"), answer.as_bytes());
            assert_eq!(welcome, Welcome::Refused(outcome), "{answer:?}");
        }
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
        let pongs = reply.take_pongs();
        assert_eq!((pongs[0], pongs.len(), masked(&pongs[..9])), (0x8a, 9 + 6, &[0x15, 0x0b, 0x07][..]));
        assert!(reply.take_pongs().is_empty());
        assert_eq!(reply.unasked(&said(0x88, b"\x03\xe9")), Unasked::Over);
    }
}
