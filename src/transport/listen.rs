//! Sockets that listen: binding them, and closing them without a reset for anybody.
//!
//! One rule says which clients an IPv6 address takes, for every listener and for the admin endpoint. `[::]` takes
//! clients of IPv6 and of IPv4, as most servers do. Where an IPv4 address with the same port is listened on beside it,
//! that one takes the IPv4 clients, and `[::]` those of IPv6 only.

use super::address::{Address, ClientAddress, UnixClient, UnixName};
use super::socket::ClientSocket;
use super::socket_file::{SocketFile, bind_at};
use crate::limits::Limits;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The receive buffer that is asked for: the kernel gives at most `net.core.rmem_max`. About 1,300 small datagrams, what
/// a worker answers in a few milliseconds.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// Whether `address` takes IPv6 clients only, beside the other addresses of the same protocol.
pub(crate) fn ipv6_only(address: SocketAddr, others: impl IntoIterator<Item = SocketAddr>) -> bool {
    let SocketAddr::V6(v6) = address else {
        return false;
    };
    if !v6.ip().is_unspecified() {
        // An IPv4 address in IPv6's form is bound as what it is.
        return v6.ip().to_ipv4_mapped().is_none();
    }
    address.port() != 0
        && others
            .into_iter()
            .any(|other| other.ip().to_canonical().is_ipv4() && other.port() == address.port())
}

/// The address of a client as it is known: that of an IPv4 client which came through an IPv6 socket is IPv4.
pub(crate) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(v6.ip().to_canonical(), v6.port())
        }
        _ => peer,
    }
}

/// A socket that listens for connections.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    /// Removed before the socket is closed.
    file: Option<SocketFile>,
    socket: OwnedFd,
    is_unix: bool,
    /// Another process has it too, and goes on with it after this one.
    is_shared: bool,
}

impl ListenSocket {
    /// Accepts a connection without waiting.
    pub(crate) fn accept(&self) -> io::Result<(ClientSocket, ClientAddress)> {
        let (socket, address) = loop {
            match accept_now(&self.socket) {
                Err(Errno::INTR) => {}
                // A Unix socket that takes no newcomers any more has none left.
                Err(Errno::INVAL) if self.is_unix => return Err(io::ErrorKind::WouldBlock.into()),
                accepted => break accepted?,
            }
        };
        let address = match address {
            Some(address) => canonical(address).into(),
            None => ClientAddress::Unix(client_of(socket.as_fd())),
        };
        Ok((socket.into(), address))
    }

    /// The same socket, for another thread; the file stays with this one.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let Self { is_unix, is_shared, .. } = *self;
        Ok(Self { file: None, socket: self.socket.try_clone()?, is_unix, is_shared })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<Address> {
        address_of(&self.socket)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the socket has no address"))
    }

    /// Removes the file of a Unix socket, so that newcomers find it gone.
    pub(crate) fn remove_file(&mut self) {
        self.file = None;
    }

    /// From now on the file is another process's, which has the same socket. Whether there was one of this process.
    pub(crate) fn leave_file(&mut self) -> bool {
        self.file.take().map(SocketFile::leave).is_some()
    }

