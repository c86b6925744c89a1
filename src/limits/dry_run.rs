//! Limits in a dry run: what each would have refused or shed is counted and let through.

use crate::reason::WouldDrop;

/// Limits in a dry run: each counts the clients that it would have turned away, and turns nobody away.
///
/// Some limits always stay in force: those from which memory or file descriptors are calculated, and the deadlines of waits.
/// [`LimitRow::dry_run`](super::LimitRow::dry_run) says which can.
///
/// ```
/// use tidegate::{DryRun, Limits};
/// let tried: DryRun = "max-per-source,source-rate".parse().unwrap();
/// let limits = Limits::default().max_per_source(20).source_rate(5.0).dry_run(tried);
/// assert!(limits.check().is_ok());
/// let why = "max-connections".parse::<DryRun>().unwrap_err().to_string();
/// assert!(why.starts_with("`max-connections` cannot be in a dry run: "));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DryRun(u32);

impl DryRun {
    /// All limits are in force.
    pub const OFF: DryRun = DryRun(0);
    /// Every limit that can be is in a dry run.
    pub const ALL: DryRun = DryRun((1 << WouldDrop::COUNT) - 1);

    /// The same, with the limit that has this reason.
    #[must_use]
    pub const fn with(self, reason: WouldDrop) -> Self {
        Self(self.0 | 1 << reason as u32)
    }

    /// Whether the limit that has this reason is in a dry run.
    pub const fn has(self, reason: WouldDrop) -> bool {
        self.0 & 1 << reason as u32 != 0
    }
}
