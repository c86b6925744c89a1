//! A thread that answers at an address until it is told to end: what the admin endpoint and the agent have alike.

use mio::Waker;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::thread::JoinHandle;

/// How many completed handshakes may wait in the kernel, which lowers it to `net.core.somaxconn`.
/// It covers a flood between two looks: a handshake beyond it is tried again after a second.
const BACKLOG: i32 = 4096;

/// A listening socket, where it listens, and what ends the thread that answers there.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) address: SocketAddr,
    /// For the process that takes this one's place.
    socket: OwnedFd,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Site {
    /// Binds the address, or takes a socket that is bound already. `make` makes what answers there, with the flag that it
    /// has to look at, and what wakes it for that.
    pub(super) fn bind<T>(
        address: SocketAddr,
        socket: Option<OwnedFd>,
        make: impl FnOnce(TcpListener, Arc<AtomicBool>) -> io::Result<(T, Arc<Waker>)>,
    ) -> io::Result<(T, Self)> {
        let listener = match socket {
            Some(socket) => listen_again(socket)?,
            None => listen(address)?,
        };
        let socket = listener.try_clone()?.into();
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let (made, waker) = make(listener, Arc::clone(&stop))?;
        Ok((made, Self { address, socket, stop, waker }))
    }

    /// Starts the thread.
    pub(super) fn serve(self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Serving> {
        let Self { address, socket, stop, waker } = self;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Serving { address, socket, stop, waker, thread: Some(thread) })
    }
}

/// The thread. Dropping this ends it, and waits until its port is free.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) address: SocketAddr,
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program hands it over"))]
    pub(super) socket: OwnedFd,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Release);
        // Should this fail, the thread sees the flag when its wait ends by itself.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Listens at an address. `[::]` takes IPv4 as well, whatever the system's default is; if another listener has that
/// port for IPv4, it takes what is left.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match listen_as(address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_any_ipv6(address) => {
            listen_as(address, true).map_err(|_| error)
        }
        other => other,
    }
}

/// Listens on a socket that another process has bound.
fn listen_again(socket: OwnedFd) -> io::Result<TcpListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn is_any_ipv6(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

fn listen_as(address: SocketAddr, only_ipv6: bool) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if is_any_ipv6(address) {
        socket.set_only_v6(only_ipv6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
