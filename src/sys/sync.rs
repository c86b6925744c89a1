//! The atomics and the lock of the state machines that threads share; the models put loom's in their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Numbers whose users rely on the one order that all `SeqCst` accesses have. Loom does not know that order: in the models
/// fences make it.
pub(crate) mod in_order {
    pub(crate) use std::sync::atomic::{AtomicU8, AtomicUsize};
}
