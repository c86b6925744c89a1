//! HTTP/1.1 on the wire is read strictly, and alike however it is cut into pieces.

use proptest::prelude::*;
use tidegate::service::http::wire::{
    BodyLength, BodyLimits, BodyReader, Form, LAST_CHUNK, Piece, Refused, RequestHead, ResponseHead, Scanner,
    Slots, Target, Version, chunk_head, decode_component, decode_path, list,
};

const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: u64 = 1 << 20;

/// What a reader made of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Head(String),
    Body(Vec<u8>),
    Refused(Refused),
}

/// Reads messages one after the other, as a server or a gate does, from bytes that come in pieces.
struct Reader {
    responses: bool,
    held: Vec<u8>,
    scanner: Scanner,
    body: Option<BodyReader>,
    seen: Vec<Seen>,
}

impl Reader {
    fn new(responses: bool) -> Self {
        let scanner = if responses { Scanner::responses() } else { Scanner::requests() };
        Self { responses, held: Vec::new(), scanner, body: None, seen: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        while !matches!(self.seen.last(), Some(Seen::Refused(_))) {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(refused) => self.seen.push(Seen::Refused(refused)),
            }
        }
    }

    /// One head, or one piece of a body; false when more must come.
    fn step(&mut self) -> Result<bool, Refused> {
        let Some(body) = &mut self.body else { return self.head() };
        let (used, piece) = body.next(&self.held)?;
        match piece {
            Piece::Data(data) => match self.seen.last_mut() {
                Some(Seen::Body(whole)) => whole.extend_from_slice(data),
                _ => self.seen.push(Seen::Body(data.to_vec())),
            },
            Piece::More => {
                assert_eq!(used, self.held.len(), "a reader that wants more has used all");
                self.held.clear();
                return Ok(false);
            }
            Piece::End => self.body = None,
        }
        self.held.drain(..used);
        Ok(true)
    }

    fn head(&mut self) -> Result<bool, Refused> {
        let Some(range) = self.scanner.find(&self.held, MAX_HEAD)? else { return Ok(false) };
        let head = &self.held[range.clone()];
        let mut slots = Slots::new();
        let (text, body) = if self.responses {
            let head = ResponseHead::parse(head, "GET", &mut slots, 100)?;
            (format!("{head:?}"), head.body)
        } else {
            let head = RequestHead::parse(head, &mut slots, 100)?;
            (format!("{head:?}"), head.body)
        };
        self.seen.push(Seen::Head(text));
        self.body = Some(body.reader(BodyLimits::default().max_body(MAX_BODY)));
        self.scanner = if self.responses { Scanner::responses() } else { Scanner::requests() };
        self.held.drain(..range.end);
        Ok(true)
    }
}

fn read_in(responses: bool, pieces: &[&[u8]]) -> Vec<Seen> {
    let mut reader = Reader::new(responses);
    pieces.iter().for_each(|piece| reader.take(piece));
    reader.seen
}

