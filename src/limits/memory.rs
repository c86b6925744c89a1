//! The memory that limits allow a server to hold.

use super::Limits;

impl Limits {
    /// The bytes these limits can make the server hold: connections, the queue, workers' buffers, lines that
    /// are not complete and replies that were not read. Thread stacks and what a service keeps in sessions of
    /// its own come on top.
    pub fn memory_ceiling(&self) -> usize {
        self.max_connections * crate::server::CONNECTION_BYTES
            + self.workers * crate::server::WORKER_BUFFER_BYTES
            + self.input_total
            + self.output_total
    }

    /// The bytes that datagrams can make the server hold on top of that, where it has a listener for them: a
    /// place for each datagram that waits or is being answered, and a batch for each thread that receives.
    pub fn datagram_memory_ceiling(&self) -> usize {
        crate::server::datagram_memory_ceiling(self)
    }
}
