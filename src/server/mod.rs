//! The server. Read from the top, its folders are the way of a connection: accept, queue, poll, turn, close; `datagram`
//! beside them, and `keep`, the timekeeper and the drain. The drawing is in the [crate's](crate) documentation.

mod accept;
mod bound;
mod builder;
mod capacity;
mod change;
mod close;
mod counts;
mod datagram;
mod error;
mod extras;
mod handle;
#[cfg(feature = "cli")]
mod handover;
mod in_force;
mod keep;
mod lifecycle;
mod listen;
mod listener;
mod listeners;
mod observe;
mod poll;
mod pulse;
mod queue;
mod refusals;
#[cfg(feature = "cli")]
mod relisten;
mod shared;
mod start;
mod turn;
mod waking;

pub use bound::BoundServer;
pub use builder::Builder;
#[cfg(feature = "cli")]
pub(crate) use capacity::{check_descriptors, check_descriptors_within, connections_within};
#[cfg(feature = "cli")]
pub(crate) use change::room_for;
pub use change::{LimitChange, SetLimitsError};
pub use error::BuildError;
pub use handle::{Handle, Trigger};
#[cfg(feature = "cli")]
pub(crate) use handover::LeavingSocket;
pub use keep::orders::ShutdownReport;
pub use listen::Listen;
#[cfg(feature = "cli")]
pub(crate) use listen::{Around, BoundSocket, ListenOffer};
#[cfg(feature = "cli")]
pub(crate) use pulse::PulseWatch;
#[cfg(feature = "cli")]
pub(crate) use relisten::{Opening, no_seat};

/// Where a server begins: see [`Server::builder`].
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Begins to describe a server.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{Echo, Server};
    ///
    /// let server = Server::builder().workers(4).queue(16).listen("127.0.0.1:0", Echo)?.bind()?;
    /// let address = server.addresses()[0];
    /// let handle = server.serve()?;
    /// // ... clients talk to `address` ...
    /// let report = handle.shutdown(Duration::from_secs(1));
    /// assert!(report.is_clean());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// How many connections the limit of open files allows with these limits and this
    /// number of listeners, the soft limit raised to the hard one. For who would rather have fewer
    /// connections than a server that does not start.
    pub fn connections_possible(limits: &crate::limits::Limits, listeners: usize) -> usize {
        capacity::connections_possible(limits, listeners)
    }
}
