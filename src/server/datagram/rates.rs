//! Limits how many datagrams of each source are answered, with a rate for each source in a table of fixed size.
//!
//! The source address of a datagram can be forged. With a single forged datagram an attacker can make two servers
//! answer each other for ever, and a source that sends without pause would take the places of all others. So each
//! source has a rate. One port of a source may be ahead of the rate by a quarter of a second. All ports of it together
//! may be ahead by more, since many clients behind one address may ask at once. A loop between two servers is between
//! two ports, and ends long before that: [`Repeats`] finds it by what it sends.

use super::repeats::Repeats;
use crate::admit::sources::SourceKey;
use crate::clock::Nanos;
use crate::limits::Limits;
use crate::reason::DatagramDrop;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sources and their ports that are known at once, at most; the table is made when the first datagram comes.
const SETS: usize = 1024;
const WAYS: usize = 8;

/// Seconds of its rate that a source which was quiet may send at once, all its ports together, and one port of it; this
/// number at least.
const SOURCE_BURST: f64 = 4.0;
const PORT_BURST: f64 = 0.25;
const BURST_LEAST: f64 = 8.0;

/// Stands for all ports of a source: no datagram comes from it.
const ALL_PORTS: u16 = 0;

/// What is known of one source, or of one port of it: when it will have all its tokens again. That says how many it has now.
#[derive(Clone, Copy, Debug)]
struct Debt {
    key: (SourceKey, u16),
    paid: Nanos,
    /// Of a port: what it sent last.
    repeats: Repeats,
}

/// A rate for each source.
#[derive(Debug)]
pub(crate) struct DatagramRates {
    /// There is a limit.
    limited: AtomicBool,
    hasher: RandomState,
    table: Mutex<RateTable>,
}

/// Debts, and the rate that they are paid at.
#[derive(Debug)]
struct RateTable {
    /// Time from one token to the next; 0 for no limit.
    interval: Nanos,
    /// How far ahead of the rate a source may be, and one port of it.
    source_burst: Nanos,
    port_burst: Nanos,
    prefix: (u8, u8),
    sets: Vec<[Debt; WAYS]>,
}

/// The table of rates, locked for the datagrams of one batch.
pub(crate) struct RatesLocked<'a> {
    rates: &'a DatagramRates,
    table: MutexGuard<'a, RateTable>,
}

impl DatagramRates {
    /// Bytes of the table.
    pub(crate) const BYTES: usize = SETS * WAYS * size_of::<Debt>();

    pub(crate) fn new(limits: &Limits) -> Self {
        let table = RateTable::new(limits, Vec::new());
        Self {
            limited: AtomicBool::new(table.interval > 0),
            hasher: RandomState::new(),
            table: Mutex::new(table),
        }
    }

    /// Changes the rate. What a source owes stays owed.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let sets = std::mem::take(&mut table.sets);
        *table = RateTable::new(limits, sets);
        self.limited.store(table.interval > 0, Relaxed);
    }

    /// For a batch: nothing where there is no limit.
    pub(crate) fn lock(&self) -> Option<RatesLocked<'_>> {
        let table = || self.table.lock().unwrap_or_else(PoisonError::into_inner);
        self.limited.load(Relaxed).then(|| RatesLocked { rates: self, table: table() })
    }
}

impl RateTable {
    fn new(limits: &Limits, sets: Vec<[Debt; WAYS]>) -> Self {
        let rate = limits.datagram_source_rate;
        let interval = if rate > 0.0 { (1e9 / rate).clamp(1.0, 1e18) } else { 0.0 };
        let burst = |tokens: f64| (interval * (tokens.max(BURST_LEAST) - 1.0)) as Nanos;
        Self {
            interval: interval as Nanos,
            source_burst: burst(rate * SOURCE_BURST),
            port_burst: burst(rate * PORT_BURST),
            prefix: limits.source_prefix,
            sets,
        }
    }
}

