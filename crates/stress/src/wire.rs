//! The protocol of a run: the bytes of a request, and how a reply is judged.

use super::answers::Answer;
use super::http::{HttpReply, HttpRequest};
use super::outcome::Outcome;
use super::payload::Payload;
use super::step::{Step, clear, contains};
use super::websocket::{SocketReply, SocketRequest};

/// The longest reply line that is waited for, in bytes.
pub(crate) const MAX_LINE: usize = 64 << 10;

/// How the end of a reply is known, and what it must be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Framing {
    /// The request comes back, byte by byte.
    Echo,
    /// One line.
    Line,
    /// These bytes.
    Exact(Box<[u8]>),
    /// An HTTP/1.1 response.
    Http(HttpRequest),
    /// A message of a WebSocket.
    Socket(SocketRequest),
    /// One datagram; whether datagrams are numbered and come back as they are.
    Datagram {
        /// Each has its number at the start.
        numbered: bool,
    },
}

/// The protocol of a run: what to send and how to judge replies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wire {
    pub(crate) framing: Framing,
    pub(crate) payload: Payload,
    /// A text that a good reply contains (lines and HTTP bodies).
    pub(crate) expect: Option<Box<[u8]>>,
    /// What a busy server's reply begins with (HTTP: what its body contains).
    pub(crate) busy: Option<Box<[u8]>>,
}

/// How far the reply of one request has come.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Bytes so far; of echoes and fixed texts, which are payloads in size.
    got: u32,
    not_busy: bool,
    not_body: bool,
    kept: Option<Box<Kept>>,
}

/// What few replies need.
#[derive(Debug, Default)]
struct Kept {
    /// A line that came in pieces, where a text is looked for in it.
    held: Vec<u8>,
    http: HttpReply,
    socket: SocketReply,
}

const BAD: Step = Step::Done(Outcome::BadReply, false);
const BUSY: Step = Step::Done(Outcome::Busy, false);
const OK: Step = Step::Done(Outcome::Ok, true);

impl Reply {
    /// Forgets the reply before, keeping its buffers.
    pub(crate) fn reset(&mut self) {
        self.got = 0;
        self.not_busy = false;
        self.not_body = false;
        if let Some(kept) = &mut self.kept {
            clear(&mut kept.held);
            kept.http.reset();
            kept.socket.reset();
        }
    }

    /// The reader of a WebSocket.
    pub(crate) fn of_socket(&mut self) -> &mut SocketReply {
        &mut self.kept.get_or_insert_default().socket
    }

    /// Forgets all that the connection before has said.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Wire {
    /// The bytes of request number `n`.
    pub(crate) fn request(&self, n: usize) -> &[u8] {
        match &self.framing {
            Framing::Http(http) => http.bytes(n),
            Framing::Socket(socket) => socket.bytes(n),
            _ => self.payload.part(n),
        }
    }

    /// The bytes of the largest request.
    pub(crate) fn largest(&self) -> usize {
        match &self.framing {
            Framing::Http(http) => http.largest(),
            Framing::Socket(socket) => socket.largest(),
            _ => self.payload.largest(),
        }
    }

    /// What is said on a WebSocket, if that is the protocol.
    pub(crate) fn socket(&self) -> Option<&SocketRequest> {
        match &self.framing {
            Framing::Socket(socket) => Some(socket),
            _ => None,
        }
    }

    /// What is counted of a reply over HTTP that has just ended.
    pub(crate) fn answer(&self, reply: &Reply) -> Option<Answer> {
        let kept = reply.kept.as_ref().filter(|_| matches!(self.framing, Framing::Http(_)))?;
        Some(kept.http.answer()).filter(|answer| answer.status > 0)
    }

    /// Takes the next bytes of a stream's reply to `request`; there is at least one.
    pub(crate) fn read(&self, reply: &mut Reply, request: &[u8], bytes: &[u8]) -> Step {
        let (expect, busy) = (self.expect.as_deref(), self.busy.as_deref());
        if let Framing::Http(http) = &self.framing {
            let kept = reply.kept.get_or_insert_default();
            kept.http.expect(http.expects_no_body());
            return kept.http.read(bytes, expect, busy);
        }
        if let Framing::Socket(_) = &self.framing {
            return reply.of_socket().read(bytes, request, expect, busy);
        }
        if let Some(busy) = self.busy.as_deref().filter(|_| !reply.not_busy) {
            match compare(busy, reply.got as usize, bytes) {
                Compared::Whole | Compared::Beyond => return BUSY,
                Compared::Part => {}
                Compared::Other => reply.not_busy = true,
            }
        }
        match &self.framing {
            Framing::Echo => self.match_bytes(reply, request, bytes),
            Framing::Exact(expected) => self.match_bytes(reply, expected, bytes),
            Framing::Line => self.match_line(reply, bytes),
            Framing::Http(_) | Framing::Socket(_) | Framing::Datagram { .. } => BAD,
        }
    }

