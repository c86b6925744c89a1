//! HTTP/1.1 for a load generator: the bytes of a request, and where its response ends.
//!
//! One request is under way on a connection at a time. As RFC 9112 allows a client, it accepts bare line feeds, spaces
//! before a colon, folded headers and zeros before a chunk's size. It refuses a response whose end is in doubt.

use super::answers::Answer;
use super::form::RequestForm;
use super::outcome::Outcome;
use super::payload::Payload;
use super::step::{Step, clear, contains};
use std::mem::MaybeUninit;

const BAD: Step = Step::Done(Outcome::BadReply, false);
/// The longest head of a response, in bytes; also the longest trailer, and the longest line with a chunk's size.
const MAX_HEAD: usize = 64 << 10;
/// Of a body no more than this is kept to look for a text in.
const MAX_KEPT: usize = 64 << 10;
/// The most header lines of a response.
const MAX_HEADERS: usize = 256;

/// The requests of a run, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpRequest {
    requests: Payload,
    /// The method is HEAD, whose answers have no body.
    head_only: bool,
}

impl HttpRequest {
    /// A GET, or a POST of each part of the body in turn, or what the form says. `close` asks the server to close
    /// afterwards.
    pub(crate) fn new(
        authority: &str,
        path: &str,
        form: &RequestForm,
        body: Option<&Payload>,
        close: bool,
    ) -> Self {
        let method = form.method(if body.is_some() { "POST" } else { "GET" });
        let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
        let own = form.lines(&[("Host", authority), ("User-Agent", agent), ("Accept", "*/*")]);
        let connection = if close { "Connection: close\r\n" } else { "" };
        let head = |length: String| format!("{method} {path} HTTP/1.1\r\n{own}{connection}{length}\r\n");
        let requests = match body {
            None => Payload::whole(head(String::new()).into_bytes()),
            Some(body) => Payload::collect((0..body.parts()).map(|n| {
                let part = body.part(n);
                let length = format!("Content-Length: {}\r\n", part.len());
                [head(length).as_bytes(), part].concat()
            })),
        };
        Self { requests, head_only: method == "HEAD" }
    }

