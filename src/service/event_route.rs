//! Routes for events. Several sessions use one descriptor, one after the other: a connection to a backend that is kept
//! between two requests is such a descriptor. Its route says which session is told of its events now.
//!
//! While the descriptor is open, the poller knows it by the number of its route. The next session takes the route over
//! with one atomic step. To register the descriptor again would cost a system call for each request.
//!
//! ```text
//!         open               rest              take
//!   free ------> of a session ----> of nobody ------> of the next session
//!                 | event: the session is told        | what came while it was nobody's is known
//! ```

use super::seat::Seat;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A route's word holds, from its lowest bit: the slot of the session that is told and the generation of that slot, the
/// three marks below, and the route's life, which counts up when the route is closed.
const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 25;
const OWNER: u64 = (1 << (SLOT_BITS + GENERATION_BITS)) - 1;
/// A session has the descriptor.
const OWNED: u64 = 1 << 49;
/// An event came that nobody has cleared.
const NEWS: u64 = 1 << 50;
/// The other side has closed its half, or the connection failed.
const HUNG_UP: u64 = 1 << 51;
const LIFE_SHIFT: u32 = 52;

/// The first segment of the table has this many routes, and each further one twice as many as the one before.
const FIRST_SEGMENT: u32 = 64;
/// All segments together have room for a route to each connection that backends may have.
const SEGMENTS: usize = 18;

/// The name of a route. An event that outlived its route does not fit the route that has its number now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteId {
    pub(crate) number: u32,
    pub(crate) life: u32,
}

/// What happened to a descriptor while it was nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteNews {
    /// No event came.
    Nothing,
    /// An event came: there may be something to read.
    Some,
    /// The other side has closed its half, or the connection failed.
    HungUp,
}

/// All routes of a server.
#[derive(Debug, Default)]
pub(crate) struct EventRoutes {
    segments: [OnceLock<Box<[AtomicU64]>>; SEGMENTS],
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    free: Vec<u32>,
    /// Numbers below this have been in use.
    used: u32,
}

/// The route of one descriptor's events, until it is dropped.
#[derive(Debug)]
pub(crate) struct EventRoute {
    routes: Arc<EventRoutes>,
    id: RouteId,
}

/// The segment of a number, and the place in it.
fn segment_of(number: u32) -> (usize, usize) {
    let round = number / FIRST_SEGMENT + 1;
    let segment = round.ilog2();
    (segment as usize, (number - FIRST_SEGMENT * ((1 << segment) - 1)) as usize)
}

fn owner_bits(seat: Seat) -> u64 {
    debug_assert!(seat.slot < 1 << SLOT_BITS && seat.generation < 1 << GENERATION_BITS);
    (u64::from(seat.slot) | u64::from(seat.generation) << SLOT_BITS) & OWNER
}

/// The session that is told, if there is one.
fn owner_of(word: u64) -> Option<Seat> {
    let owner = word & OWNER;
    let slot = (owner & ((1 << SLOT_BITS) - 1)) as u32;
    (word & OWNED != 0).then_some(Seat { slot, generation: (owner >> SLOT_BITS) as u32 })
}

impl EventRoutes {
    /// What a route takes of the table, which doubles when it grows, and of the list of free numbers.
    pub(crate) const ROUTE_BYTES: usize = 2 * (size_of::<AtomicU64>() + size_of::<u32>());

    /// Opens a route to this session; `None` if there are as many routes as there can be.
    pub(crate) fn open(self: &Arc<Self>, seat: Seat) -> Option<EventRoute> {
        let number = {
            let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
            match numbers.free.pop() {
                Some(number) => number,
                None => {
                    let number = numbers.used;
                    let room = FIRST_SEGMENT << segment_of(number).0;
                    let segment = self.segments.get(segment_of(number).0)?;
                    segment.get_or_init(|| (0..room).map(|_| AtomicU64::new(0)).collect());
                    numbers.used += 1;
                    number
                }
            }
        };
        let word = self.word(number)?;
        let life = word.load(Relaxed) >> LIFE_SHIFT;
        word.store(life << LIFE_SHIFT | OWNED | owner_bits(seat), Release);
        Some(EventRoute { routes: self.clone(), id: RouteId { number, life: life as u32 } })
    }

    /// An event came. Returns the session to tell of it, if the descriptor is somebody's.
    pub(crate) fn event(&self, id: RouteId, hung_up: bool) -> Option<Seat> {
        let marks = if hung_up { NEWS | HUNG_UP } else { NEWS };
        let word = self.word(id.number)?;
        let mut before = word.load(Acquire);
        loop {
            if before >> LIFE_SHIFT != u64::from(id.life) {
                return None;
            }
            match word.compare_exchange_weak(before, before | marks, AcqRel, Acquire) {
                Ok(_) => return owner_of(before),
                Err(now) => before = now,
            }
        }
    }

    fn word(&self, number: u32) -> Option<&AtomicU64> {
        let (segment, place) = segment_of(number);
        self.segments.get(segment)?.get()?.get(place)
    }
}

impl EventRoute {
    pub(crate) fn id(&self) -> RouteId {
        self.id
    }

    fn word(&self) -> &AtomicU64 {
        // The route is open, so its segment is there.
        self.routes.word(self.id.number).unwrap_or(&CLOSED)
    }

    /// Before the session reads: what has come until now is not news any more. That the other side has hung up stays known.
    pub(crate) fn clear(&self) {
        let word = self.word();
        if word.load(Relaxed) & NEWS != 0 {
            word.fetch_and(!NEWS, AcqRel);
        }
    }

