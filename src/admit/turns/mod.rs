//! The order of turns: for those that wait for a worker of the server, or for a place at a backend of the gate.
//! [`standing`] decides whether the queue stands, and [`shelf`] the order in which it is served then.

pub(crate) mod accounts;
mod crowds;
mod lists;
mod pace;
mod seats;
pub(crate) mod shelf;
pub(crate) mod standing;
#[cfg(test)]
mod tests;
