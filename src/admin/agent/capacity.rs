//! How much more a server can take, from two readings of its counters.

use crate::metrics::snapshot::{Phase, Snapshot};
use std::time::{Duration, Instant};

/// Load is averaged over about this time. Balancers that ask every second or two act on what was true before their last
/// action; with a shorter average, servers and balancer swing.
const AVERAGED: Duration = Duration::from_secs(5);
/// The share of the latest reading in what counts as waiting; the rest is the average. An average alone answers too late,
/// which keeps a swing going; this much of the present damps it.
const PRESENT: f64 = 0.1;
/// The share that busy workers take of the answer. The rest tells servers apart that are busy all the time: it falls
/// with what waits.
const BUSY_WEIGHT: f64 = 0.5;

/// What the balancer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// It serves, and this percentage of it is free: 1 to 100.
    Up(u8),
    /// It is told to end, and finishes what it has.
    Drain,
    /// It cannot serve at all, and why.
    Down(&'static str),
}

/// The averages, and the reading that they go up to.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    last: Option<(Instant, Duration)>,
    workers: Load,
    /// By the place of the listener.
    gates: Vec<Load>,
}

/// How much of a number of places is in use, and how much waits for one; each as a share of the places.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load {
    busy: f64,
    waiting: f64,
    /// What waits at the latest reading.
    present: f64,
}

impl Load {
    fn new(busy: f64, waiting: u64, places: u64) -> Self {
        let waiting = waiting as f64 / places.max(1) as f64;
        Self { busy: busy.clamp(0.0, 1.0), waiting, present: waiting }
    }

    /// Moves towards a newer reading by this share of the way.
    fn follow(&mut self, seen: Load, share: f64) {
        self.busy += share * (seen.busy - self.busy);
        self.waiting += share * (seen.waiting - self.waiting);
        self.present = seen.present;
    }

    /// What is free, of 1. With as much waiting as there are places, it is half of what it is without.
    fn free(self) -> f64 {
        let waiting = (1.0 - PRESENT) * self.waiting + PRESENT * self.present;
        (1.0 - BUSY_WEIGHT * self.busy) / (1.0 + waiting)
    }
}

impl Capacity {
    /// Takes one more reading.
    pub(super) fn read(&mut self, now: Instant, seen: &Snapshot) -> Advice {
        match seen.phase {
            Phase::Serving => {}
            Phase::Leaving | Phase::Draining => return Advice::Drain,
            Phase::Starting => return Advice::Down("starting"),
            Phase::Stopped => return Advice::Down("stopped"),
        }
        self.average(now, seen);
        if seen.listeners.iter().any(|l| !l.is_closed && l.backends.as_ref().is_some_and(|gate| !gate.ready))
        {
            return Advice::Down("no backend is up");
        }
        let open: u64 = seen.listeners.iter().map(|listener| listener.open()).sum();
        let connections = 1.0 - open as f64 / seen.connections_limit.max(1) as f64;
        let gates = self.gates.iter().map(|gate| gate.free());
        let free = gates.chain([connections]).fold(self.workers.free(), f64::min);
        Advice::Up((free * 100.0).round().clamp(1.0, 100.0) as u8)
    }

