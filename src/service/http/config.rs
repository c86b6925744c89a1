//! The limits of HTTP, for each service of its own.

use super::wire;

/// The limits of an HTTP service. Start from [`Config::default`] and change what must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Bytes of a request's head: its first line and its headers. A longer one is answered 431.
    /// Default 16 KiB.
    pub max_head: usize,
    /// Headers of a request. One with more is answered 431. Default 100.
    pub max_headers: usize,
    /// Bytes of a request's body. A longer one is answered 413, before it is read where its length is
    /// known. Default 1 MiB.
    pub max_body: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_head: 16 << 10, max_headers: 100, max_body: 1 << 20 }
    }
}

impl Config {
    pub(super) fn body_limits(&self) -> wire::BodyLimits {
        // Extensions and trailers may be as long as a head.
        wire::BodyLimits { max_body: self.max_body as u64, max_overhead: self.max_head }
    }
}
