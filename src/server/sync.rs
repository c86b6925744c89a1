//! The atomics and the lock of the state machines that threads share; the models put loom's in their place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
pub(crate) use std::sync::{Mutex, MutexGuard};
