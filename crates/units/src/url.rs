//! Where a service is: `tcp://host:port`, `http://host[:port][/path][?query]`, `unix:///run/x.sock` and the like.
//!
//! | scheme | what is spoken | default port | path |
//! |---|---|---|---|
//! | `tcp` `udp` | bytes, datagrams | none | none |
//! | `tls` | bytes inside TLS | none | none |
//! | `http` `ws` | HTTP/1.1, WebSocket | 80 | yes |
//! | `https` `wss` | the same inside TLS | 443 | yes |
//! | `unix` | bytes over a Unix socket | | none |
//! | `http+unix` `ws+unix` | HTTP/1.1, WebSocket over a Unix socket | | yes |
//!
//! A Unix socket is written as its path, `unix:///run/x.sock` or `unix:/run/x.sock`, or as `unix:@name`, an abstract name
//! of Linux. With `http+unix` the path of the requests comes after
//! a colon (`http+unix:///run/x.sock:/status`), or the path of the socket is %-encoded in the place of the host
//! (`http+unix://%2Frun%2Fx.sock/status`).
//!
//! A host is a name, an IPv4 address, or an IPv6 address in brackets; `[fe80::1%eth0]` and `[fe80::1%25eth0]` name the
//! interface of a link-local address. The scheme may be written in capitals. A fragment (`#part`) is for the one who
//! shows a page, and is left out. In a path, what may never be sent as it is (a space, a letter beyond ASCII) is
//! %-encoded; a control character, such as a line end, is refused.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The longest path of a Unix socket, in bytes; Linux has room for 108 with the zero at its end.
const UNIX_PATH_MAX: usize = 107;

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// A stream of bytes.
    Tcp,
    /// Datagrams.
    Udp,
    /// A stream of bytes inside TLS.
    Tls,
    /// HTTP/1.1 requests over TCP.
    Http,
    /// HTTP/1.1 requests inside TLS.
    Https,
    /// WebSocket messages over TCP.
    Ws,
    /// WebSocket messages inside TLS.
    Wss,
    /// A stream of bytes over a Unix socket.
    Unix,
    /// HTTP/1.1 requests over a Unix socket.
    HttpUnix,
    /// WebSocket messages over a Unix socket.
    WsUnix,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: &'static [Scheme] = &[
        Scheme::Tcp,
        Scheme::Udp,
        Scheme::Tls,
        Scheme::Http,
        Scheme::Https,
        Scheme::Ws,
        Scheme::Wss,
        Scheme::Unix,
        Scheme::HttpUnix,
        Scheme::WsUnix,
    ];

    /// The word before `://`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Tcp => "tcp",
            Scheme::Udp => "udp",
            Scheme::Tls => "tls",
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
            Scheme::Unix => "unix",
            Scheme::HttpUnix => "http+unix",
            Scheme::WsUnix => "ws+unix",
        }
    }

    /// Whether requests name a path.
    pub const fn has_path(self) -> bool {
        matches!(
            self,
            Scheme::Http | Scheme::Https | Scheme::Ws | Scheme::Wss | Scheme::HttpUnix | Scheme::WsUnix
        )
    }

    /// What is spoken inside TLS, where there is TLS.
    pub const fn inside_tls(self) -> Option<Scheme> {
        match self {
            Scheme::Tls => Some(Scheme::Tcp),
            Scheme::Https => Some(Scheme::Http),
            Scheme::Wss => Some(Scheme::Ws),
            _ => None,
        }
    }

    /// Whether the service is at a Unix socket, and not at a host and port.
    pub const fn is_unix(self) -> bool {
        matches!(self, Scheme::Unix | Scheme::HttpUnix | Scheme::WsUnix)
    }

    /// The port of a URL that names none.
    pub const fn default_port(self) -> Option<u16> {
        match self {
            Scheme::Http | Scheme::Ws => Some(80),
            Scheme::Https | Scheme::Wss => Some(443),
            _ => None,
        }
    }
}

