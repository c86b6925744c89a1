//! Tells apart a server that answers our answers, which would go on for ever, and a client that asks again.
//!
//! Two servers that answer each other send each other what they were sent: the same bytes (echo), the same bytes with
//! more around them (hello), or the same bytes for the length of a second (time). A client may also send the same bytes
//! again and again. The difference shows when one datagram is not answered: a loop ends there, and a client sends
//! another datagram. So after a few datagrams that repeat the one before, one is not answered. A port that sends again
//! of its own accord may repeat more of them before the next one is not answered.

use crate::clock::Nanos;
use std::hash::{BuildHasher, RandomState};

/// Datagrams in a row that may repeat the one before: at first, and at most.
const REPEATS: u8 = 5;
const REPEATS_MOST: u8 = 64;
/// A datagram that comes this much later than the one before belongs to no loop that is worth ending.
const SLOW: Nanos = 1_000_000_000;
/// An answer to an answer is here sooner than this after a datagram that was not answered; a client waits longer before it
/// asks again.
const PROMPT: Nanos = 100_000_000;
/// Bytes at the beginning and at the end of a datagram that are compared.
const COMPARED: usize = 512;
/// Stands for a count when the last datagram was not answered.
const UNANSWERED: u8 = u8::MAX;

/// The last datagram of a port, and how often in a row it was what the one before was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repeats {
    at: Nanos,
    head: u32,
    tail: u32,
    len: u16,
    count: u8,
    budget: u8,
}

impl Repeats {
    /// Of a port that has sent nothing yet.
    pub(crate) const NONE: Self = Self { at: 0, head: 0, tail: 0, len: 0, count: 0, budget: REPEATS };

    /// The port has sent this; whether it is to be answered.
    pub(crate) fn allows(&mut self, request: &[u8], now: Nanos, hasher: &RandomState) -> bool {
        let digest = |bytes: &[u8]| hasher.hash_one(bytes) as u32;
        let known = self.at != 0 && now.saturating_sub(self.at) < SLOW;
        let repeated = known && self.is_in(request, digest);
        let was_answered = self.count != UNANSWERED;
        if !was_answered && now.saturating_sub(self.at) >= PROMPT {
            self.budget = (self.budget * 2).min(REPEATS_MOST);
        }
        self.count = match (known && was_answered, repeated) {
            (false, _) => 0,
            (true, true) => self.count + 1,
            // A clock's answer is another one each second.
            (true, false) => self.count.saturating_sub(1),
        };
        self.at = now;
        self.len = request.len() as u16;
        self.head = digest(&request[..request.len().min(COMPARED)]);
        self.tail = digest(&request[request.len().saturating_sub(COMPARED)..]);
        let allowed = self.count <= self.budget;
        if !allowed {
            self.count = UNANSWERED;
        }
        allowed
    }

    /// Whether a datagram is the last one, or has it at its beginning or at its end.
    fn is_in(&self, request: &[u8], digest: impl Fn(&[u8]) -> u32) -> bool {
        let len = usize::from(self.len);
        if request.len() < len || (len == 0 && !request.is_empty()) {
            return false;
        }
        let compared = len.min(COMPARED);
        let head = digest(&request[..compared]) == self.head;
        let tail = || digest(&request[request.len() - compared..]) == self.tail;
        if request.len() == len { head && tail() } else { head || tail() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Nanos = 1_000_000;

    /// How many of these are answered before one is not; `apart` is the time between two.
    fn answered(requests: impl Iterator<Item = Vec<u8>>, apart: Nanos) -> usize {
        let (mut repeats, hasher) = (Repeats::NONE, RandomState::new());
        let mut now = 5;
        let mut allows = |request: Vec<u8>| {
            now += apart;
            repeats.allows(&request, now, &hasher)
        };
        requests.take(1000).take_while(|request| allows(request.clone())).count()
    }

    #[test]
    fn what_answers_an_answer_is_answered_a_handful_of_times() {
        let fixed = |text: &'static [u8]| std::iter::repeat_with(move || text.to_vec());
        assert_eq!(answered(fixed(b"for ever?"), MILLI), 6);
        assert_eq!(answered(fixed(b""), MILLI), 6);
        assert_eq!(answered(fixed(&[7; 2000]), 400 * MILLI), 6);
        let around = |first: usize, before: &'static str, after: &'static str| {
            let grown =
                move |n| [&before.repeat(n), &"x".repeat(first), &after.repeat(n)[..]].concat().into_bytes();
            (0..).map(grown)
        };
        for first in [1, 511, 512, 600, 1100] {
            assert_eq!(answered(around(first, "hello ", ""), MILLI), 6, "{first}");
            assert_eq!(answered(around(first, "", " again"), MILLI), 6, "{first}");
        }
        // A clock whose answers change each second, as far away as it may be.
        for apart in [1, 30, 150, 240, 300] {
            let clock = (0..).map(move |n: u64| format!("10:00:{:02}", n * apart / 1000).into_bytes());
            let count = answered(clock, apart * MILLI);
            assert!(count <= 20, "{count} at {apart} ms");
        }
    }

    #[test]
    fn clients_that_send_something_else_or_wait_are_always_answered() {
        let numbered = |size: usize| (0..).map(move |n: u32| [&n.to_be_bytes()[..], &vec![0; size]].concat());
        assert_eq!(answered(numbered(0), MILLI), 1000);
        assert_eq!(answered(numbered(1400), MILLI), 1000);
        let from_end = (0..).map(|n: u32| [&[0; 1400][..], &n.to_be_bytes()].concat());
        assert_eq!(answered(from_end, MILLI), 1000);
        // Each is sent twice, as by a client that has lost the answer.
        assert_eq!(answered(numbered(8).flat_map(|request| [request.clone(), request]), MILLI), 1000);
        assert_eq!(answered(std::iter::repeat_with(|| b"ping".to_vec()), SLOW), 1000);
    }

    #[test]
    fn a_client_that_asks_again_is_trusted_with_more_and_a_loop_is_not() {
        let lost = |retry: Nanos| {
            let (mut repeats, hasher) = (Repeats::NONE, RandomState::new());
            let (mut now, mut lost) = (5, 0);
            for _ in 0..1000 {
                let answered = repeats.allows(b"the same", now, &hasher);
                lost += u32::from(!answered);
                now += if answered { MILLI } else { retry };
            }
            lost
        };
        // 5, 10, 20, 40, and then 64 in a row.
        assert_eq!(lost(PROMPT), 17);
        // Many datagrams in one loop: one of them is gone each time, and the others get no more for it.
        assert_eq!(lost(MILLI), 1000 / 7);
    }

    #[test]
    fn the_longest_datagram_fits() {
        let (mut repeats, hasher) = (Repeats::NONE, RandomState::new());
        assert!((1..=6).all(|now| repeats.allows(&[1; 65_507], now, &hasher)));
        assert!(!repeats.allows(&[1; 65_507], 7, &hasher));
    }
}
