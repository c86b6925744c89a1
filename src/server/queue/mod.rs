//! What waits for a worker: the line, the table of connections, and the word that says who owns one.

pub(crate) mod connection;
pub(crate) mod cost;
pub(crate) mod line;
pub(crate) mod owned;
pub(crate) mod patience;
pub(crate) mod state;
pub(crate) mod table;
