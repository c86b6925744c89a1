//! Whose turn it is.

use crate::admit::turns::accounts::*;
use crate::clock::Nanos;

use Class::{Established, Newcomer};

fn add(sources: &mut Accounts, id: u128) -> u32 {
    sources.find_or_add(SourceId(id)).0
}

#[test]
fn the_source_that_has_not_waited_for_the_longest_time_is_forgotten() {
    let mut sources = Accounts::new(0);
    let most = Accounts::most(0) as u128;
    let numbers: Vec<u32> = (0..most).map(|id| add(&mut sources, id)).collect();
    // All but the first and the third go to the end of the remembered, and the second waits.
    for id in (0..most).filter(|&id| id != 0 && id != 2) {
        sources.came(numbers[id as usize], Newcomer, 0);
    }
    for id in (3..most).rev() {
        sources.left(numbers[id as usize], Newcomer, true);
    }
    assert_eq!(sources.find_or_add(SourceId(1_000)), (numbers[0], true));
    assert_eq!(sources.find_or_add(SourceId(1_001)), (numbers[2], true));
    assert_eq!(sources.find_or_add(SourceId(1_002)), (numbers[most as usize - 1], true));
    assert_eq!(sources.find_or_add(SourceId(1)), (numbers[1], false), "who waits is not forgotten");
    assert_eq!(sources.find_or_add(SourceId(1_001)), (numbers[2], false));
    assert!(sources.find_or_add(SourceId(2)).1);
    assert_eq!(sources.id(numbers[1]), SourceId(1));
}

#[test]
fn the_accounts_take_what_is_said_of_them() {
    assert_eq!((Accounts::most(0), Accounts::most(7), Accounts::most(800)), (64, 71, 964));
    let entries = 10_000;
    let (most, bytes) = (Accounts::most(entries), Accounts::new(entries).bytes());
    // The heads of the lists are on top, and the table of chains may be half as large as was reckoned with.
    let said = Accounts::SOURCE_BYTES * most;
    assert!(bytes <= said + 4_096 && said <= bytes + 4 * most + 4_096, "{bytes} bytes, {said} were said");
}

#[test]
fn sources_that_were_served_are_counted_until_their_round_is_over_or_they_wait_again() {
    let mut sources = Accounts::new(16);
    let numbers: Vec<u32> = (0..8).map(|id| add(&mut sources, id)).collect();
    let (mut most, mut entries) = (0, [0_u32; 8]);
    // Two have entries always, so that rounds go on; the others come, have their turns and leave, dear ones and cheap ones.
    for step in 0..2_000_usize {
        for number in [0, 1, 2 + step * 5 % 6].map(|at| numbers[at]) {
            if entries[number as usize] < 2 {
                sources.came(number, Established, step as Nanos);
                entries[number as usize] += 1;
            }
        }
        for _ in 0..1 + step % 4 {
            let Some((picked, class)) = sources.pick(false, false) else { break };
            sources.note_cost(sources.id(picked), 1_000 * (1 + step as Nanos % 40));
            entries[picked as usize] -= 1;
            sources.left(picked, class, entries[picked as usize] == 0);
        }
        let (counted, by_round) = sources.served();
        assert_eq!(counted, by_round, "in step {step}");
        assert!(counted as usize <= numbers.len() - sources.active());
        most = most.max(counted);
    }
    assert!(most > 0, "some were served ahead of their round");
}

#[test]
fn thousands_of_sources_that_come_once_leave_the_table_as_it_was() {
    let mut sources = Accounts::new(8);
    for id in 0..100_000_u128 {
        let number = add(&mut sources, id);
        sources.came(number, Newcomer, 0);
        assert_eq!(sources.pick(false, false), Some((number, Newcomer)));
        sources.left(number, Newcomer, true);
        assert_eq!((sources.active(), sources.find(SourceId(id))), (0, Some(number)));
    }
    let known = (0..100_000_u128).filter(|&id| sources.find(SourceId(id)).is_some()).count();
    assert_eq!(known, Accounts::most(8), "the last of them are remembered");
}