    /// Another process has the socket too, and goes on with it after this one.
    pub(crate) fn share(&mut self) {
        self.is_shared = true;
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program replaces itself"))]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether there is a file that this process removes at its end.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program replaces itself"))]
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// The file of the socket is this process's from now on.
    pub(crate) fn take_file(&mut self) -> io::Result<()> {
        if let Address::Unix(name) = self.address()?
            && let Some(path) = name.as_path()
        {
            self.file = Some(SocketFile::at(path)?);
        }
        Ok(())
    }

    /// Whether handshakes that are under way come to their end, and no others begin, after [`take_no_more`](Self::take_no_more).
    pub(crate) fn ends_handshakes(&self) -> bool {
        !self.is_unix && !self.is_shared
    }

    /// From here on no handshake begins: a connection that is completed between the last accept and the close of the socket
    /// would be reset. Over TCP a client that asked asks again, and finds the next server or none; at a Unix socket it is
    /// refused. A socket that another process has too is left as it is: newcomers are for that one.
    pub(crate) fn take_no_more(&self) {
        if self.is_shared {
            return;
        }
        if self.is_unix {
            // What was completed can still be accepted.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Read);
        } else if !ignore_newcomers(&self.socket) {
            // Only then: with a backlog of 0, the kernel also forgets the last step of a handshake that is under way.
            let _ = rustix::net::listen(&self.socket, 0);
        }
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
impl From<OwnedFd> for ListenSocket {
    fn from(socket: OwnedFd) -> Self {
        Self { file: None, socket, is_unix: false, is_shared: false }
    }
}

/// Accepts a connection; the address of one that has come over the network.
#[cfg(not(target_vendor = "apple"))]
fn accept_now(socket: &OwnedFd) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
    use rustix::net::SocketFlags;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (socket, address) = rustix::net::acceptfrom_with(socket, flags)?;
    Ok((socket, address.and_then(|address| SocketAddr::try_from(address).ok())))
}

#[cfg(target_vendor = "apple")]
fn accept_now(socket: &OwnedFd) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    let (socket, address) = socket2::SockRef::from(socket).accept().map_err(errno)?;
    socket.set_nonblocking(true).map_err(errno)?;
    Ok((socket.into(), address.as_socket()))
}

/// The client of a Unix socket.
fn client_of(socket: BorrowedFd<'_>) -> UnixClient {
    let mut client = UnixClient::default();
    if let Some((pid, uid)) = crate::sys::peer_credentials(socket) {
        (client.uid, client.pid) = (Some(uid), Some(pid).filter(|&pid| pid != 0));
    }
    client
}

/// Where a socket is bound, if it is.
pub(crate) fn address_of(socket: impl AsFd) -> Option<Address> {
    let name = rustix::net::getsockname(socket).ok()?;
    if let Ok(address) = SocketAddr::try_from(name.clone()) {
        return Some(address.into());
    }
    let name = rustix::net::SocketAddrUnix::try_from(name).ok()?;
    UnixName::of_kernel(&name).map(Address::Unix)
}

/// Binds a listener for connections at an internet address.
pub(crate) fn bind(
    address: SocketAddr,
    ipv6_only: bool,
    limits: &Limits,
    reuse_address: bool,
) -> io::Result<ListenSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(reuse_address)?;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, so it costs no call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits.backlogs().0 as i32)?;
    Ok(ListenSocket { file: None, socket: socket.into(), is_unix: false, is_shared: false })
}

/// Binds a listener for connections at a Unix socket, whose file has this mode.
pub(crate) fn bind_unix(name: UnixName, limits: &Limits, mode: u32) -> io::Result<ListenSocket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let listen = || socket.listen(limits.backlogs().0 as i32);
    let file = match name.as_path() {
        Some(path) => Some(bind_at(&socket, path, mode, listen)?),
        None => {
            rustix::net::bind(&socket, &name.to_kernel()?)?;
            listen()?;
            None
        }
    };
    Ok(ListenSocket { file, socket: socket.into(), is_unix: true, is_shared: false })
}

/// Binds a datagram socket. Without `SO_REUSEADDR`, which for datagrams lets two servers have the same address and one
/// of them hear nothing.
pub(crate) fn bind_datagrams(address: SocketAddr, ipv6_only: bool, limits: &Limits) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(ipv6_only)?;
    }
    socket.set_nonblocking(true)?;
    // It fails only where a system has a stricter maximum, and then its own size has to do.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER.max(limits.max_datagram));
    if address.ip().is_unspecified() {
        crate::sys::report_local_address(socket.as_fd(), address.is_ipv6())?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Listens for connections on a socket that another process has bound.
pub(crate) fn listen_again(socket: OwnedFd, limits: &Limits) -> io::Result<ListenSocket> {
    let socket = Socket::from(socket);
    if socket.r#type()? != Type::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is not one for connections"));
    }
    socket.set_nonblocking(true)?;
    let is_unix = socket.local_addr()?.is_unix();
    if !is_unix {
        socket.set_tcp_nodelay(true)?;
    }
    socket.listen(limits.backlogs().0 as i32)?;
    Ok(ListenSocket { file: None, socket: socket.into(), is_unix, is_shared: false })
}