/// Reads it whole, cut in two at every place, and byte by byte: all must be alike.
#[track_caller]
fn read(responses: bool, bytes: &[u8]) -> Vec<Seen> {
    let whole = read_in(responses, &[bytes]);
    let text = String::from_utf8_lossy(bytes);
    for at in 0..bytes.len().min(2000) {
        let (start, end) = bytes.split_at(at);
        assert_eq!(read_in(responses, &[start, end]), whole, "cut at {at}: {text}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read_in(responses, &single), whole, "byte by byte: {text}");
    whole
}

#[track_caller]
fn request(bytes: impl AsRef<[u8]>) -> Vec<Seen> {
    read(false, bytes.as_ref())
}

#[track_caller]
fn response(bytes: impl AsRef<[u8]>) -> Vec<Seen> {
    read(true, bytes.as_ref())
}

#[track_caller]
fn assert_refused(seen: &[Seen], why: Refused, text: &str) {
    assert_eq!(seen.last(), Some(&Seen::Refused(why)), "{text:?}");
}

/// The head of a request that is whole and good.
#[track_caller]
fn parse(text: &str, check: impl FnOnce(RequestHead<'_>)) {
    let mut scanner = Scanner::requests();
    let range = scanner.find(text.as_bytes(), MAX_HEAD).unwrap().expect("it is whole");
    let mut slots = Slots::new();
    check(RequestHead::parse(&text.as_bytes()[range], &mut slots, 100).unwrap());
}

#[track_caller]
fn refuse_request(text: &str, why: Refused) {
    assert_refused(&request(text), why, text);
}

#[test]
fn a_head_whose_lines_end_wrongly_is_refused() {
    let host = "Host: h\r\n";
    for (text, why) in [
        ("GET / HTTP/1.1\nHost: h\n\n".to_owned(), Refused::BareLf),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n".to_owned(), Refused::BareLf),
        ("GET / HTTP/1.1\r\nHost: h\r\n\n".to_owned(), Refused::BareLf),
        ("\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::BareLf),
        ("GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n".to_owned(), Refused::HeaderValue),
        ("GET / HTTP/1.1\r\nHost: h\r\r\n\r\n".to_owned(), Refused::HeaderValue),
        ("GET / HTTP/1.1\rHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        (format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"), Refused::Fold),
        (format!("GET / HTTP/1.1\r\n{host}X: a\r\n\tb\r\n\r\n"), Refused::Fold),
        (format!("GET / HTTP/1.1\r\n {host}\r\n"), Refused::Fold),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
    ] {
        refuse_request(&text, why);
    }
}

#[test]
fn a_header_with_a_wrong_name_or_value_is_refused() {
    let host = "Host: h\r\n";
    for (text, why) in [
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n".to_owned(), Refused::HeaderName),
        (format!("GET / HTTP/1.1\r\n{host}Content-Length : 5\r\n\r\n"), Refused::HeaderName),
        (format!("GET / HTTP/1.1\r\n{host}X\r\n\r\n"), Refused::HeaderName),
        (format!("GET / HTTP/1.1\r\n{host}: x\r\n\r\n"), Refused::HeaderName),
        (format!("GET / HTTP/1.1\r\n{host}X\u{e9}: y\r\n\r\n"), Refused::HeaderName),
        (format!("GET / HTTP/1.1\r\n{host}X(y): y\r\n\r\n"), Refused::HeaderName),
        (format!("GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"), Refused::HeaderValue),
    ] {
        refuse_request(&text, why);
    }
}

#[test]
fn a_wrong_first_line_is_refused() {
    for (text, why) in [
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET /  HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        (" GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET / HTTP/1.1 x\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET /\r\n".to_owned(), Refused::FirstLine),
        ("GET\r\n".to_owned(), Refused::FirstLine),
        ("G(T / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET / http/1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET / HTTP/1.1.1\r\nHost: h\r\n\r\n".to_owned(), Refused::FirstLine),
        ("GET / HTTP/1.2\r\nHost: h\r\n\r\n".to_owned(), Refused::Version),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), Refused::Version),
        ("GET / HTTP/0.9\r\nHost: h\r\n\r\n".to_owned(), Refused::Version),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), Refused::FirstLine),
    ] {
        refuse_request(&text, why);
    }
}

#[test]
fn a_head_without_exactly_one_good_host_is_refused() {
    let host = "Host: h\r\n";
    for (text, why) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Refused::NoHost),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), Refused::TwoHosts),
        (format!("GET / HTTP/1.0\r\n{host}HOST: other\r\n\r\n"), Refused::TwoHosts),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), Refused::BadHost),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(), Refused::BadHost),
        ("GET / HTTP/1.1\r\nHost: u@h\r\n\r\n".to_owned(), Refused::BadHost),
        ("GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n".to_owned(), Refused::BadHost),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n".to_owned(), Refused::BadHost),
    ] {
        refuse_request(&text, why);
    }
}

