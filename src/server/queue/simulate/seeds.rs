//! Worlds at random, each from its seed: the same two hundred at each run.
//!
//! `SEEDS=5000..9000 cargo test --lib seeds` explores thousands of others, and `SEEDS=17..18` one again.

use super::clients::{ClientGroup, ClientPace};
use super::random::SeededRandom;
use super::report::RunReport;
use super::server::{MS, SECOND, ServerModel, WorkModel};
use super::world::World;
use std::ops::Range;

/// How many are explored each time.
const EXPLORED: Range<u64> = 0..200;

/// Seeds of worlds that have failed, to be run each time. (Those that failed while the worlds themselves were still
/// changing are written out below, as worlds.)
const KEPT: &[u64] = &[1_244, 1_918];

/// The least share of all work that is useful.
const SERVED_LEAST: f64 = 0.9;

/// How long each world runs.
const LENGTH: u64 = 3 * SECOND;

/// One world in this number serves in the order of arrival. Under overload that is of use to few, so nothing is asked of
/// it but that every request is served or ended once, and in time.
const IN_ORDER_EACH: u64 = 10;

/// Names the seed of a world that fails.
struct SeedNotice(u64);

impl Drop for SeedNotice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The world of seed {} failed: SEEDS={}..{} runs it again.", self.0, self.0, self.0 + 1);
        }
    }
}

/// A server at random.
fn rules(random: &mut SeededRandom) -> ServerModel {
    let work = random.one_of(&[WorkModel::Processor(1), WorkModel::Processor(2), WorkModel::Sleep]);
    let workers = random.one_of(&[1, 2, 8, 32]);
    let cost = match work {
        WorkModel::Sleep => random.one_of(&[5 * MS, 20 * MS]),
        WorkModel::Processor(_) => random.one_of(&[MS, 2 * MS, 4 * MS]),
    };
    ServerModel {
        work,
        workers,
        cost,
        spread: random.one_of(&[0.0, 0.0, 0.5, 1.0]),
        queue: random.one_of(&[8, 32, 128]),
        max_connections: random.one_of(&[200, 2_000]),
        backlog: random.one_of(&[16, 128]),
        queue_timeout: random.one_of(&[SECOND / 2, SECOND, 5 * SECOND]),
        target: random.one_of(&[0, 5 * MS, 20 * MS, 50 * MS]),
        fair: random.happens(0.8),
        refusals: random.one_of(&[0.0, 0.05, 1.0]),
        ..ServerModel::DEFAULT
    }
}

/// How long a turn takes when all workers are in turns.
fn longest_turn(rules: &ServerModel) -> u64 {
    let stretch = match rules.work {
        WorkModel::Processor(processors) => rules.workers.div_ceil(processors) as u64,
        WorkModel::Sleep => 1,
    };
    2 * rules.cost * stretch
}

/// Clients at random, up to about ten times what the server can do.
fn group(random: &mut SeededRandom, rules: &ServerModel, plain: bool) -> ClientGroup {
    let capacity = rules.capacity() as u64;
    let rate = capacity * random.within(1..30) / 10 + 1;
    let clients = random.within(1..if plain { 60 } else { 400 }) as usize;
    let mean = SECOND * clients as u64 / rate;
    let pace = match random.within(0..6) {
        0 => ClientPace::Closed(random.within(0..20) * MS),
        1 => ClientPace::Once { rate },
        2 => ClientPace::Bursts { clients: random.within(1..200), every: random.within(100..1_000) * MS },
        3 => ClientPace::Standing { mean: 10 * mean, surge_at: SECOND, mean_then: mean },
        _ => ClientPace::Standing { mean, surge_at: 0, mean_then: mean },
    };
    // Enough for what waits in the smallest backlog and for the turns that go on.
    let patience = (300 * MS).max(6 * longest_turn(rules)).max(40 * SECOND / capacity);
    ClientGroup {
        clients: clients.min(rules.max_connections / 4),
        pace,
        from: random.within(0..SECOND),
        patience: patience * random.within(1..4),
        pause: random.within(0..800) * MS,
        per_source: random.one_of(&[1, 1, 10, 1_000_000]),
        connected: random.happens(0.5),
        datagrams: random.happens(0.2),
        half_close: random.one_of(&[0.0, 0.0, 0.3]),
        resets: random.happens(0.3),
        cost: if plain { 1.0 } else { random.one_of(&[0.2, 1.0, 1.0, 1.8]) },
    }
}

