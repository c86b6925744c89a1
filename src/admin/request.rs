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
    /// It is an order to read the configuration again, which may be given.
    pub(super) reload: bool,
    /// The client can show HTML: its `Accept` field names it, as that of every browser does.
    pub(super) html: bool,
}

/// The media type of a page.
const HTML: &[u8] = b"text/html";

/// The path of the order to read the configuration again.
pub(super) const RELOAD: &str = "/reload";

/// The answer to that order.
pub(super) fn reload_ordered() -> Vec<u8> {
    let body = "the configuration is read again: see /status, tidegate_config_last_reload_successful in /metrics, or the log, \
                for what comes of it\n";
    response("202 Accepted", "Location: /status\r\n", body, false)
}

/// Why a request is refused before anything else looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    /// It is not HTTP/1.x, or bytes are in it that may not be.
    Broken,
    /// It asks to do something, which nothing at its path does.
    Method,
    /// It asks to read what can only be ordered.
    OrderOnly,
    /// It is an order, and none is taken.
    Control,
    /// It is an order that a page in a browser has sent.
    Origin,
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
            Rejected::OrderOnly => ("405 Method Not Allowed", "only POST is served here\n"),
            Rejected::Control => (
                "403 Forbidden",
                "the configuration is read again at SIGHUP only: to have it read by this request too, start tidegate with \
                 --admin-control\n",
            ),
            Rejected::Origin => ("403 Forbidden", "this order is not taken from a page in a browser\n"),
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
        let allow = match self {
            Rejected::Method => "Allow: GET, HEAD\r\n",
            Rejected::OrderOnly => "Allow: POST\r\n",
            _ => "",
        };
        response(status, allow, body, head)
    }
}

/// A whole answer of text, with one more field; without its body for `HEAD`.
fn response(status: &str, field: &str, body: &str, head: bool) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nServer: tidegate\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n{field}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n{}",
        body.len(),
        if head { "" } else { body },
    )
    .into_bytes()
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
    let Fields { host, has_origin, accepts_html } = fields(lines)?;
    let reload = is_reload(target);
    match (method, reload) {
        (b"GET" | b"HEAD", false) | (b"POST", true) => {}
        (_, true) => return Err(Rejected::OrderOnly),
        (_, false) => return Err(Rejected::Method),
    }
    let (authority, target) = split_target(target).ok_or(Rejected::Broken)?;
    // A target that says a host overrules the field (RFC 9112, 3.2.2). Without any host, no browser has sent it.
    let host = authority.map_or(host, Some).filter(|host| !host.is_empty());
    if host.is_some_and(|host| !rules.hosts.allow(host)) {
        return Err(Rejected::Host);
    }
    if reload && !rules.control {
        return Err(Rejected::Control);
    }
    if reload && has_origin {
        return Err(Rejected::Origin);
    }
    Ok(AdminRequest { head: method == b"HEAD", target, reload, html: accepts_html })
}

/// Whether a target is that of the order to read the configuration again.
fn is_reload(target: &[u8]) -> bool {
    let target = split_target(target);
    target.is_some_and(|(_, target)| target.split(['?', '#']).next() == Some(RELOAD))
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// What is used of the fields of a request.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    /// A page in a browser has sent it.
    has_origin: bool,
    /// `Accept` names `text/html`.
    accepts_html: bool,
}

/// Reads the fields: all must be HTTP, and only `Host`, of which there may be one, `Origin` and `Accept` are
/// used.
fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Fields<'a>, Rejected> {
    let mut fields = Fields::default();
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|&b| b == b':').ok_or(Rejected::Broken)?;
        let name = &line[..colon];
        if !is_token(name) || !line.iter().all(|&b| b >= b' ' || b == b'\t') {
            return Err(Rejected::Broken);
        }
        fields.has_origin |= name.eq_ignore_ascii_case(b"origin");
        if name.eq_ignore_ascii_case(b"accept") {
            let value = line[colon + 1..].to_ascii_lowercase();
            fields.accepts_html |= value.windows(HTML.len()).any(|at| at == HTML);
        }
        if name.eq_ignore_ascii_case(b"host") {
            let value = std::str::from_utf8(&line[colon + 1..]).map_err(|_| Rejected::Broken)?;
            if fields.host.replace(value.trim_matches([' ', '\t'])).is_some() {
                return Err(Rejected::Broken);
            }
        }
    }
    Ok(fields)
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
        let mut rules = Rules { limits: Default::default(), hosts: Default::default(), control: false };
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
            assert_eq!(
                parsed(text),
                Some(Ok(AdminRequest { head, target, reload: false, html: false })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn html_is_for_those_who_name_it() {
        for (accept, html) in [
            ("*/*", false),
            ("text/plain", false),
            ("text/html", true),
            ("application/xhtml+xml, Text/HTML;q=0.9, */*;q=0.8", true),
        ] {
            let text = format!("GET /status HTTP/1.1\r\naccept: {accept}\r\n\r\n");
            assert_eq!(parsed(&text).unwrap().unwrap().html, html, "{accept}");
        }
    }

    #[test]
    fn an_order_is_taken_where_orders_are_and_from_no_page() {
        let mut rules = rules(8192);
        let order = |target: &str| {
            Ok(AdminRequest { head: false, target: target.to_owned(), reload: true, html: false })
        };
        for (text, off, on) in [
            ("POST /reload HTTP/1.1\r\nHost: h\r\n\r\n", Err(Rejected::Control), order("/reload")),
            ("POST http://h/reload?x HTTP/1.1\r\n\r\n", Err(Rejected::Control), order("/reload?x")),
            ("POST /reload HTTP/1.1\r\norigin: null\r\n\r\n", Err(Rejected::Control), Err(Rejected::Origin)),
            ("POST /reload HTTP/1.1\r\nHost: evil.example\r\n\r\n", Err(Rejected::Host), Err(Rejected::Host)),
            ("GET /reload HTTP/1.1\r\n\r\n", Err(Rejected::OrderOnly), Err(Rejected::OrderOnly)),
            ("HEAD /reload?x HTTP/1.1\r\n\r\n", Err(Rejected::OrderOnly), Err(Rejected::OrderOnly)),
            ("PUT /reload HTTP/1.1\r\n\r\n", Err(Rejected::OrderOnly), Err(Rejected::OrderOnly)),
            ("POST /reload/ HTTP/1.1\r\n\r\n", Err(Rejected::Method), Err(Rejected::Method)),
            ("POST /status HTTP/1.1\r\n\r\n", Err(Rejected::Method), Err(Rejected::Method)),
        ] {
            for (control, expected) in [(false, off), (true, on)] {
                rules.control = control;
                assert_eq!(parse(text.as_bytes(), &rules), Some(expected), "{text:?}, {control}");
            }
        }
        let answer = |answer: Vec<u8>| String::from_utf8(answer).unwrap();
        assert!(answer(reload_ordered()).starts_with("HTTP/1.1 202 Accepted\r\n"));
        assert!(answer(Rejected::OrderOnly.response(false)).contains("\r\nAllow: POST\r\n"));
        assert!(answer(Rejected::Method.response(true)).contains("\r\nAllow: GET, HEAD\r\n"));
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