/// Two sources that wait always; turns of the first among `picks`.
fn share_of_first(costs: [Nanos; 2], picks: usize) -> usize {
    let mut sources = Accounts::new(16);
    let numbers = [add(&mut sources, 1), add(&mut sources, 2)];
    numbers.iter().for_each(|&number| (0..2).for_each(|_| sources.came(number, Established, 0)));
    let mut first = 0;
    for _ in 0..picks {
        let (number, class) = sources.pick(false, false).unwrap();
        first += usize::from(number == numbers[0]);
        sources.note_cost(sources.id(number), costs[usize::from(number == numbers[1])]);
        sources.left(number, class, false);
        sources.came(number, class, 0);
    }
    first
}

#[test]
fn turns_are_shared_by_what_they_cost() {
    assert!((490..=510).contains(&share_of_first([5, 5], 1000)));
    let first = share_of_first([9_000, 1_000], 1000);
    assert!((90..=110).contains(&first), "{first} of 1000 turns that cost nine times as much");
    let first = share_of_first([1_000, 9_000], 1000);
    assert!((890..=910).contains(&first), "{first} of 1000 turns that cost a ninth");
}

#[test]
fn no_cost_keeps_a_source_from_its_turn_for_ever() {
    let first = share_of_first([Nanos::MAX / 128, 1], 10_000);
    assert!(first >= 10, "{first}");
    assert!(share_of_first([0, 0], 100) >= 49);
}

#[test]
fn a_debt_is_remembered_while_others_wait_and_forgotten_when_nobody_does() {
    let mut sources = Accounts::new(16);
    let (one, two, three) = (add(&mut sources, 1), add(&mut sources, 2), add(&mut sources, 3));
    for number in [three, two, one] {
        sources.came(number, Newcomer, 0);
    }
    assert_eq!(sources.pick(false, false), Some((one, Newcomer)));
    sources.left(one, Newcomer, true);
    sources.came(one, Newcomer, 0);
    assert_eq!(sources.pick(false, false), Some((two, Newcomer)), "the first has had its turn");
    sources.left(two, Newcomer, true);
    for (number, class) in [(three, Newcomer), (one, Newcomer)] {
        assert_eq!(sources.pick(false, false), Some((number, class)));
        sources.left(number, class, true);
    }
    sources.came(three, Newcomer, 0);
    sources.came(one, Newcomer, 0);
    assert_eq!(sources.pick(false, false), Some((one, Newcomer)), "a new account: the freshest first");
}

#[test]
fn a_source_of_two_classes_is_charged_once_for_each_turn() {
    let mut sources = Accounts::new(16);
    let (both, other) = (add(&mut sources, 1), add(&mut sources, 2));
    for _ in 0..2 {
        sources.came(both, Newcomer, 0);
        sources.came(both, Established, 0);
        sources.came(other, Newcomer, 0);
    }
    let mut turns = [0_u32, 0];
    for _ in 0..100 {
        let (number, class) = sources.pick(false, false).unwrap();
        turns[usize::from(number == other)] += 1;
        sources.left(number, class, false);
        sources.came(number, class, 0);
    }
    assert!(turns[0].abs_diff(turns[1]) <= 2, "{turns:?}");
}

/// Whether a source that waits comes before a fresh one, after many others have had their turns.
fn behind_first(class: Class, patient: bool) -> bool {
    let mut sources = Accounts::new(16);
    let waits = add(&mut sources, 1);
    sources.came(waits, class, 1);
    for since in 2..20 {
        let fresh = add(&mut sources, u128::from(since));
        sources.came(fresh, class, since);
        assert_eq!(sources.pick(false, false), Some((fresh, class)));
        sources.left(fresh, class, true);
    }
    let fresh = add(&mut sources, 20);
    sources.came(fresh, class, 20);
    sources.pick(patient, false) == Some((waits, class))
}

