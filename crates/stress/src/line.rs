//! The line of requests that are due and wait for a free connection. It is kept as two positions in the schedule, so a
//! long line takes no more memory than a short one.

use super::schedule::Arrivals;
use std::collections::VecDeque;

/// The part of an open loop that one thread makes.
pub(crate) struct Open {
    /// The next instant to notice.
    pub(crate) due: Arrivals,
    /// The next request to send; behind `due` by as many as wait for a free connection.
    pub(crate) head: Arrivals,
    pub(crate) waiting: u64,
    pub(crate) free: VecDeque<u32>,
}
