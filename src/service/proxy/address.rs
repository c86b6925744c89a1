//! Where backends are: their names, as a person writes them, and the addresses that a socket connects to.

use crate::transport::address::{Address, UnixName};
use crate::transport::tls::{BackendTlsName, ToBackends};
use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;

/// A backend as a person names it: `host:port`, `unix:/path`, or `unix:@name` for an abstract socket of Linux.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendName(Named);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Named {
    Host { host: String, port: u16 },
    Unix(UnixName),
}

/// One address at which a backend can be reached. Two are equal that lead to the same socket: that is one backend, whatever is
/// spoken there, and whatever names lead to it.
#[derive(Clone, Debug)]
pub(crate) enum BackendAddress {
    Tcp(SocketAddr),
    /// Shared, since each place at the backend has it.
    Unix(Arc<UnixName>),
    /// The backend speaks TLS.
    Tls(Arc<TlsTarget>),
}

/// Where a backend is that speaks TLS, and who it must prove to be.
#[derive(Debug)]
pub(crate) struct TlsTarget {
    pub(crate) socket: BackendAddress,
    pub(crate) name: BackendTlsName,
    pub(crate) setup: Arc<ToBackends>,
}

impl PartialEq for BackendAddress {
    fn eq(&self, other: &Self) -> bool {
        match (self.socket(), other.socket()) {
            (BackendAddress::Tcp(one), BackendAddress::Tcp(other)) => one == other,
            (BackendAddress::Unix(one), BackendAddress::Unix(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for BackendAddress {}

/// The error for a text that is no backend's name: one line that says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a backend: {why}")]
pub struct BackendNameError {
    text: String,
    why: Cow<'static, str>,
}

impl FromStr for BackendName {
    type Err = BackendNameError;

    fn from_str(text: &str) -> Result<Self, BackendNameError> {
        if let Some(name) = text.strip_prefix("unix:") {
            let name = UnixName::parse(name)
                .map_err(|why| BackendNameError { text: text.to_owned(), why: why.to_string().into() })?;
            return Ok(Self(Named::Unix(name)));
        }
        let error = |why| BackendNameError { text: text.to_owned(), why: Cow::Borrowed(why) };
        let text = text.strip_prefix("tcp://").unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or_else(|| {
            error(match text.is_empty() || text.bytes().all(|byte| byte.is_ascii_digit()) {
                true => "write it like 127.0.0.1:8000",
                false => "it has no port: write it like 127.0.0.1:8000",
            })
        })?;
        if port.contains('/') {
            return Err(error("a backend has no path: write it like 127.0.0.1:8000"));
        }
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let ip = rest.strip_suffix(']').ok_or_else(|| error("an IPv6 address ends with `]`"))?;
                if ip.split('%').next().is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err()) {
                    return Err(error("what is in [ ] is not an IPv6 address"));
                }
                ip
            }
            None if host.contains(':') => {
                return Err(error("write an IPv6 address in brackets: [::1]:8000"));
            }
            None => host,
        };
        let strange = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '/' | '[' | ']');
        if host.is_empty() || host.contains(strange) {
            return Err(error("its host is neither a name nor an address"));
        }
        let port: u16 = port.parse().map_err(|_| error("its port is not a number from 1 to 65535"))?;
        if port == 0 {
            return Err(error("its port is not a number from 1 to 65535"));
        }
        Ok(Self(Named::Host { host: host.to_owned(), port }))
    }
}

impl BackendName {
    /// All addresses that the name has now, at least one; otherwise an error that contains the name. This asks the
    /// system's resolver, which may take minutes.
    pub(crate) fn resolve(&self) -> io::Result<Vec<BackendAddress>> {
        let (host, port) = match &self.0 {
            Named::Unix(name) => return Ok(vec![BackendAddress::Unix(Arc::new(*name))]),
            Named::Host { host, port } => (host.as_str(), *port),
        };
        let named =
            |why: String| io::Error::new(io::ErrorKind::NotFound, format!("cannot resolve {host}: {why}"));
        let mut found = Vec::new();
        for address in (host, port).to_socket_addrs().map_err(|error| named(error.to_string()))? {
            let address = BackendAddress::Tcp(address);
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() { Err(named("it has no address".to_owned())) } else { Ok(found) }
    }

    /// The same addresses, of backends that speak TLS.
    pub(crate) fn resolve_tls(&self, setup: &Arc<ToBackends>) -> io::Result<Vec<BackendAddress>> {
        let name = self.tls_name(setup).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let target = |socket| TlsTarget { socket, name: name.clone(), setup: setup.clone() };
        Ok(self.resolve()?.into_iter().map(target).map(Arc::new).map(BackendAddress::Tls).collect())
    }

    /// The name that its certificate must be for.
    fn tls_name(&self, setup: &ToBackends) -> Result<BackendTlsName, String> {
        setup.name(match &self.0 {
            Named::Host { host, .. } => Some(host),
            Named::Unix(_) => None,
        })
    }

    /// Whether its addresses can change: true for a host name, false for an address or a Unix socket.
    pub(crate) fn is_resolved_again(&self) -> bool {
        match &self.0 {
            Named::Host { host, .. } => !host.contains(':') && host.parse::<IpAddr>().is_err(),
            Named::Unix(_) => false,
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Named::Host { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Named::Host { host, port } => write!(f, "{host}:{port}"),
            Named::Unix(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddress::Tcp(address) => address.fmt(f),
            BackendAddress::Unix(name) => name.fmt(f),
            BackendAddress::Tls(target) => target.socket.fmt(f),
        }
    }
}

impl BackendAddress {
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.socket(), BackendAddress::Tcp(_))
    }

    /// The address of the socket.
    fn socket(&self) -> &Self {
        match self {
            BackendAddress::Tls(target) => &target.socket,
            plain => plain,
        }
    }

    /// The address of the socket, as listeners have theirs.
    pub(super) fn to_address(&self) -> Address {
        match self {
            BackendAddress::Tcp(address) => Address::Ip(*address),
            BackendAddress::Unix(name) => Address::Unix(**name),
            BackendAddress::Tls(target) => target.socket.to_address(),
        }
    }

    /// How the backend speaks TLS, if it does.
    pub(crate) fn tls(&self) -> Option<&TlsTarget> {
        match self {
            BackendAddress::Tls(target) => Some(target),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_read_and_shown_as_they_are_written() {
        for text in [
            "127.0.0.1:8000",
            "[::1]:8000",
            "[fe80::1%lo]:80",
            "backend.example:5432",
            "unix:/run/gunicorn.sock",
            "unix:relative.sock",
            #[cfg(target_os = "linux")]
            "unix:@name",
        ] {
            let name: BackendName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.is_resolved_again(), text.starts_with("backend"), "{text}");
        }
        let shown = |text: &str| text.parse::<BackendName>().unwrap().to_string();
        assert_eq!(shown("tcp://127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(shown("unix:///run/x.sock"), "unix:/run/x.sock");
    }

    #[test]
    fn what_is_no_backend_is_one_line_that_says_what_to_write() {
        let long = format!("unix:/{}", "x".repeat(120));
        for text in [
            "",
            "8000",
            ":8000",
            "h:",
            "h:0",
            "h:70000",
            "::1:80",
            "[::1:80",
            "[x]:80",
            "http://h:80",
            "h/x:80",
            "a b:80",
            "unix:",
            "unix:@",
            "unix:/a\0b",
            &long,
        ] {
            let error = text.parse::<BackendName>().unwrap_err().to_string();
            assert!(error.contains(" is not a backend: ") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_name_has_addresses_and_each_is_a_backend() {
        let resolve = |text: &str| text.parse::<BackendName>().unwrap().resolve();
        assert_eq!(resolve("127.0.0.1:80").unwrap()[0].to_string(), "127.0.0.1:80");
        assert_eq!(resolve("unix:/x").unwrap()[0].to_string(), "unix:/x");
        let all = resolve("localhost:80").unwrap();
        assert!(all.iter().all(|address| matches!(address, BackendAddress::Tcp(_))));
        assert!(all.iter().enumerate().all(|(at, address)| !all[..at].contains(address)), "each once");
        let error = resolve("nowhere.invalid:80").unwrap_err().to_string();
        assert!(error.starts_with("cannot resolve nowhere.invalid: "), "{error}");
    }
}
