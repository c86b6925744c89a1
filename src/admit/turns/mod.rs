//! Whose turn it is among those who wait: for a worker of the server, or for a place at a backend of the gate.
//! [`standing`] says whether too much waits, [`shelf`] in which order it is served then.

pub(crate) mod accounts;
mod lists;
pub(crate) mod shelf;
pub(crate) mod standing;
#[cfg(test)]
mod tests;
