//! The schedule of an open loop: a pure function from the number of a request to the instant at which it is due. Nothing
//! that the server or the generator does can move that instant.

use super::clock::{Nanos, from_seconds};
use super::names::named;
use super::random::Random;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The planned rate over time: straight lines, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Profile(Vec<Segment>);

#[derive(Clone, Debug, PartialEq)]
struct Segment {
    /// Seconds from the schedule's start.
    begin: f64,
    length: f64,
    /// Requests a second at both ends.
    from: f64,
    to: f64,
    /// Requests due before this segment.
    before: f64,
}

impl Segment {
    fn total(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length
    }

    /// Seconds after `begin` at which `count` requests of this segment are due.
    fn when(&self, count: f64) -> f64 {
        let slope = (self.to - self.from) / self.length;
        // The root of from*t + slope/2*t^2 = count, in the form that stays exact when slope is 0.
        let root = (self.from * self.from + 2.0 * slope * count).max(0.0).sqrt();
        if self.from + root > 0.0 { 2.0 * count / (self.from + root) } else { 0.0 }
    }
}

impl Profile {
    /// A constant rate a second.
    pub(crate) fn constant(rate: f64, length: Duration) -> Self {
        Self::stages(rate, &[(length, rate)])
    }

    /// From the rate `from`, each stage goes in a straight line to its own rate in its own time.
    pub(crate) fn stages(from: f64, stages: &[(Duration, f64)]) -> Self {
        let mut segments: Vec<Segment> = Vec::with_capacity(stages.len());
        let (mut begin, mut before, mut rate) = (0.0, 0.0, from);
        for &(length, to) in stages {
            let segment = Segment { begin, length: length.as_secs_f64(), from: rate, to, before };
            begin += segment.length;
            before += segment.total();
            rate = to;
            if segment.length > 0.0 {
                segments.push(segment);
            }
        }
        Self(segments)
    }

    /// The rate a second at the start.
    pub(crate) fn first_rate(&self) -> Option<f64> {
        self.0.first().map(|segment| segment.from)
    }

    /// How many requests are due in all.
    #[cfg(test)]
    pub(crate) fn total(&self) -> f64 {
        self.0.last().map_or(0.0, |s| s.before + s.total())
    }

    /// How long it is.
    #[cfg(test)]
    pub(crate) fn length(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |s| Duration::from_secs_f64(s.begin + s.length))
    }

    /// When `count` requests have become due, as nanoseconds from the start; none beyond the end.
    pub(crate) fn instant(&self, count: f64) -> Option<Nanos> {
        let at = self.0.partition_point(|s| s.before + s.total() <= count);
        let segment = self.0.get(at)?;
        Some(from_seconds(segment.begin + segment.when(count - segment.before)))
    }
}

/// How arrivals are spread at a given rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spread {
    /// Evenly.
    Uniform,
    /// At random and independently, as many separate people arrive.
    Poisson,
}

impl Spread {
    /// Every way.
    pub const ALL: &'static [Spread] = &[Spread::Uniform, Spread::Poisson];

    /// The name on the command line and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Spread::Uniform => "uniform",
            Spread::Poisson => "poisson",
        }
    }

    /// What it means, in one sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Spread::Uniform => "Evenly",
            Spread::Poisson => "At random, as independent clients arrive",
        }
    }
}

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Spread::ALL, Spread::as_str, text)
    }
}

/// The intended instants of one thread, in order. Its state is its position only: a clone left behind
/// yields the same instants again, which is how a line of overdue requests costs no memory.
#[derive(Clone, Debug)]
pub(crate) struct Arrivals {
    profile: Arc<Profile>,
    /// The number of requests due, over all threads, at the next instant.
    count: f64,
    /// Uniform: whole requests so far, so that no rounding adds up.
    index: u64,
    step: u64,
    random: Option<Random>,
    next: Option<Nanos>,
}

