//! What a supervisor may ask of a server: a sign of life, and to let another process take over. That process gets the
//! listening sockets before this one stops accepting.

use super::datagram::socket::DatagramSocket;
use super::handle::Handle;
use super::listen::BoundSocket;
use super::pulse::PulseWatch;
use crate::transport::listen::ListenSocket;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// A thread that serves all clients goes round once a second at least.
const STILL_AFTER: Duration = Duration::from_secs(3);

/// A socket that another process is given.
#[derive(Debug)]
pub(crate) struct LeavingSocket {
    pub(crate) socket: OwnedFd,
    pub(crate) bound: BoundSocket,
}

impl Handle {
    /// The sockets of all listeners, in the order they were given; `None` for one that is closed.
    pub(crate) fn sockets(&self) -> io::Result<Vec<Option<LeavingSocket>>> {
        let shared = &self.shared;
        let mut all = Vec::new();
        for listener in shared.listeners.iter() {
            let leaving = |socket: &ListenSocket| {
                Ok::<_, io::Error>(LeavingSocket {
                    bound: BoundSocket { has_file: socket.has_file(), is_shared: socket.is_shared() },
                    socket: socket.as_fd().try_clone_to_owned()?,
                })
            };
            all.push((listener.position, listener.socket().as_ref().map(leaving).transpose()?));
        }
        for datagrams in shared.datagrams.sockets.iter() {
            // One that is closed may still answer: it is not for the other process.
            let is_open = datagrams.closed_at().is_none();
            let bound = BoundSocket { is_shared: datagrams.is_shared(), ..BoundSocket::default() };
            let leaving = |socket: &UdpSocket| {
                Ok::<_, io::Error>(LeavingSocket { bound, socket: socket.try_clone()?.into() })
            };
            let socket = datagrams.socket().as_ref().filter(|_| is_open).map(leaving).transpose()?;
            all.push((datagrams.position, socket));
        }
        all.sort_unstable_by_key(|&(position, _)| position);
        Ok(all.into_iter().map(|(_, socket)| socket).collect())
    }

    /// Whether the server serves, and nothing ends it, as far as is known.
    pub(crate) fn takes_newcomers(&self) -> bool {
        self.shared.life.takes_newcomers()
    }

    /// Whether a supervisor has the socket of the listener at this position too.
    pub(crate) fn is_shared(&self, position: usize) -> bool {
        let mut at = self.shared.listeners.iter().filter(|listener| listener.position == position);
        let mut datagrams = self.shared.datagrams.sockets.iter().filter(|socket| socket.position == position);
        at.any(|listener| listener.socket().as_ref().is_some_and(ListenSocket::is_shared))
            || datagrams.any(DatagramSocket::is_shared)
    }

    /// A thread that serves all clients and does not move, if there is one. While a server ends, threads do.
    pub(crate) fn stands_still(&self, watch: &mut PulseWatch) -> Option<&'static str> {
        if !self.shared.life.is_accepting() {
            return None;
        }
        watch.look(&self.shared.pulse, Instant::now(), STILL_AFTER)
    }

    /// Another process serves from now on: it has the sockets of the listeners of which `taken` says so, by their
    /// positions. The others are closed as at any end. What was admitted here is served until its clients leave, at most
    /// for `drain_timeout`.
    pub(crate) fn hand_over(&self, taken: impl Fn(usize) -> bool) {
        for listener in self.shared.listeners.iter().filter(|listener| taken(listener.position)) {
            listener.hand_over();
        }
        for socket in self.shared.datagrams.sockets.iter() {
            if taken(socket.position) {
                socket.hand_over();
            }
            if let Some(socket) = &*socket.socket() {
                // It lives on in the other process, and the kernel would go on telling of its datagrams here.
                self.shared.poller.remove(socket);
            }
        }
        self.orders.hand_over();
        self.shared.crew.wake_keeper();
    }
}
