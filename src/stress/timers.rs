//! Deadlines of slots. Timeouts are constant for a whole run, so each kind of timeout is a list in the
//! order of its deadlines: setting, clearing and expiring one are a few writes, and memory is one link
//! per slot however many requests are made.

use super::clock::Nanos;

const NONE: u32 = u32::MAX;

/// The kinds of timeout; a slot waits for at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Wait {
    /// For a connection.
    Connect,
    /// For a reply.
    Reply,
    /// For the server's end of a half-closed connection.
    Close,
}

const KINDS: usize = 3;

#[derive(Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
    deadline: Nanos,
    list: u8,
}

/// The timeouts of all slots of a thread.
pub(crate) struct Timeouts {
    after: [Nanos; KINDS],
    links: Vec<Link>,
    /// First and last slot of each list.
    ends: [(u32, u32); KINDS],
}

impl Timeouts {
    /// No timeouts yet, for `slots` slots; how long a wait of each kind may take.
    pub(crate) fn new(slots: usize, connect: Nanos, reply: Nanos, close: Nanos) -> Self {
        let idle = Link { before: NONE, after: NONE, deadline: 0, list: u8::MAX };
        Self { after: [connect, reply, close], links: vec![idle; slots], ends: [(NONE, NONE); KINDS] }
    }

    /// Begins a wait of this kind now, in place of any other wait of the slot.
    pub(crate) fn set(&mut self, slot: usize, wait: Wait, now: Nanos) {
        self.clear(slot);
        let list = wait as usize;
        let last = self.ends[list].1;
        self.links[slot] = Link {
            before: last,
            after: NONE,
            deadline: now.saturating_add(self.after[list]),
            list: list as u8,
        };
        match last {
            NONE => self.ends[list].0 = slot as u32,
            last => self.links[last as usize].after = slot as u32,
        }
        self.ends[list].1 = slot as u32;
    }

    /// Ends the slot's wait, if it has one.
    pub(crate) fn clear(&mut self, slot: usize) {
        let Link { before, after, list, .. } = self.links[slot];
        if list == u8::MAX {
            return;
        }
        self.links[slot].list = u8::MAX;
        match before {
            NONE => self.ends[list as usize].0 = after,
            before => self.links[before as usize].after = after,
        }
        match after {
            NONE => self.ends[list as usize].1 = before,
            after => self.links[after as usize].before = before,
        }
    }

    /// The earliest deadline of all.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.ends.iter().filter(|ends| ends.0 != NONE).map(|ends| self.links[ends.0 as usize].deadline).min()
    }

    /// Takes one slot whose wait is over, with what it waited for.
    pub(crate) fn expired(&mut self, now: Nanos) -> Option<(usize, Wait)> {
        for wait in [Wait::Connect, Wait::Reply, Wait::Close] {
            let first = self.ends[wait as usize].0;
            if first != NONE && self.links[first as usize].deadline <= now {
                self.clear(first as usize);
                return Some((first as usize, wait));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_expire_in_order_and_can_be_taken_back() {
        let mut timeouts = Timeouts::new(4, 10, 100, 1000);
        assert_eq!(timeouts.next(), None);
        timeouts.set(0, Wait::Reply, 0);
        timeouts.set(1, Wait::Reply, 1);
        timeouts.set(2, Wait::Reply, 2);
        timeouts.set(3, Wait::Connect, 5);
        assert_eq!(timeouts.next(), Some(15));
        timeouts.set(0, Wait::Reply, 3);
        timeouts.clear(2);
        timeouts.clear(2);
        assert_eq!(timeouts.expired(14), None);
        assert_eq!(timeouts.expired(15), Some((3, Wait::Connect)));
        assert_eq!(timeouts.expired(100), None);
        assert_eq!(timeouts.expired(200), Some((1, Wait::Reply)));
        assert_eq!(timeouts.expired(200), Some((0, Wait::Reply)));
        assert_eq!(timeouts.expired(2000), None);
        timeouts.set(1, Wait::Close, 0);
        assert_eq!(timeouts.next(), Some(1000));
    }
}