impl Arrivals {
    /// The arrivals of thread `thread` of `threads`; all threads together make the whole schedule.
    pub(crate) fn new(
        profile: Arc<Profile>,
        spread: Spread,
        seed: u64,
        thread: usize,
        threads: usize,
    ) -> Self {
        let mut arrivals = Self {
            profile,
            count: thread as f64,
            index: thread as u64,
            step: threads as u64,
            random: (spread == Spread::Poisson).then(|| Random::new(seed, thread as u64)),
            next: None,
        };
        if let Some(random) = &mut arrivals.random {
            arrivals.count = random.exponential() * threads as f64;
        }
        arrivals.next = arrivals.profile.instant(arrivals.count);
        arrivals
    }

    /// The next intended instant, from the start of the schedule; none when all have been.
    pub(crate) fn peek(&self) -> Option<Nanos> {
        self.next
    }

    /// Goes on to the one after.
    pub(crate) fn advance(&mut self) {
        match &mut self.random {
            None => {
                self.index += self.step;
                self.count = self.index as f64;
            }
            // Independent Poisson processes add up to one, so each thread makes its share alone.
            Some(random) => self.count += random.exponential() * self.step as f64,
        }
        self.next = self.profile.instant(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn instants_are_where_the_plan_puts_them() {
        let constant = Profile::constant(100.0, seconds(10));
        let ramp = Profile::stages(0.0, &[(seconds(10), 100.0), (seconds(10), 100.0), (seconds(10), 0.0)]);
        for (profile, count, due) in [
            (&constant, 0.0, Some(0)),
            (&constant, 1.0, Some(S / 100)),
            (&constant, 999.0, Some(999 * S / 100)),
            (&constant, 1000.0, None),
            (&ramp, 0.0, Some(0)),
            // Half of a ramp's requests come in its last 1 - sqrt(1/2).
            (&ramp, 250.0, Some(7_071_067_812)),
            (&ramp, 500.0, Some(10 * S)),
            (&ramp, 1000.0, Some(15 * S)),
            (&ramp, 1500.0, Some(20 * S)),
            (&ramp, 1999.99, Some(29_955_278_640)),
            (&ramp, 2000.0, None),
            (&Profile::constant(0.0, seconds(1)), 0.0, None),
            (&Profile::stages(5.0, &[]), 0.0, None),
            (&Profile::stages(0.0, &[(seconds(5), 0.0), (seconds(1), 2.0)]), 0.0, Some(5 * S)),
            (&Profile::stages(0.0, &[(seconds(0), 50.0), (seconds(2), 50.0)]), 50.0, Some(S)),
        ] {
            let got = profile.instant(count);
            let near = match (got, due) {
                (Some(got), Some(due)) => got.abs_diff(due) <= 2,
                (got, due) => got == due,
            };
            assert!(near, "{count} of {profile:?}: {got:?}, not {due:?}");
        }
        assert_eq!(ramp.total(), 2000.0);
        assert_eq!(ramp.length(), seconds(30));
    }

    #[test]
    fn threads_share_one_schedule() {
        let profile = Arc::new(Profile::constant(1000.0, seconds(1)));
        let mut all: Vec<_> = (0..3)
            .flat_map(|thread| {
                let mut arrivals = Arrivals::new(profile.clone(), Spread::Uniform, 7, thread, 3);
                std::iter::from_fn(move || {
                    let due = arrivals.peek()?;
                    arrivals.advance();
                    Some(due)
                })
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).map(|n| n * S / 1000).collect::<Vec<_>>());
    }

    #[test]
    fn poisson_arrivals_repeat_and_scatter() {
        let profile = Arc::new(Profile::constant(1000.0, seconds(100)));
        let list = |seed| {
            let mut arrivals = Arrivals::new(profile.clone(), Spread::Poisson, seed, 0, 1);
            let mut list = Vec::new();
            while let Some(due) = arrivals.peek() {
                list.push(due);
                arrivals.advance();
            }
            list
        };
        let one = list(1);
        assert_eq!(one, list(1));
        assert_ne!(one, list(2));
        // 100,000 expected; the standard deviation is 316.
        assert!((98_000..102_000).contains(&one.len()), "{}", one.len());
        // Gaps of a Poisson process: 1 - 1/e of them are shorter than the mean.
        let short = one.windows(2).filter(|w| w[1] - w[0] < S / 1000).count() as f64;
        let share = short / one.len() as f64;
        assert!((0.62..0.645).contains(&share), "{share}");
    }
}
