//! How many datagrams each source is answered: a rate for each, in a table of fixed size.
//!
//! The source of a datagram can be forged, so two servers can be made to answer each other for ever: one datagram with
//! the other's address is enough. And one source that sends without pause would take the places of all others. So each
//! source has a rate, with a small burst: a loop ends when its one datagram finds no token.

use crate::admit::sources::SourceKey;
use crate::clock::Nanos;
use crate::limits::Limits;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sources that are known at once, at most; the table is made when the first datagram comes.
const SETS: usize = 1024;
const WAYS: usize = 8;

/// A source that was quiet may send as much at once as its rate allows in this part of a second, and this number at
/// least.
const BURST_PART: f64 = 20.0;
const BURST_LEAST: f64 = 8.0;

/// What is known of one source: when it will have all its tokens again. That says how many it has now.
#[derive(Clone, Copy, Debug)]
struct Debt {
    key: SourceKey,
    paid: Nanos,
}

/// A rate for each source.
#[derive(Debug)]
pub(crate) struct DatagramRates {
    /// Time from one token to the next; 0 for no limit.
    interval: Nanos,
    /// How far ahead of its rate a source may be.
    burst: Nanos,
    prefix: (u8, u8),
    hasher: RandomState,
    table: Mutex<Vec<[Debt; WAYS]>>,
}

/// The table of rates, locked for the datagrams of one batch.
pub(crate) struct RatesLocked<'a> {
    rates: &'a DatagramRates,
    table: MutexGuard<'a, Vec<[Debt; WAYS]>>,
}

impl DatagramRates {
    /// Bytes of the table.
    pub(crate) const BYTES: usize = SETS * WAYS * size_of::<Debt>();

    pub(crate) fn new(limits: &Limits) -> Self {
        let rate = limits.datagram_source_rate;
        let interval = if rate > 0.0 { (1e9 / rate).clamp(1.0, 1e18) } else { 0.0 };
        let burst = (rate / BURST_PART).max(BURST_LEAST) - 1.0;
        Self {
            interval: interval as Nanos,
            burst: (interval * burst) as Nanos,
            prefix: limits.source_prefix,
            hasher: RandomState::new(),
            table: Mutex::default(),
        }
    }

    /// For a batch: nothing where there is no limit.
    pub(crate) fn lock(&self) -> Option<RatesLocked<'_>> {
        let table = || self.table.lock().unwrap_or_else(PoisonError::into_inner);
        (self.interval > 0).then(|| RatesLocked { rates: self, table: table() })
    }
}

impl RatesLocked<'_> {
    /// Takes a token of a source, if it has one.
    pub(crate) fn take(&mut self, address: IpAddr, now: Nanos) -> bool {
        let DatagramRates { interval, burst, prefix, hasher, .. } = self.rates;
        if self.table.is_empty() {
            let nobody = Debt { key: SourceKey::new(IpAddr::from([0; 16]), (0, 0)), paid: 0 };
            self.table.resize(SETS, [nobody; WAYS]);
        }
        let key = SourceKey::new(address, *prefix);
        let set = &mut self.table[hasher.hash_one(key) as usize % SETS];
        let known = set.iter().position(|debt| debt.key == key);
        // The one that was seen least recently makes room: most often it has all its tokens again, so that nothing is
        // lost with it.
        let oldest = || set.iter().enumerate().min_by_key(|(_, debt)| debt.paid).map_or(0, |(at, _)| at);
        let at = known.unwrap_or_else(oldest);
        let owed = if known.is_some() { set[at].paid.saturating_sub(now) } else { 0 };
        let enough = owed <= *burst;
        if enough || known.is_none() {
            set[at] = Debt { key, paid: now.saturating_add(owed).saturating_add(*interval) };
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn rates(rate: f64) -> DatagramRates {
        DatagramRates::new(&Limits::default().datagram_source_rate(rate).source_prefix((32, 64)))
    }

    fn ip(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_source_has_its_rate_and_a_small_burst_and_others_are_not_touched() {
        let rates = rates(100.0);
        let take = |source, now| rates.lock().unwrap().take(ip(source), now);
        let taken = |source, from| (0..1000).filter(|_| take(source, from)).count();
        assert_eq!((taken(1, SECOND), taken(2, SECOND)), (8, 8));
        let (mut now, mut count) = (SECOND, 0);
        while now < 11 * SECOND {
            now += SECOND / 50_000;
            count += usize::from(take(1, now));
        }
        assert!((999..=1001).contains(&count), "{count} in ten seconds");
        assert_eq!(taken(1, 12 * SECOND), 8, "a source that was quiet");
    }

    #[test]
    fn the_burst_is_a_twentieth_of_a_second() {
        let at_once = |rate: f64| {
            let rates = rates(rate);
            let mut locked = rates.lock().unwrap();
            (0..100_000).filter(|_| locked.take(ip(7), 5)).count()
        };
        assert_eq!([1e-9, 1.0, 160.0, 1_000.0, 1e6].map(at_once), [8, 8, 8, 50, 50_000]);
        assert!(rates(0.0).lock().is_none(), "no limit");
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let rates = rates(1.0);
        let mut locked = rates.lock().unwrap();
        let taken =
            (0..100u16).filter(|&n| locked.take(IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, n]), 1)).count();
        assert_eq!(taken, 8);
        assert!(locked.take(IpAddr::from([0x2001, 0xdb8, 0, 8, 0, 0, 0, 1]), 1), "another network");
    }

    #[test]
    fn a_flood_of_sources_locks_nobody_out_and_takes_no_more_memory() {
        let rates = rates(0.01);
        let mut locked = rates.lock().unwrap();
        let served = (0..200_000).filter(|&n| locked.take(ip(n), SECOND)).count();
        assert_eq!(served, 200_000, "each is new");
        assert_eq!(locked.table.len() * size_of::<[Debt; WAYS]>(), DatagramRates::BYTES);
    }
}