    /// The server has ended the connection: an ok reply only where that end is the reply's end.
    pub(crate) fn end(&self, reply: &mut Reply) -> Option<Step> {
        let kept = reply.kept.as_mut().filter(|_| matches!(self.framing, Framing::Http(_)))?;
        kept.http.end(self.expect.as_deref(), self.busy.as_deref())
    }

    /// Whether the start of the reply may still turn out to be the busy text.
    fn may_be_busy(&self, reply: &Reply) -> bool {
        self.busy.is_some() && !reply.not_busy
    }

    fn match_bytes(&self, reply: &mut Reply, expected: &[u8], bytes: &[u8]) -> Step {
        let compared = match reply.not_body {
            true => Compared::Other,
            false => compare(expected, reply.got as usize, bytes),
        };
        reply.got += bytes.len() as u32;
        match compared {
            Compared::Whole => OK,
            Compared::Part => Step::More,
            Compared::Beyond => BAD,
            Compared::Other if self.may_be_busy(reply) => {
                reply.not_body = true;
                Step::More
            }
            Compared::Other => BAD,
        }
    }

    fn match_line(&self, reply: &mut Reply, bytes: &[u8]) -> Step {
        reply.got += bytes.len() as u32;
        let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
            if reply.got as usize > MAX_LINE {
                return BAD;
            }
            if self.expect.is_some() {
                reply.kept.get_or_insert_default().held.extend_from_slice(bytes);
            }
            return Step::More;
        };
        if end + 1 != bytes.len() {
            return BAD;
        }
        let held = reply.kept.as_mut().map(|kept| &mut kept.held).filter(|held| !held.is_empty());
        let good = match (&self.expect, held) {
            (None, _) => true,
            (Some(text), None) => contains(bytes, text),
            (Some(text), Some(held)) => {
                held.extend_from_slice(bytes);
                contains(held, text)
            }
        };
        if good { OK } else { Step::Done(Outcome::BadReply, true) }
    }
}

enum Compared {
    Whole,
    Part,
    /// All of it and more.
    Beyond,
    Other,
}

/// Compares `bytes`, that come after `got` others, with what is expected.
fn compare(expected: &[u8], got: usize, bytes: &[u8]) -> Compared {
    let rest = expected.get(got..).unwrap_or_default();
    if bytes.len() <= rest.len() {
        match (rest.starts_with(bytes), bytes.len() == rest.len()) {
            (true, true) => Compared::Whole,
            (true, false) => Compared::Part,
            (false, _) => Compared::Other,
        }
    } else if bytes.starts_with(rest) {
        Compared::Beyond
    } else {
        Compared::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(framing: Framing, expect: Option<&str>, pieces: &[&str]) -> Step {
        let wire = Wire {
            framing,
            payload: Payload::whole(b"hello".to_vec()),
            expect: expect.map(|t| t.as_bytes().into()),
            busy: Some(b"hold on".as_slice().into()),
        };
        let mut reply = Reply::default();
        let mut step = Step::More;
        for piece in pieces {
            assert_eq!(step, Step::More, "{pieces:?}");
            step = wire.read(&mut reply, wire.request(0), piece.as_bytes());
        }
        step
    }

    #[test]
    fn replies_are_judged() {
        let exact = || Framing::Exact(b"yes".as_slice().into());
        for (framing, expect, pieces, step) in [
            (Framing::Echo, None, &["hello"][..], OK),
            (Framing::Echo, None, &["he", "l", "lo"], OK),
            (Framing::Echo, None, &["he"], Step::More),
            (Framing::Echo, None, &["hello!"], BAD),
            (Framing::Echo, None, &["help!"], BAD),
            (Framing::Echo, None, &["hello", "x"][..1], OK),
            // Both the echo and the busy text begin with `h`.
            (Framing::Echo, None, &["h", "old ", "on"], BUSY),
            (Framing::Echo, None, &["hold on\n"], BUSY),
            (Framing::Echo, None, &["hold", "ing"], BAD),
            (exact(), None, &["y", "es"], OK),
            (exact(), None, &["no"], BAD),
            (Framing::Line, None, &["any", "thing\n"], OK),
            (Framing::Line, None, &["one\ntwo\n"], BAD),
            (Framing::Line, Some("thing"), &["anyth", "ing\n"], OK),
            (Framing::Line, Some("nothing"), &["anything\n"], Step::Done(Outcome::BadReply, true)),
            (Framing::Line, None, &["hold on\n"], BUSY),
        ] {
            assert_eq!(judge(framing, expect, pieces), step, "{pieces:?}");
        }
        let long = "x".repeat(MAX_LINE + 1);
        let (half, rest) = long.split_at(MAX_LINE / 2);
        for expect in [None, Some("x")] {
            assert_eq!(judge(Framing::Line, expect, &[&long]), BAD);
            assert_eq!(judge(Framing::Line, expect, &[half, rest]), BAD);
        }
    }
}
