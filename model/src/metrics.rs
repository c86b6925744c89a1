//! See the server's `metrics`.

#[path = "../../src/metrics/backends.rs"]
pub(crate) mod backends;
#[path = "../../src/metrics/histogram.rs"]
pub(crate) mod histogram;

pub(crate) mod snapshot {
    pub(crate) use super::histogram::HistogramSnapshot;
}
