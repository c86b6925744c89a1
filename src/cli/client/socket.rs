//! The client's socket: connecting it, and sending and receiving on it.

use super::failure::Failure;
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, SockAddr, Type};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use tidegate_units::show_time;
use tidegate_units::url::{Scheme, Url};

/// Between two tries to connect to a Unix socket whose backlog is full.
const KNOCK: Duration = Duration::from_millis(10);

/// The socket, connected and non-blocking.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// With the host's other addresses: whether something listens at this one shows only when a datagram is sent.
    Udp(UdpSocket, Vec<SocketAddr>),
}

impl Socket {
    /// Says that nothing more will be sent.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Write),
            Socket::Udp(..) => Ok(()),
        }
    }

    /// Goes on to the next address of the host; false if there is none.
    pub(super) fn try_next(&mut self) -> bool {
        let Socket::Udp(_, others) = self else { return false };
        while !others.is_empty() {
            let address = others.remove(0);
            if let Ok(socket) = open_datagram(address) {
                let others = std::mem::take(others);
                *self = Socket::Udp(socket, others);
                return true;
            }
        }
        false
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Udp(socket, _) => socket.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
            Socket::Udp(socket, _) => socket.recv(buffer),
        })
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
            Socket::Udp(socket, _) => socket.send(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a system call anew when a signal has ended it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Connects to the first address of the host that takes it, until `deadline`, which `timeout` has led to. Each gets its share
/// of the time that is left.
pub(super) fn connect(url: &Url, timeout: Duration, deadline: Instant) -> Result<Socket, Failure> {
    if let Some(path) = url.socket() {
        return connect_unix(path, deadline)
            .map(Socket::Unix)
            .map_err(|error| explain(url, timeout, Some(error)));
    }
    let resolved = url.resolve_within(timeout);
    let addresses = resolved.map_err(|error| Failure::Failed(error.to_string()))?;
    connect_one_of(url.scheme, &addresses, deadline).map_err(|error| explain(url, timeout, error))
}

fn connect_one_of(
    scheme: Scheme,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<Socket, Option<io::Error>> {
    let mut last = None;
    for (n, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
        if share.is_zero() {
            break;
        }
        let connected = match scheme {
            Scheme::Udp => {
                open_datagram(*address).map(|socket| Socket::Udp(socket, addresses[n + 1..].to_vec()))
            }
            _ => open_stream(*address, share).map(Socket::Tcp),
        };
        match connected {
            Ok(wire) => return Ok(wire),
            Err(error) => last = Some(error),
        }
    }
    Err(last)
}

fn explain(url: &Url, timeout: Duration, error: Option<io::Error>) -> Failure {
    let why = match error {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there".to_owned()
        }
        Some(error) if error.kind() == io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        Some(error) if error.kind() != io::ErrorKind::TimedOut => error.to_string(),
        _ => format!("no answer within {}", show_time(timeout)),
    };
    Failure::Failed(format!("cannot connect to {url}: {why}"))
}

fn open_datagram(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn open_stream(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, timeout)?;
    // Each line is sent with one call, so there is nothing to gather.
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Connects to a Unix socket. While its backlog is full, the kernel neither waits nor reports when there is room, so
/// connecting is tried again and again.
fn connect_unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let address = SockAddr::unix(path)?;
    loop {
        match socket.connect(&address) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(KNOCK.min(left));
    }
}

/// Waits until something can be read or written, or the time is over: what is ready of `fds`.
pub(super) fn wait(fds: &mut [PollFd<'_>], time: Option<Duration>) -> rustix::io::Result<Vec<PollFlags>> {
    // A little late is better than a little early, which would spin until the deadline.
    let time = time.map(|time| time + Duration::from_micros(100));
    let time = time.and_then(|time| rustix::event::Timespec::try_from(time).ok());
    match poll(fds, time.as_ref()) {
        Ok(_) => Ok(fds.iter().map(PollFd::revents).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![PollFlags::empty(); fds.len()]),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// An address whose backlog is full, so that it swallows who knocks; it does so while the rest is kept.
    fn full() -> (SocketAddr, socket2::Socket, Vec<socket2::Socket>) {
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let knocking = (0..4).map(|_| {
            let client = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&address.into());
            client
        });
        let knocking = knocking.collect();
        (address, socket, knocking)
    }

    fn closed() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn an_address_that_swallows_connections_leaves_the_others_their_share_of_the_time() {
        let (swallows, _socket, _knocking) = full();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let addresses = [swallows, closed(), listener.local_addr().unwrap()];
        let wire = connect_one_of(Scheme::Tcp, &addresses, began + Duration::from_secs(3));
        assert!(matches!(wire, Ok(Socket::Tcp(socket)) if socket.peer_addr().unwrap() == addresses[2]));
        assert!((Duration::from_millis(900)..Duration::from_millis(2500)).contains(&began.elapsed()));
        // When all do, the time is what was asked for.
        let began = Instant::now();
        let wire = connect_one_of(Scheme::Tcp, &[swallows, swallows], began + Duration::from_millis(400));
        assert!(wire.is_err_and(|error| error.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut)));
        assert!((Duration::from_millis(400)..Duration::from_secs(2)).contains(&began.elapsed()));
    }

    #[test]
    fn a_datagram_socket_goes_on_to_the_next_address() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let none = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let addresses = [none, server.local_addr().unwrap()];
        let mut socket =
            connect_one_of(Scheme::Udp, &addresses, Instant::now() + Duration::from_secs(1)).ok().unwrap();
        assert!(socket.write(b"x").is_ok() && socket.write(b"x").is_err(), "nothing listens at the first");
        assert!(socket.try_next());
        socket.write_all(b"y").unwrap();
        let mut buffer = [0; 8];
        let (n, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"y");
        assert!(!socket.try_next());
    }
}
