//! Where a load thread is in its run.

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