/// Receives datagrams on a socket that another process has bound.
pub(crate) fn receive_again(socket: OwnedFd, limits: &Limits) -> io::Result<UdpSocket> {
    let socket = Socket::from(socket);
    if socket.r#type()? != Type::DGRAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is not one for datagrams"));
    }
    socket.set_nonblocking(true)?;
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER.max(limits.max_datagram));
    let address = socket.local_addr()?.as_socket();
    if let Some(address) = address.filter(|address| address.ip().is_unspecified()) {
        crate::sys::report_local_address(socket.as_fd(), address.is_ipv6())?;
    }
    Ok(socket.into())
}

/// Changes how many connections the kernel may hold for accept on a socket that listens already.
pub(crate) fn set_backlog(socket: impl AsFd, backlog: usize) {
    // It fails only for a socket that does not listen any more, where it does not matter.
    let _ = rustix::net::listen(socket, i32::try_from(backlog).unwrap_or(i32::MAX));
}

/// How many connections wait in the kernel for accept; `None` where it does not tell.
pub(crate) fn accept_queue(socket: impl AsFd) -> Option<usize> {
    #[cfg(target_os = "linux")]
    return crate::sys::tcp_listen_info(socket.as_fd()).ok().flatten().map(|info| info.unacked as usize);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

/// From here on the kernel drops what asks for a new connection over TCP; whether it can.
fn ignore_newcomers(socket: impl AsFd) -> bool {
    #[cfg(target_os = "linux")]
    {
        use socket2::SockFilter;
        const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
        const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
        const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        const FLAGS_AT: u32 = 13;
        const SYN: u32 = 0x02;
        const SYN_ACK: u32 = 0x12;
        let program = [
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
            SockFilter::new(AND, 0, 0, SYN_ACK),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        // It fails only without memory; then a newcomer at the wrong moment is reset.
        socket2::SockRef::from(&socket).attach_filter(&program).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        false
    }
}

/// From here on the kernel drops the datagrams that come, so that what it has already can be answered to its end.
pub(crate) fn ignore_datagrams(socket: impl AsFd) {
    #[cfg(target_os = "linux")]
    {
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        // It fails only without memory; then the number of batches is what ends it.
        let _ = socket2::SockRef::from(&socket).attach_filter(&[socket2::SockFilter::new(RETURN, 0, 0, 0)]);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// From here on the kernel takes the datagrams that come, if it has dropped them before.
pub(crate) fn heed_datagrams(socket: impl AsFd) {
    #[cfg(target_os = "linux")]
    {
        // It fails where nothing was dropped.
        let _ = socket2::SockRef::from(&socket).detach_filter();
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_wildcard_takes_both_families_unless_ipv4_is_listened_on_beside_it() {
        for (text, others, only) in [
            ("[::]:5000", &[][..], false),
            ("[::]:5000", &["0.0.0.0:5000"][..], true),
            ("[::]:5000", &["127.0.0.1:5000"], true),
            ("[::]:5000", &["[::ffff:127.0.0.1]:5000"], true),
            ("[::]:5000", &["0.0.0.0:5001", "[::1]:5000"], false),
            ("[::]:0", &["0.0.0.0:0"], false),
            ("[::1]:5000", &[], true),
            ("[::ffff:127.0.0.1]:5000", &[], false),
            ("0.0.0.0:5000", &["[::]:5000"], false),
        ] {
            let others = others.iter().map(|text| address(text));
            assert_eq!(ipv6_only(address(text), others), only, "{text}");
        }
    }

    #[test]
    fn an_ipv4_client_is_known_by_its_ipv4_address() {
        assert_eq!(canonical(address("[::ffff:192.0.2.1]:7")), address("192.0.2.1:7"));
        assert_eq!(canonical(address("[2001:db8::1]:7")), address("[2001:db8::1]:7"));
        assert_eq!(canonical(address("192.0.2.1:7")), address("192.0.2.1:7"));
    }
}