#[test]
fn a_body_without_one_clear_end_is_refused() {
    let host = "Host: h\r\n";
    for (text, why) in [
        (
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Refused::LengthAndCoding,
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
            Refused::LengthAndCoding,
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            Refused::LengthsDiffer,
        ),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1, 2\r\n\r\n"), Refused::LengthsDiffer),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\n"), Refused::BadLength),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"), Refused::BadLength),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 0x1\r\n\r\n"), Refused::BadLength),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1 1\r\n\r\n"), Refused::BadLength),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: \r\n\r\n"), Refused::BadLength),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1,\r\n\r\n"), Refused::BadLength),
        (
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 99999999999999999999\r\n\r\n"),
            Refused::BadLength,
        ),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"), Refused::CodingNotChunked),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, gzip\r\n\r\n"),
            Refused::CodingNotChunked,
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, chunked\r\n\r\n"),
            Refused::CodingNotChunked,
        ),
        (
            format!(
                "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
            ),
            Refused::CodingNotChunked,
        ),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: , chunked\r\n\r\n"), Refused::CodingNotChunked),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding:\r\n\r\n"), Refused::CodingNotChunked),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked;q=1\r\n\r\n"),
            Refused::CodingNotChunked,
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: \"chunked\"\r\n\r\n"),
            Refused::CodingNotChunked,
        ),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n"), Refused::CodingNotChunked),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: \u{b}chunked\r\n\r\n"), Refused::HeaderValue),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            Refused::CodingUnknown,
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Refused::CodingUnknown,
        ),
        (format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n"), Refused::CodingInOld),
    ] {
        refuse_request(&text, why);
    }
}

