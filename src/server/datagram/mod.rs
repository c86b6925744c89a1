//! Datagrams: their sockets, the places in which they wait, and batches of them.

pub(crate) mod batch;
pub(crate) mod post;
pub(crate) mod rates;
pub(crate) mod repeats;
pub(crate) mod slots;
pub(crate) mod socket;
