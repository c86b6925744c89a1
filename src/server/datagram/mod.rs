//! Datagrams: the sockets, those that open while a server serves, the fixed places in which datagrams wait, and the batches in which they are received and
//! sent.

pub(crate) mod batch;
#[cfg(feature = "cli")]
pub(crate) mod opening;
pub(crate) mod post;
pub(crate) mod rates;
pub(crate) mod repeats;
pub(crate) mod slots;
pub(crate) mod socket;