/// A parsed URL; the host is not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Url {
    /// What is spoken there.
    pub scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address without its brackets, with its zone after a `%` if it has one;
    /// empty where there is a Unix socket instead.
    pub host: String,
    /// The port; 0 where there is a Unix socket instead.
    pub port: u16,
    /// The Unix socket; an abstract name begins with a zero byte, as the kernel has it.
    pub socket: Option<PathBuf>,
    /// The path and query of an HTTP URL, beginning with `/`, as a request line has them; empty for others.
    pub path: String,
}

/// Why a text is not a URL: one line that says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a URL tidegate knows: {why}")]
pub struct UrlError {
    text: String,
    why: &'static str,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        parse(text).map_err(|why| UrlError { text: text.escape_debug().collect(), why })
    }
}

fn parse(text: &str) -> Result<Url, &'static str> {
    if text.contains(|c: char| c.is_ascii_control()) {
        return Err("a control character, such as a line end, cannot be in it");
    }
    // A Unix socket needs no slashes beside those of its path.
    let unix = text
        .split_once("unix:")
        .filter(|(_, rest)| rest.starts_with('@') || rest.starts_with('/') && !rest.starts_with("//"));
    let (scheme, rest) = match unix {
        Some((before, rest)) => (&text[..before.len() + "unix".len()], rest),
        None => text.split_once("://").ok_or_else(|| without_slashes(text))?,
    };
    let known = Scheme::ALL.iter().copied().find(|known| known.as_str().eq_ignore_ascii_case(scheme));
    let scheme = known.ok_or(
        "it must begin with tcp://, udp:// or http://, or one of tls, https, ws, wss, unix, http+unix and ws+unix",
    )?;
    let rest = rest.split('#').next().unwrap_or_default();
    if scheme.is_unix() {
        return parse_unix(scheme, rest);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = match (scheme.has_path(), path) {
        (false, "" | "/") => String::new(),
        (false, _) => return Err("it has a path, and only a URL for HTTP or WebSocket has one"),
        (true, path) => request_target(path),
    };
    if authority.contains('@') {
        return Err("a user name or password in a URL is not supported: leave out what is before the `@`");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => bracketed(rest)?,
        None => plain(authority)?,
    };
    let port = match (port, scheme.default_port()) {
        (Some(digits), _) if !digits.is_empty() => parse_port(digits)?,
        (_, Some(default)) => default,
        (_, None) => return Err("it has no port: write it like tcp://127.0.0.1:5000"),
    };
    Ok(Url { scheme, host, port, socket: None, path })
}

/// What is wrong with a text that has no `://`.
fn without_slashes(text: &str) -> &'static str {
    let scheme = text.split(':').next().unwrap_or_default();
    match Scheme::ALL.iter().find(|known| known.as_str().eq_ignore_ascii_case(scheme)) {
        Some(known) if known.is_unix() => {
            "write the whole path of the socket, from the root: unix:/run/x.sock"
        }
        Some(_) => "two slashes are missing: write it like tcp://127.0.0.1:5000",
        None => "write it like tcp://127.0.0.1:5000",
    }
}

/// A host name or an IPv4 address, and the port behind it.
fn plain(authority: &str) -> Result<(String, Option<&str>), &'static str> {
    let (host, port) = match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err("write an IPv6 address in brackets: [::1]:5000"),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.is_empty() {
        return Err("it has no host");
    }
    if !host.is_ascii() {
        return Err("a host name beyond ASCII is not supported: write its form that begins with xn--");
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
        return Err("its host is neither a name nor an address");
    }
    Ok((host.to_owned(), port))
}

