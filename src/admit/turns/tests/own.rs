//! What only some entries of the shelf are concerned by: those of one listener, with a time of their own.

use crate::admit::turns::accounts::{Class, SourceId};
use crate::admit::turns::shelf::*;
use crate::clock::Nanos;

use Class::{Established, Newcomer};

const MS: Nanos = 1_000_000;
const LIMITS: ShelfLimits =
    ShelfLimits { connections: 100, datagrams: 0, doubtful_max: 2, fresh: true, knows_refused: false };

/// A shelf with entries that came a millisecond apart: each is known by the listener that it came through.
fn shelf(entries: &[(u32, Class, char)]) -> Shelf<char> {
    let mut shelf = Shelf::new(LIMITS);
    for (at, &(slot, class, entry)) in entries.iter().enumerate() {
        let since = at as Nanos * MS;
        let new = Shelved { slot, generation: 0, since, class, source: SourceId(1), entry };
        assert_eq!(shelf.put(new, false, since), None);
    }
    shelf
}

#[test]
fn room_for_a_newcomer_of_one_listener_is_made_by_the_oldest_of_its_own() {
    let mut shelf = shelf(&[
        (1, Newcomer, 'a'),
        (2, Established, 'b'),
        (3, Newcomer, 'b'),
        (4, Newcomer, 'a'),
        (5, Newcomer, 'b'),
    ]);
    let mut displaced = |listener| {
        shelf.displace_one(Newcomer, 9 * MS, |&entry| entry == listener).map(|shelved| shelved.slot)
    };
    assert_eq!([displaced('b'), displaced('b'), displaced('b')], [Some(3), Some(5), None]);
    assert_eq!((displaced('a'), displaced('c')), (Some(1), None));
    assert_eq!(shelf.len(), 2);
}

#[test]
fn entries_are_late_each_by_the_time_of_its_own_listener() {
    let mut shelf = shelf(&[
        (1, Newcomer, 'a'),
        (2, Newcomer, 'b'),
        (3, Established, 'b'),
        (4, Newcomer, 'a'),
        (5, Newcomer, 'b'),
    ]);
    let mut late = |now| {
        let most = |entry| if entry == 'b' { 10 * MS } else { 20 * MS };
        let late = shelf.expire_late(now, 10 * MS, |&entry, waited| waited > most(entry));
        late.iter().map(|shelved| shelved.slot).collect::<Vec<_>>()
    };
    assert_eq!(late(11 * MS), [0; 0], "exactly the time is not longer than it");
    assert_eq!(late(12 * MS + 1), [2, 3]);
    assert_eq!(late(20 * MS), [5]);
    assert_eq!(late(20 * MS + 1), [1]);
    assert_eq!(late(99 * MS), [4]);
    assert_eq!(shelf.len(), 0);
}

#[test]
fn who_has_hung_up_is_late_by_its_age_and_not_by_when_it_hung_up() {
    // Many hang up one after the other, the youngest first, and the oldest last of all.
    let entries: Vec<_> = (0..90).map(|slot| (slot, Newcomer, 'a')).collect();
    let mut shelf = shelf(&entries);
    shelf.set_doubtful_max(entries.len());
    for slot in (0..90).rev() {
        assert_eq!(shelf.hung_up(Newcomer, slot, 0, 1_000 * MS), None);
    }
    let mut late = |least| {
        let late = shelf.expire_late(2_000 * MS, least, |_, _| true);
        late.iter().map(|shelved| shelved.slot).collect::<Vec<_>>()
    };
    assert_eq!(late(1_999 * MS), [0]);
    assert_eq!((late(0).len(), shelf.len()), (89, 0));
}

/// With a thousand of another listener before it, which may wait for long, one that is late is found in as many looks as it takes to
/// pass them, whoever leaves the shelf meanwhile; and each look passes no more than that.
#[test]
fn a_look_for_those_that_are_late_passes_a_bounded_number_and_the_next_goes_on_behind_them() {
    let before = 4 * PASSED_MOST;
    let mut shelf = Shelf::new(ShelfLimits { connections: 2_000, ..LIMITS });
    for slot in 0..=before as u32 {
        let entry = if slot as usize == before { 'b' } else { 'a' };
        let new = Shelved { slot, generation: 0, since: 0, class: Established, source: SourceId(1), entry };
        assert_eq!(shelf.put(new, false, 0), None);
    }
    let look = |shelf: &mut Shelf<char>| {
        let looked = std::cell::Cell::new(0);
        let late = shelf.expire_late(20 * MS, 10 * MS, |&entry, _| {
            looked.set(looked.get() + 1);
            entry == 'b'
        });
        assert!(looked.get() <= PASSED_MOST, "{} entries", looked.get());
        late.iter().map(|shelved| shelved.slot).collect::<Vec<_>>()
    };
    assert_eq!(look(&mut shelf), [0; 0]);
    // The one with which the next look would begin leaves, and so does the one behind it.
    for slot in [PASSED_MOST as u32, PASSED_MOST as u32 + 1] {
        assert!(shelf.remove(Established, slot, 0).is_some());
    }
    assert_eq!([look(&mut shelf), look(&mut shelf), look(&mut shelf)], [vec![], vec![], vec![before as u32]]);
    assert_eq!(look(&mut shelf), [0; 0], "it begins anew");
    // All others are late now: first those behind it, then those before.
    let mut late = || shelf.expire_late(20 * MS, 10 * MS, |_, _| true).len();
    assert_eq!([late(), late(), late()], [before - 2 - PASSED_MOST, PASSED_MOST, 0]);
}
