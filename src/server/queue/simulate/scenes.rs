//! The scenes in which serving in order fails, each in every order, second by second.
//!
//! `cargo test --lib scenes -- --nocapture` prints the tables.

use super::clients::{ClientGroup, ClientPace};
use super::report::RunReport;
use super::server::{MS, SECOND, ServerModel, ServingOrder, WorkModel};
use super::world::World;

/// The prototype's two orders have one thread, and so has the shelf where it is compared with them.
fn alone(rule: ServingOrder) -> ServerModel {
    ServerModel { rule, workers: 1, ..ServerModel::DEFAULT }
}

fn run(name: &str, rules: ServerModel, groups: &[ClientGroup], seconds: u64) -> RunReport {
    let report = World::new(rules, groups, 1).run(seconds * SECOND);
    println!(
        "{name}, {:?}, {} workers: {:?}, p50 {} ms, p99 {} ms, {} unheard, {} displaced",
        rules.rule,
        rules.workers,
        report.row(0, seconds as usize),
        report.percentile(50.0) / MS,
        report.percentile(99.0) / MS,
        report.unheard,
        report.displaced
    );
    report
}

/// 8,000 standing connections that ask 600 times a second in all, and from the third second on 8,000 times.
fn surge(per_source: usize) -> ClientGroup {
    let pace = ClientPace::Standing { mean: 8_000 * SECOND / 600, surge_at: 3 * SECOND, mean_then: SECOND };
    ClientGroup { clients: 8_000, connected: true, pace, per_source, ..ClientGroup::PLAIN }
}

#[test]
fn in_order_a_surge_on_standing_connections_leaves_a_second_with_little_of_use() {
    let report = run("surge", alone(ServingOrder::InOrder), &[surge(8_000)], 13);
    assert!(
        report.row(4, 6).iter().any(|&useful| useful < 400),
        "today's failure is to be seen in the model"
    );
}

#[test]
fn the_newest_first_serves_a_surge_but_not_the_polite() {
    let report = run("surge", alone(ServingOrder::Newest), &[surge(8_000)], 13);
    assert!(report.row(3, 13).iter().all(|&useful| useful >= 900));
    let report = run("polite", alone(ServingOrder::Newest), &noisy_and_polite(), 10);
    assert!(report.groups[1].share_within(250 * MS) < 0.9);
}

#[test]
fn in_a_surge_on_standing_connections_every_second_has_nine_tenths_of_the_peak() {
    for per_source in [1, 8_000] {
        for workers in [1, 32] {
            let report =
                run("surge", ServerModel { workers, ..ServerModel::DEFAULT }, &[surge(per_source)], 13);
            assert!(report.row(3, 13).iter().all(|&useful| useful >= 900));
            assert!(report.percentile(99.0) <= 350 * MS);
        }
    }
}

#[test]
fn in_a_surge_of_work_that_waits_every_second_has_nine_tenths_of_the_peak() {
    let rules = ServerModel { work: WorkModel::Sleep, cost: 20 * MS, refusals: 1.0, ..ServerModel::DEFAULT };
    let report = run("surge of sleepers", rules, &[surge(8_000)], 13);
    assert!(report.row(4, 13).iter().all(|&useful| useful >= 1_440), "of 1,600");
    assert!(report.percentile(99.0) <= 350 * MS);
}

/// One source with 4,000 connections at eight times the capacity, beside 50 with one connection and one request a second.
fn noisy_and_polite() -> [ClientGroup; 2] {
    let steady = |mean| ClientPace::Standing { mean, surge_at: 0, mean_then: mean };
    let noisy = ClientGroup { clients: 4_000, pace: steady(SECOND / 2), ..surge(4_000) };
    [noisy, ClientGroup { clients: 50, pace: steady(SECOND), ..surge(1) }]
}

#[test]
fn in_order_the_polite_wait_behind_the_noisy() {
    let report = run("polite", alone(ServingOrder::InOrder), &noisy_and_polite(), 10);
    assert!(report.groups[1].share_within(250 * MS) < 0.5);
}

#[test]
fn the_polite_are_served_at_once_beside_a_noisy_source_that_gets_the_rest() {
    for workers in [1, 32] {
        let report = run("polite", ServerModel { workers, ..ServerModel::DEFAULT }, &noisy_and_polite(), 10);
        let polite = &report.groups[1];
        let (within, p99) = (polite.share_within(250 * MS), polite.percentile(99.0) / MS);
        println!(
            "    polite: {} of {}, {within:.3} within 250 ms, p99 {p99} ms",
            polite.useful, polite.asked
        );
        assert!(within >= 0.99);
        assert!(report.row(1, 10).iter().all(|&useful| useful >= 900));
    }
}

#[test]
fn a_burst_that_the_queue_can_hold_is_not_shed() {
    let rules = ServerModel { work: WorkModel::Sleep, cost: SECOND, ..ServerModel::DEFAULT };
    let pace = ClientPace::Bursts { clients: 160, every: 100 * SECOND };
    let burst = ClientGroup { pace, patience: 30 * SECOND, per_source: 160, ..ClientGroup::PLAIN };
    let report = run("burst", rules, &[burst], 10);
    assert_eq!((report.groups[0].useful, report.groups[0].shed), (160, 0));
    assert!(report.groups[0].percentile(100.0) <= 5_100 * MS);
}

