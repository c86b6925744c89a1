//! The server's own files, at the paths by which they name each other.

pub(crate) mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}
pub(crate) mod poll;
pub(crate) mod queue;
