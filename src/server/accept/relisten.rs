//! What the acceptor is told of listeners that open and close while the server serves.

use crate::transport::listen::ListenSocket;
use crossbeam_channel::Sender;

/// Listeners by their numbers.
pub(crate) struct Relisten {
    /// Those that open, with a socket for the acceptor each.
    pub(crate) open: Vec<(usize, ListenSocket)>,
    /// Those that accept the last ones and close.
    pub(crate) close: Vec<usize>,
    /// Is told when that is done, and only then.
    pub(crate) done: Sender<()>,
}
