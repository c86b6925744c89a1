//! Addresses: where a listener or a backend is, and who a client is.

use rustix::net::SocketAddrUnix;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where a listener is.
///
/// ```
/// use tidegate::Address;
///
/// let address = Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], 5000)));
/// assert_eq!((address.to_string().as_str(), address.ip().unwrap().port()), ("127.0.0.1:5000", 5000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An internet address and a port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(UnixName),
}

impl Address {
    /// The internet address and port; `None` of a Unix socket.
    pub const fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The name of the Unix socket, if it is one.
    pub const fn unix(&self) -> Option<&UnixName> {
        match self {
            Address::Ip(_) => None,
            Address::Unix(name) => Some(name),
        }
    }

    /// Whether it is a Unix socket.
    pub(crate) const fn is_unix(&self) -> bool {
        matches!(self, Address::Unix(_))
    }

    /// The URL of a service at this address whose protocol has this scheme over TCP: with `http`, `http://127.0.0.1:80`
    /// or `http+unix:///run/x.sock`.
    pub(crate) fn url(&self, scheme: &str) -> String {
        match self {
            Address::Ip(address) => format!("{scheme}://{address}"),
            Address::Unix(name) => {
                let prefix = if scheme == "tcp" { String::new() } else { format!("{scheme}+") };
                match name.as_path() {
                    Some(path) => format!("{prefix}unix://{}", path.display()),
                    None => format!("{prefix}{name}"),
                }
            }
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

impl From<UnixName> for Address {
    fn from(name: UnixName) -> Self {
        Address::Unix(name)
    }
}

impl PartialEq<SocketAddr> for Address {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.ip() == Some(*other)
    }
}

/// A Unix socket has no socket addresses: connecting to one by this fails.
impl ToSocketAddrs for Address {
    type Iter = std::option::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.ip().into_iter())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(name) => name.fmt(f),
        }
    }
}

/// What names a Unix socket: a path, or on Linux an abstract name, which is no file. It is shown as `unix:/run/x.sock` or
/// `unix:@name`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnixName {
    len: u8,
    /// As the kernel has it: an abstract name begins with a zero. Zeros follow it.
    bytes: [u8; UnixName::ROOM],
}

/// Why a text or a path names no Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnixNameError {
    /// It is empty.
    #[error("it names no socket: write the path of one, like unix:/run/server.sock")]
    Empty,
    /// It is longer than the kernel allows, or has a zero byte.
    #[error("its path is longer than a socket's can be ({most} bytes), or has a zero byte", most = UnixName::BYTES_MAX)]
    Unfit,
    /// An abstract name on a system that has none.
    #[error("only Linux has abstract sockets")]
    NotHere,
}

impl UnixName {
    /// What a socket address has room for.
    const ROOM: usize = if cfg!(target_os = "linux") { 108 } else { 104 };
    /// The longest path or name, in bytes: a path ends with a zero, an abstract name begins with one.
    pub const BYTES_MAX: usize = Self::ROOM - 1;

    /// The socket at a path.
    ///
    /// # Errors
    ///
    /// The path is empty, has a zero byte, or has more than [`BYTES_MAX`](Self::BYTES_MAX) bytes.
    pub fn path(path: impl AsRef<Path>) -> Result<Self, UnixNameError> {
        let path = path.as_ref().as_os_str().as_bytes();
        if path.is_empty() { Err(UnixNameError::Empty) } else { Self::filled(&[], path) }
    }

