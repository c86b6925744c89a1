//! HTTP/1.1: the bytes of a request, and where its response ends.
//!
//! One request is under way on a connection at a time. As RFC 9112 allows a client, the reader accepts bare line feeds, spaces
//! before a colon, folded headers and zeros before a chunk's size. It refuses a response whose end is in doubt.

use super::form::RequestForm;
use std::mem::MaybeUninit;
use tidegate_units::url::Url;

/// The longest head of a response, in bytes; also the longest trailer, and the longest line with a chunk's size.
pub const MAX_HEAD: usize = 64 << 10;
/// The most header lines of a response.
pub(crate) const MAX_HEADERS: usize = 256;
/// A buffer for heads that has become larger is given back: callers hold one for each connection.
const KEPT: usize = 4 << 10;

/// The bytes of a request: a GET, or a POST of the body, or what the form says. `close` asks the server to close the connection
/// afterwards.
pub fn request(url: &Url, form: &RequestForm, body: Option<&[u8]>, close: bool) -> Vec<u8> {
    let method = method(form, body.is_some());
    let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
    let own = form.lines(&[("Host", &url.authority()), ("User-Agent", agent), ("Accept", "*/*")]);
    let connection = if close { "Connection: close\r\n" } else { "" };
    let length = body.map_or(String::new(), |body| format!("Content-Length: {}\r\n", body.len()));
    let head = format!("{method} {} HTTP/1.1\r\n{own}{connection}{length}\r\n", url.path);
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

/// Whether the answer to such a request has no body, whatever its headers say.
pub fn is_answered_without_a_body(form: &RequestForm, has_body: bool) -> bool {
    method(form, has_body) == "HEAD"
}

fn method(form: &RequestForm, has_body: bool) -> &str {
    form.method(if has_body { "POST" } else { "GET" })
}

/// What some bytes of a response come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Response {
    /// It is not whole.
    More,
    /// It is whole. Whether the connection may be used again.
    Whole(bool),
    /// It is no response, or its end is in doubt.
    Wrong,
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
    /// In a size line: the size so far, how long the line is, and what has come of it.
    Size(u64, u32, Line),
    /// In a chunk with this many bytes left.
    Data(u64),
    /// In the line end after a chunk.
    DataEnd,
    /// After the last chunk: how long the trailers are so far, and whether a line of them has begun.
    Trailer(u32, bool),
}

/// What has come of a line with a chunk's size.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    /// Nothing.
    Empty,
    /// Digits.
    Digits,
    /// All that counts; the rest is passed over.
    Extension,
}

const SIZE: Chunk = Chunk::Size(0, 0, Line::Empty);

/// What the headers of a response say about its end and about what comes after it.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    /// Lengths that contradict each other, or that are no numbers.
    length_is_bad: bool,
    /// There is a transfer coding, and whether `chunked` is the last.
    coded: Option<bool>,
    close: bool,
    keep_alive: bool,
    retry_after: Option<u32>,
}

impl Framing {
    /// Takes a header. One that is repeated says the same as one line with a comma in it.
    fn take(&mut self, name: &str, value: &[u8]) {
        let items =
            || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty());
        if name.eq_ignore_ascii_case("content-length") {
            if value.trim_ascii().is_empty() {
                self.length_is_bad = true;
            }
            items().for_each(|item| self.take_length(item));
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            for item in items() {
                self.coded = Some(item.eq_ignore_ascii_case(b"chunked"));
            }
        } else if name.eq_ignore_ascii_case("connection") {
            self.close |= items().any(|item| item.eq_ignore_ascii_case(b"close"));
            self.keep_alive |= items().any(|item| item.eq_ignore_ascii_case(b"keep-alive"));
        } else if name.eq_ignore_ascii_case("retry-after") {
            // A date is a time to come again, too.
            let seconds = std::str::from_utf8(value.trim_ascii()).ok().and_then(|text| text.parse().ok());
            self.retry_after = Some(seconds.unwrap_or(0));
        }
    }

    fn take_length(&mut self, item: &[u8]) {
        let digits = item.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(item).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        match (length, self.length) {
            (None, _) => self.length_is_bad = true,
            (Some(new), Some(old)) if new != old => self.length_is_bad = true,
            (Some(new), _) => self.length = Some(new),
        }
    }
}

/// Whether a status never has a body, whatever the headers say.
const fn is_bodiless(status: u16) -> bool {
    matches!(status, 100..200 | 204 | 304)
}

/// How far a response has come.
#[derive(Debug, Default)]
pub struct ResponseReader {
    /// The head, when it comes in pieces.
    held: Vec<u8>,
    body: Body,
    status: u16,
    keep: bool,
    retry_after: Option<u32>,
    /// It answers HEAD.
    pub head_only: bool,
}

