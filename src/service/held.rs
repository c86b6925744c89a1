//! Input that a session holds from one turn to the next, counted in `input_total`.

use super::Fault;
use crate::limits::Limits;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes that a client has sent and nobody has answered: the beginning of a request, or requests
/// that another turn will answer.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// Where the bytes begin that are not answered.
    at: usize,
    /// What it has taken of `total`: the room for its bytes. Given back when it is dropped.
    taken: usize,
    total: Arc<AtomicUsize>,
}

impl Held {
    /// The least room that is made.
    const ROOM_MIN: usize = 64;

    pub(super) fn new(total: &Arc<AtomicUsize>) -> Self {
        Self { bytes: Vec::new(), at: 0, taken: 0, total: total.clone() }
    }

    /// The bytes that are not answered.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `n` of them are answered.
    pub(super) fn answered(&mut self, n: usize) {
        self.at += n;
        debug_assert!(self.at <= self.bytes.len());
    }

    /// Adds bytes, if there is room. Room is made by doubling, but no more than `most` if that is
    /// enough, so that a client that drips makes no work.
    pub(super) fn extend(&mut self, data: &[u8], most: usize, limits: &Limits) -> io::Result<()> {
        self.compact();
        let needed = self.bytes.len() + data.len();
        if needed > self.taken {
            let doubled = needed.next_power_of_two().max(Self::ROOM_MIN);
            let room = doubled.min(most).max(needed);
            let more = room - self.taken;
            if self.total.fetch_add(more, Relaxed) + more > limits.input_total {
                self.total.fetch_sub(more, Relaxed);
                return Err(Fault::InputLimit.into());
            }
            self.taken = room;
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Gives back the room of what was answered, when that is worth it.
    pub(super) fn shrink(&mut self) {
        if self.len() <= self.taken / 4 {
            self.compact();
            let room = self.bytes.len().max(Self::ROOM_MIN).min(self.taken);
            self.bytes.shrink_to(room);
            self.total.fetch_sub(self.taken - room, Relaxed);
            self.taken = room;
        }
    }

    fn compact(&mut self) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.taken, Relaxed);
    }
}
