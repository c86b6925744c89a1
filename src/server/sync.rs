//! The atomics and the lock of the shared state machines; the model checks put loom's in their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard};
