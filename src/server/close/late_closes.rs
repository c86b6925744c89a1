//! Late closes: the sockets of clients that have left under overload. Their connections have ended and are counted. Only the
//! socket is closed later, when that takes no time from the clients that are still there.
//!
//! When a crowd of standing clients gives up, thousands leave in the same second. For each the kernel sends a reset, takes it
//! in at the other end, and takes the socket apart. Of all that a leaver costs this is the most: on one machine 5 of 7 us. So the
//! timekeeper closes these sockets one by one over the next seconds. It closes them soon when the overload is over, and all at
//! once when the server drains.
//!
//! A late close keeps a descriptor, and nothing else. The descriptors are calculated for the connections that may be
//! open at once, so connections and late closes together are no more than those. A newcomer that would exceed that closes
//! a socket first. So nobody is refused for a late close.

use crate::clock::Nanos;
use crate::transport::socket::ClientSocket;
use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A socket is closed within this time. A client that had closed its sending half and waits all the same learns of its end then.
/// 7,000 leavers cost 1 % of a processor for this time.
const WITHIN: Nanos = 4_000_000_000;

/// As many are closed in a round of the timekeeper when the overload is over, and when a process has no descriptor left.
pub(crate) const CLOSED_AT_ONCE: usize = 64;

/// The sockets that are to be closed.
#[derive(Debug)]
pub(crate) struct LateCloses {
    waiting: Mutex<Leavers>,
    len: AtomicUsize,
    /// Connections and late closes together are at most as many.
    most: usize,
}

#[derive(Debug, Default)]
struct Leavers {
    sockets: VecDeque<ClientSocket>,
    pace: ClosePace,
}

/// How many are closed, and when. The clock is handed in.
#[derive(Debug, Default)]
struct ClosePace {
    /// The most that have waited since there were none.
    peak: usize,
    /// When this was last asked; 0 if nothing waited then.
    asked: Nanos,
    /// What is due of the next one.
    part: f64,
}

impl ClosePace {
    /// How many of those that wait are due. `peak` of them are within [`WITHIN`], so that none waits for longer.
    fn due(&mut self, waiting: usize, now: Nanos) -> usize {
        if waiting == 0 {
            *self = Self::default();
            return 0;
        }
        self.peak = self.peak.max(waiting);
        if self.asked > 0 {
            self.part += self.peak as f64 * now.saturating_sub(self.asked) as f64 / WITHIN as f64;
        }
        self.asked = now;
        let due = self.part as usize;
        self.part -= due as f64;
        due.min(waiting)
    }
}

impl LateCloses {
    /// Bytes for one that waits; the room for them grows by doubling.
    pub(crate) const BYTES: usize = 2 * size_of::<ClientSocket>();

    /// For a server that may have `most` connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { waiting: Mutex::default(), len: AtomicUsize::new(0), most }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Takes a socket in, while `open` connections are open; with too many of them it is closed at once.
    pub(crate) fn add(&self, socket: ClientSocket, open: usize) {
        let mut waiting = self.waiting();
        if open + waiting.sockets.len() < self.most {
            waiting.sockets.push_back(socket);
            self.len.store(waiting.sockets.len(), Relaxed);
        }
    }

    /// A connection has opened, and `open` are open now: one socket is closed for it where there would be too many. Without
    /// overload nothing waits, and this is one load.
    pub(crate) fn make_room(&self, open: usize) {
        let len = self.len();
        if len > 0 && open + len > self.most {
            self.close(1);
        }
    }

    /// Closes those that are due by now.
    pub(crate) fn close_due(&self, now: Nanos) {
        if self.len() > 0 {
            let due = {
                let mut waiting = self.waiting();
                let len = waiting.sockets.len();
                waiting.pace.due(len, now)
            };
            self.close(due);
        }
    }

    /// Closes the `most` that have waited longest; how many it closed.
    pub(crate) fn close(&self, most: usize) -> usize {
        // Each without the lock: another thread may wait for it.
        (0..most).map_while(|_| self.take()).map(drop).count()
    }

    fn take(&self) -> Option<ClientSocket> {
        if self.len() == 0 {
            return None;
        }
        let mut waiting = self.waiting();
        let socket = waiting.sockets.pop_front();
        if waiting.sockets.is_empty() {
            // As many as a whole server has may have waited.
            *waiting = Leavers::default();
        }
        self.len.store(waiting.sockets.len(), Relaxed);
        socket
    }

    fn waiting(&self) -> MutexGuard<'_, Leavers> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    const MILLI: Nanos = 1_000_000;

    fn pair() -> (ClientSocket, UnixStream) {
        let (ours, client) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        (OwnedFd::from(ours).into(), client)
    }

