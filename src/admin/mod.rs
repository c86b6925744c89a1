//! The admin endpoint: `/metrics`, `/livez`, `/readyz`, `/status` and `/status.json`.
//!
//! ```text
//! scraper, probe, browser -> [front: bounded, epoll, deadlines] -> private socket -> tiny_http -> pages
//! ```
//!
//! It answers while the server is saturated, while the process is out of descriptors, and while it
//! is itself attacked. `tiny_http` does the HTTP, and never meets the outside: the front
//! takes one complete, size-capped request from each of few connections, within deadlines, and
//! relays it over a socket that nobody else can reach. Nothing that is asked here changes the
//! server.
//!
//! ```
//! use tidegate::{Echo, Server, admin::Admin};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().listen("127.0.0.1:0", Echo)?.bind()?.serve()?;
//! let admin = Admin::bind("127.0.0.1:0".parse()?, server.observe())?.serve()?;
//! println!("curl http://{}/metrics", admin.address());
//! # admin.shutdown();
//! # Ok(())
//! # }
//! ```

mod connection;
mod front;
mod history;
mod pages;
mod relay;
mod request;
mod reserve;
mod show;
mod status;
mod verdict;

use crate::metrics::snapshot::Observe;
use front::Front;
use mio::Waker;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many completed handshakes may wait in the kernel, which lowers it to `net.core.somaxconn`.
/// It covers a flood between two looks: a handshake beyond it is tried again after a second.
const BACKLOG: i32 = 4096;

/// The limits of the admin endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminLimits {
    /// Connections held at the same time; default 64. The newest gets in: the oldest one without a
    /// complete request makes room.
    pub connections: usize,
    /// Bytes of a request's head; default 8 KiB.
    pub head_bytes: usize,
    /// Time from accept to a complete head; default 2 s.
    pub head_time: Duration,
    /// Time from accept to the end of all; default 5 s.
    pub total_time: Duration,
    /// Time an answered client may take to close; default 1 s.
    pub linger_time: Duration,
    /// Descriptors held in reserve, so that it answers when the process has none; default 8.
    pub reserve_descriptors: usize,
}

impl Default for AdminLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 8 * 1024,
            head_time: Duration::from_secs(2),
            total_time: Duration::from_secs(5),
            linger_time: Duration::from_secs(1),
            reserve_descriptors: 8,
        }
    }
}

/// An admin endpoint that is bound and does not serve yet.
pub struct Admin {
    front: Front,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    address: SocketAddr,
}

impl Admin {
    /// Binds to `address` with the default limits; port 0 picks a free port.
    ///
    /// # Errors
    ///
    /// The address cannot be bound, or the descriptors it holds in reserve cannot be had.
    pub fn bind(address: SocketAddr, observe: Arc<dyn Observe>) -> io::Result<Self> {
        Self::bind_with(address, observe, AdminLimits::default())
    }

    /// Binds to `address` with other limits.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_with(
        address: SocketAddr,
        observe: Arc<dyn Observe>,
        limits: AdminLimits,
    ) -> io::Result<Self> {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let pages = pages::Pages::new(observe)?;
        let (front, waker) = Front::new(listener, pages, limits, Arc::clone(&stop))?;
        Ok(Self { front, stop, waker, address })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves from a thread of its own until the handle is shut down or dropped.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn serve(self) -> io::Result<AdminHandle> {
        let Self { front, stop, waker, address } = self;
        let thread = std::thread::Builder::new().name("admin".to_owned()).spawn(move || front.run())?;
        Ok(AdminHandle { stop, waker, address, thread: Some(thread) })
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A serving admin endpoint. Dropping it ends it.
#[derive(Debug)]
pub struct AdminHandle {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl AdminHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it and waits until its port is free: a few milliseconds, whatever its clients do.
    pub fn shutdown(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Release);
        // Should this fail, the front sees the flag when it takes its next sample.
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
