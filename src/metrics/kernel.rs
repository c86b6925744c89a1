//! The accept queue of a listener, which the kernel shows to an unprivileged process.

use super::snapshot::AcceptQueue;
use std::os::fd::BorrowedFd;

/// Reads the accept queue of a listening TCP socket; `None` when the socket does not listen, or
/// the system does not tell.
///
/// The numbers come from `TCP_INFO` (`tcpi_unacked` is the queue's length, `tcpi_sacked` its
/// limit, for a socket that listens) and `SO_MEMINFO` (the socket's drops).
#[cfg(target_os = "linux")]
pub fn listen_backlog(listener: BorrowedFd<'_>) -> Option<AcceptQueue> {
    let info = crate::sys::tcp_listen_info(listener).ok()??;
    Some(AcceptQueue {
        connections: info.unacked.into(),
        limit: info.sacked.into(),
        drops: crate::sys::socket_drops(listener).ok()?.into(),
    })
}

/// Other systems do not tell.
#[cfg(not(target_os = "linux"))]
pub fn listen_backlog(_listener: BorrowedFd<'_>) -> Option<AcceptQueue> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    fn listener(backlog: i32) -> TcpListener {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(backlog).unwrap();
        socket.into()
    }

    #[test]
    fn the_accept_queue_is_seen_to_fill_and_to_overflow() {
        let listener = listener(2);
        let address = listener.local_addr().unwrap();
        let read = || listen_backlog(listener.as_fd()).unwrap();
        assert_eq!(read(), AcceptQueue { connections: 0, limit: 2, drops: 0 });
        // The kernel admits one more than the backlog.
        let _held: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(read().connections, 3);
        let refused = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert!(refused.is_err(), "the fourth handshake is not completed");
        assert!(read().drops > 0);
        listener.accept().unwrap();
        assert_eq!(read().connections, 2);
    }

    #[test]
    fn what_does_not_listen_has_no_accept_queue() {
        let listener = listener(1);
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listen_backlog(stream.as_fd()), None);
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(listen_backlog(datagrams.as_fd()), None);
        let closed = listener;
        socket2::SockRef::from(&closed).shutdown(std::net::Shutdown::Both).unwrap();
        let deadline = Instant::now() + Duration::from_secs(1);
        while listen_backlog(closed.as_fd()).is_some() {
            assert!(Instant::now() < deadline, "a listener that was shut down is still read");
            std::thread::yield_now();
        }
    }
}
