//! The servers tidegate is measured against. Each is what a good engineer writes first, nothing tuned and nothing left
//! out: `TCP_NODELAY` is on, the port can be reused, an error ends one connection and not the server.

mod announce;
mod backend;
mod download;
mod epoll;
mod gate;
mod http;
mod hyper_server;
mod lines;
mod pool;
mod relay;
mod reset;
mod thread;
mod tokio_relay;
mod tokio_tasks;
mod udp;
mod wake;
mod work;

use announce::announce;
use anyhow::{Context, Result};
pub(crate) use download::DOWNLOAD_BYTES;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};
pub(crate) use work::Mode;

/// Which peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// A thread for each connection.
    Thread,
    /// A tokio task for each connection.
    Tokio,
    /// An acceptor, a bounded channel and 32 blocking workers; what finds the channel full is closed.
    Pool,
    /// One thread, one edge-triggered epoll: the limit.
    Epoll,
    /// The same loop, which answers each HTTP request with a small response.
    Http,
    /// hyper over tokio, which answers each HTTP request with a small response.
    Hyper,
    /// One thread that accepts and resets: the limit of refusing.
    Reset,
    /// tidegate as a library, with a service for lines.
    Lines,
    /// Four workers that serve a connection each, behind a gate; it can be told to be slow.
    Backend,
    /// A large file for each client.
    Download,
    /// One thread that copies bytes to the server named by --to and back: the limit of a relay that copies.
    Relay,
    /// One thread that gives --places to the newest and resets the oldest of those that wait: the limit of a gate.
    Gate,
    /// tokio's `copy_bidirectional` to the server named by --to.
    TokioRelay,
    /// One thread, recvfrom and sendto: the limit for datagrams.
    Udp,
    /// tidegate as a library, with sessions that another thread wakes.
    Wake,
}

/// Options of a peer.
#[derive(Debug, clap::Args)]
pub(crate) struct PeerArgs {
    /// Which one.
    name: Peer,
    /// Where it listens; port 0 picks one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The server that is behind it (relay, tokio-relay, gate).
    #[arg(long)]
    to: Option<SocketAddr>,
    /// Connections that the server behind it may have (gate).
    #[arg(long, default_value_t = 8)]
    places: usize,
    /// What it does with a request: echo, time (UDP), work-cpu:1ms or work-sleep:20ms and then echo.
    #[arg(long, default_value = "echo")]
    mode: Mode,
    /// Bytes of a connection's buffer (thread, tokio, pool).
    #[arg(long, default_value_t = 64 << 10)]
    buffer: usize,
    /// Connections that may wait in the kernel to be accepted (TCP).
    #[arg(long, default_value_t = 4096)]
    backlog: i32,
}

/// Runs one until it is killed.
pub(crate) fn run(args: PeerArgs) -> Result<()> {
    let PeerArgs { name, listen, to, places, mode, buffer, backlog } = args;
    match name {
        Peer::Thread => thread::serve(tcp(listen, backlog)?, mode, buffer),
        Peer::Tokio => tokio_tasks::serve(tcp(listen, backlog)?, mode, buffer),
        Peer::Pool => pool::serve(tcp(listen, backlog)?, mode, buffer),
        Peer::Epoll => epoll::serve(tcp(listen, backlog)?, mode),
        Peer::Http => http::serve(tcp(listen, backlog)?),
        Peer::Hyper => hyper_server::serve(tcp(listen, backlog)?, mode),
        Peer::Reset => reset::serve(tcp(listen, backlog)?),
        Peer::Lines => lines::serve(listen, mode),
        Peer::Backend => backend::serve(tcp(listen, backlog)?, mode),
        Peer::Download => download::serve(tcp(listen, backlog)?),
        Peer::Relay => relay::serve(tcp(listen, backlog)?, to.context("say where to with --to")?),
        Peer::Gate => gate::serve(tcp(listen, backlog)?, to.context("say where to with --to")?, places),
        Peer::TokioRelay => tokio_relay::serve(tcp(listen, backlog)?, to.context("say where to with --to")?),
        Peer::Udp => udp::serve(listen, mode),
        Peer::Wake => wake::serve(listen),
    }
}

/// A listener; accepted sockets inherit `TCP_NODELAY` from it.
fn tcp(listen: SocketAddr, backlog: i32) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&listen.into())?;
    socket.listen(backlog)?;
    let listener = TcpListener::from(socket);
    announce("tcp", listener.local_addr()?)?;
    Ok(listener)
}
