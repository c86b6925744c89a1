//! HTTP/1.1 as far as a load generator needs it: one request at a time, and where its response ends.

use super::outcome::Outcome;
use super::payload::Payload;
use super::wire::{Step, clear, contains};
use std::mem::MaybeUninit;

const BAD: Step = Step::Done(Outcome::BadReply, false);
/// The longest head of a response, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Of a body no more than this is kept to look for a text in.
const MAX_KEPT: usize = 64 << 10;
/// The most header lines of a response.
const MAX_HEADERS: usize = 128;

/// The requests of a run, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpRequest {
    requests: Payload,
}

impl HttpRequest {
    /// A GET, or a POST of each part of the body in turn. `close` asks the server to close afterwards.
    pub(crate) fn new(authority: &str, path: &str, body: Option<&Payload>, close: bool) -> Self {
        let connection = if close { "Connection: close\r\n" } else { "" };
        let head = |method: &str, length: String| {
            let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
            format!(
                "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\n\
                 Accept: */*\r\n{connection}{length}\r\n"
            )
        };
        let requests = match body {
            None => Payload::whole(head("GET", String::new()).into_bytes()),
            Some(body) => Payload::collect((0..body.parts()).map(|n| {
                let part = body.part(n);
                let length = format!("Content-Length: {}\r\n", part.len());
                [head("POST", length).as_bytes(), part].concat()
            })),
        };
        Self { requests }
    }

    /// The bytes of request number `n`.
    pub(crate) fn bytes(&self, n: usize) -> &[u8] {
        self.requests.part(n)
    }

    /// The bytes of the largest request.
    pub(crate) fn largest(&self) -> usize {
        self.requests.largest()
    }
}

/// What is left of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Body {
    /// The head is not whole.
    #[default]
    Head,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunk),
    /// Everything up to the end of the connection.
    UntilEnd,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Chunk {
    /// In a size line: the size so far, its digits, and whether an extension has begun.
    Size(u64, u8, bool),
    /// In a chunk with this many bytes left.
    Data(u64),
    /// In the line end after a chunk.
    DataEnd,
    /// After the last chunk; how long the current trailer line is.
    Trailer(u32),
}

/// How far a response has come.
#[derive(Debug, Default)]
pub(crate) struct HttpReply {
    /// The head, when it came in pieces; then the start of the body, when a text is looked for.
    held: Vec<u8>,
    body: Body,
    status: u16,
    keep: bool,
}

impl HttpReply {
    /// Forgets the response before.
    pub(crate) fn reset(&mut self) {
        clear(&mut self.held);
        self.body = Body::Head;
    }

    /// Takes the next bytes.
    pub(crate) fn read(&mut self, bytes: &[u8], expect: Option<&[u8]>, busy: Option<&[u8]>) -> Step {
        if self.body != Body::Head {
            return self.read_body(bytes, expect, busy);
        }
        if self.held.is_empty() {
            return self.read_head(bytes, expect, busy);
        }
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(bytes);
        self.read_head(&joined, expect, busy)
    }

    fn read_head(&mut self, mut bytes: &[u8], expect: Option<&[u8]>, busy: Option<&[u8]>) -> Step {
        loop {
            match self.head(bytes) {
                // An interim response; the real one follows.
                Ok(Some(used)) if (100..200).contains(&self.status) => {
                    self.body = Body::Head;
                    bytes = &bytes[used..];
                    if bytes.is_empty() {
                        return Step::More;
                    }
                }
                Ok(Some(used)) => return self.read_body(&bytes[used..], expect, busy),
                Ok(None) if bytes.len() <= MAX_HEAD => {
                    self.held = bytes.to_vec();
                    return Step::More;
                }
                Ok(None) | Err(()) => return BAD,
            }
        }
    }

