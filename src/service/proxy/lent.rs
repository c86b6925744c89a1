//! What a pair may use during one turn: the worker's buffer, and the memory that all connections share for bytes that
//! slow readers have not taken.

use super::pipes::Pipes;
use crate::service::Pool;
use crate::service::pool::Buffer;
use crate::transport::tls::PLAIN_MAX;
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

/// How many bytes the next read may take for a reader that may be slow. They are fewer while the pool is well used, so that
/// many slow readers keep little each, and never more than an eighth of the pool, so that one reader cannot use up a small
/// pool.
pub(super) fn room(used: usize, most: usize) -> usize {
    let room = (most / 8).clamp(LEAST_BYTES, PIECE_BYTES);
    match used {
        kept if kept >= most / 2 => room.min(LEAST_BYTES),
        kept if kept >= most / 4 => room.min(4 * LEAST_BYTES),
        _ => room,
    }
}

impl Lent<'_> {
    /// The part of the buffer that the next read may fill: see [`room`].
    pub(super) fn room(&mut self) -> &mut [u8] {
        let room = room(self.pool.used(), self.pool_most).min(self.buffer.len());
        &mut self.buffer[..room]
    }

    /// The same for a client that speaks TLS: at least the bytes of a record.
    pub(super) fn room_for_record(&mut self) -> &mut [u8] {
        let room = self.room().len().max(PLAIN_MAX).min(self.buffer.len());
        &mut self.buffer[..room]
    }

    /// Copies a part of the worker's buffer into the pool; `None` if the pool has no room for it.
    pub(super) fn keep(&self, from: usize, to: usize) -> Option<Box<Buffer>> {
        let mut kept = None;
        self.add(&mut kept, &self.buffer[from..to]).then_some(kept)?
    }

    /// Adds bytes to those that are kept; false if the pool has no room for them.
    pub(super) fn add(&self, kept: &mut Option<Box<Buffer>>, bytes: &[u8]) -> bool {
        let kept = kept.get_or_insert_with(|| Box::new(Buffer::new(self.pool)));
        kept.extend(bytes, usize::MAX, self.pool_most).is_ok()
    }
}