#[test]
fn a_source_far_behind_its_share_comes_first_where_its_client_can_be_seen_to_wait() {
    assert!(behind_first(Established, true) && behind_first(Newcomer, true));
    assert!(!behind_first(Established, false), "while many leave, the fresh one comes first");
    assert!(!behind_first(Class::Datagram, true), "its sender may have left unseen");
}

#[test]
fn sources_that_come_once_do_not_make_a_round_endless() {
    let mut sources = Accounts::new(1_000);
    let stays = add(&mut sources, 1);
    for since in 0..2 {
        sources.came(stays, Established, since);
    }
    let mut turns = 0;
    for once in 0..3_000_u64 {
        let number = add(&mut sources, 1_000 + u128::from(once));
        sources.came(number, Newcomer, 10 + once);
        let (picked, class) = sources.pick(true, false).unwrap();
        turns += u32::from(picked == stays);
        sources.left(picked, class, picked != stays);
        if picked == stays {
            sources.came(stays, Established, 10 + once);
        }
    }
    assert!(turns >= 40, "{turns} of 3,000 turns while few wait with it");
}

#[test]
fn sources_that_become_due_with_a_round_do_not_pass_those_that_are_fresher() {
    let mut sources = Accounts::new(16);
    let [old, one, two, three, fresh, last] = [1, 2, 3, 4, 5, 6].map(|id| add(&mut sources, id));
    for (number, since) in [(old, 1), (one, 2), (two, 3)] {
        sources.came(number, Established, since);
    }
    // Of three sources each turn is a third of a round, of four a quarter, of six a sixth.
    assert_eq!(sources.pick(false, false), Some((two, Established)));
    assert_eq!(sources.pick(false, false), Some((one, Established)));
    sources.came(three, Established, 10);
    assert_eq!(sources.pick(false, false), Some((three, Established)));
    for (number, since) in [(fresh, 11), (last, 12)] {
        sources.came(number, Established, since);
    }
    assert_eq!(sources.pick(false, false), Some((last, Established)), "with its turn a round begins");
    sources.left(last, Established, true);
    assert_eq!(
        sources.pick(false, false),
        Some((fresh, Established)),
        "those that are due again came before it"
    );
}

/// A source that waits since the first moment, and others whose one turn moves the round on by half of its charge: what
/// their turns have cost, of which 64 is the mean.
fn waits_while_rounds_pass(costs: &[&[Nanos]]) -> (Accounts, u32) {
    let mut sources = Accounts::new(16);
    let late = add(&mut sources, 1);
    (0..100).for_each(|_| sources.came(late, Established, 1));
    for (id, costs) in (2..).zip(costs) {
        let dear = add(&mut sources, id);
        sources.came(dear, Established, 10);
        for &cost in *costs {
            sources.note_cost(SourceId(id), cost);
        }
        // Many cheap turns of a source that nobody knows bring the mean to 64: each takes a 64th of it away, rounded down.
        (0..2_000).for_each(|_| sources.note_cost(SourceId(1_000), 1));
        assert_eq!(sources.pick(false, false), Some((dear, Established)));
        sources.left(dear, Established, true);
    }
    (sources, late)
}

/// Whether a source that waits comes before a fresh one, after a turn of another that has cost this.
fn is_behind_after(costs: &[Nanos]) -> bool {
    let (mut sources, late) = waits_while_rounds_pass(&[costs]);
    let fresh = add(&mut sources, 100);
    sources.came(fresh, Established, 20);
    let (first, _) = sources.pick(true, false).unwrap();
    assert!([late, fresh].contains(&first));
    first == late
}

#[test]
fn a_source_comes_first_when_it_is_two_rounds_behind_and_not_before() {
    assert!(is_behind_after(&[4 * 64]) && is_behind_after(&[10 * 64]));
    assert!(!is_behind_after(&[4 * 64 - 1]) && !is_behind_after(&[2 * 64]) && !is_behind_after(&[]));
}

#[test]
fn the_cost_of_a_source_is_a_mean_to_which_each_turn_adds_a_quarter() {
    // Three quarters of 320, and a quarter of the other, rounded up: 256 are two rounds for two sources.
    assert!(is_behind_after(&[320, 64]) && is_behind_after(&[320, 61]));
    assert!(!is_behind_after(&[320, 60]));
}

