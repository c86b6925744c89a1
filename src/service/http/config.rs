//! The limits of an HTTP service: the server's, or its own.

use super::wire;
use crate::limits::Limits;

/// Limits of an HTTP service that differ from those of its server ([`Limits`]). Start from [`Config::default`] and
/// change what must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Bytes of a request's head, which is its first line and its headers. A request with a longer head is answered
    /// 431. Default: 16 KiB.
    pub max_head: usize,
    /// Headers of a request. A request with more is answered 431. Default: 100.
    pub max_headers: usize,
    /// Bytes of a request's body. A longer one is answered 413, before the body is read if its length is known.
    /// Default: 1 MiB.
    pub max_body: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

impl Config {
    /// The server's limits. A body can never be longer than `input_total`, so a longer one is refused at its
    /// beginning.
    pub(super) fn of(limits: &Limits) -> Self {
        let Limits { max_head, max_headers, max_body, input_total, .. } = *limits;
        Self { max_head: max_head.min(input_total), max_headers, max_body: max_body.min(input_total) }
    }

    pub(super) fn body_limits(&self) -> wire::BodyLimits {
        // Extensions and trailers together may be as long as a head.
        wire::BodyLimits { max_body: self.max_body as u64, max_overhead: self.max_head }
    }
}
