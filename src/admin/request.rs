//! Reads the head of one HTTP request: a pure function from bytes to what to do.

use super::limits::Rules;
use std::fmt;

/// A request that will be answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AdminRequest {
    /// `HEAD`: the answer has no body.
    pub(super) head: bool,
    /// The path and query, beginning with `/`: visible ASCII.
    pub(super) target: String,
}

/// Why a request is refused before anything else looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It is not HTTP/1.x, or bytes are in it that may not be.
    Broken,
    /// It asks to do something; nothing here does anything.
    Method,
    /// It is for a host that this endpoint does not answer for.
    Host,
    /// Its head is longer than the limit.
    TooLarge,
    /// Its head was not complete in time.
    TooSlow,
    /// It speaks a version that is not HTTP/1.
    Version,
    /// The answer could not be made.
    Unavailable,
}

impl Rejected {
    /// The whole answer, head and body.
    pub(super) fn response(self, head: bool) -> Vec<u8> {
        let (status, body) = match self {
            Rejected::Broken => ("400 Bad Request", "this is not an HTTP/1.1 request\n"),
            Rejected::Method => ("405 Method Not Allowed", "only GET and HEAD are served here\n"),
            Rejected::TooSlow => ("408 Request Timeout", "the request was not complete in time\n"),
            Rejected::TooLarge => ("431 Request Header Fields Too Large", "the request is too large\n"),
            Rejected::Host => (
                "421 Misdirected Request",
                "the request is for a host name that is not known here: ask by address, or start tidegate with \
                 --admin-host NAME\n",
            ),
            Rejected::Unavailable => ("503 Service Unavailable", "the answer could not be made\n"),
            Rejected::Version => ("505 HTTP Version Not Supported", "only HTTP/1.1 is served here\n"),
        };
        let allow = if self == Rejected::Method { "Allow: GET, HEAD\r\n" } else { "" };
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

impl fmt::Display for AdminRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.head { "HEAD" } else { "GET" }, self.target)
    }
}

/// Looks for a whole head in `bytes`: `None` while it is not whole.
pub(super) fn parse(bytes: &[u8], rules: &Rules) -> Option<Result<AdminRequest, Rejected>> {
    // Old habit lets an empty line come before a request.
    let start = bytes.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
    let bytes = &bytes[start..];
    let most = rules.limits.head_bytes;
    let Some(end) = end_of_head(bytes) else {
        return if start + bytes.len() >= most { Some(Err(Rejected::TooLarge)) } else { None };
    };
    if start + end > most {
        return Some(Err(Rejected::TooLarge));
    }
    Some(parse_head(&bytes[..end], rules))
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

fn parse_head(head: &[u8], rules: &Rules) -> Result<AdminRequest, Rejected> {
    let mut lines = head.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Rejected::Broken);
    };
    if !is_token(method) {
        return Err(Rejected::Broken);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..] => return Err(Rejected::Version),
        _ => return Err(Rejected::Broken),
    }
    let host = host_field(lines)?;
    let head = match method {
        b"GET" => false,
        b"HEAD" => true,
        _ => return Err(Rejected::Method),
    };
    let (authority, target) = split_target(target).ok_or(Rejected::Broken)?;
    // A target that says a host overrules the field (RFC 9112, 3.2.2). Without any host, no browser has sent it.
    let host = authority.map_or(host, Some).filter(|host| !host.is_empty());
    if host.is_some_and(|host| !rules.hosts.allow(host)) {
        return Err(Rejected::Host);
    }
    Ok(AdminRequest { head, target })
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Reads the fields: all must be HTTP, and only `Host` is used, of which there may be one.
fn host_field<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a str>, Rejected> {
    let mut host = None;
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|&b| b == b':').ok_or(Rejected::Broken)?;
        if !is_token(&line[..colon]) || !line.iter().all(|&b| b >= b' ' || b == b'\t') {
            return Err(Rejected::Broken);
        }
        if line[..colon].eq_ignore_ascii_case(b"host") {
            let value = std::str::from_utf8(&line[colon + 1..]).map_err(|_| Rejected::Broken)?;
            if host.replace(value.trim_matches([' ', '\t'])).is_some() {
                return Err(Rejected::Broken);
            }
        }
    }
    Ok(host)
}

