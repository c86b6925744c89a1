//! What is promised of the gate, and what was measured.

use super::Gates;
use super::scenes::{SLOW_RATE, WAITING_MAX};
use super::trouble::Trouble;
use super::works::{Download, Kind, QUIET, Through, WORKS};
use crate::goals::{Bound, Goal};
use crate::measure::{Comparison, Sample};
use crate::plots::{thousands, title_of};
use crate::scene::{Played, Run};
use clap::ValueEnum;
use std::collections::BTreeMap;

const GATE: &str = "tidegate";
/// A goal for each promise, whether or not it was measured.
pub(crate) fn goals(gates: Option<&Gates>) -> Vec<Goal> {
    let of_works =
        WORKS.iter().flat_map(|work| of_work(work, gates.and_then(|gates| gates.works.get(work.key))));
    let mut goals: Vec<Goal> = of_works.collect();
    goals.push(of_downloads(gates.map(|gates| &gates.downloads)));
    goals.push(of_quiet(gates.map(|gates| &gates.quiet)));
    for &trouble in Trouble::value_variants() {
        goals.extend(of_scene(trouble, gates.and_then(|gates| gates.scenes.get(trouble.key()))));
    }
    goals
}

/// What is promised of the gate or the server under a load.
pub(super) fn of_work(work: &Through, comparison: Option<&Comparison>) -> Vec<Goal> {
    let rivals = work.kind.rivals();
    let of = |rivals: &[&str], better: fn(f64, f64) -> f64, figure: fn(&Sample) -> f64| {
        comparison.map(|comparison| over_better(comparison, rivals, better, figure)).unwrap_or_default()
    };
    let name = work.title.replace("Through the gate", "through the gate");
    let goal = |figure: String, bound: Bound, values: Vec<f64>| Goal {
        values,
        ..Goal::new(name.clone(), figure, bound)
    };
    let both = format!("the better of {} and {}", title_of(rivals[0]), title_of(rivals[1]));
    let rate = match work.kind {
        Kind::HttpGate => Bound::Shown,
        Kind::Bytes | Kind::HttpServer => Bound::AtLeast(1.0),
    };
    let cpu = of(&rivals, f64::min, |sample| sample.cpu_per_request);
    let mut goals = vec![
        goal(format!("CPU a request over {both}"), work.cpu_most.map_or(Bound::Shown, Bound::AtMost), cpu),
        goal(format!("replies/s over {both}"), rate, of(&rivals, f64::max, |sample| sample.outcome.rate)),
    ];
    let p99: fn(&Sample) -> f64 = |sample| sample.outcome.p99;
    match work.kind {
        Kind::Bytes => {
            goals.push(goal(format!("p99 over {both}"), Bound::AtMost(1.0), of(&rivals, f64::min, p99)));
        }
        Kind::HttpServer if work.connections == 1_000 => {
            goals.push(goal("p99 over nginx".to_owned(), Bound::AtMost(1.0), of(&["nginx"], f64::min, p99)));
        }
        _ => goals.push(goal(format!("p99 over {both}"), Bound::Shown, of(&rivals, f64::min, p99))),
    }
    if work.kind == Kind::Bytes && work.connections == 1 {
        let p50 = of(&rivals, f64::min, |sample| sample.outcome.p50);
        goals.push(goal(format!("p50 over {both}"), Bound::AtMost(0.8), p50));
    }
    goals
}

/// The gate's figure over the better of the rivals', round by round.
fn over_better(
    comparison: &Comparison,
    rivals: &[&str],
    better: fn(f64, f64) -> f64,
    figure: fn(&Sample) -> f64,
) -> Vec<f64> {
    let at = |name: &str| comparison.servers.iter().position(|server| server == name);
    let Some(gate) = at(GATE) else { return Vec::new() };
    let rivals: Vec<Vec<f64>> =
        rivals.iter().filter_map(|name| Some(comparison.values(at(name)?, figure))).collect();
    let best = |round: usize| rivals.iter().map(|values| values[round]).reduce(better);
    let values = comparison.values(gate, figure);
    values.iter().enumerate().filter_map(|(round, value)| Some(value / best(round)?)).collect()
}

/// What is promised of a download.
pub(super) fn of_downloads(downloads: Option<&BTreeMap<String, Vec<Download>>>) -> Goal {
    let cpu = |name: &str| downloads?.get(name).map(|all| all.iter().map(|download| download.cpu));
    let values = match (cpu(GATE), cpu("haproxy-splice")) {
        (Some(gate), Some(rival)) => gate.zip(rival).map(|(gate, rival)| gate / rival).collect(),
        _ => Vec::new(),
    };
    Goal {
        values,
        ..Goal::new("a download through the gate", "CPU over HAProxy with splice", Bound::AtMost(1.1))
    }
}

/// What is promised of pairs that are quiet.
pub(super) fn of_quiet(quiet: Option<&BTreeMap<String, Vec<u64>>>) -> Goal {
    let peaks = |name: &str| quiet?.get(name);
    let values = match (peaks(GATE), peaks("haproxy")) {
        (Some(gate), Some(rival)) => {
            gate.iter().zip(rival).map(|(&gate, &rival)| gate as f64 / rival as f64).collect()
        }
        _ => Vec::new(),
    };
    let work = format!("{} quiet pairs", thousands(QUIET as f64));
    Goal { values, ..Goal::new(work, "peak memory over HAProxy", Bound::AtMost(1.0 / 3.0)) }
}

