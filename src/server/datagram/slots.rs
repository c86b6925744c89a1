//! The places for datagrams that wait for a worker: a fixed number, each with a buffer that is allocated at its first
//! use and kept.

use crate::sys::Taken;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One place, and the datagram in it.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The number of the socket it came to.
    pub(crate) socket: usize,
    pub(crate) taken: Taken,
    buffer: Box<[u8]>,
}

impl Letter {
    pub(crate) fn request(&self) -> &[u8] {
        &self.buffer[..self.taken.len]
    }
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// The thread that has taken a place's entry from the line owns it, so the locks are never contended.
    places: Box<[Mutex<Letter>]>,
    free: Mutex<Vec<u32>>,
    size: usize,
}

impl Mailbox {
    /// Bytes of a place beside its buffer.
    pub(crate) const SLOT_BYTES: usize = size_of::<Mutex<Letter>>() + size_of::<u32>();

    pub(crate) fn new(capacity: usize, size: usize) -> Self {
        let place = || Mutex::new(Letter { socket: 0, taken: Taken::NONE, buffer: Box::default() });
        Self {
            places: (0..capacity).map(|_| place()).collect(),
            // The last one first: the few that are in use stay warm.
            free: Mutex::new((0..capacity as u32).rev().collect()),
            size,
        }
    }

    /// Copies a datagram into a free place; `None` when there is none.
    pub(crate) fn put(&self, socket: usize, taken: &Taken, request: &[u8]) -> Option<u32> {
        let number = self.free().pop()?;
        let mut place = self.lock(number);
        if place.buffer.is_empty() {
            place.buffer = vec![0; self.size].into_boxed_slice();
        }
        place.socket = socket;
        place.taken = *taken;
        place.buffer[..request.len()].copy_from_slice(request);
        Some(number)
    }

    /// The datagram in a place, for the thread that took its entry from the line.
    pub(crate) fn lock(&self, number: u32) -> MutexGuard<'_, Letter> {
        self.places[number as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place is free again.
    pub(crate) fn give_back(&self, number: u32) {
        self.free().push(number);
    }

    fn free(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let waiting = Mailbox::new(2, 8);
        let taken = |len| Taken { len, ..Taken::NONE };
        let first = waiting.put(0, &taken(5), b"first").unwrap();
        let second = waiting.put(1, &taken(6), b"second").unwrap();
        assert_eq!(waiting.put(0, &taken(5), b"third"), None);
        assert_eq!(waiting.lock(first).request(), b"first");
        waiting.give_back(first);
        let third = waiting.put(0, &taken(3), b"3rd").unwrap();
        assert_eq!(
            (waiting.lock(third).request(), waiting.lock(second).request()),
            (&b"3rd"[..], &b"second"[..])
        );
    }
}
