//! The places of the shelf: one for each connection and each datagram that may wait.

use super::accounts::Class;
use crate::clock::Nanos;
use std::ops::{Index, IndexMut};

/// The place of one connection or datagram. With what the server's queue keeps there it fills a cache line: where thousands
/// wait, putting an entry there and taking it out again are a trip to memory each.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct ShelfSeat<T> {
    pub(super) since: Nanos,
    /// The turn in which this life of the slot was last served, or 0.
    pub(super) served: u64,
    /// The same as it was before that turn.
    pub(super) served_before: u64,
    pub(super) generation: u32,
    pub(super) source: u32,
    pub(super) standing: Stand,
    pub(super) entry: Option<T>,
}

impl<T> ShelfSeat<T> {
    const ABSENT: Self = Self {
        since: 0,
        served: 0,
        served_before: 0,
        generation: 0,
        source: 0,
        standing: Stand::Absent,
        entry: None,
    };
}

/// Whether a place is taken, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Absent,
    Waiting(Class),
    Doubtful(Class),
}

/// All places, numbered: those of connections, then those of datagrams. There is room for each of them from the beginning,
/// and what is never used of it takes no memory: the table of connections gives out its slots from the first on.
#[derive(Debug)]
pub(super) struct Seats<T> {
    connections: Vec<ShelfSeat<T>>,
    datagrams: Vec<ShelfSeat<T>>,
    /// The number of the first datagram's place.
    first_datagram: usize,
}

impl<T> Seats<T> {
    pub(super) fn new(connections: usize, datagrams: usize) -> Self {
        Self {
            connections: Vec::with_capacity(connections),
            datagrams: Vec::with_capacity(datagrams),
            first_datagram: connections,
        }
    }

    /// What it has taken of the allocator.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        (self.connections.capacity() + self.datagrams.capacity()) * size_of::<ShelfSeat<T>>()
    }

    /// The place of this number; `None` if neither it nor one after it was ever taken.
    pub(super) fn get(&self, number: u32) -> Option<&ShelfSeat<T>> {
        match (number as usize).checked_sub(self.first_datagram) {
            None => self.connections.get(number as usize),
            Some(datagram) => self.datagrams.get(datagram),
        }
    }

    /// The same, to take it: there is one.
    pub(super) fn make(&mut self, number: u32) -> &mut ShelfSeat<T> {
        let (seats, at) = match (number as usize).checked_sub(self.first_datagram) {
            None => (&mut self.connections, number as usize),
            Some(datagram) => (&mut self.datagrams, datagram),
        };
        if at >= seats.len() {
            seats.resize_with(at + 1, || ShelfSeat::ABSENT);
        }
        &mut seats[at]
    }
}

/// For a place that is taken, or was.
impl<T> Index<u32> for Seats<T> {
    type Output = ShelfSeat<T>;

    fn index(&self, number: u32) -> &ShelfSeat<T> {
        match (number as usize).checked_sub(self.first_datagram) {
            None => &self.connections[number as usize],
            Some(datagram) => &self.datagrams[datagram],
        }
    }
}

impl<T> IndexMut<u32> for Seats<T> {
    fn index_mut(&mut self, number: u32) -> &mut ShelfSeat<T> {
        match (number as usize).checked_sub(self.first_datagram) {
            None => &mut self.connections[number as usize],
            Some(datagram) => &mut self.datagrams[datagram],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_made_when_it_is_first_taken_and_those_of_the_other_kind_are_not() {
        let mut seats = Seats::<u8>::new(4, 2);
        assert!((0..6).all(|number| seats.get(number).is_none()));
        seats.make(2).entry = Some(2);
        seats.make(5).entry = Some(5);
        let entries: Vec<_> = (0..7).map(|number| seats.get(number).map(|seat| seat.entry)).collect();
        assert_eq!(entries, [Some(None), Some(None), Some(Some(2)), None, Some(None), Some(Some(5)), None]);
        seats[5].source = 7;
        assert_eq!((seats[5].source, seats[2].source, seats.make(5).entry), (7, 0, Some(5)));
        assert_eq!(seats.bytes(), 6 * size_of::<ShelfSeat<u8>>());
    }
}