#[test]
fn a_source_that_was_far_behind_catches_up_by_sixteen_rounds_and_no_more() {
    let (mut sources, late) = waits_while_rounds_pass(&[&[48 * 64], &[48 * 64]]);
    let fresh = add(&mut sources, 100);
    sources.came(fresh, Established, 20);
    let picked: Vec<u32> = (0..200).map(|_| sources.pick(true, false).unwrap().0).collect();
    let turns_of = |source| picked.iter().filter(|&&number| number == source).count();
    let more = turns_of(late) - turns_of(fresh);
    assert!((14..=17).contains(&more), "{more} turns more than one that has just come, of 200");
    assert_eq!(picked[..8], [late; 8], "they come one after the other");
}

#[test]
fn a_source_whose_cost_nobody_knows_is_charged_a_turn_of_mean_cost() {
    let mut sources = Accounts::new(16);
    let (known, unknown) = (add(&mut sources, 1), add(&mut sources, 2));
    sources.note_cost(SourceId(1), 1_000);
    for number in [known, unknown] {
        (0..2).for_each(|_| sources.came(number, Established, 0));
    }
    let turns = (0..100).filter(|_| sources.pick(false, false).unwrap().0 == known).count();
    assert!((49..=51).contains(&turns), "{turns} of 100");
}

#[test]
fn the_mean_cost_of_all_turns_is_one_that_each_turn_moves_by_a_64th() {
    let mut sources = Accounts::new(16);
    let (cheap, unknown) = (add(&mut sources, 1), add(&mut sources, 2));
    sources.note_cost(SourceId(1), 64);
    // One of another source takes the mean to 128, of which the cheap one's is half.
    sources.note_cost(SourceId(3), 64 + 64 * 64);
    for number in [cheap, unknown] {
        (0..2).for_each(|_| sources.came(number, Established, 0));
    }
    let turns = (0..300).filter(|_| sources.pick(false, false).unwrap().0 == cheap).count();
    assert!((195..=205).contains(&turns), "{turns} of 300");
}

#[test]
fn sources_that_had_their_turn_count_only_while_they_are_few_more_than_those_that_wait() {
    let mut sources = Accounts::new(1_000);
    let waiting: Vec<u32> = (0..200).map(|id| add(&mut sources, id)).collect();
    waiting.iter().for_each(|&number| sources.came(number, Established, 0));
    let once = |sources: &mut Accounts, since: Nanos| {
        let number = add(sources, 1_000 + u128::from(since));
        sources.came(number, Established, since);
        assert_eq!(sources.pick(false, false), Some((number, Established)));
        sources.left(number, Established, true);
        sources.served().0
    };
    // A hundred turns are 0.40 of a round: each is a part of all that wait and of all that had their turn.
    assert_eq!((1..=100).map(|since| once(&mut sources, since)).last(), Some(100));
    for &number in &waiting[1..] {
        sources.left(number, Established, true);
    }
    // Two wait from now on, and 66 of those that had their turn count: 0.60 of a round are 41 turns.
    let turns = (101..).take_while(|&since| once(&mut sources, since) >= 100).count();
    assert!((38..=43).contains(&turns), "{turns}");
}

#[test]
fn a_source_whose_turn_did_not_take_place_counts_no_more_as_served() {
    let mut sources = Accounts::new(16);
    let (one, other) = (add(&mut sources, 1), add(&mut sources, 2));
    for number in [one, other] {
        sources.came(number, Newcomer, 0);
    }
    assert_eq!(sources.pick(false, false), Some((other, Newcomer)));
    sources.left(other, Newcomer, true);
    assert_eq!(sources.served(), (1, 1));
    sources.refund(SourceId(2));
    assert_eq!(sources.served(), (0, 0));
    sources.refund(SourceId(2));
    assert_eq!(sources.served(), (0, 0), "it is not ahead of its share any more");
}