    fn read_body(&mut self, bytes: &[u8], expect: Option<&[u8]>, busy: Option<&[u8]>) -> Step {
        let keeps_text = expect.is_some() || busy.is_some();
        match self.take_body(bytes, keeps_text) {
            Ok((false, _)) => Step::More,
            Ok((true, rest)) => {
                // Bytes after the response were not asked for: the connection is out of step.
                let keep = self.keep && rest == 0;
                Step::Done(self.judge(expect, busy), keep)
            }
            Err(()) => BAD,
        }
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self, expect: Option<&[u8]>, busy: Option<&[u8]>) -> Option<Step> {
        (self.body == Body::UntilEnd).then(|| Step::Done(self.judge(expect, busy), false))
    }

    fn judge(&self, expect: Option<&[u8]>, busy: Option<&[u8]>) -> Outcome {
        if matches!(self.status, 429 | 503) || busy.is_some_and(|text| contains(&self.held, text)) {
            return Outcome::Busy;
        }
        let good = (200..400).contains(&self.status) && expect.is_none_or(|text| contains(&self.held, text));
        if good { Outcome::Ok } else { Outcome::BadReply }
    }

    /// Reads the head at the start of `bytes`: how long it is, or none if it is not whole.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, ()> {
        // Clearing so many for each response would cost more than reading it.
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let used = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(()),
        };
        self.status = response.code.ok_or(())?;
        self.keep = response.version == Some(1);
        self.body = Body::UntilEnd;
        let mut length = None;
        let mut chunked = false;
        for header in response.headers.iter() {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(value).map_err(drop)?;
                length = Some(text.parse().map_err(drop)?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.to_ascii_lowercase().ends_with(b"chunked");
            } else if header.name.eq_ignore_ascii_case("connection") {
                match value {
                    v if v.eq_ignore_ascii_case(b"close") => self.keep = false,
                    v if v.eq_ignore_ascii_case(b"keep-alive") => self.keep = true,
                    _ => {}
                }
            }
        }
        self.body = match (chunked, length) {
            (true, _) => Body::Chunks(Chunk::Size(0, 0, false)),
            _ if matches!(self.status, 100..200 | 204 | 304) => Body::Length(0),
            (false, Some(length)) => Body::Length(length),
            (false, None) => Body::UntilEnd,
        };
        Ok(Some(used))
    }

    /// Goes on in the body: whether it is whole, and how many bytes follow it.
    fn take_body(&mut self, bytes: &[u8], keeps_text: bool) -> Result<(bool, usize), ()> {
        match self.body {
            Body::Length(left) => {
                let taken = left.min(bytes.len() as u64);
                self.keep_text(&bytes[..taken as usize], keeps_text);
                self.body = Body::Length(left - taken);
                Ok((left == taken, bytes.len() - taken as usize))
            }
            Body::Chunks(chunk) => {
                let (mut chunk, mut at) = (chunk, 0);
                while at < bytes.len() {
                    let (next, used, done) = chunk.step(&bytes[at..])?;
                    if let Chunk::Data(_) = chunk {
                        self.keep_text(&bytes[at..at + used], keeps_text);
                    }
                    chunk = next;
                    at += used;
                    if done {
                        return Ok((true, bytes.len() - at));
                    }
                }
                self.body = Body::Chunks(chunk);
                Ok((false, 0))
            }
            Body::UntilEnd => {
                self.keep_text(bytes, keeps_text);
                self.keep = false;
                Ok((false, 0))
            }
            Body::Head => Err(()),
        }
    }

    fn keep_text(&mut self, bytes: &[u8], keeps_text: bool) {
        if keeps_text {
            let room = MAX_KEPT.saturating_sub(self.held.len()).min(bytes.len());
            self.held.extend_from_slice(&bytes[..room]);
        }
    }
}