#[test]
fn a_wrong_target_or_expectation_is_refused() {
    let host = "Host: h\r\n";
    for (text, why) in [
        (format!("GET x HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET * HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET /a#b HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET /\u{e9} HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET ftp://h/ HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET http:// HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET http:///x HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET http://u:p@h/ HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("CONNECT /x HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("CONNECT h HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("GET h:80 HTTP/1.1\r\n{host}\r\n"), Refused::Target),
        (format!("PUT / HTTP/1.1\r\n{host}Expect: 200-ok\r\n\r\n"), Refused::Expectation),
        (format!("PUT / HTTP/1.1\r\n{host}Expect: 100-continue\r\nExpect: x\r\n\r\n"), Refused::Expectation),
    ] {
        refuse_request(&text, why);
    }
}

#[test]
fn another_protocol_is_known_by_its_first_bytes() {
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    assert_eq!(request(hello), [Seen::Refused(Refused::Tls)]);
    assert_eq!(request([0x16]), [Seen::Refused(Refused::Tls)]);
    assert_eq!(request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), [Seen::Refused(Refused::Http2)]);
    assert_eq!(request([0x80, 0x2e, 1]), [Seen::Refused(Refused::FirstLine)]);
    assert_eq!(request("\0\0\0"), [Seen::Refused(Refused::FirstLine)]);
    assert_eq!(response("SSH-2.0-x"), [Seen::Refused(Refused::FirstLine)]);
    assert_eq!(response("\r\nHTTP/1.1 200 OK\r\n\r\n"), [Seen::Refused(Refused::FirstLine)]);
}

#[test]
fn no_byte_but_a_visible_one_passes_where_it_must_not() {
    for byte in 0..=255u8 {
        let with = |before: &str, after: &str| [before.as_bytes(), &[byte], after.as_bytes()].concat();
        let good = |seen: Vec<Seen>| matches!(seen[..], [Seen::Head(_)]);
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let value = matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
        let target = matches!(byte, 0x21..=0x7e) && byte != b'#';
        assert_eq!(good(request(with("A", "B / HTTP/1.1\r\nHost: h\r\n\r\n"))), token, "method {byte:#x}");
        assert_eq!(
            good(request(with("GET /a", "b HTTP/1.1\r\nHost: h\r\n\r\n"))),
            target,
            "target {byte:#x}"
        );
        let name = with("GET / HTTP/1.1\r\nHost: h\r\nA", "B: c\r\n\r\n");
        // `A:B: c` is a header A.
        assert_eq!(good(request(name)), token || byte == b':', "name {byte:#x}");
        let in_value = with("GET / HTTP/1.1\r\nHost: h\r\nA: b", "c\r\n\r\n");
        assert_eq!(good(request(in_value)), value, "value {byte:#x}");
    }
}

#[test]
fn lists_in_headers_are_lists() {
    for (headers, version, keeps) in [
        ("", "1.1", true),
        ("", "1.0", false),
        ("Connection: keep-alive\r\n", "1.0", true),
        ("Connection: Keep-Alive, TE\r\n", "1.0", true),
        ("Connection: keep-alive, close\r\n", "1.1", false),
        ("Connection: keep-alive,close\r\n", "1.0", false),
        ("Connection: keep-alive\r\nConnection: CLOSE\r\n", "1.1", false),
        ("Connection: close\r\nConnection: keep-alive\r\n", "1.1", false),
        ("Connection: , ,\t close ,\r\n", "1.1", false),
        ("Connection: closed\r\n", "1.1", true),
        ("Connection: \"close\"\r\n", "1.1", true),
        ("connection: TE\r\n", "1.1", true),
        ("Connection_: close\r\n", "1.1", true),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{headers}\r\n");
        parse(&text, |head| assert_eq!(head.keep_alive, keeps, "{text:?}"));
        let text = format!("HTTP/{version} 200 OK\r\nContent-Length: 0\r\n{headers}\r\n");
        let mut slots = Slots::new();
        let head = ResponseHead::parse(text.as_bytes(), "GET", &mut slots, 100).unwrap();
        assert_eq!(head.keep_alive, keeps, "{text:?}");
    }
    assert_eq!(list(b" a , b,,\tc\t").collect::<Vec<_>>(), [&b"a"[..], b"b", b"c"]);
}

#[test]
fn a_name_with_an_underscore_is_not_one_with_a_dash() {
    parse("POST / HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n", |head| {
        assert_eq!(head.body, BodyLength::Bytes(0));
        assert_eq!(head.headers.get("content-length"), None);
        assert_eq!(head.headers.get("content_length"), Some(&b"5"[..]));
    });
}

#[test]
fn headers_are_found_in_any_case_and_values_are_bytes() {
    let text = b"GET / HTTP/1.1\r\nHOST: h\r\nX-One:  a\xff b \t\r\nx-oNE:\r\nAccept: c\r\n\r\n";
    let mut slots = Slots::new();
    let head = RequestHead::parse(text, &mut slots, 100).unwrap();
    assert_eq!(head.headers.all("X-ONE").collect::<Vec<_>>(), [&b"a\xff b"[..], b""]);
    assert_eq!((head.headers.len(), head.host), (4, Some("h")));
}

#[test]
fn equal_lengths_are_one_length_and_one_empty_line_may_stand_before_a_request() {
    for text in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\ncontent-length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 03\r\n\r\nabc",
        "\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        assert_eq!(request(text).last(), Some(&Seen::Body(b"abc".to_vec())), "{text:?}");
    }
}

#[test]
fn a_head_has_a_limit_of_bytes_and_of_headers() {
    let whole = |filler: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(filler));
    let fits = MAX_HEAD - whole(0).len();
    let in_pieces = |text: &str| {
        let seen = read_in(false, &[text.as_bytes()]);
        for size in [1, 7, 1000] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(read_in(false, &pieces), seen);
        }
        seen
    };
    assert!(matches!(in_pieces(&whole(fits))[..], [Seen::Head(_)]));
    assert_eq!(in_pieces(&whole(fits + 1)), [Seen::Refused(Refused::HeadTooLong)]);
    assert_eq!(in_pieces(&"a".repeat(MAX_HEAD + 1)), [Seen::Refused(Refused::HeadTooLong)]);
    let headers = |count: usize| format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    assert!(matches!(in_pieces(&headers(100))[..], [Seen::Head(_)]));
    assert_eq!(in_pieces(&headers(101)), [Seen::Refused(Refused::TooManyHeaders)]);
    // More than fit on the stack, where the limit is higher.
    let text = headers(300);
    let mut slots = Slots::new();
    assert_eq!(RequestHead::parse(text.as_bytes(), &mut slots, 300).unwrap().headers.len(), 300);
    let mut slots = Slots::new();
    assert_eq!(RequestHead::parse(text.as_bytes(), &mut slots, 299).err(), Some(Refused::TooManyHeaders));
}