fn explore(seed: u64) -> (ServerModel, Vec<ClientGroup>, RunReport) {
    let mut random = SeededRandom::new(seed ^ 0x7469_6465);
    let plain = random.happens(0.5);
    let rules = rules(&mut random);
    let rules = if plain { ServerModel { spread: 0.0, ..rules } } else { rules };
    let rules = ServerModel { fresh: !seed.is_multiple_of(IN_ORDER_EACH), ..rules };
    let groups: Vec<ClientGroup> =
        (0..random.within(1..5)).map(|_| group(&mut random, &rules, plain)).collect();
    if std::env::var_os("SEEDS").is_some() {
        println!("{seed}: {rules:?} {groups:?}");
    }
    let world = World::new(rules, &groups, seed);
    let world = if plain && rules.fresh { world.with_fairness() } else { world };
    let report = world.run(LENGTH);
    (rules, groups, report)
}

/// Of the work that was done at most a tenth was for clients that had left, in each second and but for the turns that
/// were going on when they left.
fn check_useful(rules: &ServerModel, report: &RunReport) {
    if !rules.fresh {
        return;
    }
    let in_turns = rules.workers as f64;
    for (second, wasted) in report.wasted.iter().enumerate() {
        let useful = report.seconds.get(second).copied().unwrap_or(0.0);
        let most = 0.1 * (useful + wasted) + in_turns;
        assert!(
            *wasted <= most,
            "{wasted} turns for clients that had left, {useful} useful, second {second}"
        );
    }
}

/// Over the run at least nine tenths of what the workers and the acceptor did was of use. A worker has no rest while anything
/// waits, which the world checks at each step, so this is a share of what could be done. Turns that go on at the end
/// do not count, nor do refusals that the server was told to make whatever they cost.
fn check_capacity(rules: &ServerModel, report: &RunReport) {
    if rules.refusals == 1.0 || !rules.fresh {
        return;
    }
    let useful: f64 = report.seconds.iter().sum();
    let in_turns = 2.0 * rules.workers as f64;
    let least = SERVED_LEAST * (report.done - report.excused - in_turns);
    assert!(useful >= least, "{useful} useful of {} done, {} excused", report.done, report.excused);
}

fn range() -> Range<u64> {
    let Ok(given) = std::env::var("SEEDS") else { return EXPLORED };
    let (from, to) = given.split_once("..").expect("SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn in_no_world_is_anything_lost_or_unfair_or_wasted() {
    for seed in range().chain(KEPT.iter().copied()) {
        let named = SeedNotice(seed);
        let (rules, _, report) = explore(seed);
        check_useful(&rules, &report);
        check_capacity(&rules, &report);
        drop(named);
    }
}

/// Runs a world that has failed.
fn again(rules: ServerModel, groups: &[ClientGroup]) -> RunReport {
    let report = World::new(rules, groups, 1).run(LENGTH);
    check_useful(&rules, &report);
    check_capacity(&rules, &report);
    report
}

#[test]
fn a_backlog_that_was_deep_when_an_overload_began_is_cleared_though_nothing_may_be_refused() {
    // The kernel kept 4,096 newcomers in order, each was accepted when it was about to leave, and the third second had
    // ten useful turns of 900.
    let rules = ServerModel {
        work: WorkModel::Sleep,
        cost: 20 * MS,
        queue: 8,
        backlog: 16,
        refusals: 0.0,
        ..ServerModel::DEFAULT
    };
    let flood = ClientGroup {
        pace: ClientPace::Once { rate: 3_681 },
        from: SECOND,
        patience: 300 * MS,
        cost: 1.8,
        ..ClientGroup::PLAIN
    };
    let report = again(rules, &[flood]);
    assert!(report.seconds[1..].iter().all(|&useful| useful > 1_200.0), "{:?}", report.seconds);
}

#[test]
fn datagrams_whose_senders_have_left_do_not_keep_the_places() {
    // All places were taken by old datagrams, and a new one found none until one of those had been answered in vain.
    let rules = ServerModel { workers: 1, queue: 8, ..ServerModel::DEFAULT };
    let flood = ClientGroup {
        pace: ClientPace::Once { rate: 2_501 },
        from: SECOND,
        patience: 300 * MS,
        datagrams: true,
        ..ClientGroup::PLAIN
    };
    let report = again(rules, &[flood]);
    assert!(report.seconds[1..].iter().all(|&useful| useful > 900.0), "{:?}", report.seconds);
}

#[test]
fn clients_that_reset_their_connections_count_as_leaving() {
    let rules = ServerModel {
        work: WorkModel::Processor(2),
        cost: 2 * MS,
        target: 5 * MS,
        refusals: 1.0,
        ..ServerModel::DEFAULT
    };
    let steady = ClientPace::Standing { mean: 150 * MS, surge_at: 0, mean_then: 150 * MS };
    let group = ClientGroup {
        clients: 300,
        pace: steady,
        patience: 400 * MS,
        resets: true,
        connected: true,
        ..ClientGroup::PLAIN
    };
    let report = again(rules, &[group]);
    assert!(report.seconds[1..].iter().all(|&useful| useful > 900.0), "{:?}", report.seconds);
}
