//! Latency histograms as plain data.

use std::time::Duration;

/// The upper bounds of every latency histogram, in seconds.
pub const BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A latency histogram: counts per bucket (not cumulative), the last one for what is above
/// [`BUCKETS`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// How many observations fell in each bucket.
    pub counts: [u64; BUCKETS.len() + 1],
    /// The sum of all observations.
    pub sum: Duration,
}

impl HistogramSnapshot {
    /// How many observations there are in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another histogram to this one.
    pub fn merge(&mut self, other: &HistogramSnapshot) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }
}
