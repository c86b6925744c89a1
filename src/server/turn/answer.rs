//! A worker and datagrams: receiving a batch, answering it or posting it, answering what was posted.
//! While no worker is free the parker receives and posts; it never answers.

use crate::clock::Nanos;
use crate::limits::Overload;
use crate::metrics::stats::Ledger;
use crate::reason::{DatagramDrop, TurnOutcome};
use crate::server::core::{Core, PARKER_ROW, WORKER_ROWS};
use crate::server::datagram::batch::Batch;
use crate::server::datagram::socket::DatagramSocket;
use crate::server::queue::cost::SLOW_TURN;
use crate::server::queue::line::Entry;
use crate::server::turn::worker::Worker;
use crate::service::{Peer, Reply};
use crate::sys::{DATAGRAMS_AT_ONCE, Given, Taken};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;

/// Replies are not held back for the rest of their batch for longer than this.
const HOLD_BACK: Nanos = 200_000;

/// Batches that the parker takes at each tick while all workers are in turns: more than a flood
/// brings in a millisecond.
const PARKER_BATCHES: usize = 16;

/// A worker that is free takes datagrams within microseconds; after so long none is. Short enough
/// that a flood does not fill the kernel's buffer meanwhile.
const OVERDUE: Nanos = 2_000_000;

/// No reply.
const NONE: usize = usize::MAX;

impl Worker {
    /// A socket has datagrams: takes a batch, and answers or posts it.
    pub(crate) fn receive(&mut self, core: &Core, entry: &Entry) {
        let number = entry.slot as usize;
        let socket = &core.datagrams.sockets[number];
        let ledger = core.ledger(WORKER_ROWS + self.me, socket.column);
        // Before receiving: who finds the socket ready from now on puts it into the queue again.
        socket.unschedule(core);
        socket.begin();
        let mut batch = self.batch.take().unwrap_or_else(|| Batch::new(&core.limits));
        let slow = socket.cost.get() > SLOW_TURN;
        // Of what is slow no more than there is room for: the rest is better off in the kernel, where
        // whoever is free first takes it. One at least, for this worker itself.
        let most = if slow { core.queue_room().clamp(1, DATAGRAMS_AT_ONCE) } else { DATAGRAMS_AT_ONCE };
        let left = socket.batches_left();
        let taken = socket.receive(&mut batch, most, ledger);
        socket.count_last(left, taken == most);
        if slow {
            self.post_batch(core, number, &mut batch, 0..taken);
        }
        if taken == most {
            // There may be more, for which no event will come.
            socket.schedule(core, number, self.now);
        }
        if slow {
            self.share_work(core, socket.cost.get());
        } else {
            self.answer_batch(core, number, &mut batch, taken);
        }
        self.batch = Some(batch);
        socket.end();
    }

    /// Answers a batch; after a second slow answer (the first may be a worker that was preempted)
    /// others get the rest.
    fn answer_batch(&mut self, core: &Core, number: usize, batch: &mut Batch, taken: usize) {
        let socket = &core.datagrams.sockets[number];
        let ledger = core.ledger(WORKER_ROWS + self.me, socket.column);
        if taken == 0 {
            return;
        }
        self.clock().begin(self.now);
        self.share_work(core, socket.cost.get());
        let mut lens = [NONE; DATAGRAMS_AT_ONCE];
        let (mut unsent, mut since, mut slow) = (0, self.now, 0);
        for index in 0..taken {
            if !acceptable(core, &batch.taken[index], ledger) {
                continue;
            }
            let request = &batch.requests[index * batch.request_size..][..batch.taken[index].len];
            let reply = &mut batch.replies[index * batch.reply_size..][..batch.reply_size];
            let began = self.now;
            lens[index] = self.answer(core, socket, ledger, request, batch.taken[index].peer, reply);
            if self.now - since > HOLD_BACK {
                send(socket, ledger, batch, &lens, unsent..index + 1);
                (unsent, since) = (index + 1, self.now);
            }
            slow += usize::from(self.now - began > SLOW_TURN);
            if slow > 1 && index + 1 < taken {
                send(socket, ledger, batch, &lens, unsent..index + 1);
                unsent = taken;
                self.post_batch(core, number, batch, index + 1..taken);
                break;
            }
        }
        send(socket, ledger, batch, &lens, unsent..taken);
        self.finish_clock();
    }

    /// Puts part of a batch into the queue; what has no place there is answered here.
    fn post_batch(&mut self, core: &Core, number: usize, batch: &mut Batch, part: Range<usize>) {
        let socket = &core.datagrams.sockets[number];
        let ledger = core.ledger(WORKER_ROWS + self.me, socket.column);
        for index in part {
            let taken = batch.taken[index];
            if !acceptable(core, &taken, ledger) {
                continue;
            }
            let request = &batch.requests[index * batch.request_size..][..taken.len];
            if core.post(number, &taken, request, self.now) {
                continue;
            }
            let busy = self.clock().is_busy();
            if !busy {
                self.clock().begin(self.now);
            }
            self.share_work(core, socket.cost.get());
            let room = &mut batch.replies[..batch.reply_size];
            let len = self.answer(core, socket, ledger, request, taken.peer, room);
            if len != NONE {
                let reply = Given { data: &batch.replies[..len], to: taken.peer, from: taken.local };
                socket.send(&[reply], ledger);
            }
            if !busy {
                self.finish_clock();
            }
        }
    }