#[test]
fn targets_are_taken_apart() {
    for (method, raw, form, authority, path, query) in [
        ("GET", "/", Form::Origin, None, "/", None),
        ("GET", "/a%20b?x=1?y", Form::Origin, None, "/a%20b", Some("x=1?y")),
        ("GET", "/?", Form::Origin, None, "/", Some("")),
        ("GET", "//h/x", Form::Origin, None, "//h/x", None),
        ("GET", "/http://h/", Form::Origin, None, "/http://h/", None),
        ("GET", "http://h/x?q", Form::Absolute, Some("h"), "/x", Some("q")),
        ("GET", "HTTP://h:80", Form::Absolute, Some("h:80"), "/", None),
        ("GET", "https://[::1]:80?q=/", Form::Absolute, Some("[::1]:80"), "/", Some("q=/")),
        ("CONNECT", "h:443", Form::Authority, Some("h:443"), "", None),
        ("CONNECT", "[::1]:443", Form::Authority, Some("[::1]:443"), "", None),
        ("OPTIONS", "*", Form::Asterisk, None, "*", None),
        ("OPTIONS", "/x", Form::Origin, None, "/x", None),
    ] {
        let target = Target::parse(method, raw).unwrap();
        assert_eq!(
            (target.form(), target.authority(), target.path(), target.query(), target.as_str()),
            (form, authority, path, query, raw)
        );
    }
}

#[test]
fn the_host_is_the_one_of_an_absolute_target() {
    parse("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", |head| assert_eq!(head.host, Some("a")));
    parse("GET / HTTP/1.1\r\nHost: b:80\r\n\r\n", |head| assert_eq!(head.host, Some("b:80")));
    parse("GET / HTTP/1.1\r\nHost:\r\n\r\n", |head| assert_eq!(head.host, Some("")));
    parse("GET / HTTP/1.0\r\n\r\n", |head| assert_eq!((head.host, head.version), (None, Version::Http10)));
}

#[test]
fn a_path_is_decoded_once_and_never_leaves_the_root() {
    for (path, decoded) in [
        ("/", Ok("/")),
        ("/a/b", Ok("/a/b")),
        ("/a//b/", Ok("/a//b/")),
        ("/a%2fb", Ok("/a/b")),
        ("/%25%32%65", Ok("/%2e")),
        ("/%252e%252e/x", Ok("/%2e%2e/x")),
        ("/%C3%A9+x", Ok("/\u{e9}+x")),
        ("/.well-known/x", Ok("/.well-known/x")),
        ("/...", Ok("/...")),
        ("/a/./b/.", Ok("/a/b/")),
        ("/a/../b", Ok("/b")),
        ("/a/b/..", Ok("/a/")),
        ("/a/..", Ok("/")),
        ("/a/%2e%2e/b", Ok("/b")),
        ("*", Ok("*")),
        ("/..", Err(Refused::PathLeavesRoot)),
        ("/a/../../etc/passwd", Err(Refused::PathLeavesRoot)),
        ("/%2e%2e/etc/passwd", Err(Refused::PathLeavesRoot)),
        ("/a/..%2f..%2fetc", Err(Refused::PathLeavesRoot)),
        ("/%2E./%2e%2E%2f", Err(Refused::PathLeavesRoot)),
        ("/a%", Err(Refused::PathEscape)),
        ("/a%2", Err(Refused::PathEscape)),
        ("/a%zz", Err(Refused::PathEscape)),
        ("/a%+1", Err(Refused::PathEscape)),
        ("/a%00b", Err(Refused::PathEscape)),
        ("/%ff", Err(Refused::PathEscape)),
        ("/%u0041", Err(Refused::PathEscape)),
    ] {
        assert_eq!(decode_path(path).as_deref(), decoded.as_ref().map(|it| &**it), "{path}");
    }
    for (text, decoded) in
        [("a+b%2Bc", "a b+c"), ("%", "%"), ("100%25", "100%"), ("%ff", "\u{fffd}"), ("a%2", "a%2")]
    {
        assert_eq!(decode_component(text), decoded);
    }
}

