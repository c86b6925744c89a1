//! The server's own files, at the paths by which they name each other.

pub(crate) mod poll;
pub(crate) mod queue;
