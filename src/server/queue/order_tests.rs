//! The order of turns, from calm to a queue that stands and back.

use super::accounts::{Class, SourceId};
use super::order::*;
use super::shelf::{Shelf, ShelfLimits};
use crate::clock::Nanos;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

const MS: Nanos = 1_000_000;
const LIMITS: ShelfLimits =
    ShelfLimits { connections: 1000, datagrams: 10, doubtful_max: 1, fresh: true, knows_refused: false };

/// An entry: its slot, since when it waits, and whether its client has hung up; slot 0 is for no client.
type Simple = (u32, Nanos, bool);

#[derive(Default)]
struct Channel(RefCell<VecDeque<Simple>>);

impl Channel {
    fn push(&self, slot: u32, since: Nanos) {
        self.0.borrow_mut().push_back((slot, since * MS, false));
    }
}

impl Arrivals<Simple> for Channel {
    fn pop(&self) -> Option<Simple> {
        self.0.borrow_mut().pop_front()
    }

    fn since(&(_, since, _): &Simple) -> Nanos {
        since
    }

    fn about(&self, &(slot, since, hung_up): &Simple) -> Option<About> {
        let source = SourceId(u128::from(slot));
        let about = About { slot, generation: 0, since, class: Class::Established, source, hung_up };
        (slot > 0).then_some(about)
    }
}

fn order() -> (Order<Simple>, Channel) {
    (Order::new(LIMITS, 20 * MS), Channel::default())
}

/// The slot that has its turn at `now`.
fn turn(order: &Order<Simple>, channel: &Channel, now: Nanos) -> Option<u32> {
    order.take(now * MS, channel).map(|taken| match taken {
        Offer::Turn(entry) => entry.0,
        Offer::GiveUp(entry) => panic!("{entry:?} is given up"),
    })
}

#[test]
fn in_calm_entries_come_in_their_order_and_none_is_shelved() {
    let (order, channel) = order();
    (1..=3).for_each(|slot| channel.push(slot, 1_000));
    assert_eq!(
        [1_001, 1_050, 1_099, 1_100].map(|now| turn(&order, &channel, now)),
        [Some(1), Some(2), Some(3), None]
    );
    assert!(order.len() == 0 && !order.standing().stands());
}

#[test]
fn once_the_queue_stands_the_freshest_comes_first_until_nothing_waits() {
    let (order, channel) = order();
    (1..=4).for_each(|slot| channel.push(slot, 1_000 + Nanos::from(slot)));
    assert_eq!(turn(&order, &channel, 1_130), Some(4));
    assert_eq!((order.len(), order.oldest(1_130 * MS)), (3, Some(129 * MS)));
    assert_eq!(order.standing().stood_for(1_130 * MS), Some(0));
    channel.push(5, 1_131);
    assert_eq!([1_132, 1_133, 1_134].map(|now| turn(&order, &channel, now)), [Some(5), Some(3), Some(2)]);
    assert!(order.standing().stands());
    assert_eq!(turn(&order, &channel, 1_135), Some(1));
    assert_eq!((order.len(), order.standing().stands()), (0, false));
    channel.push(6, 1_140);
    channel.push(7, 1_140);
    assert_eq!([1_165, 1_166].map(|now| turn(&order, &channel, now)), [Some(6), Some(7)], "calm again");
}

#[test]
fn the_queue_stands_no_more_when_what_waits_is_young_and_the_shelf_is_still_emptied_first() {
    let (order, channel) = order();
    channel.push(1, 1_000);
    channel.push(2, 1_125);
    channel.push(3, 1_126);
    assert_eq!(turn(&order, &channel, 1_130), Some(3));
    assert!(order.standing().stands(), "the first still waits");
    assert_eq!(order.gone(Class::Established, 1, 0, 0).map(|entry| entry.0), Some(1));
    channel.push(4, 1_131);
    assert_eq!(turn(&order, &channel, 1_132), Some(4));
    assert_eq!((order.len(), order.standing().stands()), (1, false));
    assert_eq!(turn(&order, &channel, 1_133), Some(2));
}