/// What comes after `[`: an IPv6 address, perhaps with its zone, and the port behind it.
fn bracketed(rest: &str) -> Result<(String, Option<&str>), &'static str> {
    let (host, rest) = rest.split_once(']').ok_or("an IPv6 address ends with `]`")?;
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(port),
        None if rest.is_empty() => None,
        None => return Err("only a port can come after `]`, like [::1]:5000"),
    };
    let (address, zone) = match host.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (host, None),
    };
    if address.parse::<Ipv6Addr>().is_err() {
        return Err("what is in [ ] is not an IPv6 address");
    }
    // RFC 6874 writes the `%` before a zone as `%25`.
    let zone = zone.map(|zone| zone.strip_prefix("25").filter(|rest| !rest.is_empty()).unwrap_or(zone));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'@');
    match zone {
        None => Ok((address.to_owned(), port)),
        Some(zone) if zone.is_empty() || !zone.bytes().all(plain) => {
            Err("what comes after the `%` is not the name of an interface")
        }
        Some(zone) => Ok((format!("{address}%{zone}"), port)),
    }
}

fn parse_port(digits: &str) -> Result<u16, &'static str> {
    let port = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    port.ok_or("its port is not a number from 0 to 65535")
}

/// The path of a Unix socket, and with HTTP the path of the requests.
fn parse_unix(scheme: Scheme, rest: &str) -> Result<Url, &'static str> {
    if let Some(rest) = rest.strip_prefix('@') {
        return parse_abstract(scheme, rest);
    }
    let (socket, path) = match (scheme, rest.starts_with('/')) {
        (Scheme::Unix, true) => (percent_decode(rest)?, ""),
        // The first `:/` ends the socket's path.
        (_, true) => {
            let (socket, path) = rest.split_at(rest.find(":/").unwrap_or(rest.len()));
            (percent_decode(socket)?, path.strip_prefix(':').unwrap_or(path))
        }
        (Scheme::Unix, false) => {
            return Err("write the whole path of the socket, from the root: unix:/run/x.sock");
        }
        (_, false) => {
            let (socket, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (percent_decode(socket)?, path)
        }
    };
    if !socket.starts_with(b"/") || socket.ends_with(b"/") {
        return Err("it names no socket: write it like unix:///run/x.sock");
    }
    if socket.contains(&0) || socket.len() > UNIX_PATH_MAX {
        return Err("the path of a Unix socket has at most 107 bytes, none of them 0");
    }
    let path = if scheme.has_path() { request_target(path) } else { String::new() };
    Ok(Url { scheme, host: String::new(), port: 0, socket: Some(path_of(socket)), path })
}

/// An abstract name, and with HTTP the path of the requests.
fn parse_abstract(scheme: Scheme, rest: &str) -> Result<Url, &'static str> {
    let end = if scheme.has_path() { rest.find(":/").unwrap_or(rest.len()) } else { rest.len() };
    let (name, path) = rest.split_at(end);
    let name = percent_decode(name)?;
    if name.is_empty() || name.contains(&0) || name.len() > UNIX_PATH_MAX {
        return Err("the name of an abstract socket has 1 to 107 bytes, none of them 0");
    }
    let path = path.strip_prefix(':').unwrap_or(path);
    let path = if scheme.has_path() { request_target(path) } else { String::new() };
    let socket = [&[0], &name[..]].concat();
    Ok(Url { scheme, host: String::new(), port: 0, socket: Some(path_of(socket)), path })
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

fn percent_decode(text: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let digit = |byte: u8| (byte as char).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push((high << 4 | low) as u8);
                    rest = tail;
                }
                _ => return Err("a `%` in the path of a socket stands before two hexadecimal digits"),
            },
            (b'%', _) => return Err("a `%` in the path of a socket stands before two hexadecimal digits"),
            _ => bytes.push(*first),
        }
    }
    Ok(bytes)
}

/// A path and query as they may stand in a request line: what may not is %-encoded, what is encoded stays.
fn request_target(path: &str) -> String {
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => encode(&mut target, byte),
            b'!'..=b'~' => target.push(byte as char),
            _ => encode(&mut target, byte),
        }
    }
    target
}