    /// The abstract socket of this name, which no file stands for: whoever runs on this machine, in the same network
    /// namespace, can connect to it. Linux alone has them.
    ///
    /// # Errors
    ///
    /// The name is empty, has a zero byte, or has more than [`BYTES_MAX`](Self::BYTES_MAX) bytes; the system has no
    /// abstract sockets.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Result<Self, UnixNameError> {
        match name.as_ref() {
            [] => Err(UnixNameError::Empty),
            _ if cfg!(not(target_os = "linux")) => Err(UnixNameError::NotHere),
            name => Self::filled(&[0], name),
        }
    }

    /// Reads what a person writes behind `unix:`: a path, with or without two slashes before it, or `@name`.
    pub(crate) fn parse(text: &str) -> Result<Self, UnixNameError> {
        let text = text.strip_prefix("//").unwrap_or(text);
        match text.strip_prefix('@') {
            Some(name) => Self::abstract_name(name),
            None => Self::path(text),
        }
    }

    fn filled(first: &[u8], rest: &[u8]) -> Result<Self, UnixNameError> {
        let len = first.len() + rest.len();
        let most = if first.is_empty() { Self::BYTES_MAX } else { Self::ROOM };
        if len > most || rest.contains(&0) {
            return Err(UnixNameError::Unfit);
        }
        let mut bytes = [0; Self::ROOM];
        bytes[..first.len()].copy_from_slice(first);
        bytes[first.len()..len].copy_from_slice(rest);
        Ok(Self { len: len as u8, bytes })
    }

    /// The path; `None` of an abstract name.
    pub fn as_path(&self) -> Option<&Path> {
        match self.bytes() {
            [0, ..] => None,
            path => Some(Path::new(OsStr::from_bytes(path))),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The name as the kernel takes it.
    pub(crate) fn to_kernel(self) -> rustix::io::Result<SocketAddrUnix> {
        match self.bytes() {
            #[cfg(target_os = "linux")]
            [0, name @ ..] => SocketAddrUnix::new_abstract_name(name),
            path => SocketAddrUnix::new(path),
        }
    }

    /// The name that the kernel gives; `None` of a socket without one.
    pub(crate) fn of_kernel(name: &SocketAddrUnix) -> Option<Self> {
        #[cfg(target_os = "linux")]
        if let Some(name) = name.abstract_name() {
            return Self::abstract_name(name).ok();
        }
        Self::path(OsStr::from_bytes(name.path()?.to_bytes())).ok()
    }
}

impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes() {
            [0, name @ ..] => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
            path => write!(f, "unix:{}", String::from_utf8_lossy(path)),
        }
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixName({self})")
    }
}

/// The client of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAddress {
    /// It came over the network, or a balancer says that it did.
    Ip(SocketAddr),
    /// It came over a Unix socket.
    Unix(UnixClient),
}

// It is kept for each connection: no larger than the address of a client that came over the network.
const _: () = assert!(size_of::<ClientAddress>() == size_of::<SocketAddr>());

/// A client that came over a Unix socket, as the kernel knew it when it connected. It is shown as `uid=1000,pid=77`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct UnixClient {
    /// The user that it ran as; `None` where the system does not tell.
    pub uid: Option<u32>,
    /// Its process; `None` where the system does not tell, or where the process is not in this namespace.
    pub pid: Option<u32>,
}

impl ClientAddress {
    /// The internet address; `None` of a client of a Unix socket.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            ClientAddress::Ip(address) => Some(address.ip()),
            ClientAddress::Unix(_) => None,
        }
    }

    /// The internet address and port; `None` of a client of a Unix socket.
    pub const fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            ClientAddress::Ip(address) => Some(*address),
            ClientAddress::Unix(_) => None,
        }
    }

    /// The client of a Unix socket, if it is one.
    pub const fn unix(&self) -> Option<UnixClient> {
        match self {
            ClientAddress::Ip(_) => None,
            ClientAddress::Unix(client) => Some(*client),
        }
    }

    /// What it counts as where clients are told apart by their source.
    pub(crate) const fn source(&self) -> SourceAddress {
        match self {
            ClientAddress::Ip(address) => SourceAddress::Ip(address.ip()),
            ClientAddress::Unix(client) => SourceAddress::User(client.uid),
        }
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        ClientAddress::Ip(address)
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddress::Ip(address) => address.fmt(f),
            ClientAddress::Unix(client) => write!(f, "unix:{client}"),
        }
    }
}

impl fmt::Display for UnixClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => write!(f, "uid={uid},pid={pid}"),
            (Some(uid), None) => write!(f, "uid={uid}"),
            (None, Some(pid)) => write!(f, "pid={pid}"),
            (None, None) => f.write_str("?"),
        }
    }
}

/// What tells sources apart: an internet address, or the user that a client of a Unix socket ran as. It is shown as the
/// address, or as `unix:uid=1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SourceAddress {
    Ip(IpAddr),
    /// All whose user is unknown are one.
    User(Option<u32>),
}