#[test]
fn of_clients_that_come_once_at_nine_times_the_load_nearly_as_many_are_served_as_can_be() {
    for rule in [ServingOrder::InOrder, ServingOrder::Newest] {
        run(
            "once",
            alone(rule),
            &[ClientGroup { pace: ClientPace::Once { rate: 9_000 }, ..ClientGroup::PLAIN }],
            10,
        );
    }
    for (workers, refusals, least) in [(1, 0.05, 940), (32, 0.05, 925), (32, 0.03, 945), (32, 1.0, 880)] {
        let rules = ServerModel { workers, refusals, ..ServerModel::DEFAULT };
        let per_source = if workers == 1 { 1_000_000 } else { 1 };
        let once = ClientGroup { pace: ClientPace::Once { rate: 9_000 }, per_source, ..ClientGroup::PLAIN };
        let report = run("once", rules, &[once], 10);
        assert!(report.row(1, 10).iter().sum::<u64>() >= 9 * least);
        assert!(report.percentile(99.0) <= 100 * MS);
    }
}

#[test]
fn a_burst_of_a_thousand_at_low_load_is_served_in_order_and_loses_no_handshake() {
    let rules = ServerModel { cost: MS / 25, ..ServerModel::DEFAULT };
    let pace = ClientPace::Bursts { clients: 1_000, every: 100 * SECOND };
    let report = run("thousand", rules, &[ClientGroup { pace, ..ClientGroup::PLAIN }], 2);
    assert_eq!((report.groups[0].useful, report.unheard), (1_000, 0));
    assert!(report.groups[0].percentile(90.0) <= 60 * MS);
}

/// 300 clients that ask again at once, beside 50 newcomers a second: work that waits for 20 ms on 32 workers.
fn full_house(clients: usize, per_source: usize) -> RunReport {
    let rules = ServerModel { work: WorkModel::Sleep, cost: 20 * MS, ..ServerModel::DEFAULT };
    let established =
        ClientGroup { clients, connected: true, patience: 30 * SECOND, per_source, ..ClientGroup::PLAIN };
    let newcomers =
        ClientGroup { pace: ClientPace::Once { rate: 50 }, from: SECOND, per_source, ..ClientGroup::PLAIN };
    run("full house", rules, &[established, newcomers], 10)
}

#[test]
fn clients_that_are_in_do_not_lock_newcomers_out() {
    for clients in [170, 300] {
        for per_source in [1, 1_000] {
            let report = full_house(clients, per_source);
            let [established, newcomers] = &report.groups[..] else { panic!("two groups") };
            println!(
                "    newcomers: {} of {}, p99 {} ms; established: p99 {} ms, slowest {} ms",
                newcomers.useful,
                newcomers.asked,
                newcomers.percentile(99.0) / MS,
                established.percentile(99.0) / MS,
                established.percentile(100.0) / MS
            );
            assert!(newcomers.share_within(SECOND) >= 0.95);
            assert!(report.row(1, 10).iter().all(|&useful| useful >= 1_590), "the workers have no rest");
            assert_eq!(established.shed, 0, "the established go on");
            assert!(established.percentile(100.0) <= SECOND, "and each of them");
        }
    }
}

/// A pool of clients that ask again as soon as they are answered, all of one source: what a benchmark does, and an
/// application with its database.
#[test]
fn a_closed_loop_that_fits_is_served_in_order_and_nobody_waits_for_two_rounds() {
    for (workers, clients) in [(4, 64), (32, 400)] {
        let rules = ServerModel { workers, work: WorkModel::Sleep, cost: 16 * MS, ..ServerModel::DEFAULT };
        let pool = ClientGroup {
            clients,
            connected: true,
            per_source: clients,
            pace: ClientPace::Closed(0),
            patience: 5 * SECOND,
            ..ClientGroup::PLAIN
        };
        let report = run("closed loop", rules, &[pool], 10);
        let round = clients as u64 * 16 * MS / workers as u64;
        assert!(
            report.percentile(99.0) < 2 * round,
            "{} ms, a round is {} ms",
            report.percentile(99.0) / MS,
            round / MS
        );
    }
}

#[test]
fn newcomers_do_not_lock_out_those_that_are_in() {
    let rules = ServerModel { work: WorkModel::Sleep, cost: 20 * MS, refusals: 1.0, ..ServerModel::DEFAULT };
    for per_source in [1, 1_000_000] {
        let established = ClientGroup { clients: 50, connected: true, per_source, ..ClientGroup::PLAIN };
        let newcomers =
            ClientGroup { pace: ClientPace::Once { rate: 15_000 }, per_source, ..ClientGroup::PLAIN };
        let report = run("flood", rules, &[established, newcomers], 6);
        let established = &report.groups[0];
        println!("    established: {} of {}", established.useful, established.asked);
        assert!(established.useful * 10 >= established.asked * 9);
        assert!(established.useful >= 6 * 300, "they have their share of 1,600 turns a second");
    }
}