impl ResponseReader {
    /// The status of the response; 0 before there is one.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// When the response said to come again: after how many seconds, 0 where that was no number.
    pub fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// Whether the connection may be used again after the response, by what its head says.
    pub fn keeps(&self) -> bool {
        self.keep
    }

    /// Forgets the response before.
    pub fn reset(&mut self) {
        self.held.clear();
        self.held.shrink_to(KEPT);
        self.body = Body::Head;
    }

    /// Takes the next bytes, of which there is at least one; `body` is given those of the body, in pieces.
    pub fn read(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) -> Response {
        if self.body != Body::Head {
            return self.read_body(bytes, body);
        }
        if self.held.is_empty() {
            return self.read_head(bytes, body);
        }
        let seen = self.held.len();
        self.held.extend_from_slice(bytes);
        // A head that comes in many pieces is read twice, and not once for each piece.
        if !has_blank_line(&self.held[seen.saturating_sub(3)..]) && self.held.len() <= MAX_HEAD {
            return Response::More;
        }
        let joined = std::mem::take(&mut self.held);
        self.read_head(&joined, body)
    }

    /// The connection has ended: whether that is the end of the response.
    pub fn ends_with_the_connection(&self) -> bool {
        self.body == Body::UntilEnd
    }

    fn read_head(&mut self, mut bytes: &[u8], body: &mut impl FnMut(&[u8])) -> Response {
        loop {
            match self.head(bytes) {
                // An interim response; the real one follows.
                Ok(Some(used)) if self.is_interim() => {
                    self.body = Body::Head;
                    bytes = &bytes[used..];
                    if bytes.is_empty() {
                        return Response::More;
                    }
                }
                Ok(Some(used)) => return self.read_body(&bytes[used..], body),
                Ok(None) if bytes.len() <= MAX_HEAD => {
                    self.held = bytes.to_vec();
                    return Response::More;
                }
                Ok(None) | Err(()) => return Response::Wrong,
            }
        }
    }

    fn read_body(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) -> Response {
        match self.take_body(bytes, body) {
            Ok((false, _)) => Response::More,
            // Bytes after the response were not asked for: the connection is out of step.
            Ok((true, rest)) => Response::Whole(self.keep && rest == 0),
            Err(()) => Response::Wrong,
        }
    }

