//! Where a server is: `tcp://host:port`, `udp://host:port`, `http://host[:port][/path]`.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// A stream of bytes.
    Tcp,
    /// Datagrams.
    Udp,
    /// HTTP/1.1 requests over TCP.
    Http,
}

impl Scheme {
    /// The word before `://`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Tcp => "tcp",
            Scheme::Udp => "udp",
            Scheme::Http => "http",
        }
    }
}

/// A parsed URL; the host is not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Url {
    /// What is spoken there.
    pub scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path and query of an `http` URL, beginning with `/`; empty for others.
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
        let error = |why| UrlError { text: text.to_owned(), why };
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| error("write it like tcp://127.0.0.1:5000"))?;
        let scheme = match scheme {
            "tcp" => Scheme::Tcp,
            "udp" => Scheme::Udp,
            "http" => Scheme::Http,
            _ => return Err(error("it must begin with tcp://, udp:// or http://")),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if scheme != Scheme::Http && !path.is_empty() && path != "/" {
            return Err(error("only http:// has a path"));
        }
        let path = match scheme {
            Scheme::Http if path.is_empty() => "/".to_owned(),
            Scheme::Http => path.to_owned(),
            _ => String::new(),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) =
                    rest.split_once(']').ok_or_else(|| error("an IPv6 address ends with `]`"))?;
                let valid = host.split('%').next().is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
                if !valid {
                    return Err(error("what is in [ ] is not an IPv6 address"));
                }
                (host, port.strip_prefix(':'))
            }
            None => match authority.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(error("write an IPv6 address in brackets: [::1]:5000"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err(error("it has no host"));
        }
        let port = match (port, scheme) {
            (Some(port), _) => port.parse().map_err(|_| error("its port is not a number from 0 to 65535"))?,
            (None, Scheme::Http) => 80,
            (None, _) => return Err(error("it has no port")),
        };
        Ok(Self { scheme, host: host.to_owned(), port, path })
    }
}

impl Url {
    /// All addresses the host has, at least one.
    ///
    /// # Errors
    ///
    /// The host has no address, or the resolver cannot tell; the error names the host.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let named = |why: String| {
            io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {}: {why}", self.host))
        };
        let found: Vec<_> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| named(error.to_string()))?
            .collect();
        if found.is_empty() { Err(named("it has no address".to_owned())) } else { Ok(found) }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, path } = self;
        if host.contains(':') {
            write!(f, "{}://[{host}]:{port}{path}", scheme.as_str())
        } else {
            write!(f, "{}://{host}:{port}{path}", scheme.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        for text in [
            "tcp://127.0.0.1:5000",
            "udp://[::1]:53",
            "http://localhost:80/",
            "http://h:8080/a?b=c",
            "tcp://h:0",
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), text);
        }
        assert_eq!("http://h".parse::<Url>().unwrap().to_string(), "http://h:80/");
        for text in [
            "",
            "127.0.0.1:5000",
            "ftp://h:1",
            "tcp://h",
            "tcp://:1",
            "tcp://h:70000",
            "tcp://::1:5",
            "tcp://[::1:5",
            "tcp://[x]:5",
            "tcp://h:1/x",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
