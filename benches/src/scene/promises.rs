//! What is promised of each scene, and what was measured.

use super::{Played, Run, StageFigures};
use crate::goals::{Bound, Goal};
use std::collections::BTreeMap;

/// The server that promises.
const SERVER: &str = "tidegate";
/// The scenes with a surge: their names and what the table calls them.
const SURGES: [(&str, &str); 7] = [
    ("surge", "surge on 8,000 standing connections"),
    ("surge-sources", "the same, each from an address of its own"),
    ("surge-wait", "the same, work that waits"),
    ("surge-udp", "the same, datagrams"),
    ("surge-cores", "the same, all cores"),
    ("surge-http", "the same over HTTP"),
    ("surge-lines", "the same, half-sent lines among them"),
];

/// All scenes that were played, by name.
type Scenes = BTreeMap<String, Played>;

/// A goal for each promise, whether or not the scene was played.
pub(crate) fn goals(scenes: &Scenes) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (key, work) in SURGES {
        let what = match scenes.get(key).and_then(|played| played.shared) {
            Some(_) => "the worst second over what the clients leave of the capacity",
            None => "the worst second over the capacity",
        };
        goals.push(over_capacity(scenes, key, work, what, 0.9, worst));
        goals.push(millis(scenes, key, work, "p99 of the useful replies", 350.0, |played, run| {
            run.stage(0, played.judged).map(|stage| stage.p99)
        }));
        let share = |played: &Played, run: &Run| run.stage(0, played.judged + 2)?.share();
        let after = "answered of what is asked from 1 s after the surge on";
        goals.push(figure(scenes, key, work, after, Bound::AtLeast(0.99), share));
    }
    let what = "p99 of the useful replies to halves, from the second half on";
    goals.push(millis(scenes, "surge-lines", SURGES[6].1, what, 350.0, of(1, |stage| stage.p99)));
    let work = "one busy source beside 50 polite ones";
    let polite = |played: &Played, run: &Run| run.stage(1, played.judged)?.prompt_share();
    let within = "share of the polite answered within 250 ms";
    goals.push(figure(scenes, "sources", work, within, Bound::AtLeast(0.99), polite));
    goals.push(over_capacity(scenes, "sources", work, "replies/s of all over the capacity", 0.9, mean));
    let work = "connections for one request each, 10 times the load";
    goals.push(over_capacity(scenes, "one-shot", work, "replies/s over the capacity", 0.95, mean));
    goals.push(millis(
        scenes,
        "one-shot",
        work,
        "p99 of the useful replies",
        100.0,
        of(0, |stage| stage.p99),
    ));
    let share = |group| move |played: &Played, run: &Run| run.stage(group, played.judged)?.share();
    let answered = "answered";
    let burst = "a burst that the queue can hold";
    goals.push(figure(scenes, "absorb", burst, answered, Bound::AtLeast(1.0), share(0)));
    let crowd = "1,000 newcomers at one instant";
    goals.push(millis(scenes, "crowd", crowd, "p90 of their replies", 60.0, of(0, |stage| stage.p90)));
    let polite = "a polite client beside bursts of 300";
    goals.push(millis(scenes, "bursts", polite, "its slowest reply", 50.0, of(1, |stage| stage.max)));
    let work = "newcomers beside 300 busy clients";
    goals.push(figure(scenes, "newcomers", work, answered, Bound::AtLeast(0.95), share(1)));
    goals.push(over_capacity(scenes, "newcomers", work, "replies/s of all over the capacity", 0.9, mean));
    let work = "lines without end";
    let newcomers = "newcomers answered";
    goals.push(figure(scenes, "pipeline", work, newcomers, Bound::AtLeast(0.95), share(2)));
    let established = "established client answered";
    goals.push(figure(scenes, "pipeline", work, established, Bound::AtLeast(0.95), share(1)));
    let left = "workers left behind by the shutdown";
    goals.push(figure(scenes, "pipeline", work, left, Bound::AtMost(0.0), |_, run| {
        workers_left(run.ended.as_deref()?)
    }));
    goals
}

fn worst(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(f64::INFINITY, f64::min)
}

fn mean(seconds: &[f64]) -> f64 {
    seconds.iter().sum::<f64>() / seconds.len() as f64
}

/// A figure of a group in the judged stage.
fn of(group: usize, figure: fn(&StageFigures) -> f64) -> impl Fn(&Played, &Run) -> Option<f64> {
    move |played, run| run.stage(group, played.judged).map(figure)
}

fn figure(
    scenes: &Scenes,
    key: &str,
    work: &str,
    what: &str,
    bound: Bound,
    value: impl Fn(&Played, &Run) -> Option<f64>,
) -> Goal {
    let played = scenes.get(key);
    let values = played.map(|played| played.of(SERVER).iter().filter_map(|run| value(played, run)).collect());
    Goal { values: values.unwrap_or_default(), ..Goal::new(work, what, bound) }
}

fn millis(
    scenes: &Scenes,
    key: &str,
    work: &str,
    what: &str,
    most: f64,
    value: impl Fn(&Played, &Run) -> Option<f64>,
) -> Goal {
    let in_millis = |played: &Played, run: &Run| Some(value(played, run)? * 1e3);
    Goal { unit: " ms", ..figure(scenes, key, work, what, Bound::AtMost(most), in_millis) }
}

/// What the judged seconds come to, each over what could be done in it.
fn over_capacity(
    scenes: &Scenes,
    key: &str,
    work: &str,
    what: &str,
    least: f64,
    sum: fn(&[f64]) -> f64,
) -> Goal {
    let values = scenes.get(key).map(|played| {
        let (from, count) = played.judged_seconds();
        let shares = |run: &Run| {
            let useful = run.useful(from, count);
            let possible = played.possible(run)?;
            let shares: Vec<f64> = useful.iter().zip(possible).map(|(useful, all)| useful / all).collect();
            Some(sum(&shares))
        };
        played.of(SERVER).iter().filter_map(shares).collect()
    });
    Goal { values: values.unwrap_or_default(), ..Goal::new(work, what, Bound::AtLeast(least)) }
}

/// How many workers a server says it left behind; none when it said something else.
fn workers_left(said: &str) -> Option<f64> {
    if !said.starts_with("drained ") {
        return None;
    }
    let Some((_, rest)) = said.split_once(", left ") else { return Some(0.0) };
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_left_behind_are_read_from_what_the_server_says() {
        assert_eq!(workers_left("drained 4 connections in 0.1 s, cut 0"), Some(0.0));
        let left = "drained 1 connection in 2.0 s, cut 33, left 32 workers in turns that do not return";
        assert_eq!(workers_left(left), Some(32.0));
        assert_eq!(workers_left("it did not end within 10 s"), None);
    }

    #[test]
    fn what_was_not_played_is_not_measured() {
        let goals = goals(&Scenes::new());
        assert!(goals.len() > 20 && goals.iter().all(|goal| goal.values.is_empty()));
    }
}
