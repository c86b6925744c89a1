//! A request as the backend gets it: written anew from what was parsed, with one framing.
//!
//! Headers about the client's connection are left out (RFC 9110, 7.6.1), and so are those in which only the gate may
//! describe the client. Frameworks turn `-` into `_` (`HTTP_X_FORWARDED_FOR`), so a header whose name would become one of
//! these is left out too.

use crate::service::http::wire::{Form, Headers, RequestHead, decimal, list};
use std::io::Write;
use std::net::IpAddr;

/// How the backend learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestFraming {
    /// There is no body, and no header about it.
    None,
    Length(u64),
    Chunked,
}

/// What the backend is told about the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'t> {
    /// `None` of a client of a Unix socket: it has no address that a backend could understand.
    pub(super) client: Option<IpAddr>,
    /// `http`, or `https`.
    pub(super) scheme: &'t str,
    /// Whether the client is a trusted balancer, whose own `X-Forwarded-` headers are believed.
    pub(super) trusted: bool,
    /// The host to name if the client named none.
    pub(super) host: &'t str,
}

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const FORWARDED_HOST: &str = "x-forwarded-host";

/// Headers about a connection and its framing. They are not passed on in either direction (RFC 9110, 7.6.1).
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
];

/// Further headers of requests that the gate writes itself or does not pass on.
const LEFT_OUT: [&str; 4] = [
    "host",
    "http2-settings",
    "expect",
    // CGI programs find it as HTTP_PROXY in their environment, and would send their own requests to that proxy.
    "proxy",
];

/// The lengths that these names have, as bits. Most headers have another one and need no comparison.
const fn lengths(names: &[&str]) -> u64 {
    let (mut bits, mut at) = (0, 0);
    while at < names.len() {
        bits |= 1 << names[at].len();
        at += 1;
    }
    bits
}

/// Whether a name is among these, in any case; `lengths` are theirs.
fn is_among(name: &str, names: &[&str], lengths: u64) -> bool {
    name.len() < 64 && lengths >> name.len() & 1 == 1 && names.iter().any(|it| name.eq_ignore_ascii_case(it))
}

/// Whether a header is about one connection only, so that it must not be passed on.
fn is_of_connection(name: &str) -> bool {
    const LENGTHS: u64 = lengths(&OF_CONNECTION);
    is_among(name, &OF_CONNECTION, LENGTHS)
}

/// Elements of `Connection` headers that are kept at hand. Most messages list one or none.
const LISTED_FEW: usize = 4;

/// The headers of a message that are about its connection: the known ones, and those that its `Connection` headers list.
pub(super) struct Hop<'h> {
    headers: Headers<'h>,
    /// The first elements of these lists.
    listed: [&'h [u8]; LISTED_FEW],
    count: usize,
}

impl<'h> Hop<'h> {
    pub(super) fn of(headers: Headers<'h>) -> Self {
        let mut hop = Self { headers, listed: [&[]; LISTED_FEW], count: 0 };
        for element in headers.all("connection").flat_map(list) {
            if let Some(place) = hop.listed.get_mut(hop.count) {
                *place = element;
            }
            hop.count += 1;
        }
        hop
    }

    /// Whether a header must not be passed on.
    pub(super) fn has(&self, name: &str) -> bool {
        is_of_connection(name) || self.lists(name)
    }

    fn lists(&self, name: &str) -> bool {
        match self.listed.get(..self.count) {
            Some(listed) => listed.iter().any(|element| element.eq_ignore_ascii_case(name.as_bytes())),
            None => self.headers.lists("connection", name),
        }
    }
}

