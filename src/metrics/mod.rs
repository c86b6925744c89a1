//! What is counted, how it is counted without a shared hot counter, and how it is read.

pub mod backends;
pub mod catalogue;
pub mod handshakes;
pub(crate) mod histogram;
pub mod kernel;
pub mod process;
#[cfg(feature = "metrics")]
pub mod registry;
pub mod snapshot;
pub mod sources;
pub mod stats;
mod tally;
pub mod web;
