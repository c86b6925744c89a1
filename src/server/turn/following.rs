//! A turn that follows another one at once, on the same worker. When a turn gives a place at a backend back, the session
//! that gets this place has the next turn of this worker. Its entry does not go through the line, and what both turns use
//! is still in the processor's caches.
//!
//! Only a turn that is about to end may wake a session in this way, because no other worker sees the entry before that
//! turn has ended. A turn that has followed another is not followed by a third, so entries in the line wait for one turn
//! more at most.

use crate::server::queue::line::Entry;
use crate::server::shared::Shared;
use std::cell::Cell;

/// Whether a turn may follow the one that the thread is in.
#[derive(Clone, Copy, PartialEq)]
enum FollowStage {
    Closed,
    Open,
    Taken,
}

/// What a thread knows of it. Each turn changes the stage, and few turns the rest.
struct Following {
    stage: Cell<FollowStage>,
    entry: Cell<Option<Entry>>,
    /// The server whose worker the thread is, and which one. A gate may be in two servers, and wakes sessions of both.
    server: Cell<usize>,
    me: Cell<usize>,
}

thread_local! {
    static FOLLOWING: Following = const {
        let (server, me) = (Cell::new(0), Cell::new(0));
        Following { stage: Cell::new(FollowStage::Closed), entry: Cell::new(None), server, me }
    };
}

fn name(shared: &Shared) -> usize {
    std::ptr::from_ref(shared).addr()
}

/// The calling thread is worker `me` of this server.
pub(crate) fn register(shared: &Shared, me: usize) {
    FOLLOWING.with(|following| {
        following.server.set(name(shared));
        following.me.set(me);
    });
}

/// A turn begins that another may follow.
#[inline]
pub(crate) fn open() {
    FOLLOWING.with(|following| following.stage.set(FollowStage::Open));
}

/// The calling worker, if a turn may follow the one that it is in.
pub(crate) fn worker(shared: &Shared) -> Option<usize> {
    FOLLOWING.with(|following| {
        let is_open = following.stage.get() == FollowStage::Open && following.server.get() == name(shared);
        is_open.then(|| following.me.get())
    })
}

/// Which worker of this server the calling thread is, if it is one.
pub(crate) fn me(shared: &Shared) -> Option<usize> {
    FOLLOWING.with(|following| (following.server.get() == name(shared)).then(|| following.me.get()))
}

/// The connection of this entry has its turn next. The caller has asked for the [`worker`].
pub(crate) fn put(entry: Entry) {
    FOLLOWING.with(|following| {
        following.stage.set(FollowStage::Taken);
        following.entry.set(Some(entry));
    });
}

/// The turn has ended: what follows it.
#[inline]
pub(crate) fn take() -> Option<Entry> {
    FOLLOWING.with(|following| match following.stage.replace(FollowStage::Closed) {
        FollowStage::Taken => following.entry.take(),
        FollowStage::Closed | FollowStage::Open => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::server::BoundServer;
    use crate::server::extras::Extras;
    use crate::server::listeners::Listeners;
    use crate::server::queue::line::Job;

    fn server() -> BoundServer {
        let limits = Limits::default().workers(1).max_connections(8).queue(8);
        BoundServer::new(
            limits,
            Listeners::new(Vec::new(), 0),
            Listeners::new(Vec::new(), 0),
            Extras::default(),
        )
        .unwrap()
    }

    #[test]
    fn one_turn_follows_a_turn_of_the_same_server_and_no_other() {
        let (server, other) = (server(), server());
        let entry = Entry { since: 3, job: Job::Tick };
        assert_eq!((worker(server.shared()), take()), (None, None), "no turn has begun");
        register(server.shared(), 5);
        assert_eq!(worker(server.shared()), None, "nor has it now");
        open();
        assert_eq!((worker(server.shared()), worker(other.shared())), (Some(5), None));
        assert_eq!(std::thread::scope(|scope| scope.spawn(|| worker(server.shared())).join().unwrap()), None);
        put(entry);
        assert_eq!(worker(server.shared()), None, "one is enough");
        assert_eq!((take(), take()), (Some(entry), None));
        assert_eq!(worker(server.shared()), None, "nothing follows a turn that follows");
        open();
        assert_eq!((take(), worker(server.shared())), (None, None), "the turn is over");
    }
}
