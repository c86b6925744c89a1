//! The server: an acceptor, a queue, a fixed set of workers, and a parker. The way of a connection
//! through them is drawn in the [crate's](crate) documentation.

mod accept;
mod bound;
mod builder;
mod close;
mod core;
mod datagram;
mod handle;
mod keep;
mod observe;
mod poll;
pub(crate) mod queue;
mod refusals;
mod sync;
mod turn;

pub use bound::BoundServer;
#[cfg(feature = "cli")]
pub(crate) use builder::check_descriptors;
pub use builder::{BuildError, Builder};
pub use handle::{Handle, Trigger};
pub use keep::drain::ShutdownReport;

/// Bytes for one connection: its slot in the table, its entry in the queue with its stamp, and its
/// farewell. The socket itself is the kernel's.
pub(crate) const CONNECTION_BYTES: usize = size_of::<queue::table::Slot>()
    + size_of::<queue::line::Entry>()
    + size_of::<usize>()
    + turn::farewell::Farewells::BYTES;
/// Bytes of a worker's buffers.
pub(crate) const WORKER_BUFFER_BYTES: usize = crate::service::Buffers::BYTES;

/// The bytes that datagrams can make a server hold, where it has a listener for them.
pub(crate) fn datagram_memory_ceiling(limits: &crate::Limits) -> usize {
    datagram::socket::Datagrams::memory_ceiling(limits)
}

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

    /// How many connections the limit of open files allows with these limits and so many
    /// listeners, the soft limit raised to the hard one. For who would rather have fewer
    /// connections than a server that does not start.
    pub fn connections_possible(limits: &crate::Limits, listeners: usize) -> usize {
        builder::connections_possible(limits, listeners)
    }
}