    /// How many of these clients see the end.
    fn ended(clients: &[UnixStream]) -> usize {
        let open = |client: &UnixStream| matches!((&mut &*client).read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        clients.iter().filter(|client| !open(client)).count()
    }

    /// That many leavers, and their other ends.
    fn leavers(late: &LateCloses, count: usize) -> Vec<UnixStream> {
        let add = |_| {
            let (socket, client) = pair();
            late.add(socket, 0);
            client
        };
        (0..count).map(add).collect()
    }

    #[test]
    fn a_crowd_is_closed_evenly_and_nobody_waits_longer_than_is_said() {
        for (crowd, round) in [(7_000, MILLI), (7_000, 7 * MILLI), (40, MILLI), (1, MILLI)] {
            let (mut pace, mut waiting, mut passed) = (ClosePace::default(), crowd, 0);
            let mut most = 0;
            while waiting > 0 {
                passed += round;
                let due = pace.due(waiting, MILLI + passed);
                (most, waiting) = (most.max(due), waiting - due);
            }
            let even = (crowd as u64 * round).div_ceil(WITHIN) as usize;
            assert!(most <= even, "{crowd}: {most} in a round of {round}, evenly {even}");
            assert!((WITHIN - round..=WITHIN + 2 * round).contains(&passed), "{crowd}: {passed}");
        }
    }

    #[test]
    fn who_comes_later_waits_no_longer_either() {
        let mut pace = ClosePace::default();
        // Those that wait, by when they left: ten a millisecond for a second, then one a millisecond.
        let mut waiting = VecDeque::new();
        let mut longest = 0;
        for milli in 1..20_000 {
            let now = milli * MILLI;
            let left = if milli < 1_000 { 10 } else { 1 };
            waiting.extend(std::iter::repeat_n(now, left));
            for _ in 0..pace.due(waiting.len(), now) {
                longest = longest.max(now - waiting.pop_front().unwrap());
            }
        }
        assert!((WITHIN / 2..=WITHIN + 2 * MILLI).contains(&longest), "{longest}");
    }

    #[test]
    fn a_pause_of_the_timekeeper_is_made_up_for_and_no_pause_without_waiters_is() {
        let mut pace = ClosePace::default();
        assert_eq!(
            (pace.due(0, MILLI), pace.due(4_000, 10_000 * MILLI)),
            (0, 0),
            "the time begins with the first"
        );
        assert_eq!(pace.due(4_000, 10_001 * MILLI), 1);
        assert_eq!(pace.due(3_999, 10_101 * MILLI), 100);
        assert_eq!(pace.due(0, 10_102 * MILLI), 0);
        assert_eq!(
            (pace.due(4, 90_000 * MILLI), pace.due(4, 90_999 * MILLI)),
            (0, 0),
            "a smaller crowd has its own pace"
        );
        assert_eq!(pace.due(4, 91_001 * MILLI), 1);
        assert_eq!(pace.due(3, 200_000 * MILLI), 3, "no more than there are");
    }

    #[test]
    fn the_sockets_are_closed_in_the_order_in_which_they_came_and_the_memory_is_given_back() {
        let late = LateCloses::new(100);
        let clients = leavers(&late, 50);
        assert_eq!((late.len(), ended(&clients)), (50, 0));
        late.close_due(MILLI);
        late.close_due(MILLI + WITHIN / 10);
        assert_eq!((late.len(), ended(&clients[..5]), ended(&clients[5..])), (45, 5, 0));
        let room = late.waiting().sockets.capacity();
        assert!(room * size_of::<ClientSocket>() <= 50 * LateCloses::BYTES, "{room}");
        assert_eq!((late.close(20), late.len(), ended(&clients)), (20, 25, 25));
        assert_eq!((late.close(usize::MAX), late.len(), ended(&clients)), (25, 0, 50));
        assert_eq!((late.close(1), late.waiting().sockets.capacity()), (0, 0));
        late.close_due(WITHIN);
    }

    #[test]
    fn connections_and_late_closes_are_no_more_than_may_be_open() {
        let late = LateCloses::new(10);
        let clients = leavers(&late, 4);
        let (socket, client) = pair();
        late.add(socket, 6);
        assert_eq!(
            (late.len(), ended(&[client])),
            (4, 1),
            "there would be too many, so it is closed at once"
        );
        late.make_room(6);
        assert_eq!((late.len(), ended(&clients)), (4, 0), "a newcomer has a descriptor");
        late.make_room(7);
        assert_eq!((late.len(), ended(&clients)), (3, 1), "it is given one");
        late.close(3);
        late.make_room(10);
        assert_eq!((late.len(), ended(&clients)), (0, 4));
    }
}
