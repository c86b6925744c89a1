//! What a server is doing, from its bind to its end.

/// What a server is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// It is bound, and not serving yet.
    #[default]
    Starting,
    /// It serves.
    Serving,
    /// It was told to end, still accepts (`drain_delay`), and asks for no more traffic.
    Leaving,
    /// It no longer accepts, and finishes what it admitted.
    Draining,
    /// It has ended.
    Stopped,
}

impl Phase {
    /// The word for it in logs and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Leaving => "leaving",
            Phase::Draining => "draining",
            Phase::Stopped => "stopped",
        }
    }
}
