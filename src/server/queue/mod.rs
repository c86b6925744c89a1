//! What waits for a worker: the line, the table of connections, and the atomic word that says which thread owns a
//! connection.

pub(crate) mod connection;
pub(crate) mod cost;
pub(crate) mod line;
pub(crate) mod order;
#[cfg(test)]
mod order_tests;
pub(crate) mod owned;
pub(crate) mod room;
#[cfg(test)]
mod simulate;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod wheel;

// The order of those who wait is the gate's too.
pub(crate) use crate::admit::turns::{accounts, shelf, standing};
