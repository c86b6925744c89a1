//! What happens in each scene of a gate, and how it is told.

use super::trouble::{FLOOD_RATE, FLOOD_TIMES, Trouble};
use crate::scene::Stage;
use std::time::Duration;

/// A scene in words and numbers.
pub(super) struct Outline {
    pub(super) title: &'static str,
    pub(super) what: &'static str,
    /// Name, seconds, requests a second.
    stages: Vec<(&'static str, u64, f64)>,
    /// Which of them is judged.
    pub(super) judged: usize,
    /// Above its picture, and below.
    pub(super) heading: &'static str,
    pub(super) caption: &'static str,
}

impl Outline {
    /// That of a scene whose backends can do this rate together.
    pub(super) fn of(trouble: Trouble, capacity: f64) -> Self {
        match trouble {
            Trouble::Survive => survive(capacity),
            Trouble::Slow => slow(),
            Trouble::Three => three(),
            Trouble::Killed => killed(),
            Trouble::Gunicorn => gunicorn(capacity),
        }
    }

    pub(super) fn stages(&self) -> Vec<Stage> {
        let stage =
            |&(name, time, _): &(&'static str, u64, f64)| Stage { name, time: Duration::from_secs(time) };
        self.stages.iter().map(stage).collect()
    }

    pub(super) fn rates(&self) -> Vec<f64> {
        self.stages.iter().map(|&(_, _, rate)| rate).collect()
    }
}

/// A calm beginning, a flood whose first second is apart, and calm again.
fn flood(capacity: f64, rate: f64) -> Vec<(&'static str, u64, f64)> {
    let calm = 0.8 * capacity;
    vec![
        ("before", 3, calm),
        ("first second", 1, rate),
        ("flood", 6, rate),
        ("just after", 1, calm),
        ("after", 3, calm),
    ]
}

fn survive(capacity: f64) -> Outline {
    Outline {
        title: "In front of a server that falls over",
        what: "A Python ThreadingTCPServer takes 1 ms of CPU for each request, and has one core together with what \
               stands in front of it. Newcomers ask at 0.8 of what it can do, and then 4,500 times a second. They give \
               up after a second. The table is of the flood after its first second, in which clients wait up to 100 ms \
               until it is clear that the load stays.",
        stages: flood(capacity, FLOOD_RATE),
        judged: 2,
        heading: "Useful replies in each second, with 4,500 requests a second between the dashed lines",
        caption: "Behind each is a Python ThreadingTCPServer, 1 ms of work a request; the horizontal line is what it \
                  does alone, at most.",
    }
}

fn slow() -> Outline {
    Outline {
        title: "A backend that slows down and recovers",
        what: "The backend can do 800 requests a second, and is asked 400 times. For ten seconds each request takes \
               ten times as long, so that it can do 80.",
        stages: vec![
            ("before", 3, 400.0),
            ("slow", 10, 400.0),
            ("just after", 1, 400.0),
            ("after", 4, 400.0),
        ],
        judged: 1,
        heading: "Useful replies in each second, while the backend is slow between the dashed lines",
        caption: "The backend is asked 400 times a second. It can do 800, and 80 while it is slow.",
    }
}

fn three() -> Outline {
    Outline {
        title: "Three backends, one of them slow",
        what: "Two backends can do 800 requests a second each, and the third takes ten times as long for each. They \
               are asked 1,200 times a second.",
        stages: vec![("before", 1, 1_200.0), ("one is slow", 8, 1_200.0)],
        judged: 1,
        heading: "Useful replies in each second, with one of three backends slow",
        caption: "Two backends can do 800 requests a second each, the third 80; they are asked 1,200 times together.",
    }
}

fn killed() -> Outline {
    Outline {
        title: "Three backends, one of which is killed",
        what: "Three backends can do 800 requests a second each, and are asked 1,200 times. One is killed, and is back \
               five seconds later.",
        stages: vec![
            ("before", 3, 1_200.0),
            ("killed", 5, 1_200.0),
            ("just after", 2, 1_200.0),
            ("after", 4, 1_200.0),
        ],
        judged: 1,
        heading: "Useful replies in each second, with one of three backends dead between the dashed lines",
        caption: "The backends can do 800 requests a second each and are asked 1,200 times together.",
    }
}

fn gunicorn(capacity: f64) -> Outline {
    Outline {
        title: "In front of gunicorn",
        what: "gunicorn has two workers, each of which serves one request at a time, and a request takes 10 ms. \
               Newcomers ask over HTTP at 0.8 of what it can do, and then ten times as often as it can answer. They \
               give up after a second. The fronts with a limit have 2 places, and 64 may wait. The table is of the \
               flood after its first second.",
        stages: flood(capacity, FLOOD_TIMES * capacity),
        judged: 2,
        heading: "Useful answers in each second, with ten times the load between the dashed lines",
        caption: "Behind each is gunicorn with two workers, 10 ms a request; the horizontal line is what it does alone, \
                  at most.",
    }
}
