//! What each source has: open connections, and tokens for new ones.

use super::bucket::Bucket;
use crate::limits::Limits;
use crate::reason::DropReason;
use crate::transport::address::SourceAddress;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// An address with its host bits cleared, or a user of this machine: who counts as one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey([u8; 16]);

/// How many leading bits of an IPv4 and of an IPv6 address make a source.
pub(crate) type Prefix = (u8, u8);

impl SourceKey {
    pub(crate) fn new(source: impl Into<SourceAddress>, prefix: Prefix) -> Self {
        let address = match source.into() {
            SourceAddress::Ip(address) => address,
            SourceAddress::User(uid) => return Self(SourceAddress::user_number(uid).to_be_bytes()),
        };
        // An IPv4 client of a dual-stack listener is the same source as on an IPv4 listener.
        let bits = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix.0)).unwrap_or(0);
                u128::from(u32::from(v4) & mask) | 0xffff << 32
            }
            IpAddr::V6(v6) => u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(prefix.1)).unwrap_or(0),
        };
        Self(bits.to_be_bytes())
    }
}

/// Which entry of [`Sources`] a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceNumber(u32);

const NONE: u32 = u32::MAX;

/// At most [`room`](Self::room) sources are known. Those without a connection are kept for the sake of their
/// tokens; when there is no room for a new source, the one of them that was seen least recently is forgotten. There
/// is always such a one: the room is twice the connections.
#[derive(Debug)]
pub(crate) struct Sources {
    /// A limit asks for them.
    wanted: AtomicBool,
    room: usize,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    max: usize,
    rate: f64,
    prefix: Prefix,
    by_key: HashMap<SourceKey, u32>,
    entries: Vec<SourceEntry>,
    /// The sources without a connection, least recently seen first.
    first_idle: u32,
    last_idle: u32,
}

#[derive(Debug)]
struct SourceEntry {
    key: SourceKey,
    open: usize,
    tokens: Bucket,
    /// Neighbours among the idle; [`NONE`] at the ends, and while it has a connection.
    before: u32,
    after: u32,
}