    /// Calls the service for one datagram; the length of its reply, or [`NONE`].
    fn answer(
        &mut self,
        core: &Core,
        socket: &DatagramSocket,
        ledger: &Ledger,
        request: &[u8],
        address: SocketAddr,
        room: &mut [u8],
    ) -> usize {
        let service = &socket.service;
        let peer = Peer { address };
        let began = self.now;
        let called = catch_unwind(AssertUnwindSafe(|| {
            if !service.verify(&peer) {
                return Ok(None);
            }
            let most = service.reply_max(request.len()).min(room.len());
            let mut reply = Reply::new(peer, &mut room[..most]);
            service.datagram(request, &mut reply).map(|()| Some(reply.finish()))
        }));
        self.now = core.clock.now();
        let took = self.now.saturating_sub(began);
        // A worker that was preempted looks slow. One such answer must not turn a cheap service into
        // one whose datagrams are handed over one by one; six in a row do.
        socket.cost.note(took.min(2 * SLOW_TURN));
        let error = match called {
            Ok(Ok(Some(len))) => {
                ledger.turn(TurnOutcome::Ok, took);
                return len.unwrap_or(NONE);
            }
            Ok(Ok(None)) => {
                ledger.datagrams_dropped(DatagramDrop::RefusedSource, 1);
                return NONE;
            }
            Ok(Err(error)) => error,
            Err(_) => {
                core.panics.fetch_add(1, Relaxed);
                io::Error::other("the service panicked")
            }
        };
        ledger.turn(TurnOutcome::Error, took);
        let _ = catch_unwind(AssertUnwindSafe(|| service.datagram_failed(&peer, &error)));
        NONE
    }

    /// Answers a datagram that waited in the queue.
    pub(crate) fn answer_waiting(&mut self, core: &Core, entry: &Entry) {
        let row = WORKER_ROWS + self.me;
        let waited = self.now.saturating_sub(entry.since);
        if waited > core.patience(self.now) {
            return core.drop_waiting(entry, row, DatagramDrop::QueueTimeout);
        }
        let place = core.datagrams.waiting.lock(entry.slot);
        let socket = &core.datagrams.sockets[place.socket];
        let ledger = core.ledger(row, socket.column);
        ledger.waited(waited);
        let mut batch = self.batch.take().unwrap_or_else(|| Batch::new(&core.limits));
        self.clock().begin(self.now);
        self.share_work(core, socket.cost.get());
        let Taken { peer, local, .. } = place.taken;
        let room = &mut batch.replies[..batch.reply_size];
        let len = self.answer(core, socket, ledger, place.request(), peer, room);
        if len != NONE {
            socket.send(&[Given { data: &batch.replies[..len], to: peer, from: local }], ledger);
        }
        self.batch = Some(batch);
        drop(place);
        core.datagrams.waiting.give_back(entry.slot);
        socket.end();
        self.finish_clock();
    }
}

/// Sends the replies of part of a batch with as few calls as possible.
fn send(socket: &DatagramSocket, ledger: &Ledger, batch: &Batch, lens: &[usize], part: Range<usize>) {
    let nobody = Given { data: &[], to: Taken::NONE.peer, from: None };
    let mut replies = [nobody; DATAGRAMS_AT_ONCE];
    let mut count = 0;
    for index in part {
        if lens[index] != NONE {
            let data = &batch.replies[index * batch.reply_size..][..lens[index]];
            let Taken { peer, local, .. } = batch.taken[index];
            replies[count] = Given { data, to: peer, from: local };
            count += 1;
        }
    }
    socket.send(&replies[..count], ledger);
}

/// Whether a datagram is one to answer; one that is not is counted.
fn acceptable(core: &Core, taken: &Taken, ledger: &Ledger) -> bool {
    let why = if taken.truncated {
        DatagramDrop::Oversize
    } else if core.datagrams.refuses(taken.peer) {
        DatagramDrop::RefusedSource
    } else {
        return true;
    };
    ledger.datagrams_dropped(why, 1);
    false
}

impl Core {
    /// For the parker: while every worker is in a turn, takes datagrams that none came to take for
    /// [`OVERDUE`], so that the queue's bound is what drops them.
    pub(crate) fn receive_for_busy_workers(&self, batch: &mut Option<Box<Batch>>) {
        let then = self.clock.now().saturating_sub(OVERDUE);
        let overdue = |socket: &DatagramSocket| socket.is_scheduled_since(then);
        if !self.datagrams.sockets.iter().any(overdue) || self.free_workers() > 0 {
            return;
        }
        let batch = batch.get_or_insert_with(|| Batch::new(&self.limits));
        let mut older = self.limits.overload == Overload::DropOldest;
        for (number, socket) in self.datagrams.sockets.iter().enumerate().filter(|(_, s)| overdue(s)) {
            let ledger = self.ledger(PARKER_ROW, socket.column);
            for _ in 0..PARKER_BATCHES {
                // Still scheduled: the worker that takes the entry will look once more.
                let taken = socket.receive(batch, DATAGRAMS_AT_ONCE, ledger);
                let now = self.clock.now();
                for index in 0..taken {
                    let taken = &batch.taken[index];
                    if acceptable(self, taken, ledger) {
                        let request = &batch.requests[index * batch.request_size..][..taken.len];
                        self.post_or_drop(number, taken, request, now, &mut older);
                    }
                }
                if taken < DATAGRAMS_AT_ONCE {
                    break;
                }
            }
        }
        self.work_queued();
    }
}
