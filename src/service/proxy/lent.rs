//! What a worker lends to a pair for one turn, and what all connections may keep together between turns.

use super::pipes::Pipes;
use crate::service::Pool;
use crate::service::pool::Buffer;
use std::sync::Arc;

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
    /// Memory for what slow readers have not taken, of all connections of the server.
    pub(crate) pool: &'a Arc<Pool>,
    /// The most of it.
    pub(crate) pool_most: usize,
    /// Bytes that each direction may move before other connections have their turn.
    pub(crate) turn_bytes: usize,
}

impl Lent<'_> {
    /// The room for the next piece: smaller when much is kept, so that many slow readers keep little each, and an eighth of
    /// all at most, so that one of them cannot use up a small limit.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let most = (self.pool_most / 8).max(LEAST_BYTES).min(self.buffer.len()).min(PIECE_BYTES);
        let room = match self.pool.used() {
            kept if kept >= self.pool_most / 2 => most.min(LEAST_BYTES),
            kept if kept >= self.pool_most / 4 => most.min(4 * LEAST_BYTES),
            _ => most,
        };
        &mut self.buffer[..room]
    }

    /// Keeps a part of the worker's buffer; none when there is no room left for it.
    pub(super) fn keep(&self, from: usize, to: usize) -> Option<Box<Buffer>> {
        let mut kept = Box::new(Buffer::new(self.pool));
        kept.extend(&self.buffer[from..to], to - from, self.pool_most).ok()?;
        Some(kept)
    }
}
