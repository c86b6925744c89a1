//! Random numbers for the keys and masks of WebSockets, which nobody has to be unable to guess.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number that differs each time.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
