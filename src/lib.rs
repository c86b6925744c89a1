//! tidegate: a bounded thread-pool server that stays up when the load does not stop.

pub mod admin;
#[cfg(feature = "cli")]
pub mod cli;
pub mod metrics;
pub mod reason;
mod sys;
pub mod url;
