//! Reads the head of one HTTP request: a pure function from bytes to what to do.

use std::fmt;

/// A request that will be answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    /// `HEAD`: the answer has no body.
    pub(super) head: bool,
    /// The path and query, beginning with `/`: visible ASCII.
    pub(super) target: String,
}

/// Why a request is refused before anything else looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not HTTP/1.x, or bytes are in it that may not be.
    Broken,
    /// It asks to do something; nothing here does anything.
    Method,
    /// Its head is longer than the limit.
    TooLarge,
    /// Its head was not complete in time.
    TooSlow,
    /// It speaks a version that is not HTTP/1.
    Version,
    /// The answer could not be made.
    Unavailable,
}

impl Refusal {
    /// The whole answer, head and body.
    pub(super) fn response(self, head: bool) -> Vec<u8> {
        let (status, body) = match self {
            Refusal::Broken => ("400 Bad Request", "this is not an HTTP/1.1 request\n"),
            Refusal::Method => ("405 Method Not Allowed", "only GET and HEAD are served here\n"),
            Refusal::TooSlow => ("408 Request Timeout", "the request was not complete in time\n"),
            Refusal::TooLarge => ("431 Request Header Fields Too Large", "the request is too large\n"),
            Refusal::Unavailable => ("503 Service Unavailable", "the answer could not be made\n"),
            Refusal::Version => ("505 HTTP Version Not Supported", "only HTTP/1.1 is served here\n"),
        };
        let allow = if self == Refusal::Method { "Allow: GET, HEAD\r\n" } else { "" };
        format!(
            "HTTP/1.1 {status}\r\nServer: tidegate\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\n{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n{}",
            body.len(),
            if head { "" } else { body },
        )
        .into_bytes()
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.head { "HEAD" } else { "GET" }, self.target)
    }
}

/// Looks for a whole head in `bytes`: `None` while it is not whole.
pub(super) fn parse(bytes: &[u8], head_bytes_max: usize) -> Option<Result<Request, Refusal>> {
    // Old habit lets an empty line come before a request.
    let start = bytes.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
    let bytes = &bytes[start..];
    let Some(end) = end_of_head(bytes) else {
        return if start + bytes.len() >= head_bytes_max { Some(Err(Refusal::TooLarge)) } else { None };
    };
    if start + end > head_bytes_max {
        return Some(Err(Refusal::TooLarge));
    }
    Some(parse_head(&bytes[..end]))
}

/// Where the empty line that ends a head begins; a bare LF ends a line too.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&b| b == b'\n') {
        let next = from + at + 1;
        match bytes[next..] {
            [b'\n', ..] | [b'\r', b'\n', ..] => return Some(next),
            _ => from = next,
        }
    }
    None
}

fn parse_head(head: &[u8]) -> Result<Request, Refusal> {
    let mut lines = head.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Broken);
    };
    let is_token = |name: &[u8]| {
        !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
    };
    if !is_token(method) {
        return Err(Refusal::Broken);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..] => return Err(Refusal::Version),
        _ => return Err(Refusal::Broken),
    }
    // The fields are not used, but what is not HTTP is not answered as if it were.
    let is_field = |line: &[u8]| {
        let colon = line.iter().position(|&b| b == b':');
        colon.is_some_and(|at| is_token(&line[..at])) && line.iter().all(|&b| b >= b' ' || b == b'\t')
    };
    if !lines.filter(|line| !line.is_empty()).all(is_field) {
        return Err(Refusal::Broken);
    }
    let head = match method {
        b"GET" => false,
        b"HEAD" => true,
        _ => return Err(Refusal::Method),
    };
    Ok(Request { head, target: path_of(target).ok_or(Refusal::Broken)? })
}

/// The path and query of a target in origin form (`/a?b`) or absolute form (`http://host/a?b`).
fn path_of(target: &[u8]) -> Option<String> {
    if !target.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let target = std::str::from_utf8(target).ok()?;
    if target.starts_with('/') {
        return Some(target.to_owned());
    }
    let after = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"))?;
    Some(after.find('/').map_or("/", |at| &after[at..]).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Result<Request, Refusal>> {
        parse(text.as_bytes(), 8192)
    }

    #[test]
    fn whole_requests_are_read() {
        for (text, head, target) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", false, "/metrics"),
            ("GET / HTTP/1.0\r\n\r\n", false, "/"),
            ("HEAD /livez?x=%20y HTTP/1.1\nHost:x\n\n", true, "/livez?x=%20y"),
            ("\r\nGET /a HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n", false, "/a"),
            ("GET http://h:9/m?q HTTP/1.1\r\n\r\n", false, "/m?q"),
            ("GET http://h HTTP/1.1\r\n\r\n", false, "/"),
        ] {
            let target = target.to_owned();
            assert_eq!(parsed(text), Some(Ok(Request { head, target })), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_whole_waits() {
        let whole = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parsed(&whole[..end]), None, "{:?}", &whole[..end]);
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (text, refusal) in [
            ("POST /metrics HTTP/1.1\r\n\r\n", Refusal::Method),
            ("BREW / HTTP/1.1\r\n\r\n", Refusal::Method),
            ("get / HTTP/1.1\r\n\r\n", Refusal::Method),
            ("GET / HTTP/2.0\r\n\r\n", Refusal::Version),
            ("PRI * HTTP/2.0\r\n\r\n", Refusal::Version),
            ("GET /\r\n\r\n", Refusal::Broken),
            ("GET / FTP/1.1\r\n\r\n", Refusal::Broken),
            ("GET  / HTTP/1.1\r\n\r\n", Refusal::Broken),
            ("GET metrics HTTP/1.1\r\n\r\n", Refusal::Broken),
            ("GET /m\u{e9} HTTP/1.1\r\n\r\n", Refusal::Broken),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", Refusal::Broken),
            ("GET / HTTP/1.1\r\nbad name: x\r\n\r\n", Refusal::Broken),
            ("GET / HTTP/1.1\r\na: \0\r\n\r\n", Refusal::Broken),
            ("\x16\x03\x01\x02\n\n", Refusal::Broken),
        ] {
            assert_eq!(parsed(text), Some(Err(refusal)), "{text:?}");
        }
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(9000));
        assert_eq!(parsed(&endless), Some(Err(Refusal::TooLarge)));
        assert_eq!(parsed(&format!("{endless}\r\n\r\n")), Some(Err(Refusal::TooLarge)));
        assert_eq!(parsed(&"\n".repeat(9000)), Some(Err(Refusal::TooLarge)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(0u8.., 0..512), cut in 0usize..600) {
            let _ = parse(&bytes, 256);
            let mut request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
            request.splice(cut.min(request.len())..cut.min(request.len()), bytes);
            if let Some(Ok(request)) = parse(&request, 256) {
                proptest::prop_assert!(request.target.starts_with('/'));
                proptest::prop_assert!(request.target.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
