//! Random numbers for the keys and masks of WebSockets. They differ each time; it does no harm if somebody can guess
//! them, because the person who runs the client chooses what it sends.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that differs each time.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
