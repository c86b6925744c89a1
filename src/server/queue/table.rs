//! The table of open connections. It has one slot for each connection that may be open. Slots are allocated in segments
//! when they are needed: an idle server is small, and a full one cannot grow further.

use crate::clock::Nanos;
use crate::server::queue::connection::Connection;
use crate::server::queue::state::State;
use crate::service::TlsSide;
use crate::transport::socket::has_input;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

const SEGMENT: usize = 64;

/// "No deadline" and "since no time".
pub(crate) const NEVER: Nanos = u64::MAX;

/// One place for a connection. Its first cache line is what a turn touches when all goes well: see
/// [`Connection`].
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    pub(crate) state: State,
    /// Which listener its connection came from; set before it is first queued.
    listener: AtomicU32,
    /// When the timekeeper must check it while it is idle.
    pub(crate) deadline: AtomicU64,
    /// Only the owner by [`State`] locks it, so the lock is never contended; it is what makes the
    /// ownership visible to the compiler.
    connection: Mutex<Option<Connection>>,
    /// Which heap of requests its client's are in while the queue stands; set before it is first queued.
    heap: AtomicU64,
}

// A mutex is larger where the system has one of its own.
#[cfg(not(target_vendor = "apple"))]
const _: () = assert!(size_of::<Slot>() == 128, "two cache lines: one for turns, one for the rest");

impl Slot {
    fn new() -> Self {
        Self {
            state: State::new(),
            deadline: AtomicU64::new(NEVER),
            listener: AtomicU32::new(0),
            connection: Mutex::new(None),
            heap: AtomicU64::new(0),
        }
    }

    pub(crate) fn listener(&self) -> usize {
        self.listener.load(Ordering::Relaxed) as usize
    }

    /// A new connection from this listener, with its heap.
    pub(crate) fn set_origin(&self, listener: usize, heap: u64) {
        self.listener.store(listener as u32, Ordering::Relaxed);
        self.heap.store(heap, Ordering::Relaxed);
    }

    /// Which heap of requests its client's are in.
    pub(crate) fn heap(&self) -> u64 {
        self.heap.load(Ordering::Relaxed)
    }

    /// The connection, for the thread that owns it.
    pub(crate) fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    segments: Box<[OnceLock<Box<[Slot]>>]>,
    free: Mutex<Vec<u32>>,
    /// Slots below this index have been in use.
    used: AtomicUsize,
    capacity: usize,
    /// The TLS of each slot's connection, where a listener has any: apart, so that connections without it do not pay for
    /// it. As a slot's connection, it is locked by its owner only.
    sides: OnceLock<Box<[Side]>>,
}

/// The TLS of a slot's connection, if it has any.
type Side = Mutex<Option<Box<TlsSide>>>;

impl Table {
    /// The most connections that it can hold.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            segments: (0..capacity.div_ceil(SEGMENT)).map(|_| OnceLock::new()).collect(),
            free: Mutex::new(Vec::new()),
            used: AtomicUsize::new(0),
            capacity,
            sides: OnceLock::new(),
        }
    }

    /// With room for the TLS of each connection, if a listener has any.
    pub(crate) fn with_tls(self, tls: bool) -> Self {
        if tls {
            self.make_room_for_tls();
        }
        self
    }

    /// A listener has TLS: from now on there is room for that of each connection.
    pub(crate) fn make_room_for_tls(&self) {
        self.sides.get_or_init(|| (0..self.capacity).map(|_| Mutex::new(None)).collect());
    }

    /// The TLS of a slot's connection, for the thread that owns it; made when a TLS client's first byte is there. `None`
    /// if no listener has TLS.
    pub(crate) fn side(&self, index: u32) -> Option<MutexGuard<'_, Option<Box<TlsSide>>>> {
        let side = self.sides.get()?.get(index as usize)?;
        Some(side.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the client of a slot's connection has sent something that its session has not read.
    pub(crate) fn has_input(&self, index: u32, connection: &Connection) -> bool {
        let decrypted =
            self.side(index).is_some_and(|side| side.as_ref().is_some_and(|side| side.has_input()));
        decrypted || has_input(&connection.socket)
    }

    /// Takes a free slot; `None` when all are in use.
    pub(crate) fn take(&self) -> Option<(u32, &Slot)> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match free.pop() {
            Some(index) => index as usize,
            None => {
                let index = self.used.load(Ordering::Relaxed);
                if index == self.capacity {
                    return None;
                }
                self.used.store(index + 1, Ordering::Release);
                index
            }
        };
        drop(free);
        let segment =
            self.segments[index / SEGMENT].get_or_init(|| (0..SEGMENT).map(|_| Slot::new()).collect());
        Some((index as u32, &segment[index % SEGMENT]))
    }

    /// Gives a slot back after its state was released.
    pub(crate) fn give_back(&self, index: u32) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(index);
    }

    /// The slot of an index that a token or an entry carries.
    pub(crate) fn get(&self, index: u32) -> Option<&Slot> {
        self.segments.get(index as usize / SEGMENT)?.get()?.get(index as usize % SEGMENT)
    }

    /// All slots that have been in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..self.used.load(Ordering::Acquire) as u32).filter_map(|index| Some((index, self.get(index)?)))
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_given_out_once_and_found_by_its_number_and_a_full_table_has_none() {
        let table = Table::new(3 * SEGMENT / 2);
        for expected in 0..3 * SEGMENT as u32 / 2 {
            assert!(table.get(expected).is_none_or(|slot| slot.listener() == 0));
            let (number, slot) = table.take().unwrap();
            assert_eq!(number, expected);
            slot.set_origin(number as usize + 1, 7 * u64::from(number) + 1);
        }
        assert!(table.take().is_none(), "it is full");
        for (number, slot) in table.iter() {
            assert_eq!((slot.listener(), slot.heap()), (number as usize + 1, 7 * u64::from(number) + 1));
            assert!(std::ptr::eq(slot, table.get(number).unwrap()));
        }
        assert_eq!(table.iter().count(), 3 * SEGMENT / 2);
        assert!(table.get(2 * SEGMENT as u32).is_none());
        table.give_back(70);
        assert_eq!(table.take().map(|(number, slot)| (number, slot.listener())), Some((70, 71)));
    }

    #[test]
    fn only_a_table_with_tls_has_room_for_it() {
        assert!(Table::new(1).side(0).is_none() && Table::new(1).with_tls(false).side(0).is_none());
        let table = Table::new(2).with_tls(true);
        assert!(table.side(1).is_some_and(|side| side.is_none()) && table.side(2).is_none());
    }
}
