//! The steps by which a reply is read, and helpers that all readers of replies use.

use super::outcome::Outcome;

/// What some bytes of a reply mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The reply is not whole.
    More,
    /// The reply is whole; whether the connection may be used again.
    Done(Outcome, bool),
}

/// Empties a buffer, and gives back one that has become large: there is one for each connection.
pub(crate) fn clear(held: &mut Vec<u8>) {
    const KEPT: usize = 4 << 10;
    held.clear();
    held.shrink_to(KEPT);
}

/// Whether `text` is somewhere in `bytes`.
pub(crate) fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}
