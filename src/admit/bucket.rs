//! A token bucket: a rate, and a depth for bursts.

use std::time::{Duration, Instant};

/// `rate` tokens a second, at most `depth` at once. The clock is handed in.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    depth: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A bucket that holds a second's worth, at least one token.
    pub(crate) fn new(rate: f64, now: Instant) -> Self {
        Self::with_depth(rate, rate.max(1.0), now)
    }

    /// A bucket that holds at most `depth` tokens.
    pub(crate) fn with_depth(rate: f64, depth: f64, now: Instant) -> Self {
        Self { rate, depth, tokens: depth, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.depth);
        self.at = now;
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// Gives a token back that was taken for nothing.
    pub(crate) fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.depth);
    }

    /// How long until there is a token; `None` if there will never be one.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        if self.tokens >= 1.0 {
            return Some(Duration::ZERO);
        }
        let wait = || Duration::try_from_secs_f64((1.0 - self.tokens) / self.rate).unwrap_or(Duration::MAX);
        (self.rate > 0.0).then(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_says_when_its_next_token_comes() {
        let now = Instant::now();
        let mut bucket = Bucket::with_depth(10.0, 1.0, now);
        assert_eq!(bucket.next(now), Some(Duration::ZERO));
        assert!(bucket.take(now) && !bucket.take(now));
        assert_eq!(bucket.next(now), Some(Duration::from_millis(100)));
        assert!(bucket.take(now + Duration::from_millis(101)));
        assert_eq!(Bucket::with_depth(0.0, 0.0, now).next(now), None);
        let mut slow = Bucket::with_depth(1e-300, 1.0, now);
        assert!(slow.take(now));
        assert_eq!(slow.next(now), Some(Duration::MAX), "longer than a Duration can say");
    }

    #[test]
    fn a_rest_fills_it_no_higher_than_its_depth() {
        let now = Instant::now();
        let mut bucket = Bucket::new(2.0, now);
        let later = now + Duration::from_secs(3600);
        assert_eq!([bucket.take(later), bucket.take(later), bucket.take(later)], [true, true, false]);
        bucket.give_back();
        bucket.give_back();
        bucket.give_back();
        assert_eq!([bucket.take(later), bucket.take(later), bucket.take(later)], [true, true, false]);
        let mut slow = Bucket::new(0.5, now);
        assert_eq!([slow.take(now), slow.take(now)], [true, false], "one at least");
        assert!(
            !slow.take(now + Duration::from_millis(1_999)) && slow.take(now + Duration::from_millis(2_001))
        );
    }
}
