//! The timeline of a run, second by second, in bounded memory.

use super::clock::{Nanos, seconds};
use super::outcome::Outcome;
use super::recorder::{Interval, Part};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Some seconds of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Point {
    /// When it began, in seconds from the beginning of the schedule.
    pub at: f64,
    /// `warmup`, `measured`, or `draining` after what is measured.
    #[serde(default)]
    pub phase: String,
    /// Useful replies a second that came in it, whenever their requests began.
    #[serde(default)]
    pub rate: f64,
    /// The same of the worst of its seconds, where it is made of several.
    #[serde(default)]
    pub rate_min: f64,
    /// How long it is.
    pub seconds: f64,
    /// Requests that were due.
    pub offered: u64,
    /// What became of requests that ended in it; what did not happen is not named, but for `ok`.
    pub outcomes: BTreeMap<String, u64>,
    /// Those of `ok` that came too late to be of use.
    #[serde(default)]
    pub too_late: u64,
    /// The median of the response, in seconds.
    pub p50: Option<f64>,
    /// The 99th percentile of the response, in seconds.
    pub p99: Option<f64>,
    /// The longest response, in seconds.
    pub max: Option<f64>,
}

/// The measured second with the fewest useful replies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorstSecond {
    /// When it began, in seconds from the beginning of the schedule.
    pub at: f64,
    /// Useful replies in it.
    pub rate: f64,
    /// Requests that were due in it.
    pub offered: u64,
}

/// The most points kept. A longer run has points of two seconds, then of four, and so on.
const POINTS: usize = 600;

/// A second in which fewer requests are due may have no reply by chance.
const SILENT_OFFERED: u64 = 10;

/// The points of a run so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    points: Vec<Point>,
    worst: Option<WorstSecond>,
    /// Measured seconds without a useful reply, though one was to be expected.
    silent: u64,
    /// Replies are always to be expected: each client asks again as soon as it is answered.
    always: bool,
    /// Seconds that one point is made of.
    width: usize,
    /// Seconds in the last point.
    filled: usize,
    begin: Option<Nanos>,
}

impl Timeline {
    /// An empty timeline. `always`: each client asks again as soon as it is answered, so a second without a reply is
    /// never a second in which nothing was asked.
    pub(crate) fn new(always: bool) -> Self {
        Self { always, ..Self::default() }
    }

    /// Adds what one second measured.
    pub(crate) fn push(&mut self, interval: &Interval) {
        if interval.end <= interval.begin || interval.part == Part::Opening {
            return;
        }
        let point = self.point(interval);
        if interval.part == Part::Measured && interval.whole {
            self.count_second(&point);
        }
        self.width = self.width.max(1);
        match self.points.last_mut() {
            Some(last) if self.filled < self.width => join(last, &point),
            _ => {
                self.points.push(point);
                self.filled = 0;
            }
        }
        self.filled += 1;
        if self.points.len() > POINTS {
            self.halve();
        }
    }

    /// Counts a whole second of the measured part.
    fn count_second(&mut self, point: &Point) {
        let expected = self.always || point.offered >= SILENT_OFFERED;
        self.silent += u64::from(point.rate == 0.0 && expected);
        if self.worst.as_ref().is_none_or(|worst| point.rate < worst.rate) {
            let Point { at, rate, offered, .. } = *point;
            self.worst = Some(WorstSecond { at, rate, offered });
        }
    }

    fn point(&mut self, interval: &Interval) -> Point {
        let begin = *self.begin.get_or_insert(interval.begin);
        let mut outcomes = interval.tally.outcomes.clone();
        outcomes += &interval.warm.outcomes;
        // Kept small: a point names only what happened. `ok` is always there.
        let happened = Outcome::ALL.iter().filter(|o| outcomes[**o] > 0 || **o == Outcome::Ok);
        let outcomes = happened.map(|o| (o.as_str().to_owned(), outcomes[*o])).collect();
        let histogram = &interval.response.histogram;
        let time = |value: u64| (!histogram.is_empty()).then(|| seconds(value.min(histogram.max())));
        Point {
            at: seconds(interval.begin.saturating_sub(begin)),
            seconds: seconds(interval.end - interval.begin),
            phase: interval.part.as_str().to_owned(),
            rate: interval.rate(),
            rate_min: interval.rate(),
            offered: interval.offered(),
            outcomes,
            too_late: interval.tally.too_late + interval.warm.too_late,
            p50: time(histogram.value_at_quantile(0.5)),
            p99: time(histogram.value_at_quantile(0.99)),
            max: time(histogram.max()),
        }
    }

    /// Halves the number of points; each is twice as long.
    fn halve(&mut self) {
        let mut halved: Vec<Point> = Vec::with_capacity(POINTS);
        for (n, point) in self.points.drain(..).enumerate() {
            match halved.last_mut() {
                Some(last) if n % 2 == 1 => join(last, &point),
                _ => halved.push(point),
            }
        }
        let odd = POINTS.is_multiple_of(2);
        self.points = halved;
        self.width *= 2;
        // POINTS + 1 points were there: the last one is half full when that is odd.
        self.filled = if odd { self.width / 2 } else { self.width };
    }

    /// The points of the run so far.
    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The measured second with the fewest useful replies; none where no whole second was measured.
    pub(crate) fn worst(&self) -> Option<&WorstSecond> {
        self.worst.as_ref()
    }

