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

    /// Changes the rate of a bucket that holds a second's worth. It keeps its tokens; one that gave none is full.
    pub(crate) fn set_rate(&mut self, rate: f64, now: Instant) {
        self.refill(now);
        let depth = rate.max(1.0);
        let tokens = if self.rate > 0.0 { self.tokens.min(depth) } else { depth };
        *self = Self { rate, depth, tokens, at: now };
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.depth);
        self.at = now;
    }

    /// Takes this many tokens, if there are as many.
    pub(crate) fn take(&mut self, now: Instant, count: f64) -> bool {
        self.refill(now);
        let enough = self.tokens >= count;
        if enough {
            self.tokens -= count;
        }
        enough
    }

    /// Gives tokens back that were taken for nothing.
    pub(crate) fn give_back(&mut self, count: f64) {
        self.tokens = (self.tokens + count).min(self.depth);
    }

    /// How long until there are this many tokens; `None` if there will never be.
    pub(crate) fn next(&mut self, now: Instant, count: f64) -> Option<Duration> {
        self.refill(now);
        if self.tokens >= count {
            return Some(Duration::ZERO);
        }
        let wait = || Duration::try_from_secs_f64((count - self.tokens) / self.rate).unwrap_or(Duration::MAX);
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
        assert_eq!(bucket.next(now, 1.0), Some(Duration::ZERO));
        assert!(bucket.take(now, 1.0) && !bucket.take(now, 1.0));
        assert_eq!(bucket.next(now, 1.0), Some(Duration::from_millis(100)));
        let half = Duration::from_millis(50);
        assert_eq!(bucket.next(now + half, 1.0), Some(half), "half a token is there");
        assert!(bucket.take(now + Duration::from_millis(101), 1.0));
        assert_eq!(Bucket::with_depth(0.0, 0.0, now).next(now, 1.0), None);
        let mut slow = Bucket::with_depth(1e-300, 1.0, now);
        assert!(slow.take(now, 1.0));
        assert_eq!(slow.next(now, 1.0), Some(Duration::MAX), "longer than a Duration can say");
    }

    #[test]
    fn a_rate_that_changes_keeps_its_tokens_and_one_that_gave_none_begins_full() {
        let now = Instant::now();
        let taken = |bucket: &mut Bucket| (0..20).filter(|_| bucket.take(now, 1.0)).count();
        let mut used = Bucket::new(10.0, now);
        assert!(used.take(now, 7.0));
        used.set_rate(12.0, now);
        assert_eq!(taken(&mut used), 3);
        let mut off = Bucket::new(0.0, now);
        off.set_rate(12.0, now);
        assert_eq!(taken(&mut off), 12);
    }

    #[test]
    fn a_rest_fills_it_no_higher_than_its_depth() {
        let now = Instant::now();
        let mut bucket = Bucket::new(2.0, now);
        let later = now + Duration::from_secs(3600);
        assert_eq!(
            [bucket.take(later, 1.0), bucket.take(later, 1.0), bucket.take(later, 1.0)],
            [true, true, false]
        );
        bucket.give_back(1.0);
        bucket.give_back(1.0);
        bucket.give_back(1.0);
        assert_eq!(
            [bucket.take(later, 1.0), bucket.take(later, 1.0), bucket.take(later, 1.0)],
            [true, true, false]
        );
        let mut slow = Bucket::new(0.5, now);
        assert_eq!([slow.take(now, 1.0), slow.take(now, 1.0)], [true, false], "one at least");
        assert!(
            !slow.take(now + Duration::from_millis(1_999), 1.0)
                && slow.take(now + Duration::from_millis(2_001), 1.0)
        );
    }
}
