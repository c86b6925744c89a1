//! A latency histogram. One thread writes it, at the cost of one increment for each value; others read buckets and
//! quantiles from it.
//!
//! Prometheus is given a few fixed bounds ([`BUCKETS`]). Between two bounds there are [`PARTS`] equal parts, so a
//! quantile of a microsecond or more is off by less than five per cent. The counts at the bounds are exact.

use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The upper bounds of every latency histogram that Prometheus is given, in seconds.
pub const BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The bounds inside, in nanoseconds: those of Prometheus, and more of the kind below and above.
const BOUNDS: [u64; STEPS + 1] = {
    let mut bounds = [0; STEPS + 1];
    let mut decade = 1_000;
    let mut at = 0;
    while at <= STEPS {
        bounds[at] = match at % 3 {
            0 => decade,
            1 => decade * 5 / 2,
            _ => decade * 5,
        };
        if at % 3 == 2 {
            decade *= 10;
        }
        at += 1;
    }
    bounds
};

/// From 1 us to 100 s.
const STEPS: usize = 24;

/// The step that ends at the first bound of Prometheus.
const FIRST_BUCKET: usize = 6;

/// Parts of each step.
const PARTS: usize = 16;

/// Counts inside: one for what is at most a microsecond, the parts, and one for what is over 100 s.
const COUNTS: usize = STEPS * PARTS + 2;

/// For each number of bits of an observation, the first step that it can be in.
const FIRST_STEP: [u8; 65] = {
    let mut first = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let least = 1u64 << (bits - 1);
        let mut step = 0;
        while step < STEPS && BOUNDS[step + 1] < least {
            step += 1;
        }
        first[bits] = step as u8;
        bits += 1;
    }
    first
};

/// Where each step ends; what is over all of them has one of its own.
const ENDS: [u64; STEPS + 1] = {
    let mut ends = [u64::MAX; STEPS + 1];
    let mut step = 0;
    while step < STEPS {
        ends[step] = BOUNDS[step + 1];
        step += 1;
    }
    ends
};

// A step is at least as wide as a power of two, so an observation is in the first step of its number of bits or in the next.
const _: () = {
    let mut bits = 1;
    while bits < 64 {
        let next = FIRST_STEP[bits] as usize + 1;
        assert!(next > STEPS || (1 << bits) - 1 <= ENDS[next]);
        bits += 1;
    }
};

/// What a distance into a step is multiplied by to have its part in the bits above [`SHIFT`].
const SCALE: [u64; STEPS] = {
    let mut scale = [0; STEPS];
    let mut step = 0;
    while step < STEPS {
        scale[step] = ((PARTS as u64) << SHIFT) / (BOUNDS[step + 1] - BOUNDS[step]);
        step += 1;
    }
    scale
};

const SHIFT: u32 = 52;

/// The count that an observation belongs to. A bound belongs to what is below it.
fn place(nanos: u64) -> usize {
    if nanos <= BOUNDS[0] {
        return 0;
    }
    let first = usize::from(FIRST_STEP[64 - nanos.leading_zeros() as usize]);
    let step = first + usize::from(nanos > ENDS[first]);
    if step == STEPS {
        return COUNTS - 1;
    }
    let part = ((nanos - BOUNDS[step] - 1) * SCALE[step]) >> SHIFT;
    1 + step * PARTS + part as usize
}

/// The bounds of a count, in nanoseconds.
fn bounds(place: usize) -> (f64, f64) {
    match place {
        0 => (0.0, BOUNDS[0] as f64),
        _ if place == COUNTS - 1 => (BOUNDS[STEPS] as f64, BOUNDS[STEPS] as f64),
        _ => {
            let (step, part) = ((place - 1) / PARTS, (place - 1) % PARTS);
            let (lower, upper) = (BOUNDS[step] as f64, BOUNDS[step + 1] as f64);
            let at = |part: usize| lower + (upper - lower) * part as f64 / PARTS as f64;
            (at(part), at(part + 1))
        }
    }
}

/// A histogram that one thread writes and any thread reads. Its counts are made when the first observation comes.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: OnceLock<Box<[AtomicI64]>>,
    sum_nanos: AtomicI64,
}

impl Histogram {
    /// What the counts take of the machine.
    pub(crate) const BYTES: usize = COUNTS * size_of::<AtomicI64>();

    pub(crate) fn observe(&self, nanos: u64) {
        let Some(counts) = self.counts.get().map(|counts| &**counts).or_else(|| self.make()) else { return };
        let add = |count: &AtomicI64, n: i64| count.store(count.load(Relaxed).wrapping_add(n), Relaxed);
        add(&counts[place(nanos)], 1);
        add(&self.sum_nanos, nanos as i64);
    }

    /// Makes the counts; not if there is no memory for them: a worker's first turn may come when the system has none, and an
    /// allocation that fails would end the process. Then this is not counted.
    #[cold]
    fn make(&self) -> Option<&[AtomicI64]> {
        let mut counts = Vec::new();
        counts.try_reserve_exact(COUNTS).ok()?;
        counts.resize_with(COUNTS, || AtomicI64::new(0));
        Some(self.counts.get_or_init(|| counts.into()))
    }

    pub(crate) fn add_to(&self, out: &mut HistogramSnapshot) {
        let Some(counts) = self.counts.get() else {
            return;
        };
        out.parts.resize(COUNTS, 0);
        for (place, count) in counts.iter().enumerate() {
            let count = count.load(Relaxed) as u64;
            out.parts[place] += count;
            out.counts[bucket(place)] += count;
        }
        out.sum += Duration::from_nanos(self.sum_nanos.load(Relaxed) as u64);
    }
}

