//! Datagrams: the sockets, the fixed places in which datagrams wait, and the batches in which they are received and
//! sent.

pub(crate) mod batch;
pub(crate) mod post;
pub(crate) mod rates;
pub(crate) mod repeats;
pub(crate) mod slots;
pub(crate) mod socket;