    /// A reply to these that has not begun.
    pub(crate) fn expects_no_body(&self) -> bool {
        self.head_only
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
pub(crate) struct HttpReply {
    /// The head, when it came in pieces; then the start of the body, when a text is looked for.
    held: Vec<u8>,
    body: Body,
    status: u16,
    keep: bool,
    retry_after: Option<u32>,
    /// It answers HEAD.
    pub(crate) head_only: bool,
}

impl HttpReply {
    /// What is counted of the reply that has just ended.
    pub(crate) fn answer(&self) -> Answer {
        Answer { status: self.status, retry_after: self.retry_after, closes: !self.keep }
    }

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
        let seen = self.held.len();
        self.held.extend_from_slice(bytes);
        // A head that comes in many pieces is read twice, and not once for each piece.
        if !has_blank_line(&self.held[seen.saturating_sub(3)..]) && self.held.len() <= MAX_HEAD {
            return Step::More;
        }
        let joined = std::mem::take(&mut self.held);
        self.read_head(&joined, expect, busy)
    }

    fn read_head(&mut self, mut bytes: &[u8], expect: Option<&[u8]>, busy: Option<&[u8]>) -> Step {
        loop {
            match self.head(bytes) {
                // An interim response; the real one follows.
                Ok(Some(used)) if self.is_interim() => {
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

    /// Whether another response follows this one. (After 101 there is no HTTP any more.)
    fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
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

    const OK: Step = Step::Done(Outcome::Ok, true);
    /// Answered well, and the connection cannot be used again.
    const LAST: Step = Step::Done(Outcome::Ok, false);

    /// A response of these header lines, and what comes after its head.
    fn judge_headers(status: &str, headers: &[&str], body: &str) -> Step {
        let head: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        judge(&format!("{status}\r\n{head}\r\n{body}"), None)
    }

    #[test]
    fn a_response_without_a_body_ends_with_its_head_whatever_its_headers_say() {
        for headers in [
            &["Transfer-Encoding: chunked"][..],
            &["Content-Length: 500"],
            &["Content-Length: 5", "Content-Length: 6"],
            &["Content-Length: x"],
            &["Transfer-Encoding: gzip", "Content-Length: 2"],
            &[],
        ] {
            for status in ["HTTP/1.1 304 Not Modified", "HTTP/1.1 204 No Content", "HTTP/1.1 204"] {
                assert_eq!(judge_headers(status, headers, ""), OK, "{status} {headers:?}");
            }
        }
        // What a server sends all the same belongs to nothing.
        assert_eq!(
            judge_whole("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            LAST
        );
    }

    #[test]
    fn a_connection_is_closed_where_any_line_and_any_item_says_so() {
        let length = "Content-Length: 2";
        for (version, headers, step) in [
            ("1.1", &[length][..], OK),
            ("1.0", &[length], LAST),
            ("1.1", &["Connection: close, TE", length], LAST),
            ("1.1", &["Connection: TE,close", length], LAST),
            ("1.1", &["connection: Close", length], LAST),
            ("1.1", &["CONNECTION: keep-alive, CLOSE", length], LAST),
            ("1.1", &["Connection: close", "Connection: Keep-Alive", length], LAST),
            ("1.1", &["Connection: Keep-Alive", "Connection: close", length], LAST),
            ("1.0", &["Connection: Keep-Alive, X", length], OK),
            ("1.0", &["Connection: X", "Connection: keep-alive", length], OK),
            ("1.0", &["Connection: keep-alive", "Connection: close", length], LAST),
            ("1.1", &["Connection: closed, not-close", length], OK),
            ("1.1", &["Connection:", length], OK),
            ("1.1", &["Proxy-Connection: close", length], OK),
        ] {
            assert_eq!(judge_headers(&format!("HTTP/{version} 200 OK"), headers, "hi"), step, "{headers:?}");
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_an_error() {
        for (headers, step) in [
            (&["Content-Length: 2", "Content-Length: 2"][..], OK),
            (&["Content-Length: 2, 2"], OK),
            (&["Content-Length: 2,2 , 2"], OK),
            (&["Content-Length:   2  "], OK),
            (&["Content-Length: 002"], OK),
            (&["Content-Length: 5", "Content-Length: 2"], BAD),
            (&["Content-Length: 2", "Content-Length: 5"], BAD),
            (&["Content-Length: 2, 5"], BAD),
            (&["Content-Length: +2"], BAD),
            (&["Content-Length: -2"], BAD),
            (&["Content-Length: 2 2"], BAD),
            (&["Content-Length: 0x2"], BAD),
            (&["Content-Length:"], BAD),
            (&["Content-Length: 18446744073709551616"], BAD),
        ] {
            assert_eq!(judge_headers("HTTP/1.1 200 OK", headers, "hi"), step, "{headers:?}");
        }
        // Chunks say themselves where they end.
        for length in ["Content-Length: 99", "Content-Length: 5, 6", "Content-Length: x"] {
            let headers = [length, "Transfer-Encoding: chunked"];
            assert_eq!(judge_headers("HTTP/1.1 200 OK", &headers, "2\r\nhi\r\n0\r\n\r\n"), OK, "{length}");
        }
    }

    #[test]
    fn a_client_is_lenient_where_the_end_is_not_in_doubt() {
        let chunked = "Transfer-Encoding: chunked";
        for (headers, body, step) in [
            (&[chunked][..], "0000000000000002\r\nhi\r\n0000000000000000\r\n\r\n", OK),
            (&[chunked], "00000002\r\nhi\r\n00000000\r\n\r\n", OK),
            (&[chunked], &format!("{}2\r\nhi\r\n0\r\n\r\n", "0".repeat(200)), OK),
            (&[chunked], "2   \r\nhi\r\n0  \r\n\r\n", OK),
            (&[chunked], "2;a=\"b\"\r\nhi\r\n0;c\r\n\r\n", OK),
            (&[chunked], "2\nhi\n0\n\n", OK),
            (&[chunked], "2\r\nhi\r\n0\r\nA: b\r\nC: d\r\n\r\n", OK),
            (&["Transfer-Encoding: Chunked"], "2\r\nhi\r\n0\r\n\r\n", OK),
            (&["Transfer-Encoding: gzip", chunked], "2\r\nhi\r\n0\r\n\r\n", OK),
            (&["Transfer-Encoding: gzip, chunked"], "2\r\nhi\r\n0\r\n\r\n", OK),
            (&["Server : x", "Content-Length : 2"], "hi", OK),
            (&["X-A: b", "  c", "Content-Length: 2"], "hi", OK),
            (&["Content-Length: 2", "X-A: b", "\tc: d"], "hi", OK),
            (&["X-A: caf\u{e9}", "Content-Length: 2"], "hi", OK),
            // `chunked` that is not last does not end the body; neither does another coding alone.
            (&["Transfer-Encoding: chunked, gzip"], "hi", LAST),
            (&["Transfer-Encoding: identity", "Content-Length: 1"], "hi", LAST),
            (&[], "hi", LAST),
            (&[chunked], "10000000000000000\r\nhi", BAD),
            (&[chunked], "\r\nhi\r\n", BAD),
            (&[chunked], " 2\r\nhi\r\n", BAD),
            (&[chunked], "-2\r\nhi\r\n", BAD),
            (&[chunked], "2\r\nhi!\r\n", BAD),
            (&[chunked], "2\r\nh", Step::More),
            (&[chunked], "2\r\nhi\r\n0\r\n", Step::More),
        ] {
            assert_eq!(judge_headers("HTTP/1.1 200 OK", headers, body), step, "{headers:?} {body:?}");
        }
        for response in
            ["HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"]
        {
            assert_eq!(judge(response, None), OK, "{response:?}");
        }
        let cookies: Vec<_> = (0..60).map(|n| format!("Set-Cookie: c{n}={}", "v".repeat(500))).collect();
        let mut headers: Vec<&str> = cookies.iter().map(String::as_str).collect();
        headers.push("Content-Length: 2");
        assert_eq!(judge_headers("HTTP/1.1 200 OK", &headers, "hi"), OK);
    }

    #[test]
    fn an_interim_response_is_not_the_answer_and_an_upgrade_is_no_good_one() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        for interim in
            ["100 Continue\r\n", "103 Early Hints\r\nLink: </a.css>\r\n", "102 x\r\nContent-Length: 9\r\n"]
        {
            assert_eq!(judge(&format!("HTTP/1.1 {interim}\r\n{ok}"), None), OK, "{interim}");
        }
        let upgrade = judge_whole("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x01\x02");
        assert_eq!(upgrade, Step::Done(Outcome::BadReply, false));
    }

    #[test]
    fn what_has_no_end_is_given_up_within_its_bounds() {
        let mut reply = HttpReply::default();
        let mut step = reply.read(b"HTTP/1.1 200 OK\r\n", None, None);
        let mut fed = 0;
        while step == Step::More && fed < 10 * MAX_HEAD {
            step = reply.read(b"X: y\r\n", None, None);
            fed += 6;
        }
        assert!(step == BAD && fed <= MAX_HEAD + 6, "{fed}");
        for (begin, piece) in [("1;", "x"), ("", "0"), ("0\r\n", "x"), ("0\r\n", "x: y\r\n"), ("0\r\n", "\r")]
        {
            let mut reply = HttpReply::default();
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{begin}");
            let (mut step, mut fed) = (reply.read(head.as_bytes(), None, None), 0);
            while step == Step::More && fed < 10 * MAX_HEAD {
                step = reply.read(piece.as_bytes(), None, None);
                fed += piece.len();
            }
            assert!(step == BAD && fed <= MAX_HEAD + 16, "{begin:?} {piece:?}: {fed}");
        }
    }

    /// Judges what comes in one piece; bytes after the response are part of the question.
    fn judge_whole(response: &str) -> Step {
        HttpReply::default().read(response.as_bytes(), None, None)
    }

    #[test]
    fn requests_are_whole() {
        let text = |request: &HttpRequest| String::from_utf8(request.bytes(0).to_vec()).unwrap();
        let get = text(&HttpRequest::new("h:1", "/a?b", &RequestForm::default(), None, false));
        assert!(get.starts_with("GET /a?b HTTP/1.1\r\nHost: h:1\r\n") && get.ends_with("\r\n\r\n"), "{get}");
        let body = Payload::whole(b"body".to_vec());
        let post = text(&HttpRequest::new("h:1", "/", &RequestForm::default(), Some(&body), true));
        assert!(post.starts_with("POST / ") && post.contains("Connection: close\r\n"), "{post}");
        assert!(post.ends_with("Content-Length: 4\r\n\r\nbody"), "{post}");
        let form = RequestForm::read(Some("HEAD"), &["X-A: b".to_owned()]).unwrap();
        let request = HttpRequest::new("h:1", "/", &form, None, false);
        assert!(text(&request).starts_with("HEAD / ") && text(&request).contains("\r\nX-A: b\r\n"));
        assert!(request.expects_no_body());
    }

    #[test]
    fn the_answer_to_head_ends_with_its_head() {
        let mut reply = HttpReply { head_only: true, ..HttpReply::default() };
        assert_eq!(reply.read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", None, None), OK);
    }

    #[test]
    fn an_answer_says_when_to_come_again() {
        for (line, seconds) in
            [("Retry-After: 7\r\n", Some(7)), ("retry-after: Wed, 21 Oct\r\n", Some(0)), ("", None)]
        {
            let mut reply = HttpReply::default();
            let text = format!("HTTP/1.1 503 x\r\nContent-Length: 0\r\nConnection: close\r\n{line}\r\n");
            assert_eq!(reply.read(text.as_bytes(), None, None), Step::Done(Outcome::Busy, false));
            assert_eq!(reply.answer(), Answer { status: 503, retry_after: seconds, closes: true });
        }
    }
}
