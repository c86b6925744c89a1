//! The ear of a run.

use super::recorder::Interval;

/// Hears of a run while it goes on.
pub(crate) trait Watch {
    /// A run begins; several may follow each other.
    fn begin(&mut self) {}

    /// What was measured in the next second. The last of a part of the run may be shorter.
    fn second(&mut self, measured: &Interval);
}
