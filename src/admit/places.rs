//! Who may come in: places, sources and rates. A [`Permit`] is a place that gives itself back.

use crate::limits::Limits;
use crate::reason::DropReason;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Places for connections, and what is known of their sources.
#[derive(Debug)]
pub(crate) struct Admission {
    open: AtomicUsize,
    max_connections: usize,
    sources: Option<Sources>,
}

/// A place among the admitted; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    source: Option<SourceKey>,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max_connections: limits.max_connections,
            sources: Sources::new(limits),
        })
    }

    /// Whether there is no place left, before a connection is accepted.
    pub(crate) fn is_full(&self) -> bool {
        self.open() >= self.max_connections
    }

    /// How many places are taken.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Takes a place for a connection from `source`.
    pub(crate) fn admit(self: &Arc<Self>, source: IpAddr, now: Instant) -> Result<Permit, DropReason> {
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |open| {
            (open < self.max_connections).then_some(open + 1)
        });
        if taken.is_err() {
            return Err(DropReason::MaxConnections);
        }
        // From here on the permit gives the place back on every path.
        let mut permit = Permit { admission: self.clone(), source: None };
        if let Some(sources) = &self.sources {
            permit.source = Some(sources.admit(source, now)?);
        }
        Ok(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let (Some(sources), Some(key)) = (&self.admission.sources, self.source) {
            sources.leave(key);
        }
        self.admission.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An address with its host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SourceKey([u8; 16]);

/// What each source has: connections and tokens. At most one entry for each open connection, plus
/// those whose rate still has to recover, bounded by [`Sources::room`].
#[derive(Debug)]
struct Sources {
    max: usize,
    rate: f64,
    prefix: (u8, u8),
    room: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sources: HashMap<SourceKey, SourceState>,
    /// When those that have recovered were last taken out.
    swept: Option<Instant>,
}

/// Taking out what has recovered is a pass over all sources under their lock: not for each of a flood.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

impl Known {
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
            self.swept = Some(now);
            self.sources.retain(|_, state| state.open > 0 || !state.tokens.is_full(now));
        }
    }
}

#[derive(Debug)]
struct SourceState {
    open: usize,
    tokens: Bucket,
}

impl Sources {
    fn new(limits: &Limits) -> Option<Self> {
        let wanted = limits.max_per_source > 0 || limits.source_rate > 0.0;
        wanted.then(|| Self {
            max: limits.max_per_source,
            rate: limits.source_rate,
            prefix: limits.source_prefix,
            room: limits.max_connections * 2,
            known: Mutex::default(),
        })
    }

    fn key(&self, address: IpAddr) -> SourceKey {
        // An IPv4 client of a dual-stack listener is the same source as on an IPv4 listener.
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let bits = u32::from(v4);
                let kept = bits & u32::MAX.checked_shl(32 - u32::from(self.prefix.0)).unwrap_or(0);
                SourceKey((u128::from(kept) | 0xffff << 32).to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                let kept = bits & u128::MAX.checked_shl(128 - u32::from(self.prefix.1)).unwrap_or(0);
                SourceKey(kept.to_be_bytes())
            }
        }
    }

    fn admit(&self, address: IpAddr, now: Instant) -> Result<SourceKey, DropReason> {
        let key = self.key(address);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.sources.len() >= self.room && !known.sources.contains_key(&key) {
            known.sweep(now);
            if known.sources.len() >= self.room {
                // So many sources within a second that none has recovered: the rate of all.
                return Err(DropReason::Rate);
            }
        }
        let unknown = || SourceState { open: 0, tokens: Bucket::new(self.rate, now) };
        let state = known.sources.entry(key).or_insert_with(unknown);
        if self.max > 0 && state.open >= self.max {
            return Err(DropReason::PerSource);
        }
        if self.rate > 0.0 && !state.tokens.take(now) {
            return Err(DropReason::Rate);
        }
        state.open += 1;
        Ok(key)
    }

    fn leave(&self, key: SourceKey) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = known.sources.get_mut(&key) {
            state.open -= 1;
            if state.open == 0 && self.rate == 0.0 {
                known.sources.remove(&key);
            }
        }
    }
}