    /// Whether an event has told that the other side has closed its half, or that the connection failed.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.word().load(Acquire) & HUNG_UP != 0
    }

    /// From now on the descriptor is nobody's: its events are only noted.
    pub(crate) fn rest(&self) {
        self.word().fetch_and(!(OWNER | OWNED), AcqRel);
    }

    /// From now on this session is told of events. Returns what came since the session before it has last read.
    pub(crate) fn take(&self, seat: Seat) -> RouteNews {
        let word = self.word();
        let mut before = word.load(Acquire);
        loop {
            let after = before & !(OWNER | NEWS) | OWNED | owner_bits(seat);
            match word.compare_exchange_weak(before, after, AcqRel, Acquire) {
                Ok(_) if before & HUNG_UP != 0 => return RouteNews::HungUp,
                Ok(_) if before & NEWS != 0 => return RouteNews::Some,
                Ok(_) => return RouteNews::Nothing,
                Err(now) => before = now,
            }
        }
    }
}

/// The word of no route.
static CLOSED: AtomicU64 = AtomicU64::new(0);

impl Drop for EventRoute {
    fn drop(&mut self) {
        let life = u64::from(self.id.life).wrapping_add(1);
        // Lives begin again after the last: the poller hands no event out that is so old.
        self.word().store(life << LIFE_SHIFT, Release);
        let mut numbers = self.routes.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.free.push(self.id.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(slot: u32, generation: u32) -> Seat {
        Seat { slot, generation }
    }

    #[test]
    fn an_event_is_told_to_whoever_has_the_descriptor_and_noted_while_nobody_has_it() {
        let routes = Arc::new(EventRoutes::default());
        let last = seat((1 << SLOT_BITS) - 1, (1 << GENERATION_BITS) - 1);
        let route = routes.open(last).unwrap();
        assert_eq!(routes.event(route.id(), false), Some(last));
        route.clear();
        route.rest();
        assert_eq!(route.take(seat(3, 4)), RouteNews::Nothing, "what was read is no news");
        assert_eq!(routes.event(route.id(), false), Some(seat(3, 4)));
        route.rest();
        assert_eq!(route.take(last), RouteNews::Some, "it came after the last read");
        route.rest();
        assert_eq!(route.take(last), RouteNews::Nothing, "it is told of once");
        route.rest();
        assert_eq!(routes.event(route.id(), false), None);
        assert_eq!(route.take(last), RouteNews::Some);
    }

    #[test]
    fn a_hang_up_is_known_for_good() {
        let routes = Arc::new(EventRoutes::default());
        let route = routes.open(seat(1, 0)).unwrap();
        assert!(!route.has_hung_up());
        assert_eq!(routes.event(route.id(), true), Some(seat(1, 0)));
        route.clear();
        assert!(route.has_hung_up());
        route.rest();
        assert_eq!((route.take(seat(2, 0)), route.take(seat(2, 0))), (RouteNews::HungUp, RouteNews::HungUp));
    }

    #[test]
    fn an_event_that_outlived_its_route_is_nobodys() {
        let routes = Arc::new(EventRoutes::default());
        let mut ids = Vec::new();
        for life in 0..5_000 {
            let route = routes.open(seat(7, life)).unwrap();
            assert_eq!(route.id().number, 0, "a number is used again");
            ids.push(route.id());
            assert!(ids.iter().rev().skip(1).take(100).all(|&old| routes.event(old, true).is_none()));
            assert!(!route.has_hung_up());
        }
        let ids: std::collections::HashSet<u32> = ids.iter().map(|id| id.life).collect();
        assert_eq!(ids.len(), 1 << (64 - LIFE_SHIFT), "lives begin again after the last");
        assert!(routes.event(RouteId { number: 1, life: 0 }, false).is_none());
        assert!(routes.event(RouteId { number: u32::MAX >> 4, life: 0 }, false).is_none());
    }

    #[test]
    fn each_route_has_a_word_of_its_own_however_many_there_are() {
        let routes = Arc::new(EventRoutes::default());
        let open: Vec<EventRoute> = (0..1_000).map(|slot| routes.open(seat(slot, slot)).unwrap()).collect();
        for (slot, route) in (0..).zip(&open) {
            assert_eq!((route.id().number, routes.event(route.id(), false)), (slot, Some(seat(slot, slot))));
        }
        assert_eq!([segment_of(0), segment_of(63), segment_of(64)], [(0, 0), (0, 63), (1, 0)]);
        assert_eq!([segment_of(191), segment_of(192)], [(1, 127), (2, 0)]);
        let last = FIRST_SEGMENT * ((1 << SEGMENTS) - 1) - 1;
        assert_eq!(segment_of(last), (SEGMENTS - 1, (64 << (SEGMENTS - 1)) - 1));
        assert_eq!(segment_of(last + 1).0, SEGMENTS);
    }

    #[test]
    fn no_event_is_lost_between_two_sessions() {
        let routes = Arc::new(EventRoutes::default());
        let route = routes.open(seat(0, 0)).unwrap();
        let (id, events) = (route.id(), 20_000);
        let told = std::thread::scope(|scope| {
            let poller = scope.spawn(|| (0..events).filter(|_| routes.event(id, false).is_some()).count());
            let mut noted = 0;
            while !poller.is_finished() {
                route.rest();
                noted += usize::from(route.take(seat(1, 0)) == RouteNews::Some);
            }
            noted += usize::from(route.take(seat(1, 0)) == RouteNews::Some);
            assert!(noted > 0);
            poller.join().unwrap()
        });
        assert!(told <= events);
        routes.event(id, false);
        assert_eq!(route.take(seat(1, 0)), RouteNews::Some);
    }
}
