//! Memory that clients make the server hold: input without an answer, and replies that are not read. It is counted by
//! what it takes of the machine, so a limit on the sum is a limit on what the process holds.
//!
//! A few bytes come from the allocator, more from the kernel by the page. So memory that is given back does not stay
//! with the process, in whatever order sizes were mixed. When the system has no more memory, one connection ends and
//! not the process.

use crate::sys::{Mapping, whole_pages};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

/// The most that the allocator adds to one of its blocks.
const BLOCK_OVERHEAD: usize = 16;

/// Up to this size, memory comes from the allocator. With the overhead, sizes are powers of two.
const SMALL_MAX: usize = 512 - BLOCK_OVERHEAD;
const SMALL_MIN: usize = 64 - BLOCK_OVERHEAD;

/// Pages that were given back are kept for the next connection, up to this many bytes. So a line that comes in two
/// packets costs no system call.
const SPARE_BYTES: usize = 1024 * 1024;

/// Larger pieces are not kept.
const SPARE_PIECE: usize = 64 * 1024;

/// Address space that is set aside, and given up when the system has no more. What the rest of the process then needs
/// (for a session, say) comes from it. Without it, an allocation would fail and end the process.
const BALLAST_BYTES: usize = 2 * 1024 * 1024;

/// Memory of one kind (input, or replies), of all connections together.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    used: AtomicUsize,
    /// How much was in use when the system gave no more (`RLIMIT_AS`), less a quarter; 0 if that has not happened.
    exhausted: AtomicUsize,
    spare: Mutex<Spare>,
}

/// Pages that are kept for the next use.
#[derive(Debug, Default)]
struct Spare {
    pieces: Vec<Mapping>,
    bytes: usize,
    ballast: Option<Mapping>,
}

impl Pool {
    /// What a pool may hold beside what it counts: spare pages, and their list.
    pub(crate) const SPARE_BYTES: usize = SPARE_BYTES + 2 * size_of::<Mapping>() * (SPARE_BYTES / 4096);

    /// What one connection can make the allocator hold for good, because its small blocks may lie between others.
    pub(crate) const SMALL_BYTES: usize = SMALL_MAX + BLOCK_OVERHEAD;

    /// What the allocator takes of the machine for a block of this size.
    pub(crate) fn block_cost(bytes: usize) -> usize {
        (bytes + BLOCK_OVERHEAD).next_multiple_of(BLOCK_OVERHEAD)
    }

    /// The bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Counts bytes that are kept elsewhere, if the limit allows them.
    pub(super) fn charge(&self, bytes: usize, limit: usize) -> bool {
        let limit = match self.exhausted.load(Relaxed) {
            0 => limit,
            system => limit.min(system),
        };
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= limit);
        self.used.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    pub(super) fn discharge(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// Pages of this size: spare ones, or else from the kernel.
    fn pages(&self, len: usize) -> Option<Mapping> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = spare.pieces.iter().rposition(|piece| piece.len() == len) {
            spare.bytes -= len;
            return Some(spare.pieces.swap_remove(at));
        }
        let system = self.exhausted.load(Relaxed);
        if spare.ballast.is_none() && (system == 0 || self.used() < system / 2) {
            // The ballast that was given up is set aside again once there is room.
            spare.ballast = Mapping::new(BALLAST_BYTES);
            self.exhausted.store(0, Relaxed);
        }
        drop(spare);
        let pages = Mapping::new(len);
        if pages.is_none() {
            self.exhaust();
        }
        pages
    }

    /// The system has no more: gives the ballast up, and uses a quarter less from now on.
    fn exhaust(&self) {
        let system = self.used() / 4 * 3;
        self.exhausted.store(system.max(1), Relaxed);
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).ballast = None;
    }

    fn give_back(&self, pages: Mapping) {
        if pages.len() > SPARE_PIECE {
            return;
        }
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.bytes + pages.len() <= SPARE_BYTES {
            spare.bytes += pages.len();
            spare.pieces.push(pages);
        }
    }
}

/// Where the bytes of a [`Buffer`] are.
#[derive(Debug, Default)]
enum Memory {
    #[default]
    None,
    Small(Vec<u8>),
    Pages(Mapping),
}

