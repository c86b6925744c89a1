//! Datagrams: their sockets, the batches in which they are received and sent, and the fixed number of places in which they
//! wait for a worker. A socket may also open while the server serves.

pub(crate) mod batch;
#[cfg(feature = "cli")]
pub(crate) mod opening;
pub(crate) mod post;
pub(crate) mod rates;
pub(crate) mod repeats;
pub(crate) mod slots;
pub(crate) mod socket;
