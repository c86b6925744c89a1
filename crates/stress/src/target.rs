//! The target of a run: one of the addresses of a host, or a Unix socket.

use super::error::Error;
use super::source::Sources;
use super::wire::Wire;
use rustix::net::{AddressFamily, SocketAddrUnix};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;
use tidegate_units::url::{Scheme, Url};

/// The least time that the system's resolver has: name servers are asked again after some seconds.
const RESOLVE: Duration = Duration::from_secs(10);

/// Where requests go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// An address and port.
    Inet(SocketAddr),
    /// A socket in the file system: its path, and the same for the kernel.
    Unix(PathBuf, Box<SocketAddrUnix>),
}

impl Target {
    /// The target of a URL. Of several addresses it is the first that answers, or else the last; each is tried for its
    /// share of `timeout`, and with one there is nothing to try.
    pub(crate) fn of(
        url: &Url,
        sources: Option<&Sources>,
        timeout: Duration,
        wire: &Wire,
    ) -> Result<Self, Error> {
        if let Some(path) = url.socket() {
            let address = SocketAddrUnix::new(path)
                .map_err(|error| Error::usage(format!("{url}: {}", io::Error::from(error))))?;
            return Ok(Target::Unix(path.to_owned(), Box::new(address)));
        }
        if url.port == 0 {
            return Err(Error::usage(format!("{url}: port 0 is no target")));
        }
        let resolved = url.resolve_within(timeout.max(RESOLVE));
        let mut addresses = resolved.map_err(|error| Error::failed(error.to_string()))?;
        addresses.retain(|address| sources.is_none_or(|sources| sources.reaches(address.ip())));
        let share = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let found = match url.scheme {
            Scheme::Udp => first_that_hears(&addresses, share, wire.request(0)),
            _ => first_that_listens(&addresses, share),
        };
        let none = || Error::failed(format!("{} has no address of the kind of --source-ip", url.host));
        found.map(Target::Inet).ok_or_else(none)
    }

    /// The family of its sockets.
    pub(crate) fn family(&self) -> AddressFamily {
        match self {
            Target::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
            Target::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
            Target::Unix(..) => AddressFamily::UNIX,
        }
    }

    /// Whether these addresses can reach it.
    pub(crate) fn is_reached_by(&self, sources: &Sources) -> bool {
        matches!(self, Target::Inet(address) if sources.reaches(address.ip()))
    }

    /// Whether it is a Unix socket.
    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Target::Unix(..))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Inet(address) => address.fmt(f),
            Target::Unix(path, _) => path.display().fmt(f),
        }
    }
}

/// Connects to each address but the last, which is taken if no other accepts.
fn first_that_listens(addresses: &[SocketAddr], share: Duration) -> Option<SocketAddr> {
    let (last, others) = addresses.split_last()?;
    let answers = |address: &&SocketAddr| TcpStream::connect_timeout(address, share).is_ok();
    Some(*others.iter().find(answers).unwrap_or(last))
}

/// Sends each address one datagram, the first request. The first address that answers is taken. If none does, an address
/// that stays silent is taken before one that says that nothing listens there.
fn first_that_hears(addresses: &[SocketAddr], share: Duration, request: &[u8]) -> Option<SocketAddr> {
    if let [only] = addresses {
        return Some(*only);
    }
    let mut silent = None;
    for address in addresses {
        match ask(*address, share, request) {
            Ok(()) => return Some(*address),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                silent.get_or_insert(*address);
            }
            Err(_) => {}
        }
    }
    silent.or_else(|| addresses.last().copied())
}

fn ask(address: SocketAddr, share: Duration, request: &[u8]) -> io::Result<()> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(share.max(Duration::from_millis(1))))?;
    socket.send(request)?;
    socket.recv(&mut [0; 1]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn of_several_addresses_the_first_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let share = Duration::from_secs(1);
        assert_eq!(first_that_listens(&[closed, good], share), Some(good));
        assert_eq!(first_that_listens(&[good, closed], share), Some(good));
        assert_eq!(first_that_listens(&[closed], share), Some(closed));
        assert_eq!(first_that_listens(&[], share), None);
    }

    #[test]
    fn of_several_addresses_the_first_whose_datagrams_are_answered_is_taken() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let quiet = silent.local_addr().unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let good = server.local_addr().unwrap();
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            for _ in 0..2 {
                let (n, peer) = server.recv_from(&mut buffer).unwrap();
                server.send_to(&buffer[..n], peer).unwrap();
            }
        });
        let share = Duration::from_millis(100);
        assert_eq!(first_that_hears(&[closed, quiet, good], Duration::from_secs(1), b"x"), Some(good));
        assert_eq!(first_that_hears(&[good, closed], share, b"x"), Some(good));
        echo.join().unwrap();
        assert_eq!(first_that_hears(&[closed, quiet], share, b"x"), Some(quiet));
        assert_eq!(first_that_hears(&[quiet, closed], share, b"x"), Some(quiet));
        assert_eq!(first_that_hears(&[closed, closed], share, b"x"), Some(closed));
        assert_eq!(first_that_hears(&[closed], share, b"x"), Some(closed));
    }
}
