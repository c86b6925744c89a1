//! The number that each datagram carries. By it a reply is matched with its request even if it comes late, or twice.

use super::outcome::Outcome;
use super::random::Random;
use super::step::contains;

/// Bytes that the number takes at the start of a datagram: two times eight hexadecimal digits.
pub(crate) const HEADER: usize = 16;

/// The most bytes of a datagram over IPv4.
pub(crate) const MAX_DATAGRAM: usize = 65_507;

/// What a socket remembers of its last requests; one bit each, the newest lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// The number of the newest request; the first is 1.
    newest: u32,
    answered: u64,
    lost: u64,
    measured: u64,
}

impl Window {
    /// A request is being sent; gives its number.
    pub(crate) fn send(&mut self, measured: bool) -> u32 {
        self.newest = self.newest.wrapping_add(1);
        self.answered <<= 1;
        self.lost <<= 1;
        self.measured = self.measured << 1 | u64::from(measured);
        self.newest
    }

    /// The newest request was given up.
    pub(crate) fn give_up(&mut self) {
        self.lost |= 1;
    }

    /// What a reply with this number is, and whether its request was measured. None if no such request
    /// was made.
    pub(crate) fn reply(&mut self, number: u32) -> Option<(Outcome, bool)> {
        let age = self.newest.wrapping_sub(number);
        if number == 0 || number > self.newest {
            return None;
        }
        // What is older than the window was answered or given up long ago.
        let Some(bit) = 1u64.checked_shl(age) else {
            return Some((Outcome::Duplicate, true));
        };
        let outcome = if self.answered & bit != 0 {
            Outcome::Duplicate
        } else if self.lost & bit != 0 {
            Outcome::Late
        } else {
            Outcome::Ok
        };
        self.answered |= bit;
        Some((outcome, self.measured & bit != 0))
    }

    /// The number of the newest request.
    pub(crate) fn newest(&self) -> u32 {
        self.newest
    }
}

/// Writes and reads the datagrams of one thread.
pub(crate) struct Datagrams {
    /// Of this run, so that a stray reply to another run is not taken for one to this.
    run: u32,
    /// Whether datagrams carry their number: only where the payload is ours to make.
    numbered: bool,
    request: Vec<u8>,
}

impl Datagrams {
    /// For one thread of a run with this seed.
    pub(crate) fn new(numbered: bool, seed: u64) -> Self {
        Self { run: Random::new(seed, u64::MAX).next() as u32, numbered, request: Vec::new() }
    }

    /// The datagram to send: the payload, with its number where it has one.
    pub(crate) fn request<'a>(&'a mut self, payload: &'a [u8], number: u32) -> &'a [u8] {
        if !self.numbered {
            return payload;
        }
        self.request.clear();
        self.request.extend_from_slice(payload);
        for (at, half) in [(0, self.run), (HEADER / 2, number)] {
            write_hex(&mut self.request[at..at + HEADER / 2], half);
        }
        &self.request
    }

    /// The number that a reply answers: its own, or without numbers the newest. None if it is no reply
    /// to this run, or not the expected one.
    pub(crate) fn number(
        &self,
        payload: &[u8],
        reply: &[u8],
        newest: u32,
        expect: Option<&[u8]>,
    ) -> Option<u32> {
        if !self.numbered {
            return expect.is_none_or(|text| contains(reply, text)).then_some(newest);
        }
        if reply.len() != payload.len() || reply[HEADER..] != payload[HEADER..] {
            return None;
        }
        let run = read_hex(&reply[..HEADER / 2])?;
        let number = read_hex(&reply[HEADER / 2..HEADER])?;
        (run == self.run).then_some(number)
    }
}

fn write_hex(to: &mut [u8], mut number: u32) {
    for digit in to.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn read_hex(from: &[u8]) -> Option<u32> {
    from.iter().try_fold(0, |number: u32, digit| Some(number << 4 | (*digit as char).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_matched_with_their_requests() {
        let mut window = Window::default();
        assert_eq!(window.reply(0), None);
        assert_eq!(window.send(false), 1);
        assert_eq!(window.reply(1), Some((Outcome::Ok, false)));
        assert_eq!(window.send(true), 2);
        window.give_up();
        assert_eq!(window.send(true), 3);
        assert_eq!(window.reply(2), Some((Outcome::Late, true)));
        assert_eq!(window.reply(2), Some((Outcome::Duplicate, true)));
        assert_eq!(window.reply(1), Some((Outcome::Duplicate, false)));
        assert_eq!(window.reply(3), Some((Outcome::Ok, true)));
        assert_eq!(window.reply(4), None);
        for _ in 0..70 {
            window.send(true);
        }
        assert_eq!(window.reply(3), Some((Outcome::Duplicate, true)));
    }

    #[test]
    fn numbers_go_there_and_back() {
        let payload = [b'x'; 20];
        let mut datagrams = Datagrams::new(true, 7);
        let sent = datagrams.request(&payload, 0xabc).to_vec();
        assert_eq!(datagrams.number(&payload, &sent, 0, None), Some(0xabc));
        let other = Datagrams::new(true, 8);
        assert_eq!(other.number(&payload, &sent, 0, None), None);
        assert_eq!(datagrams.number(&payload, &sent[1..], 0, None), None);
        let plain = Datagrams::new(false, 7);
        assert_eq!(plain.number(&payload, b"pong", 5, None), Some(5));
        assert_eq!(plain.number(&payload, b"pong", 5, Some(b"ping")), None);
    }
}
