//! The pulse of the threads on which all clients depend: the acceptor, the leader and the timekeeper. If one of them
//! stops, the supervisor is no longer told that the server is alive. Workers are not watched: a service that is stuck
//! in a turn does not make the server dead.
#![cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only the program tells a supervisor of it"))]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A thread that must move at least once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vital {
    Acceptor,
    Leader,
    Timekeeper,
}

impl Vital {
    const ALL: [Self; 3] = [Self::Acceptor, Self::Leader, Self::Timekeeper];

    fn as_str(self) -> &'static str {
        match self {
            Self::Acceptor => "acceptor",
            Self::Leader => "leader",
            Self::Timekeeper => "timekeeper",
        }
    }
}

/// The rounds of each.
#[derive(Debug, Default)]
pub(crate) struct Pulse([AtomicU64; 3]);

impl Pulse {
    /// Another round begins; one thread at a time says so of each.
    pub(crate) fn beat(&self, thread: Vital) {
        let rounds = &self.0[thread as usize];
        rounds.store(rounds.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn rounds(&self) -> [u64; 3] {
        self.0.each_ref().map(|rounds| rounds.load(Relaxed))
    }
}

/// What a watcher remembers.
#[derive(Debug, Default)]
pub(crate) struct PulseWatch([Option<(u64, Instant)>; 3]);

impl PulseWatch {
    /// A thread that has not moved for `longest`, as far as was seen.
    pub(crate) fn look(&mut self, pulse: &Pulse, now: Instant, longest: Duration) -> Option<&'static str> {
        let mut still = None;
        for (thread, rounds) in Vital::ALL.into_iter().zip(pulse.rounds()) {
            match &self.0[thread as usize] {
                Some((before, since)) if *before == rounds => {
                    if now.saturating_duration_since(*since) >= longest {
                        still = Some(thread.as_str());
                    }
                }
                _ => self.0[thread as usize] = Some((rounds, now)),
            }
        }
        still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_move_is_named() {
        let (pulse, mut watch, start) = (Pulse::default(), PulseWatch::default(), Instant::now());
        let longest = Duration::from_secs(3);
        let mut at = |seconds, beats: &[Vital]| {
            beats.iter().for_each(|&thread| pulse.beat(thread));
            watch.look(&pulse, start + Duration::from_secs(seconds), longest)
        };
        assert_eq!(at(0, &[]), None);
        assert_eq!(at(2, &Vital::ALL), None);
        assert_eq!(at(4, &[Vital::Acceptor, Vital::Leader]), None);
        assert_eq!(at(5, &[Vital::Acceptor, Vital::Leader]), Some("timekeeper"));
        assert_eq!(at(6, &[Vital::Timekeeper]), None);
        assert_eq!(at(8, &[Vital::Timekeeper, Vital::Acceptor]), Some("leader"));
    }
}