/// Whether a request asks to turn its connection into a WebSocket. Upgrades to other protocols are not passed on: requests
/// in one that the gate cannot read, such as h2c, would bypass it.
pub(super) fn wants_websocket(head: &RequestHead<'_>) -> bool {
    let mut protocols = head.headers.all("upgrade").flat_map(list);
    head.upgrade
        && protocols.next().is_some_and(|name| name.eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
}

/// Writes the head of a request.
pub(super) fn write_request(
    head: &RequestHead<'_>,
    framing: RequestFraming,
    told: &Told<'_>,
    out: &mut Vec<u8>,
) {
    for part in [head.method, " "] {
        out.extend_from_slice(part.as_bytes());
    }
    write_target(head, out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    header(out, "Host", head.host.unwrap_or(told.host).as_bytes());
    let hop = Hop::of(head.headers);
    for (name, value, line) in head.headers.lines() {
        if !is_left_out(name, told.trusted) && !hop.lists(name) {
            pass_header(out, name, value, line);
        }
    }
    write_forwarded(head, told, out);
    match framing {
        RequestFraming::None => {}
        RequestFraming::Length(length) => header(out, "Content-Length", decimal(length).as_ref()),
        RequestFraming::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    if wants_websocket(head) {
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The target as the client sent it. Of an absolute one (`http://host/path`) it is the part after the host.
fn write_target(head: &RequestHead<'_>, out: &mut Vec<u8>) {
    if head.target.form() != Form::Absolute {
        return out.extend_from_slice(head.target.as_str().as_bytes());
    }
    out.extend_from_slice(head.target.path().as_bytes());
    if let Some(query) = head.target.query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
}

fn write_forwarded(head: &RequestHead<'_>, told: &Told<'_>, out: &mut Vec<u8>) {
    let mut between: &[u8] = b"X-Forwarded-For: ";
    if told.trusted {
        for address in head.headers.all(FORWARDED_FOR).filter(|value| !value.is_empty()) {
            out.extend_from_slice(between);
            out.extend_from_slice(address);
            between = b", ";
        }
    }
    if let Some(client) = told.client {
        out.extend_from_slice(between);
        write_ip(client, out);
        between = b", ";
    }
    if between == b", " {
        out.extend_from_slice(b"\r\n");
    }
    let said = |name| if told.trusted { head.headers.get(name) } else { None };
    header(out, "X-Forwarded-Proto", said(FORWARDED_PROTO).unwrap_or(told.scheme.as_bytes()));
    let host = head.host.unwrap_or(told.host);
    header(out, "X-Forwarded-Host", said(FORWARDED_HOST).unwrap_or(host.as_bytes()));
}

fn write_ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            // Every request has one: it is written without a loop for each number.
            let (mut text, mut end) = ([b'.'; 16], 0);
            for octet in address.octets() {
                let digits = [octet / 100, octet / 10 % 10, octet % 10];
                let first = if octet >= 100 { 0 } else { 1 + usize::from(octet < 10) };
                for digit in &digits[first..] {
                    text[end] = b'0' + digit;
                    end += 1;
                }
                end += 1;
            }
            out.extend_from_slice(&text[..end - 1]);
        }
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Writes a header that came as `line`, if that is in the usual form.
pub(super) fn pass_header(out: &mut Vec<u8>, name: &str, value: &[u8], line: Option<&[u8]>) {
    match line {
        Some(line) => out.extend_from_slice(line),
        None => header(out, name, value),
    }
}

pub(super) fn header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether a header of a request is not passed on as it is: the gate drops it or writes its own.
fn ends_here(name: &str) -> bool {
    const LENGTHS: u64 = lengths(&LEFT_OUT);
    is_of_connection(name) || is_among(name, &LEFT_OUT, LENGTHS)
}

/// Whether a header is dropped, in any spelling.
fn is_left_out(name: &str, trusted: bool) -> bool {
    if !name.contains('_') {
        let own = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST];
        return ends_here(name)
            || own.iter().any(|it| name.eq_ignore_ascii_case(it))
            || !trusted && says_who(name);
    }
    // A framework behind the gate would take it for one of the headers above.
    let dashed = name.replace('_', "-");
    ends_here(&dashed) || says_who(&dashed)
}

/// Whether a header says who the client is. Only the gate and trusted balancers may say that.
fn says_who(name: &str) -> bool {
    const SAYS_WHO: &str = "x-forwarded-";
    name.eq_ignore_ascii_case("forwarded")
        || name.eq_ignore_ascii_case("x-real-ip")
        || name.get(..SAYS_WHO.len()).is_some_and(|start| start.eq_ignore_ascii_case(SAYS_WHO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::http::wire::{Scanner, Slots};

    const TOLD: Told<'static> = Told {
        client: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9))),
        scheme: "http",
        trusted: false,
        host: "gate",
    };

    fn pass(request: &str, framing: RequestFraming, told: Told<'_>) -> String {
        let range = Scanner::requests().find(request.as_bytes(), 1 << 20).unwrap().unwrap();
        let mut slots = Slots::new();
        let head = RequestHead::parse(&request.as_bytes()[range], &mut slots, 100).unwrap();
        let mut out = Vec::new();
        write_request(&head, framing, &told, &mut out);
        String::from_utf8(out).unwrap()
    }

    const WHO: &str = "X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n";

    #[test]
    fn a_request_is_passed_on_with_what_is_its_own_and_nothing_of_its_connection() {
        let request = "GET /a%2f..//b?x=1 HTTP/1.1\r\nAccept: */*\r\nhOST: h\r\nConnection: keep-alive, X-Mine\r\n\
                       X-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy: evil\r\nProxy-Connection: close\r\n\
                       X-Empty:\r\nCookie: a=b\r\nCookie: c=d\r\nX_Key: kept\r\n\r\n";
        let passed = pass(request, RequestFraming::None, TOLD);
        let own = "GET /a%2f..//b?x=1 HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nX-Empty: \r\nCookie: a=b\r\n\
                   Cookie: c=d\r\nX_Key: kept\r\n";
        assert_eq!(passed, format!("{own}{WHO}\r\n"));
    }

    #[test]
    fn what_only_the_gate_may_say_is_left_out_under_every_spelling() {
        let request = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nx_forwarded_for: 1.2.3.4\r\n\
                       X-Forwarded_Proto: https\r\nForwarded: for=x\r\nX-Real-IP: 1.1.1.1\r\nX-Forwarded-Prefix: /p\r\n\
                       Content_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n";
        assert_eq!(
            pass(request, RequestFraming::None, TOLD),
            format!("GET / HTTP/1.1\r\nHost: h\r\n{WHO}\r\n")
        );
    }

    #[test]
    fn a_balancer_that_is_trusted_is_added_to() {
        let request = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n\
                       X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\r\n";
        let passed = pass(request, RequestFraming::None, Told { trusted: true, ..TOLD });
        assert_eq!(
            passed,
            "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Port: 443\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8, 10.0.0.9\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n\r\n"
        );
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        for text in ["0.0.0.0", "10.0.0.9", "127.0.0.1", "192.168.100.255", "::1", "2001:db8::7"] {
            let mut out = Vec::new();
            write_ip(text.parse().unwrap(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn however_many_headers_a_connection_lists_none_of_them_is_passed_on() {
        for count in 0..9 {
            let listed: Vec<String> = (0..count).map(|n| format!("X-Hop-{n}")).collect();
            let hops: String = listed.iter().map(|name| format!("{name}: 1\r\n")).collect();
            let request = format!(
                "GET / HTTP/1.1\r\nHost: h\r\nconnection: close\r\nConnection: {}\r\n{hops}X-Own: 1\r\n\r\n",
                listed.join(" ,")
            );
            let passed = pass(&request, RequestFraming::None, TOLD);
            assert_eq!(
                passed,
                format!("GET / HTTP/1.1\r\nHost: h\r\nX-Own: 1\r\n{WHO}\r\n"),
                "{count} names"
            );
        }
    }

    #[test]
    fn the_framing_is_the_gates_own() {
        let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0005\r\nExpect: 100-continue\r\n\r\n";
        let passed = pass(request, RequestFraming::Length(5), TOLD);
        assert_eq!(passed, format!("POST / HTTP/1.1\r\nHost: h\r\n{WHO}Content-Length: 5\r\n\r\n"));
        let request = "POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: Chunked\r\nTrailer: X\r\n\r\n";
        let passed = pass(request, RequestFraming::Chunked, TOLD);
        assert_eq!(passed, format!("POST / HTTP/1.1\r\nHost: h\r\n{WHO}Transfer-Encoding: chunked\r\n\r\n"));
    }

    #[test]
    fn a_target_that_names_a_host_is_asked_there() {
        let passed = pass("GET http://other:81/x?y HTTP/1.1\r\nHost: h\r\n\r\n", RequestFraming::None, TOLD);
        assert!(passed.starts_with("GET /x?y HTTP/1.1\r\nHost: other:81\r\n"), "{passed}");
        assert!(passed.contains("X-Forwarded-Host: other:81\r\n"), "{passed}");
        let passed = pass("GET / HTTP/1.0\r\n\r\n", RequestFraming::None, TOLD);
        assert!(passed.starts_with("GET / HTTP/1.1\r\nHost: gate\r\n"), "{passed}");
        let passed = pass("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", RequestFraming::None, TOLD);
        assert!(passed.starts_with("OPTIONS * HTTP/1.1\r\n"), "{passed}");
    }

    #[test]
    fn a_websocket_is_passed_on_and_another_protocol_is_not() {
        let ask = |upgrade: &str| {
            pass(
                &format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"),
                RequestFraming::None,
                TOLD,
            )
        };
        assert!(ask("WebSocket").ends_with("Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"));
        for other in ["h2c", "websocket, h2c", "h2c, websocket"] {
            assert_eq!(ask(other), format!("GET / HTTP/1.1\r\nHost: h\r\n{WHO}\r\n"));
        }
    }
}
