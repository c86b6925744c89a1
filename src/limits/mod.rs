//! Every limit of a server in one place: what it bounds, its unit, its default and its range.
//!
//! Nothing in a server grows past a limit that is named here. `table.rs` has one entry for each limit, and
//! everything else follows from that entry: the fields of [`Limits`] and their documentation, the range
//! checks, the options of the command line with their help, the environment variables, the keys of the
//! configuration file, `tidegate check`, README's table and the rows of `/status`. [`Limits::check`] asserts
//! the ranges and the relations between limits before anything starts.

mod check;
mod dry_names;
mod dry_run;
pub(crate) mod entry;
mod table;
mod value;

pub use dry_names::DryRunError;
pub use dry_run::DryRun;
pub use entry::{Group, LimitRow};
pub use table::Limits;
pub(crate) use table::TABLE;
#[cfg(feature = "cli")]
pub(crate) use value::Value;
pub use value::{show_size, show_time};

use std::time::Duration;

/// What happens to a newcomer when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// Refuse it at once: with the service's busy reply, or with RST when it has none.
    Reject,
    /// Stop accepting for at most this time, then refuse. Meanwhile newcomers wait in the kernel's
    /// backlog. (A datagram is dropped at once.)
    Wait(Duration),
    /// Refuse the newcomer that has waited longest, and admit this one.
    DropOldest,
}

impl std::fmt::Display for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Overload::Reject => f.write_str("reject"),
            Overload::Wait(time) => write!(f, "wait:{}", show_time(*time)),
            Overload::DropOldest => f.write_str("drop-oldest"),
        }
    }
}

/// How many clients a server turns away explicitly, when it cannot serve them.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum RefusalRate {
    /// All of them while processors have rest; when they have none, as many as cost 3 % of one processor.
    Auto,
    /// All of them, whatever it costs.
    All,
    /// At most this many a second.
    PerSecond(f64),
}

impl std::fmt::Display for RefusalRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RefusalRate::Auto => f.write_str("auto"),
            RefusalRate::All => f.write_str("all"),
            RefusalRate::PerSecond(rate) => write!(f, "{rate}/s"),
        }
    }
}

/// In which order requests are served while the queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum QueueOrder {
    /// The freshest first: those that have waited long have mostly been given up by their clients.
    Fresh,
    /// In the order in which they came.
    Fifo,
}

impl std::fmt::Display for QueueOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            QueueOrder::Fresh => "fresh",
            QueueOrder::Fifo => "fifo",
        })
    }
}

/// What takes turns while the queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fair {
    /// Each source (see [`Limits::source_prefix`]) has its share, however much another asks for.
    Source,
    /// Nothing: all requests are in one line.
    Off,
}

impl std::fmt::Display for Fair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Fair::Source => "source",
            Fair::Off => "off",
        })
    }
}

/// A limit out of its range, or a relation between limits that cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LimitError(pub(crate) String);
