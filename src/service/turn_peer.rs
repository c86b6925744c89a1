//! The client whose connection has its turn. Its description is made only if the service asks for it.

use super::{Peer, TlsFacts};
use crate::transport::address::ClientAddress;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

/// The client whose connection has its turn. Most turns do not ask for it, and its address is in the second cache line
/// of the connection's slot: with thousands of connections, reading it would be one more trip to memory in each turn.
#[derive(Debug)]
pub(crate) struct TurnPeer<'a> {
    address: &'a Cell<ClientAddress>,
    listener: &'a Arc<str>,
    tls: Option<Arc<TlsFacts>>,
    made: OnceCell<Peer>,
}

impl<'a> TurnPeer<'a> {
    pub(crate) fn new(
        address: &'a Cell<ClientAddress>,
        listener: &'a Arc<str>,
        tls: Option<Arc<TlsFacts>>,
    ) -> Self {
        Self { address, listener, tls, made: OnceCell::new() }
    }

    pub(crate) fn get(&self) -> &Peer {
        self.made.get_or_init(|| Peer::known(self.address.get(), self.tls.clone()).at(self.listener))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_made_when_it_is_asked_for_and_once() {
        let address = Cell::new(std::net::SocketAddr::from(([127, 0, 0, 1], 9)).into());
        let listener: Arc<str> = "tcp://127.0.0.1:7".into();
        let peer = TurnPeer::new(&address, &listener, None);
        assert!(peer.made.get().is_none());
        assert_eq!(*peer.get(), Peer::new(address.get()).at(&listener));
        assert_eq!((peer.get().listener(), Peer::new(address.get()).listener()), ("tcp://127.0.0.1:7", ""));
        assert!(std::ptr::eq(peer.get(), peer.get()));
    }
}