#[test]
fn what_is_for_no_client_is_served_at_once() {
    let (order, channel) = order();
    for slot in [1, 2, 0, 3] {
        channel.push(slot, 1_000);
    }
    assert_eq!(turn(&order, &channel, 1_130), Some(0), "what came before it is on the shelf");
    assert_eq!(order.len(), 2);
    assert_eq!([1_131, 1_132, 1_133].map(|now| turn(&order, &channel, now)), [Some(3), Some(2), Some(1)]);
}

#[test]
fn what_has_to_be_given_up_is_handed_out() {
    let (order, channel) = order();
    for slot in [1, 2, 3] {
        channel.0.borrow_mut().push_back((slot, 1_000 * MS, true));
    }
    channel.push(4, 1_001);
    assert_eq!(order.take(1_130 * MS, &channel), Some(Offer::GiveUp((1, 1_000 * MS, true))));
    assert_eq!(order.take(1_130 * MS, &channel), Some(Offer::GiveUp((2, 1_000 * MS, true))));
    assert_eq!([1_131, 1_132].map(|now| turn(&order, &channel, now)), [Some(4), Some(3)]);
}

#[test]
fn room_is_made_by_an_entry_that_is_wanted_and_the_queue_stands_a_while_longer_for_it() {
    let (order, channel) = order();
    (1..=4).for_each(|slot| channel.push(slot, 1_000));
    assert_eq!(turn(&order, &channel, 1_130), Some(4));
    let displace = || order.displace_one(Class::Established, 1_131 * MS, |entry| entry.0 == 2);
    assert_eq!((displace().map(|entry| entry.0), order.len(), displace()), (Some(2), 2, None));
    assert_eq!([1_132, 1_133].map(|now| turn(&order, &channel, now)), [Some(3), Some(1)]);
    assert!(order.standing().stands(), "one had to make room a moment ago");
}

#[test]
fn only_what_was_late_keeps_the_queue_standing() {
    let (order, channel) = order();
    (1..=2).for_each(|slot| channel.push(slot, 1_000));
    assert_eq!(turn(&order, &channel, 1_130), Some(2));
    assert!(order.expire_late(1_131 * MS, 500 * MS, |_, _| true).is_empty());
    assert_eq!((turn(&order, &channel, 1_132), order.standing().stands()), (Some(1), false));
    (3..=4).for_each(|slot| channel.push(slot, 2_000));
    assert_eq!(turn(&order, &channel, 2_130), Some(4));
    let late = order.expire_late(2_131 * MS, 100 * MS, |entry, _| entry.0 == 3);
    assert_eq!((late, order.len()), (vec![(3, 2_000 * MS, false)], 0));
    assert_eq!((turn(&order, &channel, 2_132), order.standing().stands()), (None, true));
}

#[test]
fn everything_that_takes_an_entry_off_the_shelf_counts_it() {
    let (order, channel) = order();
    (1..=7).for_each(|slot| channel.push(slot, 1_000));
    assert_eq!((turn(&order, &channel, 1_130), order.len()), (Some(7), 6));
    let late = 1_200 * MS;
    assert_eq!(order.hung_up(Class::Established, 1, 0, late), None);
    assert_eq!(order.hung_up(Class::Established, 2, 0, late).map(|entry| entry.0), Some(1));
    assert_eq!((order.len(), order.displace(Class::Newcomer, late)), (5, None));
    assert_eq!(order.gone(Class::Established, 3, 0, 0).map(|entry| entry.0), Some(3));
    let expired = |now| order.expire_late(now, 200 * MS, |entry, _| entry.0 == 4).len();
    assert_eq!((expired(late), expired(late + 1), order.len()), (0, 1, 3));
    assert_eq!(std::iter::from_fn(|| order.drain_one()).count(), 3);
    assert_eq!((order.len(), order.oldest(late), order.drain_one()), (0, None, None));
}

#[test]
fn what_is_late_by_its_own_measure_is_taken_off_the_shelf_and_counted() {
    let (order, channel) = order();
    (1..=4).for_each(|slot| channel.push(slot, 1_000));
    assert_eq!((turn(&order, &channel, 1_130), order.len()), (Some(4), 3));
    let late = |least, most: u32| {
        let slots = order.expire_late(1_200 * MS, least, |entry, waited| {
            assert_eq!(waited, 200 * MS);
            entry.0 <= most
        });
        slots.into_iter().map(|entry| entry.0).collect::<Vec<_>>()
    };
    assert_eq!((late(200 * MS, 3), late(199 * MS, 0), order.len()), (vec![], vec![], 3));
    assert_eq!((late(199 * MS, 2).len(), order.len()), (2, 1));
    assert_eq!((late(199 * MS, 3), order.len()), (vec![3], 0));
}

