//! The run second by second, in bounded memory.

use super::clock::{Nanos, seconds};
use super::outcome::Outcome;
use super::recorder::Interval;
use super::report::Point;

/// The most points kept. A longer run has points of two seconds, then of four, and so on.
const POINTS: usize = 600;

/// The points of a run so far.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    points: Vec<Point>,
    /// Seconds that one point is made of.
    width: usize,
    /// Seconds in the last point.
    filled: usize,
    begin: Option<Nanos>,
}

impl Timeline {
    /// Adds what one second measured.
    pub(crate) fn push(&mut self, interval: &Interval) {
        if interval.end <= interval.begin {
            return;
        }
        let point = self.point(interval);
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
            offered: interval.tally.offered + interval.warm.offered,
            outcomes,
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

    /// The points of the whole run.
    pub(crate) fn finish(self) -> Vec<Point> {
        self.points
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
    one.seconds += two.seconds;
    one.offered += two.offered;
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
            interval.begin = second * 1_000_000_000;
            interval.end = interval.begin + 1_000_000_000;
            interval.tally.offered = 2;
            interval.tally.outcomes[Outcome::Ok] = 1;
            timeline.push(&interval);
        }
        let points = timeline.finish();
        assert!(points.len() <= POINTS && points.len() > POINTS / 2, "{}", points.len());
        assert_eq!(points.iter().map(|p| p.offered).sum::<u64>(), 2 * SECONDS);
        assert_eq!(points.iter().map(|p| p.outcomes["ok"]).sum::<u64>(), SECONDS);
        assert_eq!(points.iter().map(|p| p.seconds).sum::<f64>(), SECONDS as f64);
        for pair in points.windows(2) {
            assert_eq!(pair[0].at + pair[0].seconds, pair[1].at);
        }
    }
}
