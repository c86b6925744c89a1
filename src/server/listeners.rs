//! Two lists of listeners: those for connections, and those for datagrams. Each listener has a seat in its list, and keeps
//! the number of that seat while the server serves.
//!
//! At the start there are more seats than listeners, since listeners may open while the server serves. A listener that is
//! closed keeps its seat, its counts and its last connections, and may open again.

use super::listener::Listener;
use std::ops::Index;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

pub(crate) struct Listeners<T = Listener> {
    seats: Box<[OnceLock<T>]>,
    /// How many of them are taken, from the first on.
    taken: AtomicUsize,
}

impl<T> Listeners<T> {
    /// These listeners, and room for `more`.
    pub(crate) fn new(first: Vec<T>, more: usize) -> Self {
        let taken = first.len();
        let free = (0..more).map(|_| OnceLock::new());
        let seats = first.into_iter().map(OnceLock::from).chain(free).collect();
        Self { seats, taken: taken.into() }
    }

    /// How many there have been: the number of the next.
    pub(crate) fn len(&self) -> usize {
        self.taken.load(Acquire)
    }

    /// How many there can be.
    pub(crate) fn room(&self) -> usize {
        self.seats.len()
    }

    /// All of them, also those that are closed, by their numbers.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &T> + Clone {
        let taken = self.len();
        (0..taken).map(|number| &self[number])
    }

    /// The one of this number, if there is one.
    pub(crate) fn get(&self, number: usize) -> Option<&T> {
        self.seats.get(number).and_then(OnceLock::get)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives a listener the next seat; nothing where all are taken. One thread at a time calls it.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens and closes listeners"))]
    pub(crate) fn add(&self, listener: T) -> Option<usize> {
        let number = self.len();
        self.seats.get(number)?.set(listener).ok()?;
        self.taken.store(number + 1, Release);
        Some(number)
    }
}

impl<T> Index<usize> for Listeners<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: usize) -> &T {
        self.seats[number].get().expect("whoever knows its number knows that it is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Echo;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    fn listener(position: usize) -> Listener {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1 + position as u16));
        Listener::new(OwnedFd::from(socket).into(), address.into(), Arc::new(Echo), position, None)
    }

    #[test]
    fn a_listener_keeps_its_number_and_the_last_seat_is_the_last() {
        let listeners = Listeners::new(vec![listener(0)], 2);
        assert_eq!((listeners.len(), listeners.room()), (1, 3));
        assert_eq!([1, 2].map(|position| listeners.add(listener(position))), [Some(1), Some(2)]);
        assert!(listeners.add(listener(3)).is_none());
        let positions: Vec<_> = listeners.iter().map(|listener| listener.position).collect();
        assert_eq!((positions, listeners[2].position), (vec![0, 1, 2], 2));
    }

    #[test]
    fn one_that_comes_while_others_are_looked_at_is_whole_or_not_there() {
        let listeners = Listeners::new(vec![], 8);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..8).for_each(|position| assert_eq!(listeners.add(listener(position)), Some(position)))
            });
            while listeners.len() < 8 {
                listeners.iter().enumerate().for_each(|(at, listener)| assert_eq!(listener.position, at));
            }
        });
    }
}
