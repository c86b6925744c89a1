//! Memory that parked connections hold, by source, and what is given up when the total reaches its limit. One table
//! counts input, another one counts replies that clients have not read.
//!
//! Without this, one source (an address, or the addresses of one network) could fill the limit with half-sent
//! requests, and no other client could send a request in two packets. Or it could fill the limit with replies that it
//! does not read. So when there is no room, the source that holds most gives up its largest piece, and the connection
//! of that piece ends at its next turn. What a connection holds during a turn is not in this table and is never given
//! up.

use super::Seat;
use super::pool::{Buffer, Pool};
use crate::admit::sources::SourceKey;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The memory of one kind that all sessions hold, and a table of the part that is parked.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    pool: Arc<Pool>,
    table: Mutex<HoldingsTable>,
}

#[derive(Debug, Default)]
struct HoldingsTable {
    places: Vec<HoldingsPlace>,
    free: Vec<u32>,
    by_source: HashMap<SourceKey, usize>,
}

/// A place in the table. Sessions use it one after the other.
#[derive(Debug)]
struct HoldingsPlace {
    /// Counts the sessions that have used this place, so that an old number does not fit a new session.
    generation: u32,
    piece: Option<(SourceKey, Buffer)>,
    seat: Seat,
}

impl HoldingsTable {
    /// Takes the piece in this place, if it is still the one of this generation.
    fn take(&mut self, index: u32, generation: u32) -> Option<(SourceKey, Buffer)> {
        let place = self.places.get_mut(index as usize).filter(|place| place.generation == generation)?;
        let (source, buffer) = place.piece.take()?;
        place.generation = generation.wrapping_add(1);
        self.free.push(index);
        if let Entry::Occupied(mut sum) = self.by_source.entry(source) {
            *sum.get_mut() -= buffer.cost();
            if *sum.get() == 0 {
                sum.remove();
            }
        }
        Some((source, buffer))
    }

    /// Chooses the piece that is given up when `source` wants `size` bytes: the largest piece of the source that
    /// holds most, if that source holds more than `source` would then.
    fn victim(&self, source: SourceKey, size: usize, own_too: bool) -> Option<(u32, u32)> {
        let own = self.by_source.get(&source).copied().unwrap_or(0) + size;
        let (&largest, &total) = self.by_source.iter().max_by_key(|(_, total)| **total)?;
        let (from, at_least) = if total > own { (largest, 0) } else { (source, size) };
        if from == source && !own_too {
            return None;
        }
        let pieces = self.places.iter().enumerate().filter_map(|(index, place)| {
            let (source, buffer) = place.piece.as_ref()?;
            let larger = *source == from && buffer.cost() > at_least;
            larger.then_some((buffer.cost(), index, place.generation))
        });
        pieces.max().map(|(_, index, generation)| (index as u32, generation))
    }

    /// Adds free places if there is none; `None` if there is no memory for them.
    fn make_place(&mut self, seat: Seat) -> Option<()> {
        self.by_source.try_reserve(1).ok()?;
        if self.free.is_empty() {
            let index = self.places.len() as u32;
            self.places.try_reserve(1).ok()?;
            // The list of free places gets room for all of them now, so that giving one back never needs memory.
            self.free.try_reserve(self.places.capacity()).ok()?;
            self.places.push(HoldingsPlace { generation: 0, piece: None, seat });
            self.free.push(index);
        }
        Some(())
    }
}

impl Holdings {
    /// The most memory that the table takes for one connection. The table doubles when it grows.
    pub(crate) const CONNECTION_BYTES: usize =
        2 * (size_of::<HoldingsPlace>() + size_of::<u32>()) + 4 * (size_of::<(SourceKey, usize)>() + 1);

    /// The pool that the memory comes from.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.pool.used()
    }

    fn table(&self) -> MutexGuard<'_, HoldingsTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a buffer until its session has another turn; `None` if there is no memory for a place.
    pub(super) fn deposit(
        self: &Arc<Self>,
        buffer: Buffer,
        source: SourceKey,
        seat: Seat,
    ) -> Option<Deposit> {
        let mut table = self.table();
        table.make_place(seat)?;
        let index = table.free.pop()?;
        *table.by_source.entry(source).or_default() += buffer.cost();
        let place = &mut table.places[index as usize];
        place.piece = Some((source, buffer));
        place.seat = seat;
        let generation = place.generation;
        drop(table);
        Some(Deposit { holdings: self.clone(), index, generation })
    }

    /// Gives up a piece of another source so that `source` has room for `size` bytes, and returns whose piece it was.
    /// `None` if `source` itself holds most and has no larger piece. With `own_too` false, no piece of `source` is
    /// given up.
    pub(super) fn make_room(&self, source: SourceKey, size: usize, own_too: bool) -> Option<Seat> {
        let mut table = self.table();
        let (index, generation) = table.victim(source, size, own_too)?;
        let seat = table.places[index as usize].seat;
        let taken = table.take(index, generation);
        drop(table);
        taken.map(|_| seat)
    }
}