/// The bucket of Prometheus that a count inside belongs to.
fn bucket(place: usize) -> usize {
    if place == 0 {
        return 0;
    }
    let step = (place - 1) / PARTS;
    (step + 1).saturating_sub(FIRST_BUCKET).min(BUCKETS.len())
}

/// What was read of a histogram.
///
/// ```
/// use tidegate::metrics::snapshot::HistogramSnapshot;
///
/// let nothing = HistogramSnapshot::default();
/// assert_eq!((nothing.count(), nothing.quantile(0.99)), (0, None));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HistogramSnapshot {
    /// How many observations fell in each bucket (not cumulative), the last one for what is above [`BUCKETS`].
    pub counts: [u64; BUCKETS.len() + 1],
    /// The sum of all observations.
    pub sum: Duration,
    /// The counts inside; none before the first observation.
    parts: Vec<u64>,
}

impl HistogramSnapshot {
    /// How many observations there are in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another histogram to this one.
    pub fn merge(&mut self, other: &HistogramSnapshot) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        if !other.parts.is_empty() {
            self.parts.resize(COUNTS, 0);
        }
        for (mine, theirs) in self.parts.iter_mut().zip(&other.parts) {
            *mine += theirs;
        }
        self.sum += other.sum;
    }

    /// What was observed since an earlier reading of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &HistogramSnapshot) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        for (count, before) in since.parts.iter_mut().zip(&earlier.parts) {
            *count = count.saturating_sub(*before);
        }
        since.sum = self.sum.saturating_sub(earlier.sum);
        since
    }

    /// The quantile `q` (0 to 1), off by less than five per cent: the middle of the part that it is in. 100 s for what is
    /// above that. `None` without observations.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total: u64 = self.parts.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * total as f64;
        let mut seen = 0;
        let found = self.parts.iter().position(|&count| {
            seen += count;
            count > 0 && seen as f64 >= rank
        })?;
        let (lower, upper) = bounds(found);
        Some(Duration::from_nanos(((lower + upper) / 2.0) as u64))
    }
}

#[cfg(all(test, not(model)))]
mod tests {
    use super::*;

    fn seen(observations: impl IntoIterator<Item = u64>) -> HistogramSnapshot {
        let histogram = Histogram::default();
        observations.into_iter().for_each(|nanos| histogram.observe(nanos));
        let mut seen = HistogramSnapshot::default();
        histogram.add_to(&mut seen);
        seen
    }

    #[test]
    fn the_bounds_of_prometheus_are_among_those_inside() {
        for (bucket, bound) in BUCKETS.iter().enumerate() {
            assert!((BOUNDS[FIRST_BUCKET + bucket] as f64 / 1e9 - bound).abs() < 1e-12, "{bound}");
        }
        assert_eq!((BOUNDS[0], BOUNDS[STEPS]), (1_000, 100_000_000_000));
    }

    #[test]
    fn observations_fall_in_the_bucket_that_bounds_them() {
        let seen = seen([0, 100_000, 100_001, 10_000_000_000, 10_000_000_001, u64::MAX >> 1]);
        assert_eq!((seen.counts[0], seen.counts[1], seen.counts[15], seen.counts[16]), (2, 1, 1, 2));
        assert_eq!(seen.count(), 6);
    }

    #[test]
    fn a_quantile_is_off_by_less_than_five_per_cent_whatever_the_latency() {
        let mut nanos = 1_001;
        while nanos < 100_000_000_000 {
            let told = seen([nanos; 10]).quantile(0.5).unwrap().as_nanos() as f64;
            assert!((told / nanos as f64 - 1.0).abs() < 0.05, "{nanos} ns is told as {told}");
            nanos += nanos / 7 + 1;
        }
        let spread = seen((1..=1_000).map(|n| n * 1_000_000));
        for (q, millis) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (0.999, 999.0)] {
            let told = spread.quantile(q).unwrap().as_secs_f64() * 1e3;
            assert!((told / millis - 1.0).abs() < 0.05, "p{q} is {told} ms");
        }
        assert_eq!(seen([u64::MAX >> 1]).quantile(0.99), Some(Duration::from_secs(100)));
    }

    #[test]
    fn what_was_since_is_the_difference_and_sums_add_up() {
        let (first, second) = (seen([5_000, 6_000_000]), seen([7_000]));
        let mut both = first.clone();
        both.merge(&second);
        assert_eq!((both.since(&first), both.since(&second)), (second, first));
        assert_eq!(both.since(&both).quantile(0.5), None);
    }

    proptest::proptest! {
        #[test]
        fn each_observation_is_in_the_part_that_bounds_it(nanos in 0u64..200_000_000_000) {
            let place = place(nanos);
            let (lower, upper) = bounds(place);
            proptest::prop_assert!(place == COUNTS - 1 || nanos as f64 <= upper + 1.0, "{nanos}: {lower} {upper}");
            proptest::prop_assert!(nanos as f64 >= lower - 1.0, "{nanos}: {lower} {upper}");
            let bucket = bucket(place);
            let above = |bucket: usize| BUCKETS.get(bucket).is_none_or(|&bound| nanos as f64 <= bound * 1e9);
            proptest::prop_assert!(above(bucket) && (bucket == 0 || !above(bucket - 1)), "{nanos} in {bucket}");
        }
    }
}