#[test]
fn costs_and_refunds_reach_the_shelf() {
    let (order, channel) = order();
    (1..=4).for_each(|slot| channel.push(slot, 1_000));
    assert_eq!(turn(&order, &channel, 1_130), Some(4));
    order.refund(SourceId(4));
    channel.push(4, 1_130);
    assert_eq!(turn(&order, &channel, 1_131), Some(4), "it was not charged");
    order.note_cost(|| SourceId(4), 10 * MS);
    channel.push(4, 1_131);
    assert_eq!(turn(&order, &channel, 1_132), Some(3), "it was charged now");
}

#[test]
fn a_source_whose_turns_cost_more_has_fewer_of_them() {
    let turns_of_two = |costs: [Nanos; 2]| {
        let (order, channel) = order();
        (1..=3).for_each(|slot| channel.push(slot, 1_000));
        let mut turns = [0_u32; 4];
        for now in 1_130..1_190 {
            let slot = turn(&order, &channel, now).expect("each waits again");
            turns[slot as usize] += 1;
            if slot < 3 {
                order.note_cost(|| SourceId(u128::from(slot)), costs[slot as usize - 1]);
            }
            channel.push(slot, now);
        }
        [turns[1], turns[2]]
    };
    let [one, other] = turns_of_two([MS, MS]);
    assert!(one > 10 && one.abs_diff(other) < 3, "{one} and {other}");
    let [one, other] = turns_of_two([MS, 8 * MS]);
    assert!(other > 0 && one > 3 * other, "{one} and {other}");
}

#[test]
fn more_than_is_moved_at_once_is_moved_by_the_next() {
    let (order, channel) = order();
    (1..=600).for_each(|slot| channel.push(slot, 1_000));
    assert_eq!(turn(&order, &channel, 1_130), Some(MOVED_AT_ONCE as u32));
    assert_eq!(turn(&order, &channel, 1_130), Some(2 * MOVED_AT_ONCE as u32));
    assert_eq!(turn(&order, &channel, 1_130), Some(600));
}

#[test]
fn the_timekeeper_moves_what_has_come_to_the_shelf_and_is_handed_what_cannot_stand_there() {
    let (order, channel) = order();
    (1..=2).for_each(|slot| channel.push(slot, 1_000));
    channel.push(0, 1_000);
    channel.push(3, 1_000);
    (4..=6).for_each(|slot| channel.0.borrow_mut().push_back((slot, 1_000 * MS, true)));
    let mut other = Vec::new();
    order.shelve(1_130 * MS, &channel, Some((7, 1_000 * MS, false)), |offer| other.push(offer));
    // One that has probably left may stay, by the limits; those before it are given up for it.
    let given_up = |slot| Offer::GiveUp((slot, 1_000 * MS, true));
    assert_eq!(other, [Offer::Turn((0, 1_000 * MS, false)), given_up(4), given_up(5)]);
    assert_eq!((order.len(), order.standing().stands(), channel.pop()), (5, true, None));
    assert_eq!([1_131, 1_132].map(|now| turn(&order, &channel, now)), [Some(3), Some(2)]);
}

/// Entries that are all of one source.
#[derive(Default)]
struct OneSource(Channel);

impl Arrivals<Simple> for OneSource {
    fn pop(&self) -> Option<Simple> {
        self.0.pop()
    }

    fn since(entry: &Simple) -> Nanos {
        Channel::since(entry)
    }

    fn about(&self, entry: &Simple) -> Option<About> {
        self.0.about(entry).map(|about| About { source: SourceId(7), ..about })
    }
}

