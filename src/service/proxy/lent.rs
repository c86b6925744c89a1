//! What a worker lends to a pair for one turn, and what all pairs may keep together between turns.

use super::pipes::Pipes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The largest piece that is read at once, and so the most that one direction can have to keep.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// The smallest, when much is kept already.
const LEAST_BYTES: usize = 4 * 1024;

/// What one turn may use.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    /// The worker's, of [`PIECE_BYTES`].
    pub(crate) buffer: &'a mut [u8],
    pub(crate) pipes: &'a Arc<Pipes>,
    pub(crate) keep: &'a Arc<Keep>,
    /// Bytes that each direction may move before other connections have their turn.
    pub(crate) turn_bytes: usize,
}

impl Lent<'_> {
    /// The room for the next piece: smaller when the pairs keep much, so that many slow readers keep little each.
    pub(super) fn room(&mut self) -> &mut [u8] {
        // An eighth of all at most, so that one slow reader cannot use up a small limit.
        let most = (self.keep.most / 8).max(LEAST_BYTES).min(self.buffer.len()).min(PIECE_BYTES);
        let room = match self.keep.fullness() {
            Fullness::Low => most,
            Fullness::High => most.min(4 * LEAST_BYTES),
            Fullness::Full => most.min(LEAST_BYTES),
        };
        &mut self.buffer[..room]
    }
}

/// Bytes that all pairs keep, because a slow reader has not taken them.
#[derive(Debug)]
pub(crate) struct Keep {
    kept: AtomicUsize,
    readers: AtomicUsize,
    most: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fullness {
    Low,
    High,
    Full,
}

impl Keep {
    /// Room for this many bytes.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { kept: AtomicUsize::new(0), readers: AtomicUsize::new(0), most })
    }

    /// How many bytes are kept.
    pub(crate) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// How many readers they are kept for.
    #[cfg(test)]
    pub(crate) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    fn fullness(&self) -> Fullness {
        match self.kept() {
            kept if kept >= self.most / 2 => Fullness::Full,
            kept if kept >= self.most / 4 => Fullness::High,
            _ => Fullness::Low,
        }
    }

    /// Keeps what a socket did not take; none when there is no room left for it.
    pub(super) fn keep(self: &Arc<Self>, bytes: &[u8]) -> Option<Box<Rest>> {
        let add = |kept: usize| kept.checked_add(bytes.len()).filter(|sum| *sum <= self.most);
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        self.readers.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(Rest { bytes: bytes.into(), sent: 0, keep: self.clone() }))
    }
}

/// Bytes that wait for a slow reader. Counted until all of them have gone, as their memory is.
#[derive(Debug)]
pub(super) struct Rest {
    bytes: Box<[u8]>,
    sent: usize,
    keep: Arc<Keep>,
}

impl Rest {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.keep.readers.fetch_sub(1, Ordering::Relaxed);
        self.keep.kept.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
