//! tidegate: a bounded thread-pool server that stays up when the load does not stop.

#[cfg(feature = "cli")]
pub mod cli;
pub mod metrics;
pub mod reason;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod stress;
mod sys;
pub mod url;