#[test]
fn a_connection_whose_turn_found_nothing_stands_where_it_stood() {
    for (found_nothing, next) in [(true, [3, 2, 1]), (false, [2, 1, 3])] {
        let (order, channel) = (order().0, OneSource::default());
        (1..=3).for_each(|slot| channel.0.push(slot, 1_000 + Nanos::from(slot)));
        let take = |now| match order.take(now * MS, &channel) {
            Some(Offer::Turn((slot, ..))) => slot,
            other => panic!("no turn: {other:?}"),
        };
        assert_eq!(take(1_130), 3);
        if found_nothing {
            order.found_nothing(3);
        }
        channel.0.push(3, 1_131);
        assert_eq!([1_132, 1_133, 1_134].map(take), next, "found nothing: {found_nothing}");
    }
}

/// How many of three entries whose clients have probably left are given up when the queue stands.
fn given_up(order: &Order<Simple>, since: Nanos) -> usize {
    let channel = Channel::default();
    (1..=3).for_each(|slot| channel.0.borrow_mut().push_back((slot, since * MS, true)));
    let mut given_up = 0;
    order.shelve((since + 130) * MS, &channel, None, |offer| {
        given_up += usize::from(matches!(offer, Offer::GiveUp(_)));
    });
    while order.drain_one().is_some() {}
    given_up
}

#[test]
fn how_many_may_stay_whose_clients_have_probably_left_can_change_before_and_after_the_shelf_is_made() {
    let (order, _) = order();
    order.set_doubtful_max(2);
    assert_eq!(given_up(&order, 1_000), 1);
    order.set_doubtful_max(3);
    assert_eq!(given_up(&order, 2_000), 0);
    order.set_doubtful_max(1);
    assert_eq!(given_up(&order, 3_000), 2);
}

#[test]
fn an_order_says_whether_the_freshest_come_first() {
    for fresh in [true, false] {
        assert_eq!(Order::<Simple>::new(ShelfLimits { fresh, ..LIMITS }, 20 * MS).prefers_fresh(), fresh);
    }
}

#[test]
fn an_order_says_whether_what_waits_is_served_as_it_came_and_without_a_shelf_what_would_be() {
    let (order, channel) = order();
    assert!(!order.is_in_order());
    (1..=50).for_each(|slot| channel.push(slot, 1_000));
    assert!(turn(&order, &channel, 1_130) == Some(50) && !order.is_in_order(), "the pace is not known");
    (1_131..1_170).for_each(|now| _ = turn(&order, &channel, now));
    assert!(order.is_in_order() && order.len() == 10, "all are served soon");
    while order.drain_one().is_some() {}
    assert!(!order.is_in_order(), "nothing is on the shelf");
    assert!(Order::<Simple>::new(ShelfLimits { fresh: false, ..LIMITS }, 20 * MS).is_in_order());
}

#[test]
fn an_order_takes_what_its_shelf_takes() {
    assert_eq!(Order::<Simple>::bytes(&LIMITS), Shelf::<Simple>::bytes(&LIMITS));
}

#[test]
fn what_a_client_is_told_is_the_time_to_work_off_what_waits() {
    let told =
        |waiting, turn_ms, at_once| retry_after(waiting, Duration::from_millis(turn_ms), at_once).as_secs();
    assert_eq!(told(0, 1, 1), 1);
    assert_eq!(told(2_000, 1, 1), 2);
    assert_eq!(told(2_001, 1, 1), 3, "rounded up");
    assert_eq!(told(2_000, 20, 32), 2);
    assert_eq!(told(10_000, 1_000, 32), 120);
    assert_eq!(told(usize::MAX, u64::MAX, 0), 120);
}

#[test]
fn shedding_keeps_a_queue_standing_in_which_nothing_waits_for_long() {
    for expires in [true, false] {
        let (order, channel) = order();
        (1..=3).for_each(|slot| channel.push(slot, 1_000));
        assert_eq!(turn(&order, &channel, 1_130), Some(3));
        let now = 1_150 * MS;
        let shed = if expires {
            order.expire_late(now, 100 * MS, |_, _| true).len()
        } else {
            std::iter::from_fn(|| order.displace(Class::Established, now)).count()
        };
        assert_eq!(shed, 2);
        channel.push(4, 1_199);
        assert_eq!((turn(&order, &channel, 1_200), order.standing().stands()), (Some(4), true));
        channel.push(5, 1_299);
        assert_eq!((turn(&order, &channel, 1_300), order.standing().stands()), (Some(5), false));
    }
}