/// What a parked session keeps of its input: its place in the table.
#[derive(Debug)]
pub(super) struct Deposit {
    holdings: Arc<Holdings>,
    index: u32,
    generation: u32,
}

impl Deposit {
    /// Takes the input back for a turn; `None` if it was given up for another source.
    pub(super) fn redeem(self) -> Option<(SourceKey, Buffer)> {
        self.take()
    }

    fn take(&self) -> Option<(SourceKey, Buffer)> {
        self.holdings.table().take(self.index, self.generation)
    }
}

impl Drop for Deposit {
    fn drop(&mut self) {
        // A session that ends while it is parked.
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const PAGE: usize = 4096;
    const SEAT: Seat = Seat { slot: 0, generation: 0 };

    fn seat(slot: usize) -> Seat {
        Seat { slot: slot as u32, generation: 1 }
    }

    fn source(number: u8) -> SourceKey {
        SourceKey::new(IpAddr::from([127, 0, 0, number]), (32, 64))
    }

    fn piece(holdings: &Holdings, bytes: usize) -> Buffer {
        let mut buffer = Buffer::new(holdings.pool());
        buffer.extend(&vec![b'x'; bytes], bytes, usize::MAX).unwrap();
        buffer
    }

    #[test]
    fn what_is_parked_comes_back_once_and_a_deposit_that_is_dropped_gives_it_back() {
        let holdings = Arc::new(Holdings::default());
        let deposit = holdings.deposit(piece(&holdings, PAGE), source(1), SEAT).unwrap();
        let other = holdings.deposit(piece(&holdings, 10), source(1), SEAT).unwrap();
        assert_eq!(holdings.table().by_source[&source(1)], PAGE + 64);
        let (of, buffer) = deposit.redeem().unwrap();
        assert_eq!((buffer.bytes(), of), (&[b'x'; PAGE][..], source(1)));
        drop(buffer);
        assert_eq!(holdings.used(), 64);
        drop(other);
        assert_eq!((holdings.used(), holdings.table().by_source.len()), (0, 0));
        // Places are used again, and an old deposit's generation is not theirs.
        let again = holdings.deposit(piece(&holdings, 10), source(2), SEAT).unwrap();
        assert_eq!((holdings.table().places.len(), again.index), (2, 1));
    }

    #[test]
    fn the_largest_piece_of_the_largest_source_is_given_up_first() {
        let holdings = Arc::new(Holdings::default());
        let park = |bytes: usize, of: u8| {
            holdings.deposit(piece(&holdings, bytes), source(of), seat(bytes)).unwrap()
        };
        let (small, large, medium) = (park(PAGE, 1), park(3 * PAGE, 1), park(2 * PAGE, 1));
        let polite = park(4 * PAGE, 2);
        assert_eq!(holdings.make_room(source(3), PAGE, true), Some(seat(3 * PAGE)));
        assert_eq!(
            holdings.make_room(source(2), PAGE, true),
            Some(seat(4 * PAGE)),
            "with the new one it has most"
        );
        // Now 1 has most: 3 pages.
        assert_eq!(holdings.make_room(source(2), PAGE, true), Some(seat(2 * PAGE)));
        let came_back = [small, large, medium, polite].map(|deposit| deposit.redeem().is_some());
        assert_eq!(came_back, [true, false, false, false]);
        assert_eq!(holdings.used(), 0);
    }

    #[test]
    fn within_one_source_the_larger_piece_gives_way_and_an_equal_one_does_not() {
        let holdings = Arc::new(Holdings::default());
        let _parked = holdings.deposit(piece(&holdings, 2 * PAGE), source(1), SEAT).unwrap();
        assert_eq!(holdings.make_room(source(1), 2 * PAGE, true), None);
        assert_eq!(holdings.make_room(source(1), PAGE, true), Some(SEAT));
        assert_eq!(holdings.make_room(source(1), PAGE, true), None, "there is nobody left");
    }
}
