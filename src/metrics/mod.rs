//! Metrics: what is counted, how threads count without sharing a counter, and how a reading is made.

pub mod backends;
pub mod catalogue;
pub mod configuration;
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
