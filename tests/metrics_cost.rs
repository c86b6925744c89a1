//! What a turn pays for its metrics: a few nanoseconds of its own thread's memory, no lock and no
//! line that another thread writes. A process of its own, so that nothing else runs beside it.

use std::hint::black_box;
use std::time::{Duration, Instant};
use tidegate::metrics::stats::{CountedAs, Ledgers, WorkerClock};
use tidegate::reason::TurnOutcome;

const TURNS: u64 = 200_000;

/// The best of many rounds: what else the machine does can only add.
fn best_per_turn(mut turn: impl FnMut(u64)) -> Duration {
    let round = |turn: &mut dyn FnMut(u64)| {
        let begun = Instant::now();
        for n in 1..=TURNS {
            turn(n);
        }
        begun.elapsed()
    };
    (0..20).map(|_| round(&mut turn)).min().unwrap() / TURNS as u32
}

#[test]
fn a_turn_pays_little_for_its_metrics() {
    let ledgers = Ledgers::new(4, 2);
    let ledger = ledgers.of(1, 0);
    let clock = WorkerClock::default();
    let counts = best_per_turn(|n| {
        let n = black_box(n);
        ledger.moved(CountedAs::Queued, CountedAs::Active);
        ledger.waited(n % 300_000);
        clock.begin(n);
        ledger.turn(TurnOutcome::Ok, n % 300_000);
        ledger.bytes(64, 64);
        clock.end(n + 1);
        ledger.moved(CountedAs::Active, CountedAs::Idle);
    });
    let time = best_per_turn(|_| {
        black_box(Instant::now());
        black_box(Instant::now());
    });
    eprintln!("a turn pays {counts:?} for counting, and {time:?} for two looks at the clock");
    assert!(counts < Duration::from_micros(1), "counting costs {counts:?} a turn");
}