impl<I: Into<IpAddr>> From<I> for SourceAddress {
    fn from(address: I) -> Self {
        SourceAddress::Ip(address.into())
    }
}

impl SourceAddress {
    /// A user as a number with the size of an IPv6 address which is none of any client: it is one of a group, and groups
    /// send nothing. It differs from the addresses of clients in its first eight bits.
    pub(crate) fn user_number(uid: Option<u32>) -> u128 {
        u128::MAX << 33 | uid.map_or(1 << 32, u128::from)
    }
}

impl fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceAddress::Ip(address) => address.fmt(f),
            SourceAddress::User(uid) => ClientAddress::Unix(UnixClient { uid: *uid, pid: None }).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_sockets_are_read_and_shown_as_they_are_written() {
        for text in [
            "/run/x.sock",
            "relative.sock",
            #[cfg(target_os = "linux")]
            "@name",
        ] {
            let name = UnixName::parse(text).unwrap();
            assert_eq!(name.to_string(), format!("unix:{text}"));
            assert_eq!(UnixName::of_kernel(&name.to_kernel().unwrap()), Some(name));
        }
        assert_eq!(UnixName::parse("///run/x.sock"), UnixName::path("/run/x.sock"));
        let urls = |text: &str| {
            let address = Address::from(UnixName::parse(text).unwrap());
            ["tcp", "http", "ws"].map(|scheme| address.url(scheme))
        };
        assert_eq!(urls("/a.sock"), ["unix:///a.sock", "http+unix:///a.sock", "ws+unix:///a.sock"]);
        #[cfg(target_os = "linux")]
        assert_eq!(urls("@a"), ["unix:@a", "http+unix:@a", "ws+unix:@a"]);
        let ip = Address::from(SocketAddr::from(([127, 0, 0, 1], 80)));
        assert_eq!(
            (ip.url("tcp"), ip.url("https")),
            ("tcp://127.0.0.1:80".into(), "https://127.0.0.1:80".into())
        );
    }

    #[test]
    fn a_name_has_room_for_what_the_kernel_takes_and_no_more() {
        let longest = "x".repeat(UnixName::BYTES_MAX);
        assert_eq!(UnixName::path(&longest).unwrap().as_path(), Some(Path::new(&longest)));
        for text in [format!("{longest}x"), "a\0b".to_owned()] {
            assert_eq!(UnixName::parse(&text), Err(UnixNameError::Unfit));
            assert_eq!(UnixName::parse(&format!("@{text}")), Err(UnixNameError::Unfit));
        }
        assert!(["", "//", "@"].iter().all(|text| UnixName::parse(text) == Err(UnixNameError::Empty)));
        #[cfg(target_os = "linux")]
        {
            let name = UnixName::parse(&format!("@{longest}")).unwrap();
            assert!(name.as_path().is_none() && name.to_kernel().is_ok());
        }
    }

    #[test]
    fn clients_are_shown_and_users_are_sources_apart_from_all_addresses() {
        let ip = ClientAddress::from(SocketAddr::from(([10, 0, 0, 1], 9)));
        assert_eq!((ip.to_string(), ip.source().to_string()), ("10.0.0.1:9".into(), "10.0.0.1".into()));
        assert_eq!((ip.unix(), ip.ip()), (None, Some([10, 0, 0, 1].into())));
        let unix = |uid, pid| ClientAddress::Unix(UnixClient { uid, pid });
        for (uid, pid, shown, source) in [
            (Some(1000), Some(7), "unix:uid=1000,pid=7", "unix:uid=1000"),
            (Some(0), None, "unix:uid=0", "unix:uid=0"),
            (None, Some(7), "unix:pid=7", "unix:?"),
            (None, None, "unix:?", "unix:?"),
        ] {
            assert_eq!(unix(uid, pid).to_string(), shown);
            assert_eq!(unix(uid, pid).source().to_string(), source);
        }
        let numbers = [Some(0), Some(1000), Some(u32::MAX), None].map(SourceAddress::user_number);
        assert!(numbers.iter().all(|number| number >> 120 == 0xff));
        assert!(numbers.iter().enumerate().all(|(at, number)| !numbers[..at].contains(number)));
    }
}