impl Sources {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            wanted: AtomicBool::new(Self::are_wanted_by(limits)),
            room: limits.connections_most() * 2,
            known: Mutex::new(Known {
                max: limits.max_per_source,
                rate: limits.source_rate,
                prefix: limits.source_prefix,
                by_key: HashMap::new(),
                entries: Vec::new(),
                first_idle: NONE,
                last_idle: NONE,
            }),
        }
    }

    fn are_wanted_by(limits: &Limits) -> bool {
        limits.max_per_source > 0 || limits.source_rate > 0.0
    }

    /// Whether a limit asks for sources: otherwise nothing is known of them, and connections are not counted.
    pub(crate) fn are_wanted(&self) -> bool {
        self.wanted.load(Relaxed)
    }

    /// Changes the limits. Connections that are open stay with the source that they were counted for, if they were.
    pub(crate) fn set_limits(&self, limits: &Limits, now: Instant) {
        let mut known = self.known();
        (known.max, known.prefix) = (limits.max_per_source, limits.source_prefix);
        let rate = limits.source_rate;
        if known.rate.to_bits() != rate.to_bits() {
            known.rate = rate;
            known.entries.iter_mut().for_each(|entry| entry.tokens.set_rate(rate, now));
        }
        self.wanted.store(Self::are_wanted_by(limits), Relaxed);
    }

    /// The most bytes that the table of sources takes: entries, and a map that grows by doubling.
    pub(crate) fn memory_ceiling(limits: &Limits) -> usize {
        let each = 2 * size_of::<SourceEntry>() + 4 * (size_of::<(SourceKey, u32)>() + 1);
        if Self::are_wanted_by(limits) { limits.connections_most() * 2 * each } else { 0 }
    }

    /// Counts a connection from a source, if its limits allow one more.
    pub(crate) fn admit(
        &self,
        source: impl Into<SourceAddress>,
        now: Instant,
    ) -> Result<SourceNumber, DropReason> {
        let mut known = self.known();
        let Known { max, rate, prefix, .. } = *known;
        let number = known.entry(SourceKey::new(source, prefix), self.room, || Bucket::new(rate, now));
        let entry = &mut known.entries[number as usize];
        let refused = if max > 0 && entry.open >= max {
            Some(DropReason::PerSource)
        } else if rate > 0.0 && !entry.tokens.take(now, 1.0) {
            Some(DropReason::Rate)
        } else {
            entry.open += 1;
            None
        };
        let idle = entry.open == 0;
        known.touch(number, idle);
        refused.map_or(Ok(SourceNumber(number)), Err)
    }

    /// A connection of this source has ended.
    pub(crate) fn leave(&self, id: SourceNumber) {
        let mut known = self.known();
        let entry = &mut known.entries[id.0 as usize];
        entry.open -= 1;
        if entry.open == 0 {
            known.touch(id.0, true);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The entry of a source: its own, a new one, or that of the source which is forgotten for it.
    fn entry(&mut self, key: SourceKey, room: usize, tokens: impl FnOnce() -> Bucket) -> u32 {
        if let Some(&number) = self.by_key.get(&key) {
            return number;
        }
        let fresh = SourceEntry { key, open: 0, tokens: tokens(), before: NONE, after: NONE };
        let number = if self.entries.len() < room || self.first_idle == NONE {
            self.entries.push(fresh);
            (self.entries.len() - 1) as u32
        } else {
            let number = self.first_idle;
            self.unlink(number);
            let forgotten = std::mem::replace(&mut self.entries[number as usize], fresh);
            self.by_key.remove(&forgotten.key);
            number
        };
        self.by_key.insert(key, number);
        number
    }

    /// A source was seen: behind all others among the idle, if it is idle, else not among them.
    fn touch(&mut self, number: u32, idle: bool) {
        self.unlink(number);
        if !idle {
            return;
        }
        let last = std::mem::replace(&mut self.last_idle, number);
        self.entries[number as usize].before = last;
        match last {
            NONE => self.first_idle = number,
            last => self.entries[last as usize].after = number,
        }
    }

    /// Takes a source out of the idle; nothing if it is not among them.
    fn unlink(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        let (before, after) =
            (std::mem::replace(&mut entry.before, NONE), std::mem::replace(&mut entry.after, NONE));
        match before {
            NONE if self.first_idle == number => self.first_idle = after,
            NONE => return,
            before => self.entries[before as usize].after = after,
        }
        match after {
            NONE => self.last_idle = before,
            after => self.entries[after as usize].before = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn sources(change: impl FnOnce(&mut Limits)) -> (Sources, Instant) {
        let mut limits = Limits::default();
        change(&mut limits);
        (Sources::new(&limits), Instant::now())
    }

    #[test]
    fn a_source_is_limited_by_its_prefix_and_others_are_not() {
        let (sources, now) = sources(|l| (l.max_per_source, l.source_prefix) = (1, (24, 64)));
        let comes = |text: &str| sources.admit(ip(text), now);
        let first = comes("127.0.0.1").unwrap();
        assert_eq!(comes("127.0.0.200"), Err(DropReason::PerSource));
        assert_eq!(comes("::ffff:127.0.0.9"), Err(DropReason::PerSource));
        assert!(comes("127.0.1.1").is_ok() && comes("fd00::1").is_ok());
        assert_eq!(comes("fd00::2"), Err(DropReason::PerSource));
        assert!(comes("fd00:0:0:1::1").is_ok());
        sources.leave(first);
        assert!(comes("127.0.0.77").is_ok());
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_are_one_source_by_default() {
        let (sources, now) = sources(|l| l.max_per_source = 2);
        let admitted = |net: u16| {
            let addresses = (0..100).map(|host| IpAddr::from([0x2001, 0xdb8, 0, net, 9, 9, 9, host]));
            addresses.filter(|&address| sources.admit(address, now).is_ok()).count()
        };
        assert_eq!((admitted(1), admitted(2)), (2, 2));
    }

    #[test]
    fn a_prefix_of_nothing_makes_all_one_source() {
        let key = |text: &str, prefix| SourceKey::new(ip(text), prefix);
        assert_eq!(key("10.0.0.1", (0, 0)), key("192.0.2.1", (0, 0)));
        assert_eq!(key("fd00::1", (0, 0)), key("2001:db8::1", (0, 0)));
        assert_ne!(key("10.0.0.1", (0, 0)), key("fd00::1", (0, 0)));
        assert_ne!(key("10.0.0.1", (32, 128)), key("10.0.0.2", (32, 128)));
        assert_ne!(key("fd00::1", (32, 128)), key("fd00::2", (32, 128)));
        assert_eq!(key("fd00::1", (32, 127)), key("fd00::", (32, 127)));
    }

    #[test]
    fn a_rate_recovers_with_time() {
        let (sources, now) = sources(|l| l.source_rate = 2.0);
        let comes = |ms: u64| sources.admit(ip("::1"), now + Duration::from_millis(ms)).err();
        assert_eq!([comes(0), comes(0), comes(0)], [None, None, Some(DropReason::Rate)]);
        assert_eq!([comes(500), comes(500)], [None, Some(DropReason::Rate)]);
    }

    #[test]
    fn limits_change_and_open_connections_stay_with_their_source() {
        let (sources, now) = sources(|l| (l.max_per_source, l.source_prefix) = (2, (32, 64)));
        let comes = |text: &str| sources.admit(ip(text), now);
        let held = [comes("10.0.0.1").unwrap(), comes("10.0.0.1").unwrap(), comes("10.0.0.2").unwrap()];
        let set = |limits: Limits| sources.set_limits(&limits, now);
        set(Limits::default().max_per_source(1).source_prefix((24, 64)));
        assert_eq!(comes("10.0.0.1").err(), None, "as one of a network it is new");
        assert_eq!(comes("10.0.0.77"), Err(DropReason::PerSource));
        set(Limits::default());
        assert!(!sources.are_wanted());
        held.into_iter().for_each(|id| sources.leave(id));
        set(Limits::default().max_per_source(1));
        assert!(sources.are_wanted() && comes("10.0.0.1").is_ok(), "those that left are not counted");
    }

    #[test]
    fn a_rate_that_changes_is_that_of_known_sources_too() {
        let (sources, now) = sources(|l| l.source_rate = 2.0);
        let comes = |ms: u64| sources.admit(ip("::1"), now + Duration::from_millis(ms)).is_ok();
        assert_eq!([comes(0), comes(0), comes(0)], [true, true, false]);
        sources.set_limits(&Limits::default().source_rate(10.0), now);
        assert_eq!(
            [comes(0), comes(100), comes(100)],
            [false, true, false],
            "it has no tokens for the change"
        );
        sources.set_limits(&Limits::default().source_rate(1.0), now + Duration::from_secs(60));
        assert_eq!([comes(60_000), comes(60_000)], [true, false], "nor more than a second's");
    }

    #[test]
    fn when_the_table_is_full_the_source_seen_least_recently_is_forgotten() {
        let (sources, now) = sources(|l| (l.max_connections, l.queue, l.source_rate) = (1, 1, 0.01));
        let comes = |text: &str| match sources.admit(ip(text), now) {
            Ok(id) => {
                sources.leave(id);
                None
            }
            Err(reason) => Some(reason),
        };
        assert_eq!([comes("10.0.0.1"), comes("10.0.0.2")], [None, None]);
        // Seen again, so the other one is older now.
        assert_eq!(comes("10.0.0.1"), Some(DropReason::Rate));
        assert_eq!(comes("10.0.0.3"), None, "a new source is served");
        assert_eq!(comes("10.0.0.1"), Some(DropReason::Rate), "it is known still");
        assert_eq!(comes("10.0.0.2"), None, "it was forgotten");
        assert_eq!(sources.known().entries.len(), 2);
        assert_eq!(sources.known().by_key.len(), 2);
    }

    #[test]
    fn the_table_takes_no_more_than_it_says_and_nothing_where_no_limit_asks_for_it() {
        let limits = Limits::default().max_connections(100);
        assert_eq!(Sources::memory_ceiling(&limits), 0);
        for limits in [limits.clone().max_per_source(1), limits.source_rate(1.0)] {
            let (sources, now) = (Sources::new(&limits), Instant::now());
            let ceiling = Sources::memory_ceiling(&limits);
            for host in 0..1_000_u32 {
                if let Ok(number) = sources.admit(IpAddr::from(host.to_be_bytes()), now) {
                    sources.leave(number);
                }
                let known = sources.known();
                // A map of the standard library has room for 8 where 7 may be used, and a byte of its own for each.
                let slots = (known.by_key.capacity() * 8).div_ceil(7).next_power_of_two();
                let map = slots * (size_of::<(SourceKey, u32)>() + 1);
                let taken = known.entries.capacity() * size_of::<SourceEntry>() + map;
                assert!(taken <= ceiling, "{taken} of {ceiling}");
            }
            let each = 2 * size_of::<SourceEntry>() + 4 * (size_of::<(SourceKey, u32)>() + 1);
            assert_eq!(ceiling, 200 * each, "the room is twice the connections");
        }
    }

    #[test]
    fn a_source_with_a_connection_is_never_forgotten() {
        let (sources, now) = sources(|l| (l.max_connections, l.queue, l.max_per_source) = (1, 1, 1));
        let held = sources.admit(ip("10.0.0.1"), now).unwrap();
        for n in 0..50u8 {
            let other = sources.admit(IpAddr::from([10, 0, 1, n]), now).unwrap();
            sources.leave(other);
        }
        assert_eq!(sources.admit(ip("10.0.0.1"), now), Err(DropReason::PerSource));
        sources.leave(held);
        assert!(sources.admit(ip("10.0.0.1"), now).is_ok());
    }

    #[test]
    fn the_list_of_the_idle_stays_whole_whatever_order_they_go_in() {
        let (sources, now) = sources(|l| (l.max_connections, l.queue, l.max_per_source) = (4, 1, 9));
        let mut held: Vec<(u64, SourceNumber)> = Vec::new();
        let mut state = 7u64;
        for step in 0..2_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pick = state >> 33;
            if held.len() == 4 || (pick.is_multiple_of(3) && !held.is_empty()) {
                let (_, id) = held.swap_remove(pick as usize % held.len());
                sources.leave(id);
            } else {
                let host = pick % 12;
                let id = sources.admit(IpAddr::from([10, 0, 0, host as u8]), now).unwrap();
                held.push((host, id));
            }
            let known = sources.known();
            let mut seen = Vec::new();
            let (mut at, mut before) = (known.first_idle, NONE);
            while at != NONE {
                assert_eq!(known.entries[at as usize].before, before, "step {step}");
                assert_eq!(known.entries[at as usize].open, 0, "step {step}");
                seen.push(at);
                (before, at) = (at, known.entries[at as usize].after);
            }
            assert_eq!(known.last_idle, before, "step {step}");
            let idle = known.entries.iter().filter(|entry| entry.open == 0).count();
            assert_eq!((seen.len(), known.by_key.len()), (idle, known.entries.len()), "step {step}");
            assert!(known.entries.len() <= 8, "step {step}");
        }
    }
}