impl RatesLocked<'_> {
    /// Takes a token of a source and one of this port of it, if both have one and what it has sent is no answer to an answer.
    /// Where they have none, `refuses` is asked: in a dry run it passes, and takes no token.
    ///
    /// # Errors
    ///
    /// Why the datagram is not to be answered.
    pub(crate) fn take(
        &mut self,
        peer: SocketAddr,
        request: &[u8],
        now: Nanos,
        refuses: impl FnOnce() -> bool,
    ) -> Result<(), DatagramDrop> {
        let rates = self.rates;
        let RateTable { source_burst, port_burst, prefix, .. } = *self.table;
        let source = SourceKey::new(peer.ip(), prefix);
        let debts = [((source, ALL_PORTS), source_burst), ((source, peer.port()), port_burst)];
        let has_tokens = debts.iter().all(|&(key, burst)| self.owed(key, now) <= burst);
        if !has_tokens && refuses() {
            return Err(DatagramDrop::SourceRate);
        }
        let token = if has_tokens { self.table.interval } else { 0 };
        self.pay_later(debts[0].0, token, now);
        let port = self.pay_later(debts[1].0, token, now);
        match port.repeats.allows(request, now, &rates.hasher) {
            true => Ok(()),
            false => Err(DatagramDrop::RefusedSource),
        }
    }

    fn set(&mut self, key: (SourceKey, u16)) -> &mut [Debt; WAYS] {
        if self.table.sets.is_empty() {
            let key = (SourceKey::new(IpAddr::from([0; 16]), (0, 0)), 0);
            let nobody = Debt { key, paid: 0, repeats: Repeats::NONE };
            self.table.sets.resize(SETS, [nobody; WAYS]);
        }
        let at = self.rates.hasher.hash_one(key) as usize % SETS;
        &mut self.table.sets[at]
    }

    /// How far ahead of the rate it is.
    fn owed(&mut self, key: (SourceKey, u16), now: Nanos) -> Nanos {
        let known = self.set(key).iter().find(|debt| debt.key == key);
        known.map_or(0, |debt| debt.paid.saturating_sub(now))
    }

    /// Takes a token that is paid for in this time; what is known of it.
    fn pay_later(&mut self, key: (SourceKey, u16), token: Nanos, now: Nanos) -> &mut Debt {
        let set = self.set(key);
        let known = set.iter().position(|debt| debt.key == key);
        // The one that was seen least recently makes room: most often it has all its tokens again, so that nothing is
        // lost with it.
        let oldest = || set.iter().enumerate().min_by_key(|(_, debt)| debt.paid).map_or(0, |(at, _)| at);
        let at = known.unwrap_or_else(oldest);
        let debt = &mut set[at];
        if known.is_none() {
            *debt = Debt { key, paid: 0, repeats: Repeats::NONE };
        }
        debt.paid = debt.paid.max(now).saturating_add(token);
        debt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    impl RatesLocked<'_> {
        /// As for a client that never sends the same twice.
        fn admits(&mut self, peer: SocketAddr, now: Nanos) -> bool {
            use std::sync::atomic::{AtomicU64, Ordering};
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let request = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            self.take(peer, &request, now, || true).is_ok()
        }
    }

    fn rates(rate: f64) -> DatagramRates {
        DatagramRates::new(&Limits::default().datagram_source_rate(rate).source_prefix((32, 64)))
    }

    fn from(source: u32, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::from(source.to_be_bytes()), port)
    }

    #[test]
    fn a_source_has_its_rate_and_a_small_burst_and_others_are_not_touched() {
        let rates = rates(100.0);
        let take = |source, now| rates.lock().unwrap().admits(from(source, 5000), now);
        let taken = |source, from| (0..1000).filter(|_| take(source, from)).count();
        assert_eq!((taken(1, SECOND), taken(2, SECOND)), (25, 25));
        let (mut now, mut count) = (SECOND, 0);
        while now < 11 * SECOND {
            now += SECOND / 50_000;
            count += usize::from(take(1, now));
        }
        assert!((999..=1001).contains(&count), "{count} in ten seconds");
        assert_eq!(taken(1, 12 * SECOND), 25, "a source that was quiet");
    }

    #[test]
    fn a_port_may_send_a_quarter_of_a_second_at_once_and_all_ports_of_a_source_four_seconds() {
        let at_once = |rate: f64, ports: u16| {
            let rates = rates(rate);
            let mut locked = rates.lock().unwrap();
            (0..100_000u32).filter(|n| locked.admits(from(7, (*n % u32::from(ports)) as u16 + 1), 5)).count()
        };
        assert_eq!([1e-9, 1.0, 30.0, 1_000.0, 1e5].map(|rate| at_once(rate, 1)), [8, 8, 8, 250, 25_000]);
        assert_eq!([1e-9, 100.0, 1_000.0].map(|rate| at_once(rate, 1_000)), [8, 400, 4_000]);
        assert!(rates(0.0).lock().is_none(), "no limit");
    }

    #[test]
    fn in_a_dry_run_all_pass_and_as_many_are_counted_as_would_be_dropped() {
        let rates = rates(100.0);
        let mut locked = rates.lock().unwrap();
        let mut counted = 0;
        for n in 0..100_u8 {
            let passes = locked.take(from(1, 9), &[n], SECOND, || {
                counted += 1;
                false
            });
            assert_eq!(passes, Ok(()));
        }
        assert_eq!(counted, 75, "25 have a token");
        let again = locked.take(from(1, 9), &[7], 2 * SECOND, || unreachable!("it has tokens again"));
        assert_eq!(again, Ok(()));
    }

    #[test]
    fn a_rate_that_changes_leaves_what_is_owed() {
        let rates = rates(0.0);
        assert!(rates.lock().is_none());
        let set = |rate| rates.set_limits(&Limits::default().datagram_source_rate(rate));
        let taken = |now| (0..1000).filter(|_| rates.lock().unwrap().admits(from(1, 9), now)).count();
        set(100.0);
        assert_eq!((taken(SECOND), taken(SECOND)), (25, 0));
        set(10.0);
        assert_eq!(taken(SECOND), 5, "eight at once are ahead by 0.7 s, and 0.25 s are owed");
        set(0.0);
        assert!(rates.lock().is_none());
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let rates = rates(1.0);
        let mut locked = rates.lock().unwrap();
        let v6 = |net, host| SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0, net, 0, 0, 0, host]), host + 1);
        assert_eq!((0..100u16).filter(|&n| locked.admits(v6(7, n), 1)).count(), 8);
        assert!(locked.admits(v6(8, 1), 1), "another network");
    }

    #[test]
    fn a_flood_of_sources_locks_nobody_out_and_takes_no_more_memory() {
        let rates = rates(0.01);
        let mut locked = rates.lock().unwrap();
        let served = (0..200_000).filter(|&n| locked.admits(from(n, 9), SECOND)).count();
        assert_eq!(served, 200_000, "each is new");
        assert_eq!(locked.table.sets.len() * size_of::<[Debt; WAYS]>(), DatagramRates::BYTES);
    }
}