impl Memory {
    fn room(&self) -> &[u8] {
        match self {
            Memory::None => &[],
            Memory::Small(block) => block,
            Memory::Pages(pages) => pages,
        }
    }

    fn room_mut(&mut self) -> &mut [u8] {
        match self {
            Memory::None => &mut [],
            Memory::Small(block) => block,
            Memory::Pages(pages) => pages,
        }
    }

    /// What it takes of the machine, in bytes.
    fn cost(&self) -> usize {
        match self {
            Memory::None => 0,
            Memory::Small(block) => block.capacity() + BLOCK_OVERHEAD,
            Memory::Pages(pages) => pages.len(),
        }
    }

    /// What memory for this number of bytes costs.
    fn cost_of(bytes: usize) -> usize {
        match bytes {
            0 => 0,
            1..=SMALL_MAX => (bytes + BLOCK_OVERHEAD).next_power_of_two().max(SMALL_MIN + BLOCK_OVERHEAD),
            _ => whole_pages(bytes),
        }
    }
}

/// There is no room for more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    /// What the buffer would have taken from the pool.
    pub(super) wanted: usize,
}

/// Bytes in a pool's memory, added at the end and taken from the beginning. Dropping the buffer gives its memory
/// back.
#[derive(Debug)]
pub(crate) struct Buffer {
    pool: Arc<Pool>,
    memory: Memory,
    /// Its bytes are from here to `end`.
    at: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer, which takes no memory.
    pub(crate) fn new(pool: &Arc<Pool>) -> Self {
        Self { pool: pool.clone(), memory: Memory::None, at: 0, end: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory.room()[self.at..self.end]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory.room_mut()[self.at..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it takes from the pool.
    pub(crate) fn cost(&self) -> usize {
        self.memory.cost()
    }

    /// Adds bytes, if the pool's limit allows it. The memory grows by at least a quarter, so that bytes that come one
    /// by one cost little work; but it does not grow past `most` if that is enough.
    pub(crate) fn extend(&mut self, data: &[u8], most: usize, limit: usize) -> Result<(), Full> {
        let needed = self.len() + data.len();
        if needed > self.memory.room().len() {
            let ample = needed + needed / 4;
            self.resize(if needed <= most { ample.min(most) } else { needed }, limit)?;
        }
        if self.end + data.len() > self.memory.room().len() {
            self.compact();
        }
        self.memory.room_mut()[self.end..self.end + data.len()].copy_from_slice(data);
        self.end += data.len();
        Ok(())
    }

    /// Takes bytes from the beginning. Where three quarters of its room are unused then, they are given
    /// back.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.at += bytes;
        debug_assert!(self.at <= self.end);
        if self.is_empty() {
            self.clear();
        } else if self.cost() > Pool::SMALL_BYTES && self.len() <= self.memory.room().len() / 4 {
            // It can fail only where the system refuses a small block, and then all stays as it is.
            let _ = self.resize(self.len(), usize::MAX);
        }
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self) {
        self.pool.discharge(self.memory.cost());
        if let Memory::Pages(pages) = std::mem::take(&mut self.memory) {
            self.pool.give_back(pages);
        }
        (self.at, self.end) = (0, 0);
    }

    fn compact(&mut self) {
        let (at, end) = (self.at, self.end);
        self.memory.room_mut().copy_within(at..end, 0);
        (self.at, self.end) = (0, end - at);
    }

    /// Moves to a room for this number of bytes, of which its own are the first.
    fn resize(&mut self, room: usize, limit: usize) -> Result<(), Full> {
        self.compact();
        let (old, new) = (self.memory.cost(), Memory::cost_of(room));
        if new == old {
            return Ok(());
        }
        if new > old && !self.pool.charge(new - old, limit) {
            return Err(Full { wanted: new });
        }
        let resized = match &mut self.memory {
            Memory::Pages(pages) if room > SMALL_MAX => {
                let resized = pages.resize(new);
                if !resized {
                    self.pool.exhaust();
                }
                resized
            }
            _ => self.replace(room, new),
        };
        if !resized {
            self.pool.discharge(new.saturating_sub(old));
            return Err(Full { wanted: new });
        }
        self.pool.discharge(old.saturating_sub(new));
        Ok(())
    }

    /// Copies its bytes to new memory of this cost; `false` if the system has none.
    fn replace(&mut self, room: usize, cost: usize) -> bool {
        let mut memory = if room > SMALL_MAX {
            let Some(pages) = self.pool.pages(cost) else { return false };
            Memory::Pages(pages)
        } else {
            let mut block = Vec::new();
            if block.try_reserve_exact(cost - BLOCK_OVERHEAD).is_err() {
                return false;
            }
            block.resize(cost - BLOCK_OVERHEAD, 0);
            Memory::Small(block)
        };
        let len = self.len();
        memory.room_mut()[..len].copy_from_slice(self.bytes());
        if let Memory::Pages(pages) = std::mem::replace(&mut self.memory, memory) {
            self.pool.give_back(pages);
        }
        true
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = 4096;

    #[test]
    fn room_is_counted_by_what_it_takes_of_the_machine() {
        let pool = Arc::new(Pool::default());
        let costs = [1, 48, 49, 496, 497, 65_536, 65_537].map(|bytes| {
            let mut buffer = Buffer::new(&pool);
            buffer.extend(&vec![1; bytes], bytes, usize::MAX).unwrap();
            assert_eq!((buffer.cost(), buffer.len()), (pool.used(), bytes));
            buffer.cost()
        });
        let page = whole_pages(1);
        assert_eq!(costs[..4], [64, 64, 128, 512]);
        assert_eq!(costs[4..], [page, 65_536, 65_536 + page]);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let pool = Arc::new(Pool::default());
        let mut buffer = Buffer::new(&pool);
        buffer.extend(b"kept", usize::MAX, 64).unwrap();
        assert_eq!(buffer.extend(&[0; 100], usize::MAX, 64), Err(Full { wanted: 256 }));
        assert_eq!((buffer.bytes(), pool.used()), (&b"kept"[..], 64));
        assert_eq!(Buffer::new(&pool).extend(b"x", usize::MAX, 64), Err(Full { wanted: 64 }));
    }

    #[test]
    fn what_was_given_back_is_used_again_and_is_bounded() {
        let pool = Arc::new(Pool::default());
        let fill = |bytes: usize| {
            let mut buffer = Buffer::new(&pool);
            buffer.extend(&vec![1; bytes], bytes, usize::MAX).unwrap();
            buffer
        };
        drop((0..100).map(|_| fill(SPARE_PIECE)).collect::<Vec<_>>());
        let spare = || pool.spare.lock().unwrap().bytes;
        assert_eq!(spare(), SPARE_BYTES);
        let first = fill(SPARE_PIECE);
        assert_eq!(spare(), SPARE_BYTES - SPARE_PIECE);
        drop(first);
        drop(fill(SPARE_PIECE + 1));
        assert_eq!((spare(), pool.used()), (SPARE_BYTES, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        /// Whatever is added and taken, the bytes stay in order and the sum stays true.
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in proptest::collection::vec((0..20_000usize, 0..100usize, any::<bool>()), 1..40),
        ) {
            let pool = Arc::new(Pool::default());
            let mut buffers = [Buffer::new(&pool), Buffer::new(&pool)];
            let mut models: [Vec<u8>; 2] = Default::default();
            let mut next = 0u8;
            for (bytes, taken, which) in steps {
                let (buffer, model) = (&mut buffers[usize::from(which)], &mut models[usize::from(which)]);
                let data: Vec<u8> = (0..bytes).map(|_| { next = next.wrapping_add(1); next }).collect();
                if buffer.extend(&data, 30_000, 100_000).is_ok() {
                    model.extend(&data);
                }
                let taken = model.len() * taken / 100;
                buffer.consume(taken);
                model.drain(..taken);
                prop_assert_eq!(buffer.bytes(), &model[..]);
                let cost = buffer.cost();
                prop_assert!(cost <= (4 * model.len()).max(model.len() + PAGE * 2), "{} for {}", cost, model.len());
                prop_assert_eq!(pool.used(), buffers[0].cost() + buffers[1].cost());
                prop_assert!(pool.used() <= 100_000);
            }
        }
    }
}
