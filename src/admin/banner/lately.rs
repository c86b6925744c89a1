//! What happened lately, beside the snapshot, as the banner needs it.

use super::super::history::{Dropped, GateRefusals};
use crate::reason::DropReason;

/// What happened lately, beside the snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lately {
    /// What was turned away in the last seconds.
    pub(crate) dropped: Dropped,
    /// What each gate has turned away in that time.
    pub(crate) gates: Vec<GateRefusals>,
    /// How many seconds those are.
    pub(crate) seconds: f64,
    /// The share of the workers' time spent in turns, in the last ten seconds.
    pub(crate) utilisation: f64,
    /// Panics in the last minute.
    pub(crate) panics: u64,
    /// The source that was refused most.
    pub(crate) source: Option<String>,
}

impl Lately {
    /// How many connections were turned away for this reason, and HTTP requests for which a gate had no place.
    pub(super) fn refused(&self, reason: DropReason) -> u64 {
        self.dropped.connections[reason as usize] + self.dropped.requests[reason as usize]
    }
}