impl Chunk {
    /// Takes some of `bytes` (at least one): what follows, how many were taken, whether it was the end.
    fn step(self, bytes: &[u8]) -> Result<(Chunk, usize, bool), ()> {
        let next = match (self, bytes[0]) {
            (Chunk::Size(0, 1.., _), b'\n') => Chunk::Trailer(0),
            (Chunk::Size(size, 1.., _), b'\n') => Chunk::Data(size),
            (Chunk::Size(size, digits, true), _) => Chunk::Size(size, digits, true),
            (Chunk::Size(size, digits @ 1.., false), b';' | b' ' | b'\t' | b'\r') => {
                Chunk::Size(size, digits, true)
            }
            (Chunk::Size(size, digits, false), byte) => {
                let digit = (byte as char).to_digit(16).filter(|_| digits < 15).ok_or(())?;
                Chunk::Size(size << 4 | u64::from(digit), digits + 1, false)
            }
            (Chunk::Data(left), _) => {
                let taken = left.min(bytes.len() as u64);
                let next = if left == taken { Chunk::DataEnd } else { Chunk::Data(left - taken) };
                return Ok((next, taken as usize, false));
            }
            (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
            (Chunk::DataEnd, b'\n') => Chunk::Size(0, 0, false),
            (Chunk::DataEnd, _) => return Err(()),
            (Chunk::Trailer(0), b'\n') => return Ok((self, 1, true)),
            (Chunk::Trailer(_), b'\n') => Chunk::Trailer(0),
            (Chunk::Trailer(length), b'\r') => Chunk::Trailer(length),
            (Chunk::Trailer(length), _) if length as usize > MAX_HEAD => return Err(()),
            (Chunk::Trailer(length), _) => Chunk::Trailer(length + 1),
        };
        Ok((next, 1, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a response whole, and byte by byte; both must be judged alike.
    fn judge(response: &str, expect: Option<&str>) -> Step {
        let expect = expect.map(str::as_bytes);
        let mut whole = HttpReply::default();
        let step = whole.read(response.as_bytes(), expect, None);
        let mut reply = HttpReply::default();
        let mut pieces = Step::More;
        for byte in response.as_bytes() {
            assert_eq!(pieces, Step::More, "{response:?}");
            pieces = reply.read(&[*byte], expect, None);
            if pieces == BAD {
                break;
            }
        }
        assert_eq!(step, pieces, "{response:?}");
        match step {
            Step::More => whole.end(expect, None).unwrap_or(Step::More),
            step => step,
        }
    }

    #[test]
    fn responses_are_judged() {
        for (response, expect, step) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", None, Step::Done(Outcome::Ok, true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None, Step::More),
            ("HTTP/1.1 204 No Content\r\n\r\n", None, Step::Done(Outcome::Ok, true)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", None, Step::Done(Outcome::Ok, false)),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", None, Step::Done(Outcome::Ok, false)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                None,
                Step::Done(Outcome::Ok, true),
            ),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", None, Step::Done(Outcome::Busy, true)),
            ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", None, Step::Done(Outcome::BadReply, true)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=1\r\n0123456789\r\n0\r\n\r\n",
                Some("c01"),
                Step::Done(Outcome::Ok, true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
                None,
                Step::Done(Outcome::Ok, true),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None, BAD),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", None, BAD),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                Some("ho"),
                Step::Done(Outcome::BadReply, true),
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n", None, BAD),
        ] {
            assert_eq!(judge(response, expect), step, "{response:?}");
        }
    }

    #[test]
    fn requests_are_whole() {
        let text = |request: &HttpRequest| String::from_utf8(request.bytes(0).to_vec()).unwrap();
        let get = text(&HttpRequest::new("h:1", "/a?b", None, false));
        assert!(get.starts_with("GET /a?b HTTP/1.1\r\nHost: h:1\r\n") && get.ends_with("\r\n\r\n"), "{get}");
        let post = text(&HttpRequest::new("h:1", "/", Some(&Payload::whole(b"body".to_vec())), true));
        assert!(post.starts_with("POST / ") && post.contains("Connection: close\r\n"), "{post}");
        assert!(post.ends_with("Content-Length: 4\r\n\r\nbody"), "{post}");
    }
}