/// A token bucket: `rate` tokens a second, as many as a second's worth (at least one) at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    depth: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: f64, now: Instant) -> Self {
        let depth = rate.max(1.0);
        Self { rate, depth, tokens: depth, at: now }
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

    fn is_full(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens + elapsed * self.rate >= self.depth
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

    fn at(limits: &Limits) -> (Arc<Admission>, Instant) {
        (Admission::new(limits), Instant::now())
    }

    #[test]
    fn a_place_comes_back_when_its_permit_goes() {
        let (admission, now) = at(&Limits { max_connections: 2, ..Default::default() });
        let source: IpAddr = "127.0.0.1".parse().unwrap();
        let first = admission.admit(source, now).unwrap();
        let _second = admission.admit(source, now).unwrap();
        assert_eq!(admission.admit(source, now).unwrap_err(), DropReason::MaxConnections);
        drop(first);
        assert_eq!(admission.open(), 1);
        assert!(admission.admit(source, now).is_ok());
    }

    #[test]
    fn a_source_is_limited_by_its_prefix_and_others_are_not() {
        let limits = Limits { max_per_source: 1, source_prefix: (24, 64), ..Default::default() };
        let (admission, now) = at(&limits);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let _a = admission.admit(ip("127.0.0.1"), now).unwrap();
        assert_eq!(admission.admit(ip("127.0.0.200"), now).unwrap_err(), DropReason::PerSource);
        assert_eq!(admission.admit(ip("::ffff:127.0.0.9"), now).unwrap_err(), DropReason::PerSource);
        let _b = admission.admit(ip("127.0.1.1"), now).unwrap();
        let _c = admission.admit(ip("fd00::1"), now).unwrap();
        assert_eq!(admission.admit(ip("fd00::2"), now).unwrap_err(), DropReason::PerSource);
        assert_eq!(admission.open(), 3, "a refused source gives its place back");
    }

    #[test]
    fn a_rate_recovers_with_time() {
        let (admission, now) = at(&Limits { source_rate: 2.0, ..Default::default() });
        let source: IpAddr = "::1".parse().unwrap();
        for _ in 0..2 {
            assert!(admission.admit(source, now).is_ok());
        }
        assert_eq!(admission.admit(source, now).unwrap_err(), DropReason::Rate);
        assert!(admission.admit(source, now + Duration::from_millis(500)).is_ok());
    }

    #[test]
    fn sources_are_bounded_and_swept_now_and_then() {
        let limits = Limits { max_connections: 1, queue: 1, source_rate: 2.0, ..Default::default() };
        let (admission, start) = at(&limits);
        let comes = |source: &str, ms: u64| {
            admission.admit(source.parse().unwrap(), start + Duration::from_millis(ms)).err()
        };
        assert_eq!((comes("127.0.0.1", 0), comes("127.0.0.2", 0)), (None, None));
        assert_eq!(comes("127.0.0.3", 450), Some(DropReason::Rate), "two are known, none has recovered");
        assert_eq!(comes("127.0.0.3", 545), Some(DropReason::Rate), "both have, and nobody looks yet");
        assert_eq!(comes("127.0.0.3", 555), None);
    }

    #[test]
    fn a_bucket_says_when_its_next_token_comes() {
        let now = Instant::now();
        let mut bucket = Bucket::with_depth(10.0, 1.0, now);
        assert!(bucket.take(now) && !bucket.take(now));
        assert_eq!(bucket.next(now), Some(Duration::from_millis(100)));
        assert!(bucket.take(now + Duration::from_millis(101)));
        assert_eq!(Bucket::with_depth(0.0, 0.0, now).next(now), None);
        let mut slow = Bucket::with_depth(1e-300, 1.0, now);
        assert!(slow.take(now));
        assert_eq!(slow.next(now), Some(Duration::MAX), "longer than a Duration can say");
    }
}