    /// Measured seconds without a useful reply.
    pub(crate) fn silent(&self) -> u64 {
        self.silent
    }
}

/// Makes one point of two: of the 99th percentile and the maximum, the worse.
fn join(one: &mut Point, two: &Point) {
    let weight = |point: &Point| *point.outcomes.get(Outcome::Ok.as_str()).unwrap_or(&0) as f64;
    let (a, b) = (weight(one), weight(two));
    one.p50 = match (one.p50, two.p50) {
        (Some(x), Some(y)) if a + b > 0.0 => Some((x * a + y * b) / (a + b)),
        (x, y) => x.or(y),
    };
    one.p99 = worse(one.p99, two.p99);
    one.max = worse(one.max, two.max);
    let length = one.seconds + two.seconds;
    if length > 0.0 {
        one.rate = (one.rate * one.seconds + two.rate * two.seconds) / length;
    }
    one.rate_min = one.rate_min.min(two.rate_min);
    if one.phase != two.phase {
        // Of a point that is part of several, what is measured counts.
        one.phase = match [&one.phase, &two.phase].iter().any(|phase| *phase == Part::Measured.as_str()) {
            true => Part::Measured.as_str().to_owned(),
            false => two.phase.clone(),
        };
    }
    one.seconds = length;
    one.offered += two.offered;
    one.too_late += two.too_late;
    for (name, n) in &two.outcomes {
        *one.outcomes.entry(name.clone()).or_default() += n;
    }
}

fn worse(one: Option<f64>, two: Option<f64>) -> Option<f64> {
    match (one, two) {
        (Some(x), Some(y)) => Some(x.max(y)),
        (x, y) => x.or(y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_stay_few_and_lose_nothing() {
        let mut timeline = Timeline::default();
        let mut interval = Interval::new(0);
        const SECONDS: u64 = 5000;
        for second in 0..SECONDS {
            interval.part = Part::Measured;
            interval.begin = second * 1_000_000_000;
            interval.end = interval.begin + 1_000_000_000;
            interval.tally.offered = 2;
            interval.tally.outcomes[Outcome::Ok] = 3;
            interval.tally.too_late = 2;
            timeline.push(&interval);
        }
        let points = timeline.points();
        assert!(points.len() <= POINTS && points.len() > POINTS / 2, "{}", points.len());
        assert_eq!(points.iter().map(|p| p.offered).sum::<u64>(), 2 * SECONDS);
        assert_eq!(points.iter().map(|p| p.outcomes["ok"]).sum::<u64>(), 3 * SECONDS);
        assert_eq!(points.iter().map(|p| p.too_late).sum::<u64>(), 2 * SECONDS);
        assert!(points.iter().all(|p| (p.rate, p.rate_min) == (1.0, 1.0)));
        assert_eq!(points.iter().map(|p| p.seconds).sum::<f64>(), SECONDS as f64);
        for pair in points.windows(2) {
            assert_eq!(pair[0].at + pair[0].seconds, pair[1].at);
        }
    }

    #[test]
    fn the_worst_second_is_a_whole_one_of_those_that_are_measured() {
        let mut timeline = Timeline::default();
        let second = 1_000_000_000;
        for (n, part, whole, ok) in [
            (0, Part::Opening, true, 0),
            (1, Part::Warmup, true, 0),
            (2, Part::Measured, true, 900),
            (3, Part::Measured, true, 700),
            (4, Part::Measured, true, 700),
            (5, Part::Measured, false, 1),
            (6, Part::Draining, true, 0),
        ] {
            let mut interval = Interval::new(n * second);
            (interval.end, interval.part, interval.whole) = ((n + 1) * second, part, whole);
            interval.tally.offered = 1000 + n;
            interval.tally.outcomes[Outcome::Ok] = ok;
            timeline.push(&interval);
        }
        // Time counts from the beginning of the schedule, after connections were opened.
        assert_eq!(timeline.worst(), Some(&WorstSecond { at: 2.0, rate: 700.0, offered: 1003 }));
        assert_eq!(timeline.silent(), 0);
        for (always, offered, silent) in [(true, 0, 1), (false, 9, 0), (false, 10, 1)] {
            let mut timeline = Timeline::new(always);
            let mut interval = Interval::new(0);
            (interval.end, interval.part, interval.tally.offered) = (second, Part::Measured, offered);
            timeline.push(&interval);
            assert_eq!(timeline.silent(), silent, "{always} {offered}");
        }
        // What nobody waits for any more is no reply of a second.
        let mut late = Timeline::new(true);
        for (n, too_late) in [(0, 10), (1, 400)] {
            let mut interval = Interval::new(n * second);
            (interval.end, interval.part) = ((n + 1) * second, Part::Measured);
            (interval.tally.outcomes[Outcome::Ok], interval.tally.too_late) = (400, too_late);
            late.push(&interval);
        }
        assert_eq!(late.worst(), Some(&WorstSecond { at: 1.0, rate: 0.0, offered: 0 }));
        assert_eq!(late.silent(), 1);
        let phases: Vec<_> = timeline.points().iter().map(|point| (point.at, point.phase.as_str())).collect();
        let measured = [1.0, 2.0, 3.0, 4.0].map(|at| (at, "measured"));
        assert_eq!(phases, [&[(0.0, "warmup")][..], &measured, &[(5.0, "draining")]].concat());
    }
}
