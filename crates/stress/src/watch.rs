//! The trait of those who hear of a run while it goes on.

use super::recorder::Interval;

/// Hears of a run while it goes on.
pub(crate) trait Watch {
    /// A run begins; several may follow each other.
    fn begin(&mut self) {}

    /// Takes the next second of the run. The last one of a part of the run may be shorter.
    fn second(&mut self, measured: &Interval);
}