/// The host, if it is said, and the path with the query of a target in origin form (`/a?b`) or absolute form
/// (`http://host/a?b`).
fn split_target(target: &[u8]) -> Option<(Option<&str>, String)> {
    if !target.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let target = std::str::from_utf8(target).ok()?;
    if target.starts_with('/') {
        return Some((None, target.to_owned()));
    }
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A user's name before the host is for nobody here (RFC 9110, 4.2.4).
    if authority.is_empty() || authority.contains('@') {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some((Some(authority), format!("{slash}{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(head_bytes: usize) -> Rules {
        let mut rules = Rules { limits: Default::default(), hosts: Default::default() };
        rules.limits.head_bytes = head_bytes;
        rules.hosts.add("h");
        rules
    }

    fn parsed(text: &str) -> Option<Result<AdminRequest, Rejected>> {
        parse(text.as_bytes(), &rules(8192))
    }

    #[test]
    fn whole_requests_are_read() {
        for (text, head, target) in [
            ("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n", false, "/metrics"),
            ("GET / HTTP/1.0\r\n\r\n", false, "/"),
            ("HEAD /livez?x=%20y HTTP/1.1\nHost:h\n\n", true, "/livez?x=%20y"),
            ("\r\nGET /a HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n", false, "/a"),
            ("GET http://h:9/m?q HTTP/1.1\r\n\r\n", false, "/m?q"),
            ("GET http://h HTTP/1.1\r\n\r\n", false, "/"),
            ("GET HTTP://h/metrics HTTP/1.1\r\n\r\n", false, "/metrics"),
            ("GET hTTpS://H:1/m HTTP/1.1\r\nHost: evil.example\r\n\r\n", false, "/m"),
            ("GET http://h?q=1 HTTP/1.1\r\n\r\n", false, "/?q=1"),
            ("GET http://[::1]:9464/a HTTP/1.1\r\n\r\n", false, "/a"),
            ("GET /a HTTP/1.1\r\nhOST:\t127.0.0.1:9464 \r\n\r\n", false, "/a"),
            ("GET /a HTTP/1.1\r\nHost:\r\n\r\n", false, "/a"),
        ] {
            let target = target.to_owned();
            assert_eq!(parsed(text), Some(Ok(AdminRequest { head, target })), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_whole_waits() {
        let whole = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parsed(&whole[..end]), None, "{:?}", &whole[..end]);
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (text, refusal) in [
            ("POST /metrics HTTP/1.1\r\n\r\n", Rejected::Method),
            ("BREW / HTTP/1.1\r\n\r\n", Rejected::Method),
            ("get / HTTP/1.1\r\n\r\n", Rejected::Method),
            ("GET / HTTP/2.0\r\n\r\n", Rejected::Version),
            ("PRI * HTTP/2.0\r\n\r\n", Rejected::Version),
            ("GET /\r\n\r\n", Rejected::Broken),
            ("GET / FTP/1.1\r\n\r\n", Rejected::Broken),
            ("GET  / HTTP/1.1\r\n\r\n", Rejected::Broken),
            ("GET metrics HTTP/1.1\r\n\r\n", Rejected::Broken),
            ("GET /m\u{e9} HTTP/1.1\r\n\r\n", Rejected::Broken),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", Rejected::Broken),
            ("GET / HTTP/1.1\r\nbad name: x\r\n\r\n", Rejected::Broken),
            ("GET / HTTP/1.1\r\na: \0\r\n\r\n", Rejected::Broken),
            ("\x16\x03\x01\x02\n\n", Rejected::Broken),
            ("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", Rejected::Broken),
            ("GET / HTTP/1.1\r\nHost: \u{e9}vil\r\n\r\n", Rejected::Host),
            ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", Rejected::Host),
            ("GET http://evil.example/ HTTP/1.1\r\nHost: h\r\n\r\n", Rejected::Host),
            ("GET http://u:p@h/ HTTP/1.1\r\n\r\n", Rejected::Broken),
            ("GET http:///a HTTP/1.1\r\n\r\n", Rejected::Broken),
            ("GET ftp://h/a HTTP/1.1\r\n\r\n", Rejected::Broken),
            ("GET http:/h/a HTTP/1.1\r\n\r\n", Rejected::Broken),
        ] {
            assert_eq!(parsed(text), Some(Err(refusal)), "{text:?}");
        }
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(9000));
        assert_eq!(parsed(&endless), Some(Err(Rejected::TooLarge)));
        assert_eq!(parsed(&format!("{endless}\r\n\r\n")), Some(Err(Rejected::TooLarge)));
        assert_eq!(parsed(&"\n".repeat(9000)), Some(Err(Rejected::TooLarge)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(0u8.., 0..512), cut in 0usize..600) {
            let _ = parse(&bytes, &rules(256));
            let mut request = b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
            request.splice(cut.min(request.len())..cut.min(request.len()), bytes);
            if let Some(Ok(request)) = parse(&request, &rules(256)) {
                proptest::prop_assert!(request.target.starts_with('/'));
                proptest::prop_assert!(request.target.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