    /// Whether another response follows this one. (After 101 there is no HTTP any more.)
    fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Reads the head at the start of `bytes`: how long it is, or none if it is not whole.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, ()> {
        // Clearing this array for each response would cost more than reading the response.
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let mut parser = httparse::ParserConfig::default();
        parser.allow_spaces_after_header_name_in_responses(true);
        parser.allow_obsolete_multiline_headers_in_responses(true);
        let used = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(()),
        };
        self.status = response.code.ok_or(())?;
        let mut framing = Framing::default();
        response.headers.iter().for_each(|header| framing.take(header.name, header.value));
        let kept_by_version = response.version == Some(1);
        self.keep = !framing.close && (kept_by_version || framing.keep_alive) && self.status != 101;
        self.retry_after = framing.retry_after;
        self.body = match (framing.coded, framing.length) {
            _ if is_bodiless(self.status) || self.head_only => Body::Length(0),
            (Some(true), _) => Body::Chunks(SIZE),
            // Where `chunked` is not the last coding, only the end of the connection ends the body.
            (Some(false), _) => Body::UntilEnd,
            _ if framing.length_is_bad => return Err(()),
            (None, Some(length)) => Body::Length(length),
            (None, None) => Body::UntilEnd,
        };
        Ok(Some(used))
    }

    /// Goes on in the body: whether it is whole, and how many bytes follow it.
    fn take_body(&mut self, bytes: &[u8], body: &mut impl FnMut(&[u8])) -> Result<(bool, usize), ()> {
        match self.body {
            Body::Length(left) => {
                let taken = left.min(bytes.len() as u64);
                body(&bytes[..taken as usize]);
                self.body = Body::Length(left - taken);
                Ok((left == taken, bytes.len() - taken as usize))
            }
            Body::Chunks(chunk) => {
                let (mut chunk, mut at) = (chunk, 0);
                while at < bytes.len() {
                    let (next, used, done) = chunk.step(&bytes[at..])?;
                    if let Chunk::Data(_) = chunk {
                        body(&bytes[at..at + used]);
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
                body(bytes);
                self.keep = false;
                Ok((false, 0))
            }
            Body::Head => Err(()),
        }
    }
}

impl Chunk {
    /// Takes some of `bytes` (at least one): what follows, how many were taken, whether it was the end.
    fn step(self, bytes: &[u8]) -> Result<(Chunk, usize, bool), ()> {
        let next = match (self, bytes[0]) {
            (Chunk::Size(_, length, _), _) if length as usize > MAX_HEAD => return Err(()),
            (Chunk::Size(_, _, Line::Empty), b'\n') => return Err(()),
            (Chunk::Size(0, ..), b'\n') => Chunk::Trailer(0, false),
            (Chunk::Size(size, ..), b'\n') => Chunk::Data(size),
            (Chunk::Size(size, length, Line::Extension), _) => Chunk::Size(size, length + 1, Line::Extension),
            (Chunk::Size(size, length, Line::Digits), b';' | b' ' | b'\t' | b'\r') => {
                Chunk::Size(size, length + 1, Line::Extension)
            }
            (Chunk::Size(size, length, _), byte) => {
                // Zeros before the size are no more than that.
                let digit = (byte as char).to_digit(16).filter(|_| size >> 60 == 0).ok_or(())?;
                Chunk::Size(size << 4 | u64::from(digit), length + 1, Line::Digits)
            }
            (Chunk::Data(left), _) => {
                let taken = left.min(bytes.len() as u64);
                let next = if left == taken { Chunk::DataEnd } else { Chunk::Data(left - taken) };
                return Ok((next, taken as usize, false));
            }
            (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
            (Chunk::DataEnd, b'\n') => SIZE,
            (Chunk::DataEnd, _) => return Err(()),
            (Chunk::Trailer(length, _), _) if length as usize > MAX_HEAD => return Err(()),
            (Chunk::Trailer(_, false), b'\n') => return Ok((self, 1, true)),
            (Chunk::Trailer(length, true), b'\n') => Chunk::Trailer(length + 1, false),
            (Chunk::Trailer(length, begun), b'\r') => Chunk::Trailer(length + 1, begun),
            (Chunk::Trailer(length, _), _) => Chunk::Trailer(length + 1, true),
        };
        Ok((next, 1, false))
    }
}

/// Whether an empty line is somewhere in the bytes.
fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a response whole, and byte by byte: what it comes to and its body, which must be the same.
    fn read(response: &str) -> (Response, String) {
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        let came =
            ResponseReader::default().read(response.as_bytes(), &mut |piece| whole.extend_from_slice(piece));
        let mut reader = ResponseReader::default();
        let mut then = Response::More;
        for byte in response.as_bytes() {
            then = reader.read(&[*byte], &mut |piece| pieces.extend_from_slice(piece));
        }
        assert_eq!((came, &whole), (then, &pieces), "{response:?}");
        (came, String::from_utf8(whole).unwrap())
    }

    #[test]
    fn a_body_is_handed_over_without_what_frames_it() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (response, came, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Response::Whole(true), "hi"),
            ("HTTP/1.1 200 OK\r\n\r\nhi", Response::More, "hi"),
            (&format!("{chunked}2\r\nhi\r\n3;x\r\nyou\r\n0\r\nA: b\r\n\r\n"), Response::Whole(true), "hiyou"),
            (&format!("{chunked}2\r\nh"), Response::More, "h"),
        ] {
            assert_eq!(read(response), (came, body.to_owned()), "{response:?}");
        }
    }

    #[test]
    fn only_a_body_without_a_length_ends_with_the_connection() {
        for (response, ends) in [
            ("HTTP/1.1 200 OK\r\n\r\nhi", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", false),
            ("HTTP/1.1 200 OK\r\n", false),
        ] {
            let mut reader = ResponseReader::default();
            assert_eq!(reader.read(response.as_bytes(), &mut |_| {}), Response::More);
            assert_eq!(reader.ends_with_the_connection(), ends, "{response:?}");
        }
    }

    #[test]
    fn requests_are_whole() {
        let url: Url = "http://h:1/a?b".parse().unwrap();
        let text = |form: &RequestForm, body: Option<&[u8]>, close| {
            String::from_utf8(request(&url, form, body, close)).unwrap()
        };
        let plain = RequestForm::default();
        let get = text(&plain, None, false);
        assert!(get.starts_with("GET /a?b HTTP/1.1\r\nHost: h:1\r\n") && get.ends_with("\r\n\r\n"), "{get}");
        let post = text(&plain, Some(b"body"), true);
        assert!(post.starts_with("POST /a?b ") && post.contains("Connection: close\r\n"), "{post}");
        assert!(post.ends_with("Content-Length: 4\r\n\r\nbody"), "{post}");
        let form = RequestForm::of(&url, Some("HEAD"), &["X-A: b".to_owned()]).unwrap();
        let head = text(&form, None, false);
        assert!(head.starts_with("HEAD /a?b ") && head.contains("\r\nX-A: b\r\n"), "{head}");
        assert!(is_answered_without_a_body(&form, true) && !is_answered_without_a_body(&plain, true));
    }
}