#[test]
fn a_response_ends_where_the_rfc_says() {
    let of = |method: &str, text: &str| {
        let mut slots = Slots::new();
        ResponseHead::parse(text.as_bytes(), method, &mut slots, 100).map(|head| (head.body, head.keep_alive))
    };
    let (none, until_close) = (BodyLength::Bytes(0), BodyLength::UntilClose);
    for (method, head, seen) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok((BodyLength::Bytes(5), true))),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok((BodyLength::Chunked, true))),
        ("GET", "HTTP/1.1 200\r\n\r\n", Ok((until_close, false))),
        ("GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", Ok((until_close, false))),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok((none, true))),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Ok((none, true))),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", Ok((none, true))),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Ok((none, true))),
        ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", Ok((none, true))),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Ok((none, true))),
        ("GET", "HTTP/1.1 103 Early Hints\r\n\r\n", Ok((none, true))),
        ("CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Ok((until_close, false))),
        ("CONNECT", "HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n", Ok((BodyLength::Bytes(9), true))),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Err(Refused::CodingNotChunked)),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            Err(Refused::LengthAndCoding),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            Err(Refused::LengthsDiffer),
        ),
        ("GET", "HTTP/1.1 099 Low\r\n\r\n", Err(Refused::Status)),
        ("GET", "HTTP/1.1 20 Low\r\n\r\n", Err(Refused::Status)),
        ("GET", "HTTP/1.1 2000 High\r\n\r\n", Err(Refused::Status)),
        ("GET", "HTTP/1.2 200 OK\r\n\r\n", Err(Refused::Version)),
        ("GET", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Err(Refused::HeaderName)),
    ] {
        assert_eq!(of(method, head), seen, "{method}: {head:?}");
    }
    assert_refused(&response("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), Refused::Fold, "folded");
    assert_refused(&response("HTTP/1.1 200 OK\nA: b\n\n"), Refused::BareLf, "bare LF");
}

#[test]
fn chunks_are_read_strictly() {
    let chunked = |body: &str| {
        let seen = request(format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n{body}"));
        seen[1..].to_vec()
    };
    let good = |text: &str| vec![Seen::Body(text.as_bytes().to_vec())];
    let bad = |why| vec![Seen::Refused(why)];
    for (body, seen) in [
        ("3\r\nabc\r\n0\r\n\r\n", good("abc")),
        ("0\r\n\r\n", vec![]),
        ("1\r\na\r\n2;x=\"y z\";q\r\nbc\r\n00\r\nA: b\r\nC:\r\n\r\n", good("abc")),
        ("0000000000000003\r\nabc\r\n0\r\n\r\n", good("abc")),
        ("a\r\n0123456789\r\n0\r\n\r\n", good("0123456789")),
        ("A\r\n0123456789\r\n0\r\n\r\n", good("0123456789")),
        ("00000000000000003\r\nabc\r\n", bad(Refused::ChunkSize)),
        ("\r\n", bad(Refused::ChunkSize)),
        (";x\r\n", bad(Refused::ChunkSize)),
        ("3 \r\nabc\r\n", bad(Refused::ChunkSize)),
        (" 3\r\nabc\r\n", bad(Refused::ChunkSize)),
        ("3 ;x\r\nabc\r\n", bad(Refused::ChunkSize)),
        ("+3\r\nabc\r\n", bad(Refused::ChunkSize)),
        ("0x3\r\nabc\r\n", bad(Refused::ChunkSize)),
        ("-1\r\nabc\r\n", bad(Refused::ChunkSize)),
        ("g\r\n", bad(Refused::ChunkSize)),
        ("3\nabc\r\n", bad(Refused::ChunkSize)),
        ("3\r\r\nabc\r\n", bad(Refused::ChunkSize)),
        ("3;a\nb\r\nabc\r\n", bad(Refused::ChunkExtension)),
        ("3;a\0\r\nabc\r\n", bad(Refused::ChunkExtension)),
        ("ffffffffffffffff\r\n", bad(Refused::BodyTooLong)),
        ("100001\r\n", bad(Refused::BodyTooLong)),
    ] {
        assert_eq!(chunked(body), seen, "{body:?}");
    }
    for (body, why) in [
        ("3\r\nabcd\r\n", Refused::ChunkEnd),
        ("3\r\nabc\n0\r\n\r\n", Refused::ChunkEnd),
        ("3\r\nabc0\r\n\r\n", Refused::ChunkEnd),
        ("3\r\nabc\r0\r\n\r\n", Refused::ChunkEnd),
        ("3\r\nabc\r\n0\r\n\n", Refused::Trailer),
        ("3\r\nabc\r\n0\r\n A: b\r\n\r\n", Refused::Trailer),
        ("3\r\nabc\r\n0\r\nA b\r\n\r\n", Refused::Trailer),
        ("3\r\nabc\r\n0\r\nA : b\r\n\r\n", Refused::Trailer),
        ("3\r\nabc\r\n0\r\nA: b\n\r\n", Refused::Trailer),
        ("3\r\nabc\r\n0\r\nA: \u{1}\r\n\r\n", Refused::Trailer),
        ("3\r\nabc\r\n0\r\n: b\r\n\r\n", Refused::Trailer),
    ] {
        let seen = chunked(body);
        assert_eq!(seen, [Seen::Body(b"abc".to_vec()), Seen::Refused(why)], "{body:?}");
    }
}

#[test]
fn extensions_and_trailers_have_a_limit() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let seen = read_in(false, &[format!("{head}{}", "1;e\r\nx\r\n".repeat(9000)).as_bytes()]);
    assert_refused(&seen, Refused::ChunkExtension, "many extensions");
    let seen = read_in(false, &[format!("{head}0\r\n{}", "A: b\r\n".repeat(9000)).as_bytes()]);
    assert_refused(&seen, Refused::Trailer, "many trailers");
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let seen = request(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1));
    assert_refused(&seen, Refused::BodyTooLong, "a length");
    let mut reader = BodyLength::Chunked.reader(BodyLimits::default().max_body(5));
    assert_eq!(reader.next(b"3\r\nabc"), Ok((6, Piece::Data(b"abc"))));
    assert_eq!(reader.next(b"\r\n3\r\n"), Err(Refused::BodyTooLong));
}

