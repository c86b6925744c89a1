//! Which sources were refused most often in the last minute, in bounded memory, so that an operator knows whom to look
//! at.
//!
//! Only the most refused sources are kept, by the space-saving algorithm: a source that finds no room takes over the
//! entry of the source that was refused least, together with its count. So a count may be too high, by at most the
//! lowest count in the table, and a source that was refused more often than that is always in it.

use super::snapshot::RefusedSource;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many sources are kept.
const KEPT: usize = 64;
/// How many are told of.
const TOLD: usize = 5;
/// How many seconds are looked back.
const SECONDS: usize = 60;

/// Counts refusals by source.
#[derive(Debug, Default)]
pub struct RefusedSources {
    table: Mutex<LastMinute>,
}

#[derive(Debug, Default)]
struct LastMinute {
    entries: Vec<SourceCount>,
    /// The second that is being counted.
    now: usize,
}

/// A source, as it is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ToldSource {
    /// An address without what follows its first bits, and how many those are.
    Network(IpAddr, u8),
    /// Clients of Unix sockets that ran as this user.
    User(Option<u32>),
}

#[derive(Debug)]
struct SourceCount {
    source: ToldSource,
    /// For each second of the last minute.
    seconds: [u32; SECONDS],
    sum: u64,
}

impl RefusedSources {
    /// A client was refused for its source. Only the first bits of its address tell sources apart, as many of an IPv4
    /// address as the first number of `prefix` says, of an IPv6 address the second.
    pub fn refused(&self, address: IpAddr, prefix: (u8, u8)) {
        self.count(network(address, prefix));
    }

    /// A client of a Unix socket was refused for the user that it ran as.
    pub fn refused_user(&self, uid: Option<u32>) {
        self.count(ToldSource::User(uid));
    }

    fn count(&self, source: ToldSource) {
        let mut table = self.table();
        let now = table.now;
        let at = match table.entries.iter().position(|entry| entry.source == source) {
            Some(at) => at,
            None if table.entries.len() < KEPT => {
                table.entries.push(SourceCount { source, seconds: [0; SECONDS], sum: 0 });
                table.entries.len() - 1
            }
            None => {
                let entries = table.entries.iter().enumerate();
                let Some((least, _)) = entries.min_by_key(|(_, entry)| entry.sum) else { return };
                table.entries[least].source = source;
                least
            }
        };
        let entry = &mut table.entries[at];
        entry.seconds[now] = entry.seconds[now].saturating_add(1);
        entry.sum += 1;
    }

    /// A second is over: the most refused sources in it, for the log.
    pub fn next_second(&self) -> Vec<RefusedSource> {
        let mut table = self.table();
        let now = table.now;
        let told = table.most(|entry| u64::from(entry.seconds[now]));
        table.now = (now + 1) % SECONDS;
        let next = table.now;
        for entry in &mut table.entries {
            entry.sum -= u64::from(std::mem::take(&mut entry.seconds[next]));
        }
        table.entries.retain(|entry| entry.sum > 0);
        told
    }

    /// The most refused sources of the last minute, for the status page.
    pub fn last_minute(&self) -> Vec<RefusedSource> {
        self.table().most(|entry| entry.sum)
    }

    fn table(&self) -> MutexGuard<'_, LastMinute> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastMinute {
    /// Those with the largest counts, the largest first.
    fn most(&self, count: impl Fn(&SourceCount) -> u64) -> Vec<RefusedSource> {
        let mut counted: Vec<_> = self.entries.iter().map(|entry| (count(entry), entry.source)).collect();
        counted.retain(|&(count, _)| count > 0);
        counted.sort_unstable_by_key(|&(count, source)| (std::cmp::Reverse(count), source));
        counted.truncate(TOLD);
        counted.into_iter().map(|(count, source)| RefusedSource { source: show(source), count }).collect()
    }
}

/// An address without what follows its first bits, and how many those are.
fn network(address: IpAddr, prefix: (u8, u8)) -> ToldSource {
    let (address, bits) = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix.0.into())).unwrap_or(0);
            (Ipv4Addr::from_bits(v4.to_bits() & mask).into(), prefix.0)
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(prefix.1.into())).unwrap_or(0);
            (Ipv6Addr::from_bits(v6.to_bits() & mask).into(), prefix.1)
        }
    };
    ToldSource::Network(address, bits)
}

/// An address, or a network where only its first bits are told apart; of a user, what the log calls it.
fn show(source: ToldSource) -> String {
    let (address, prefix) = match source {
        ToldSource::Network(address, prefix) => (address, prefix),
        ToldSource::User(Some(uid)) => return format!("unix:uid={uid}"),
        ToldSource::User(None) => return "unix:?".to_owned(),
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    if prefix >= whole { address.to_string() } else { format!("{address}/{prefix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sources: Vec<RefusedSource>) -> Vec<(String, u64)> {
        sources.into_iter().map(|source| (source.source, source.count)).collect()
    }

    fn ip(n: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    #[test]
    fn the_most_refused_are_told_first_and_a_minute_later_no_more() {
        let sources = RefusedSources::default();
        for (n, times) in [(1, 3), (2, 7), (3, 1)] {
            (0..times).for_each(|_| sources.refused(ip(n), (32, 64)));
        }
        sources.refused("2001:db8::1:2:3".parse().unwrap(), (32, 64));
        let expected = [("10.0.0.2", 7), ("10.0.0.1", 3), ("10.0.0.3", 1), ("2001:db8::/64", 1)];
        let expected: Vec<_> =
            expected.into_iter().map(|(source, count)| (source.to_owned(), count)).collect();
        assert_eq!(told(sources.last_minute()), expected);
        assert_eq!(told(sources.next_second()), expected);
        sources.refused(ip(3), (32, 64));
        assert_eq!(told(sources.next_second()), [("10.0.0.3".to_owned(), 1)], "of this second alone");
        for _ in 0..58 {
            assert!(sources.next_second().is_empty());
        }
        assert_eq!(told(sources.last_minute()), [("10.0.0.3".to_owned(), 1)]);
        sources.next_second();
        assert!(sources.last_minute().is_empty());
    }

    #[test]
    fn a_source_is_what_the_prefix_says() {
        let sources = RefusedSources::default();
        for address in ["10.1.2.3", "::ffff:10.1.2.9", "10.1.3.1"] {
            sources.refused(address.parse().unwrap(), (24, 0));
        }
        sources.refused("2001:db8::1".parse().unwrap(), (24, 0));
        [Some(1000), None].into_iter().for_each(|uid| sources.refused_user(uid));
        let expected =
            [("10.1.2.0/24", 2), ("10.1.3.0/24", 1), ("::/0", 1), ("unix:?", 1), ("unix:uid=1000", 1)];
        let expected: Vec<_> =
            expected.into_iter().map(|(source, count)| (source.to_owned(), count)).collect();
        assert_eq!(told(sources.last_minute()), expected);
    }

    #[test]
    fn a_flood_of_sources_costs_no_memory_and_does_not_hide_the_loudest() {
        let sources = RefusedSources::default();
        for n in 0..100_000 {
            sources.refused(ip(n + 10), (32, 64));
            if n % 4 == 0 {
                sources.refused(ip(1), (32, 64));
            }
        }
        let table = sources.table();
        assert_eq!(table.entries.len(), KEPT);
        drop(table);
        let loudest = &told(sources.last_minute())[0];
        assert_eq!(loudest.0, "10.0.0.1");
        assert!((25_000..30_000).contains(&loudest.1), "{loudest:?}");
    }
}