    fn average(&mut self, now: Instant, seen: &Snapshot) {
        let workers = seen.workers_limit.max(1) as f64;
        let (busy, share) = match self.last {
            Some((at, before)) if now > at => {
                let time = now.duration_since(at).as_secs_f64();
                let busy = seen.worker_busy.saturating_sub(before).as_secs_f64() / (time * workers);
                (busy, 1.0 - (-time / AVERAGED.as_secs_f64()).exp())
            }
            Some(_) => return,
            None => (seen.workers_busy as f64 / workers, 1.0),
        };
        self.last = Some((now, seen.worker_busy));
        self.workers.follow(Load::new(busy, seen.queue_length, seen.workers_limit), share);
        self.gates.resize(seen.listeners.len(), Load::default());
        for (average, listener) in self.gates.iter_mut().zip(&seen.listeners) {
            match &listener.backends {
                Some(gate) => {
                    let busy = gate.in_use as f64 / gate.limit.max(1) as f64;
                    average.follow(Load::new(busy, gate.waiting, gate.limit), share);
                }
                // No gate, or one that is closed.
                None => *average = Load::default(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::backends::BackendsSnapshot;
    use crate::metrics::snapshot::ListenerSnapshot;

    /// A server of 10 workers that serves.
    fn serving() -> Snapshot {
        Snapshot {
            phase: Phase::Serving,
            workers_limit: 10,
            connections_limit: 1_000,
            queue_limit: 100,
            listeners: vec![ListenerSnapshot::default()],
            ..Snapshot::default()
        }
    }

    /// What it says after `seconds` in each of which `busy` workers were in turns.
    fn after(seconds: u32, busy: f64, mut seen: Snapshot) -> Advice {
        let (mut capacity, start) = (Capacity::default(), Instant::now());
        capacity.read(start, &seen);
        let mut said = Advice::Drain;
        for second in 1..=seconds {
            seen.worker_busy += Duration::from_secs_f64(busy);
            said = capacity.read(start + Duration::from_secs(second.into()), &seen);
        }
        said
    }

    #[test]
    fn an_idle_server_is_free_and_a_busy_one_falls_by_what_waits() {
        assert_eq!(after(60, 0.0, serving()), Advice::Up(100));
        assert_eq!(after(60, 5.0, serving()), Advice::Up(75));
        assert_eq!(after(60, 10.0, serving()), Advice::Up(50));
        let waiting = |queue_length| after(60, 10.0, Snapshot { queue_length, ..serving() });
        assert_eq!([waiting(5), waiting(10), waiting(20)], [Advice::Up(33), Advice::Up(25), Advice::Up(17)]);
    }

    #[test]
    fn overload_is_never_down_and_never_nothing() {
        let seen = Snapshot { queue_length: 1_000_000, workers_busy: 10, ..serving() };
        assert_eq!(after(60, 10.0, seen), Advice::Up(1));
        let mut full = serving();
        full.listeners[0].idle = 1_000;
        assert_eq!(after(60, 0.0, full), Advice::Up(1));
    }

    #[test]
    fn connections_that_are_open_take_their_share() {
        let mut seen = serving();
        seen.listeners[0].idle = 900;
        assert_eq!(after(60, 0.0, seen), Advice::Up(10));
    }

    #[test]
    fn the_fullest_gate_counts_and_one_without_a_backend_is_down() {
        let gate = |in_use, waiting, ready| ListenerSnapshot {
            backends: Some(BackendsSnapshot { in_use, waiting, ready, limit: 20, ..Default::default() }),
            ..Default::default()
        };
        let with = |gates: &[ListenerSnapshot]| Snapshot { listeners: gates.to_vec(), ..serving() };
        assert_eq!(after(60, 1.0, with(&[gate(0, 0, true)])), Advice::Up(95));
        assert_eq!(after(60, 1.0, with(&[gate(0, 0, true), gate(20, 20, true)])), Advice::Up(25));
        let down = with(&[gate(0, 0, true), gate(0, 0, false)]);
        assert_eq!(after(60, 1.0, down), Advice::Down("no backend is up"));
    }

    #[test]
    fn what_ends_drains_and_what_does_not_serve_yet_is_down() {
        for (phase, said) in [
            (Phase::Starting, Advice::Down("starting")),
            (Phase::Leaving, Advice::Drain),
            (Phase::Draining, Advice::Drain),
            (Phase::Stopped, Advice::Down("stopped")),
        ] {
            assert_eq!(after(3, 0.0, Snapshot { phase, ..serving() }), said, "{phase:?}");
        }
    }

    #[test]
    fn a_moment_of_load_moves_the_answer_by_its_length_only() {
        let (mut capacity, start) = (Capacity::default(), Instant::now());
        let mut seen = serving();
        capacity.read(start, &seen);
        seen.worker_busy += Duration::from_secs(1);
        // 0.1 s with every worker in a turn.
        let said = capacity.read(start + Duration::from_millis(100), &seen);
        assert_eq!(said, Advice::Up(99));
        // A second reading at the same moment changes nothing.
        assert_eq!(capacity.read(start + Duration::from_millis(100), &seen), said);
    }

    /// Three servers of unequal speed behind a balancer that follows: all that they can do is done.
    #[test]
    fn shares_settle_where_every_server_is_busy() {
        let speeds = [100.0, 100.0, 25.0];
        // 36 closed-loop clients more than the workers of all; each server has 8 workers.
        let (clients, workers) = (60.0_f64, 8.0);
        let (mut inside, mut done) = ([0.0_f64; 3], 0.0);
        let mut loads = [Load::default(); 3];
        let step = 0.01;
        for tick in 0..12_000 {
            let shares = loads.map(|load| (load.free() * 100.0).round().max(1.0));
            let newcomers = clients - inside.iter().sum::<f64>();
            for at in 0..3 {
                inside[at] += newcomers * shares[at] / shares.iter().sum::<f64>();
                let busy = (inside[at] / workers).min(1.0);
                let finished = (busy * speeds[at] * step).min(inside[at]);
                inside[at] -= finished;
                done += if tick >= 6_000 { finished } else { 0.0 };
                let waiting = (inside[at] - workers).max(0.0) / workers;
                loads[at].follow(Load { busy, waiting, present: waiting }, step / 5.0);
            }
        }
        let possible = speeds.iter().sum::<f64>() * step * 6_000.0;
        assert!(done > 0.97 * possible, "{done} of {possible}");
        assert!(inside[2] < 6.0 * workers, "{inside:?}");
    }
}
