//! What waits for a worker: the line, the table of connections, and the word that says who owns one.

// Until the stages use the order of turns, only its tests do.
#[allow(dead_code)]
pub(crate) mod accounts;
pub(crate) mod connection;
pub(crate) mod cost;
pub(crate) mod line;
#[allow(dead_code)]
mod lists;
#[allow(dead_code)]
pub(crate) mod order;
#[allow(dead_code)]
pub(crate) mod shelf;
#[cfg(test)]
mod simulate;
#[allow(dead_code)]
pub(crate) mod standing;
pub(crate) mod state;
pub(crate) mod table;
