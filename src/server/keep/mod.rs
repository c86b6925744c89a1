//! The timekeeper and the drain: deadlines, summaries, and how a server ends.

mod closed;
pub(crate) mod deadlines;
pub(crate) mod drain;
pub(crate) mod keeper;
pub(crate) mod orders;
pub(crate) mod pressure;
mod quota;
pub(crate) mod rest;
mod trim;
