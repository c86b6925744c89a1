//! HTTP.

pub mod wire;