#[test]
fn every_refusal_has_a_status_and_one_line() {
    for (why, status) in [
        (Refused::BareLf, 400),
        (Refused::LengthAndCoding, 400),
        (Refused::HeadTooLong, 431),
        (Refused::TooManyHeaders, 431),
        (Refused::BodyTooLong, 413),
        (Refused::Expectation, 417),
        (Refused::CodingUnknown, 501),
        (Refused::Version, 505),
        (Refused::Http2, 505),
        (Refused::Tls, 400),
    ] {
        assert_eq!(why.status(), status);
        assert!(!why.to_string().contains('\n'));
    }
}

#[test]
fn what_is_written_in_chunks_is_read_again() {
    for size in [1, 9, 10, 15, 16, 255, 65_536, 1_000_000] {
        let data = vec![7; size];
        let coded = [chunk_head(size).as_ref(), &data, b"\r\n", LAST_CHUNK].concat();
        let mut reader = BodyLength::Chunked.reader(BodyLimits::default());
        let (used, piece) = reader.next(&coded).unwrap();
        assert_eq!(piece, Piece::Data(&data));
        assert_eq!(reader.next(&coded[used..]).unwrap(), (coded.len() - used, Piece::End));
    }
}

/// How a request's body is sent.
#[derive(Clone, Debug)]
enum Sent {
    None,
    Length(Vec<u8>),
    Chunks(Vec<Vec<u8>>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        Just(Sent::None),
        bytes(200).prop_map(Sent::Length),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..5).prop_map(Sent::Chunks),
    ]
}

