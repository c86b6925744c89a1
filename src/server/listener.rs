//! One listener: its service, its socket while it is open, and what accept said.

use super::queue::cost::TurnCost;
use crate::contain::contain;
use crate::reason::AcceptError;
use crate::service::{Service, Words};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct Listener {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<dyn Service>,
    /// Its place among all listeners, datagram listeners included, as they were given.
    pub(crate) position: usize,
    /// How long a turn of its service takes.
    pub(crate) cost: TurnCost,
    /// The service's name, and whether its sessions have words for an overload; asked once.
    pub(crate) name: String,
    pub(crate) answers_overload: bool,
    /// What a refused client is told.
    pub(crate) words: Words,
    accept_errors: [AtomicU64; AcceptError::COUNT],
    /// Open until the server drains; locked by the acceptor to take it, by the leader to accept, and by scrapes.
    socket: Mutex<Option<TcpListener>>,
}

impl Listener {
    pub(crate) fn new(
        socket: TcpListener,
        address: SocketAddr,
        service: Arc<dyn Service>,
        position: usize,
        words: Option<&[u8]>,
    ) -> Self {
        // The author's code: a panic in it is as good as no answer.
        let name = contain(|| service.name().to_owned()).unwrap_or_else(|_| "service".to_owned());
        let answers_overload = contain(|| service.answers_overload()).unwrap_or(false);
        let words = match words {
            Some(words) => Words::new(words),
            None => contain(|| Words::new(service.busy_reply())).unwrap_or_default(),
        };
        Self {
            url: format!("tcp://{address}"),
            address,
            service,
            position,
            cost: TurnCost::unknown(),
            name,
            answers_overload,
            words,
            accept_errors: Default::default(),
            socket: Mutex::new(Some(socket)),
        }
    }

    pub(crate) fn socket(&self) -> MutexGuard<'_, Option<TcpListener>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn accept_failed(&self, error: AcceptError) {
        self.accept_errors[error as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn accept_errors(&self) -> [u64; AcceptError::COUNT] {
        self.accept_errors.each_ref().map(|count| count.load(Relaxed))
    }
}