fn encode(target: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    target.push('%');
    for digit in [byte >> 4, byte & 15] {
        target.push(DIGITS[usize::from(digit)] as char);
    }
}

impl Url {
    /// All addresses the host has, at least one.
    ///
    /// # Errors
    ///
    /// The host has no address, or the resolver cannot tell, or the URL is that of a Unix socket; the error names
    /// the host.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let named = |why: String| {
            io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {}: {why}", self.host))
        };
        if self.socket.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{self} is a Unix socket, and has no address to resolve"),
            ));
        }
        let found: Vec<_> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| named(error.to_string()))?
            .collect();
        if found.is_empty() { Err(named("it has no address".to_owned())) } else { Ok(found) }
    }

    /// The same within a time, since the system's resolver has no deadline that can be set: a thread of its own
    /// waits for it, and is left behind when the time is over.
    ///
    /// # Errors
    ///
    /// Those of [`resolve`](Self::resolve), and no answer in time.
    pub fn resolve_within(&self, time: Duration) -> io::Result<Vec<SocketAddr>> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let asked = self.clone();
        let thread = std::thread::Builder::new().name("resolve".to_owned());
        let started = thread.spawn(move || {
            // Nobody waits any more after the deadline.
            let _ = sender.send(asked.resolve());
        });
        started.map_err(|error| {
            let why = format!("cannot start the thread that resolves {}: {error}", self.host);
            io::Error::new(error.kind(), why)
        })?;
        receiver.recv_timeout(time).unwrap_or_else(|_| {
            let within = crate::show_time(time);
            let why = format!("cannot resolve {}: no answer within {within}", self.host);
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }

    /// The value of the `Host` header: the host, and the port where it is not the scheme's own. The zone of an IPv6
    /// address means nothing to the other side, and is left out; a Unix socket is `localhost`.
    pub fn authority(&self) -> String {
        if self.socket.is_some() {
            return "localhost".to_owned();
        }
        let host = self.host.split('%').next().unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self.scheme.default_port() {
            Some(port) if port == self.port => host,
            _ => format!("{host}:{}", self.port),
        }
    }

    /// The Unix socket, where the URL names one.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, path, .. } = self;
        f.write_str(scheme.as_str())?;
        if let Some(socket) = &self.socket {
            let socket = socket.as_os_str().as_encoded_bytes();
            let (mut shown, socket) = match socket.strip_prefix(&[0]) {
                Some(name) => (":@".to_owned(), name),
                None => ("://".to_owned(), socket),
            };
            for byte in socket {
                match byte {
                    b'%' | b'#' | b'?' | b':' => encode(&mut shown, *byte),
                    b'!'..=b'~' => shown.push(*byte as char),
                    _ => encode(&mut shown, *byte),
                }
            }
            let colon = if scheme.has_path() && path != "/" { ":" } else { "" };
            let path = if colon.is_empty() { "" } else { path };
            return write!(f, "{shown}{colon}{path}");
        }
        f.write_str("://")?;
        match host.split_once('%') {
            // A zone that itself begins with 25 would be read as one without.
            Some((address, zone)) if zone.len() > 2 && zone.starts_with("25") => {
                write!(f, "[{address}%25{zone}]:{port}{path}")
            }
            _ if host.contains(':') => write!(f, "[{host}]:{port}{path}"),
            _ => write!(f, "{host}:{port}{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn urls_are_read_and_shown() {
        for text in [
            "tcp://127.0.0.1:5000",
            "udp://[::1]:53",
            "http://localhost:80/",
            "http://h:8080/a?b=c",
            "tcp://h:0",
            "tls://h:443",
            "https://h:443/",
            "wss://h:9/chat",
            "ws://h:80/?a",
            "unix:///run/x.sock",
            "http+unix:///run/x.sock",
            "http+unix:///run/x.sock:/status?a=b",
            "tcp://[fe80::1%eth0]:5000",
            "tcp://[fe80::1%25]:5000",
            "tcp://[fe80::1%2525a]:5000",
            "unix:///run/a%20b%3A.sock",
            "ws+unix:///run/x.sock:/chat",
            "unix:@name",
            "http+unix:@na%3Ame:/status",
        ] {
            assert_eq!(url(text).to_string(), text);
        }
    }

    #[test]
    fn what_can_be_left_out_is_filled_in() {
        for (text, shown) in [
            ("http://h", "http://h:80/"),
            ("HTTP://h/", "http://h:80/"),
            ("Tcp://h:1", "tcp://h:1"),
            ("http://h:/", "http://h:80/"),
            ("http://h?q=1", "http://h:80/?q=1"),
            ("http://h?next=/home", "http://h:80/?next=/home"),
            ("https://h", "https://h:443/"),
            ("ws://h:8080", "ws://h:8080/"),
            ("tcp://h:080", "tcp://h:80"),
            ("tcp://h:1/", "tcp://h:1"),
            ("http+unix://%2Frun%2Fx.sock/status", "http+unix:///run/x.sock:/status"),
            ("http+unix://%2Frun%2Fx.sock?q", "http+unix:///run/x.sock:/?q"),
            ("http+unix:///run/x.sock:/", "http+unix:///run/x.sock"),
            ("UNIX:///run/x.sock", "unix:///run/x.sock"),
            ("unix:/run/x.sock", "unix:///run/x.sock"),
            ("http+unix:/run/x.sock:/a", "http+unix:///run/x.sock:/a"),
            ("unix://@name", "unix:@name"),
            ("http+unix:@name:/", "http+unix:@name"),
        ] {
            assert_eq!(url(text).to_string(), shown, "{text}");
        }
        assert_eq!(url("unix:///a%20b").socket(), Some(Path::new("/a b")));
    }

    #[test]
    fn a_path_is_sent_as_a_request_line_may_hold_it() {
        for (text, path) in [
            ("http://h/a#part", "/a"),
            ("http://h/#/route", "/"),
            ("http://h#x", "/"),
            ("http://h?a#?b", "/?a"),
            ("http://h/a b", "/a%20b"),
            ("http://h/é", "/%C3%A9"),
            ("http://h/%20%zz", "/%20%zz"),
            ("http://h/?a[]={\"b\"}", "/?a[]=%7B%22b%22%7D"),
            ("http://h/a\u{a0}b", "/a%C2%A0b"),
            ("http://h//x/../y", "//x/../y"),
            ("http+unix:///s:/a b", "/a%20b"),
        ] {
            assert_eq!(url(text).path, path, "{text}");
        }
        for text in ["http://h/a\r\nX-Evil: 1", "http://h/\0", "http://h/\t", "http://h/\x7f", "tcp://h:1\n"]
        {
            let said = text.parse::<Url>().unwrap_err().to_string();
            assert!(said.contains("control character"), "{said}");
            assert!(!said.contains(|c: char| c.is_control()), "{said:?}");
        }
    }

    #[test]
    fn a_zone_is_for_this_side_only() {
        for (text, host, authority) in [
            ("http://[fe80::1%eth0]/", "fe80::1%eth0", "[fe80::1]"),
            ("http://[fe80::1%25eth0]:8080/", "fe80::1%eth0", "[fe80::1]:8080"),
            ("http://[fe80::1%25]:8080/", "fe80::1%25", "[fe80::1]:8080"),
            ("http://[::1]/", "::1", "[::1]"),
            ("https://h:443", "h", "h"),
            ("https://h:80", "h", "h:80"),
            ("http://LOCALHOST:81", "LOCALHOST", "LOCALHOST:81"),
            ("http+unix:///run/x.sock", "", "localhost"),
        ] {
            let url = url(text);
            assert_eq!((url.host.as_str(), url.authority().as_str()), (host, authority), "{text}");
        }
        let found = url("tcp://[fe80::1%lo]:5000").resolve().unwrap();
        assert!(matches!(found[..], [SocketAddr::V6(address)] if address.scope_id() > 0), "{found:?}");
        assert_eq!(found, url("tcp://[fe80::1%25lo]:5000").resolve().unwrap());
    }

    #[test]
    fn what_is_no_url_is_told_what_to_write() {
        for (text, says) in [
            ("", "write it like tcp://"),
            ("127.0.0.1:5000", "write it like tcp://"),
            ("ftp://h:1", "tcp://, udp:// or http://"),
            (" http://h", "tcp://, udp:// or http://"),
            ("tcp://h", "no port"),
            ("tcp://h:", "no port"),
            ("tcp://:1", "no host"),
            ("http://", "no host"),
            ("http:///a", "no host"),
            ("http://?a", "no host"),
            ("tcp://h:70000", "port"),
            ("tcp://h:+80", "port"),
            ("tcp://h: 80", "port"),
            ("tcp://::1:5", "in brackets"),
            ("tcp://[::1:5", "ends with `]`"),
            ("tcp://[x]:5", "not an IPv6 address"),
            ("tcp://[127.0.0.1]:5", "not an IPv6 address"),
            ("tcp://[::1]5", "only a port"),
            ("tcp://[fe80::1%]:5", "interface"),
            ("tcp://[fe80::1%a b]:5", "interface"),
            ("tcp://h:1/x", "has a path"),
            ("tcp://h:1?x", "has a path"),
            ("http://u:p@h/", "user name or password"),
            ("http://u@h/", "user name or password"),
            ("http://é/", "xn--"),
            ("http://a b/", "neither a name nor an address"),
            ("http://%31/", "neither a name nor an address"),
            ("unix://run/x.sock", "from the root"),
            ("unix:///", "names no socket"),
            ("unix://", "from the root"),
            ("http+unix://", "names no socket"),
            ("http+unix://run/x", "names no socket"),
            ("unix:///run/%zz", "hexadecimal"),
            ("unix:///run/%2", "hexadecimal"),
            ("unix:///run/%00", "107 bytes"),
            ("unix:@", "107 bytes"),
            ("xunix:/run/x.sock", "tcp://, udp:// or http://"),
            ("unix:run/x.sock", "from the root"),
        ] {
            let said = text.parse::<Url>().expect_err(text).to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
        let long = format!("unix:///{}", "x".repeat(107));
        assert!(long.parse::<Url>().unwrap_err().to_string().contains("107 bytes"));
        assert!(url(&long[..long.len() - 1]).socket().is_some());
    }

    /// A small generator of texts, so that every text that is read is shown in a form that is read as the same.
    #[test]
    fn what_is_shown_is_read_as_the_same() {
        let pieces = [
            "http",
            "tcp",
            "unix",
            "http+unix",
            "://",
            "/",
            "?",
            "#",
            "[",
            "]",
            "::1",
            "%",
            "%25",
            "eth0",
            ":",
            "80",
            "h",
            ".",
            "a b",
            "é",
            "@",
            "%2F",
            "25",
            "x.sock",
            "{",
            "\n",
        ];
        let mut state = 1u64;
        let mut read = 0;
        for _ in 0..200_000 {
            let mut text =
                ["http://", "tcp://", "unix:/", "http+unix:@"][(state >> 60) as usize % 4].to_owned();
            for _ in 0..(state >> 40) % 7 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text += pieces[(state >> 33) as usize % pieces.len()];
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if let Ok(url) = text.parse::<Url>() {
                read += 1;
                let shown = url.to_string();
                assert_eq!(shown.parse::<Url>().as_ref(), Ok(&url), "{text} {shown}");
                assert!(url.path.bytes().all(|byte| byte.is_ascii_graphic()), "{text}: {}", url.path);
            }
        }
        assert!(read > 10_000, "{read}");
    }
}