prop_compose! {
    fn good_request()(
        method in "[A-Z]{1,8}".prop_filter("CONNECT has another target", |it| it != "CONNECT"),
        path in "/[a-z0-9/._~-]{0,30}",
        query in prop::option::of("[a-z0-9=&+%]{0,20}"),
        names in prop::collection::vec("X-[A-Za-z0-9_-]{1,12}", 0..6),
        value in "[!-~]([ -~]{0,20}[!-~])?",
        body in sent(),
    ) -> (Vec<u8>, Vec<u8>) {
        let query = query.map(|it| format!("?{it}")).unwrap_or_default();
        let mut text = format!("{method} {path}{query} HTTP/1.1\r\nHost: h\r\n");
        for name in names {
            text += &format!("{name}: {value}\r\n");
        }
        let mut bytes = text.into_bytes();
        let whole = match &body {
            Sent::None => Vec::new(),
            Sent::Length(body) => body.clone(),
            Sent::Chunks(chunks) => chunks.concat(),
        };
        match body {
            Sent::None => bytes.extend(b"\r\n"),
            Sent::Length(body) => {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                bytes.extend(body);
            }
            Sent::Chunks(chunks) => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    bytes.extend(chunk_head(chunk.len()).as_ref());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(LAST_CHUNK);
            }
        }
        (bytes, whole)
    }
}

/// Cuts bytes at places given as shares of their length.
fn cut<'b>(bytes: &'b [u8], places: &[f64]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = places.iter().map(|share| (share * bytes.len() as f64) as usize).collect();
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut start = 0;
    for place in places {
        pieces.push(&bytes[start..place]);
        start = place;
    }
    pieces.push(&bytes[start..]);
    pieces
}

proptest! {
    #[test]
    fn pipelined_requests_are_read_in_order_under_every_split(
        requests in prop::collection::vec(good_request(), 1..5),
        places in prop::collection::vec(0.0..1.0f64, 0..8),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let seen = read_in(false, &cut(&bytes, &places));
        let heads = seen.iter().filter(|it| matches!(it, Seen::Head(_))).count();
        prop_assert_eq!(heads, requests.len(), "{:?}", seen);
        let bodies: Vec<u8> = requests.iter().flat_map(|(_, body)| body.clone()).collect();
        let read: Vec<u8> =
            seen.iter().flat_map(|it| if let Seen::Body(body) = it { body.clone() } else { Vec::new() }).collect();
        prop_assert_eq!(read, bodies);
    }

    #[test]
    fn a_damaged_message_is_judged_alike_under_every_split(
        (mut bytes, _) in good_request(),
        damage in prop::collection::vec((0.0..1.0f64, prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'0')]), 0..4),
        places in prop::collection::vec(0.0..1.0f64, 0..8),
        responses in any::<bool>(),
    ) {
        if responses {
            bytes.splice(..bytes.iter().position(|&it| it == b'\n').unwrap() - 1, *b"HTTP/1.1 200 OK");
        }
        for (place, byte) in damage {
            let at = (place * bytes.len() as f64) as usize;
            bytes[at] = byte;
        }
        prop_assert_eq!(read_in(responses, &cut(&bytes, &places)), read_in(responses, &[&bytes]));
    }

    #[test]
    fn noise_never_panics_and_is_judged_alike(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        places in prop::collection::vec(0.0..1.0f64, 0..8),
    ) {
        prop_assert_eq!(read_in(false, &cut(&bytes, &places)), read_in(false, &[&bytes]));
        prop_assert_eq!(read_in(true, &cut(&bytes, &places)), read_in(true, &[&bytes]));
    }

    #[test]
    fn no_decoded_path_has_a_dot_segment(path in "/([a.%/]|%2e|%2f|%2E){0,20}") {
        if let Ok(decoded) = decode_path(&path) {
            prop_assert!(decoded.starts_with('/'), "{}", decoded);
            prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."), "{}", decoded);
        }
    }
}
