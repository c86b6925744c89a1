//! When a queue stands.

use crate::admit::turns::standing::*;
use crate::clock::Nanos;

const MS: Nanos = 1_000_000;

/// Observes at `now` an oldest entry that has waited for `wait`, both in milliseconds.
fn see(standing: &Standing, now: Nanos, wait: Nanos) -> bool {
    standing.observe(now * MS, Some((now - wait) * MS))
}

#[test]
fn a_queue_stands_after_an_interval_above_the_target_and_not_before() {
    let standing = Standing::new(TARGET);
    assert!(!see(&standing, 1_000, 20), "at the target is not above it");
    assert!(!see(&standing, 1_001, 21));
    assert!(!see(&standing, 1_099, 21));
    assert_eq!((standing.stands(), standing.stood_for(1_099 * MS)), (false, None));
    assert!(see(&standing, 1_100, 21), "it was above the target from 1,000 on");
    assert_eq!((standing.stands(), standing.stood_for(1_130 * MS)), (true, Some(30 * MS)));
    assert!(see(&standing, 1_200, 21));
    assert_eq!(standing.stood_for(1_200 * MS), Some(100 * MS), "since it began, not since it was last seen");
}

#[test]
fn one_short_wait_or_an_empty_queue_begins_the_interval_anew() {
    for short in [Some(1_075 * MS), None] {
        let standing = Standing::new(TARGET);
        assert!(!see(&standing, 1_001, 21));
        assert!(!standing.observe(1_090 * MS, short));
        assert!(!see(&standing, 1_110, 30));
        assert!(!see(&standing, 1_199, 40));
        assert!(see(&standing, 1_200, 40));
    }
}

#[test]
fn an_entry_that_waited_for_target_and_interval_is_proof_by_itself() {
    let standing = Standing::new(TARGET);
    assert!(!see(&standing, 1_000, 119), "it became older than the target 99 ms ago");
    let standing = Standing::new(TARGET);
    assert!(see(&standing, 1_000, 120));
    assert_eq!(standing.stood_for(1_000 * MS), Some(0));
}

#[test]
fn a_standing_queue_ends_with_the_first_short_wait() {
    let standing = Standing::new(TARGET);
    assert!(see(&standing, 1_000, 500));
    assert!(!see(&standing, 1_001, 20));
    assert_eq!((standing.stands(), standing.stood_for(1_002 * MS)), (false, None));
    assert!(!see(&standing, 1_002, 30), "and has to earn its name again");
    assert!(see(&standing, 1_102, 30));
}

#[test]
fn it_is_calm_a_second_after_the_queue_has_ceased_to_stand() {
    let standing = Standing::new(TARGET);
    assert!(standing.is_calm(MS));
    assert!(see(&standing, 1_000, 500) && !standing.is_calm(5_000 * MS));
    assert!(!see(&standing, 2_000, 1) && !standing.is_calm(2_000 * MS));
    assert!(!see(&standing, 2_500, 1) && !standing.is_calm(3_000 * MS));
    assert!(standing.is_calm(3_001 * MS), "since it ceased, not since it was last seen");
}

#[test]
fn while_entries_have_to_be_shed_the_queue_stands_though_nothing_waits_for_long() {
    let standing = Standing::new(TARGET);
    assert!(see(&standing, 1_000, 500));
    standing.shed(1_000 * MS);
    assert!(see(&standing, 1_100, 5) && standing.observe(1_100 * MS, None));
    assert_eq!(standing.stood_for(1_100 * MS), Some(100 * MS));
    assert!(!see(&standing, 1_101, 5));
    standing.shed(1_102 * MS);
    assert!(!see(&standing, 1_103, 5), "shedding alone is no proof: a burst can be larger than the queue");
}

#[test]
fn a_target_can_change_while_the_server_runs() {
    let standing = Standing::new(TARGET);
    standing.set_target(500 * MS);
    assert!(!see(&standing, 1_000, 500));
    assert!(see(&standing, 2_000, 700));
    standing.set_target(800 * MS);
    assert!(!see(&standing, 2_001, 700));
    assert_eq!(standing.target(), 800 * MS);
}

#[test]
fn a_clock_that_is_behind_another_threads_does_not_matter() {
    let standing = Standing::new(TARGET);
    assert!(
        !standing.observe(1_000 * MS, Some(1_010 * MS)),
        "the entry is younger than this thread's reading"
    );
    assert!(!see(&standing, 1_000, 21));
    assert!(!see(&standing, 990, 21));
    assert!(see(&standing, 1_099, 30));
    assert!(see(&standing, 1_098, 30), "the one that is behind knows that it stands");
}

#[test]
fn a_queue_is_at_rest_while_nothing_would_change_by_looking_closer() {
    let standing = Standing::new(TARGET);
    assert!(standing.is_at_rest(1_020 * MS, 1_000 * MS) && standing.is_at_rest(1_000 * MS, 1_010 * MS));
    assert!(!standing.is_at_rest(1_020 * MS + 1, 1_000 * MS), "it waited for longer than the target");
    assert!(!see(&standing, 1_021, 21));
    assert!(!standing.is_at_rest(1_021 * MS, 1_021 * MS), "the wait has been above the target");
    assert!(!see(&standing, 1_022, 0) && standing.is_at_rest(1_022 * MS, 1_022 * MS));
    assert!(see(&standing, 2_000, 500));
    standing.shed(2_000 * MS);
    assert!(see(&standing, 2_050, 0) && !standing.is_at_rest(2_050 * MS, 2_050 * MS), "it stands");
}
