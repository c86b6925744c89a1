//! What a pair may use during one turn: the worker's buffer, and the memory that all connections share for bytes that
//! slow readers have not taken.

use super::pipes::Pipes;
use crate::service::Pool;
use crate::service::pool::Buffer;
use std::sync::Arc;

/// The most bytes that one read takes, and so the most that one direction has to keep for a slow reader.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// The least that one read may be limited to, when the shared memory is well used.
const LEAST_BYTES: usize = 4 * 1024;

/// What one turn may use.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    /// The worker's buffer, of [`PIECE_BYTES`].
    pub(crate) buffer: &'a mut [u8],
    pub(crate) pipes: &'a Arc<Pipes>,
    /// The memory that all connections of the server share for bytes that slow readers have not taken.
    pub(crate) pool: &'a Arc<Pool>,
    /// How many bytes the pool may hold.
    pub(crate) pool_most: usize,
    /// How many bytes each direction may move in one turn.
    pub(crate) turn_bytes: usize,
}

impl Lent<'_> {
    /// The part of the buffer that the next read may fill. It is smaller while the pool is well used, so that many slow
    /// readers keep little each, and never more than an eighth of the pool, so that one reader cannot use up a small pool.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let most = (self.pool_most / 8).max(LEAST_BYTES).min(self.buffer.len()).min(PIECE_BYTES);
        let room = match self.pool.used() {
            kept if kept >= self.pool_most / 2 => most.min(LEAST_BYTES),
            kept if kept >= self.pool_most / 4 => most.min(4 * LEAST_BYTES),
            _ => most,
        };
        &mut self.buffer[..room]
    }

    /// Copies a part of the worker's buffer into the pool; `None` if the pool has no room for it.
    pub(super) fn keep(&self, from: usize, to: usize) -> Option<Box<Buffer>> {
        let mut kept = Box::new(Buffer::new(self.pool));
        kept.extend(&self.buffer[from..to], to - from, self.pool_most).ok()?;
        Some(kept)
    }
}
