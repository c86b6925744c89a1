//! Input that sessions hold while their connections are parked, by source: what is given up first
//! when all of it together is more than the limit.
//!
//! One source (an address, or the addresses of one network) could fill the limit with half-sent
//! requests, and then nobody else's request could come in two packets. So when there is no room, the
//! source that holds most gives some back: its largest piece is taken away, and the connection which
//! that piece belonged to ends at its next turn. What is held during a turn is not in this table and is
//! never taken away.

use super::pool::{Buffer, Parts, Pool};
use crate::admit::sources::SourceKey;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, MutexGuard, PoisonError};

/// All that is parked in a [`Pool`].
#[derive(Debug, Default)]
pub(super) struct Parked {
    places: Vec<Place>,
    free: Vec<u32>,
    by_source: HashMap<SourceKey, usize>,
}

/// One place in the table, for one session after the other.
#[derive(Debug)]
struct Place {
    /// Which of its sessions is meant.
    generation: u32,
    piece: Option<(SourceKey, Parts)>,
}

impl Parked {
    /// The most that the table takes for one connection: it grows by doubling.
    pub(super) const CONNECTION_BYTES: usize =
        2 * (size_of::<Place>() + size_of::<u32>()) + 4 * (size_of::<(SourceKey, usize)>() + 1);

    /// Takes what is in a place, if it is still that of this generation.
    fn take(&mut self, index: u32, generation: u32) -> Option<(SourceKey, Parts)> {
        let place = self.places.get_mut(index as usize).filter(|place| place.generation == generation)?;
        let (source, parts) = place.piece.take()?;
        place.generation = generation.wrapping_add(1);
        self.free.push(index);
        if let Entry::Occupied(mut sum) = self.by_source.entry(source) {
            *sum.get_mut() -= parts.cost();
            if *sum.get() == 0 {
                sum.remove();
            }
        }
        Some((source, parts))
    }

    /// The piece that is given up for `source`, which wants a piece of `size`: the largest of the source
    /// that has most, if that is larger than what `source` would have.
    fn victim(&self, source: SourceKey, size: usize) -> Option<(u32, u32)> {
        let own = self.by_source.get(&source).copied().unwrap_or(0) + size;
        let (&largest, &total) = self.by_source.iter().max_by_key(|(_, total)| **total)?;
        let (from, at_least) = if total > own { (largest, 0) } else { (source, size) };
        let pieces = self.places.iter().enumerate().filter_map(|(index, place)| {
            let (source, parts) = place.piece.as_ref()?;
            (*source == from && parts.cost() > at_least).then_some((parts.cost(), index, place.generation))
        });
        pieces.max().map(|(_, index, generation)| (index as u32, generation))
    }
}

impl Pool {
    fn parked(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parks a buffer until its session has another turn; `None` if there is no memory for that.
    pub(super) fn park(buffer: Buffer, source: SourceKey) -> Option<Ticket> {
        let pool = buffer.pool().clone();
        let mut parked = pool.parked();
        if parked.free.is_empty() {
            let index = parked.places.len() as u32;
            parked.places.try_reserve(1).ok()?;
            // Room for every place at once, so that giving one back never needs any.
            let places = parked.places.capacity();
            parked.free.try_reserve(places).ok()?;
            parked.places.push(Place { generation: 0, piece: None });
            parked.free.push(index);
        }
        parked.by_source.try_reserve(1).ok()?;
        let index = parked.free.pop()?;
        let parts = buffer.into_parts();
        *parked.by_source.entry(source).or_default() += parts.cost();
        let place = &mut parked.places[index as usize];
        place.piece = Some((source, parts));
        let generation = place.generation;
        drop(parked);
        Some(Ticket { pool, index, generation })
    }

    /// Makes room for a piece of `size` that `source` wants, by taking another away; `false` if `source`
    /// itself holds most, and nothing larger than this.
    pub(super) fn make_room(self: &Arc<Self>, source: SourceKey, size: usize) -> bool {
        let mut parked = self.parked();
        let victim = parked.victim(source, size);
        let piece = victim.and_then(|(index, generation)| parked.take(index, generation));
        drop(parked);
        // Given back when it is dropped, here.
        piece.map(|(_, parts)| Buffer::from_parts(self, parts)).is_some()
    }
}

/// What a parked session keeps of its input: where it is.
#[derive(Debug)]
pub(super) struct Ticket {
    pool: Arc<Pool>,
    index: u32,
    generation: u32,
}

impl Ticket {
    /// Takes the input back for a turn; `None` if it was given up for another source.
    pub(super) fn redeem(self) -> Option<(Buffer, SourceKey)> {
        self.take()
    }

    fn take(&self) -> Option<(Buffer, SourceKey)> {
        let (source, parts) = self.pool.parked().take(self.index, self.generation)?;
        Some((Buffer::from_parts(&self.pool, parts), source))
    }
}

impl Drop for Ticket {
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

    fn source(number: u8) -> SourceKey {
        SourceKey::new(IpAddr::from([127, 0, 0, number]), (32, 64))
    }

    fn piece(pool: &Arc<Pool>, bytes: usize) -> Buffer {
        let mut buffer = Buffer::new(pool);
        buffer.extend(&vec![b'x'; bytes], bytes, usize::MAX).unwrap();
        buffer
    }

    #[test]
    fn what_is_parked_comes_back_once_and_a_dropped_ticket_gives_it_back() {
        let pool = Arc::new(Pool::default());
        let ticket = Pool::park(piece(&pool, PAGE), source(1)).unwrap();
        let other = Pool::park(piece(&pool, 10), source(1)).unwrap();
        assert_eq!(pool.parked().by_source[&source(1)], PAGE + 64);
        let (buffer, of) = ticket.redeem().unwrap();
        assert_eq!((buffer.bytes(), of), (&[b'x'; PAGE][..], source(1)));
        drop(buffer);
        assert_eq!(pool.used(), 64);
        drop(other);
        assert_eq!((pool.used(), pool.parked().by_source.len()), (0, 0));
        // Places are used again, and an old ticket's generation is not theirs.
        let again = Pool::park(piece(&pool, 10), source(2)).unwrap();
        assert_eq!((pool.parked().places.len(), again.index), (2, 1));
    }

    #[test]
    fn the_largest_piece_of_the_largest_source_is_given_up_first() {
        let pool = Arc::new(Pool::default());
        let park = |bytes: usize, of: u8| Pool::park(piece(&pool, bytes), source(of)).unwrap();
        let (small, large, medium) = (park(PAGE, 1), park(3 * PAGE, 1), park(2 * PAGE, 1));
        let polite = park(4 * PAGE, 2);
        assert!(pool.make_room(source(3), PAGE));
        assert!(pool.make_room(source(2), PAGE), "what it has itself is less than the largest has");
        // Now 2 has most: 4 pages, and 1 has one.
        assert!(pool.make_room(source(1), PAGE));
        let came_back = [small, large, medium, polite].map(|ticket| ticket.redeem().is_some());
        assert_eq!(came_back, [true, false, false, false]);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn within_one_source_the_larger_piece_gives_way_and_an_equal_one_does_not() {
        let pool = Arc::new(Pool::default());
        let _parked = Pool::park(piece(&pool, 2 * PAGE), source(1)).unwrap();
        assert!(!pool.make_room(source(1), 2 * PAGE));
        assert!(pool.make_room(source(1), PAGE));
        assert!(!pool.make_room(source(1), PAGE), "there is nobody left");
    }
}
