//! What is counted, how it is counted without a shared hot counter, and how it is read.

pub mod snapshot;
pub mod stats;
