//! The phases that a load thread goes through in a run.

/// Where a thread is in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Opening,
    Ready,
    Running,
    Draining,
    Lingering,
    Done,
}