/// What is promised of the gate in a scene.
pub(super) fn of_scene(trouble: Trouble, played: Option<&Played>) -> Vec<Goal> {
    let runs = played.map(|played| played.of(GATE)).unwrap_or_default();
    let answered =
        |stage: usize| -> Vec<f64> { runs.iter().filter_map(|run| run.stage(0, stage)?.share()).collect() };
    let goal = |work: &str, figure: &str, least: f64, values: Vec<f64>| Goal {
        values,
        ..Goal::new(work, figure, Bound::AtLeast(least))
    };
    match trouble {
        Trouble::Survive => flood(
            "in front of Python at 5 times its load",
            played,
            [Bound::AtLeast(0.94), Bound::AtLeast(0.9), Bound::AtMost(50.0)],
        ),
        Trouble::Gunicorn => {
            let work = "in front of gunicorn at 10 times its load";
            let mut goals = flood(work, played, [Bound::AtLeast(0.95), Bound::AtLeast(0.9), Bound::Shown]);
            let figures = runs.iter().filter_map(|run| run.stage(0, 2));
            let hinted: Vec<f64> =
                figures.clone().map(|stage| stage.hinted as f64 / stage.refused() as f64).collect();
            goals.push(goal(work, "refused with 503 and `Retry-After`, of all refused", 0.99, hinted));
            let capacity = played.and_then(|played| played.capacity).unwrap_or(f64::NAN);
            // In whole seconds, as `Retry-After` counts.
            let time = (WAITING_MAX / capacity).ceil();
            goals.push(Goal {
                values: figures.map(|stage| f64::from(stage.hint_max) / time).collect(),
                ..Goal::new(work, "longest `Retry-After` over what a full queue takes", Bound::AtMost(1.0))
            });
            goals
        }
        Trouble::Slow => {
            let work = "a backend slows down ten times";
            let slow: Vec<f64> = played
                .map(|played| played.judged(GATE))
                .unwrap_or_default()
                .iter()
                .map(|seconds| mean(seconds))
                .collect();
            let slow = slow.iter().map(|rate| rate / SLOW_RATE).collect();
            vec![
                goal(work, "replies/s while it is slow over what it can do then", 0.9, slow),
                goal(work, "answered from 1 s after it is quick again", 0.99, answered(3)),
            ]
        }
        Trouble::Three => vec![goal("one of three backends is slow", "answered", 0.99, answered(1))],
        Trouble::Killed => {
            let work = "one of three backends is killed";
            vec![
                goal(work, "answered", 0.99, answered(1)),
                goal(work, "answered after its return", 0.99, answered(3)),
            ]
        }
    }
}

fn mean(seconds: &[f64]) -> f64 {
    seconds.iter().sum::<f64>() / seconds.len() as f64
}

/// What is promised in a flood. Bounds: of all seconds, of the worst second, and of the p99 in ms.
fn flood(work: &str, played: Option<&Played>, [all, worst, p99]: [Bound; 3]) -> Vec<Goal> {
    let runs = played.map(|played| played.of(GATE)).unwrap_or_default();
    let stage = |value: fn(&crate::scene::StageFigures) -> f64| -> Vec<f64> {
        let judged = played.map_or(0, |played| played.judged);
        runs.iter().filter_map(|run: &Run| run.stage(0, judged).map(value)).collect()
    };
    let seconds = |sum: fn(&[f64]) -> f64| -> Vec<f64> {
        let Some((played, capacity)) = played.and_then(|played| Some((played, played.capacity?))) else {
            return Vec::new();
        };
        played.judged(GATE).iter().map(|seconds| sum(seconds) / capacity).collect()
    };
    let before: Vec<f64> = runs.iter().filter_map(|run| run.stage(0, 0)?.share()).collect();
    let goal =
        |figure: &str, bound: Bound, values: Vec<f64>| Goal { values, ..Goal::new(work, figure, bound) };
    let millis =
        |figure: &str, bound: Bound, values: Vec<f64>| Goal { unit: " ms", ..goal(figure, bound, values) };
    let told = stage(|stage| stage.told_p99 * 1e3);
    vec![
        goal("replies/s over the backend alone", all, seconds(mean)),
        goal(
            "the worst second over the backend alone",
            worst,
            seconds(|all| all.iter().copied().fold(f64::INFINITY, f64::min)),
        ),
        millis("p99 of the useful replies", p99, stage(|stage| stage.p99 * 1e3)),
        millis("p99 of the time until a refused client knows", Bound::AtMost(50.0), told),
        goal("answered at 0.8 of the load", Bound::AtLeast(1.0), before),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Errors, Outcome};

    fn sample(cpu: f64) -> Sample {
        let outcome = Outcome {
            requests: 1,
            replies: 1,
            rate: 1.0,
            p50: 1.0,
            p99: 1.0,
            max: 1.0,
            late_p99: 0.0,
            errors: Errors::default(),
            seconds: 1.0,
        };
        Sample { outcome, server_cpu: 1.0, cpu_per_request: cpu, peak_rss: 1, threads: 1 }
    }

    #[test]
    fn the_gate_is_compared_with_the_better_of_its_rivals_in_each_round() {
        let servers = ["tidegate", "haproxy", "nginx"].map(str::to_owned).to_vec();
        let rounds = |values: [f64; 2]| values.map(sample).to_vec();
        let samples = vec![rounds([1.0, 1.0]), rounds([2.0, 8.0]), rounds([4.0, 4.0])];
        let comparison = Comparison { servers, samples };
        assert_eq!(
            over_better(&comparison, &["haproxy", "nginx"], f64::min, |sample| sample.cpu_per_request),
            [0.5, 0.25]
        );
    }

    #[test]
    fn what_was_not_measured_has_a_goal_all_the_same() {
        let goals = goals(None);
        assert!(goals.len() > 20 && goals.iter().all(|goal| goal.values.is_empty()));
    }
}
