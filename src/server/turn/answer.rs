//! How a worker treats datagrams: it receives a batch, answers each datagram or puts it into the queue, and answers
//! those from the queue. While no worker is free, the timekeeper receives datagrams and puts them into the queue; it
//! never answers one.

use super::opening::is_too_late;
use super::station::Station;
use crate::admit::sharing::Sharing;
use crate::clock::Nanos;
use crate::limits::{DryRun, Limits};
use crate::metrics::stats::Ledger;
use crate::reason::{DatagramDrop, TurnOutcome, WouldDrop};
use crate::server::counts::KEEPER_ROW;
use crate::server::datagram::batch::Batch;
use crate::server::datagram::socket::DatagramSocket;
use crate::server::queue::cost::SLOW_TURN;
use crate::server::shared::Shared;
use crate::service::{Peer, Reply};
use crate::sys::{DATAGRAMS_AT_ONCE, Given, Taken};
use crate::transport::listen::canonical;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

/// Replies are not held back for the rest of their batch for longer than this.
const HOLD_BACK: Nanos = 200_000;

/// Batches that the timekeeper takes at each tick while all workers are in turns: more than a flood
/// brings in a millisecond.
const KEEPER_BATCHES: usize = 16;

/// A free worker takes datagrams within microseconds. If they have waited for this time, no worker is free. It is short,
/// so that a flood does not fill the kernel's buffer meanwhile.
const OVERDUE: Nanos = 2_000_000;

/// No reply.
const NONE: usize = usize::MAX;

/// A socket has datagrams: takes a batch, and answers or posts it.
pub(crate) fn receive(station: &mut Station<'_>, number: usize) {
    let shared = station.shared;
    let socket = &shared.datagrams.sockets[number];
    // Before receiving: a thread that finds the socket ready from now on puts it into the line again.
    socket.unschedule();
    socket.begin();
    let mut batch = station.batch.take().unwrap_or_else(|| Batch::new(&station.limits.server));
    let slow = socket.cost.get() > SLOW_TURN;
    // Of what is slow no more than there is room for: the rest is better off in the kernel, where the worker that is
    // free first takes it. One at least, for this worker itself. But where the freshest come first, all: the kernel gives
    // the oldest first, and drops those that come.
    let room = || shared.line.datagram_room(shared.free_workers()).clamp(1, DATAGRAMS_AT_ONCE);
    let all = shared.displaces_oldest(station.limits.server.overload);
    let most = if slow && !all { room() } else { DATAGRAMS_AT_ONCE };
    let left = socket.batches_left();
    let taken = socket.receive(&mut batch, most, station.row().of(socket.column));
    socket.count_last(left, taken == most);
    let (tried, ledger) = (station.limits.server.dry_run, station.row().of(socket.column));
    let kept = sift(shared, tried, &mut batch, taken, ledger, station.now);
    if slow {
        post_batch(station, number, &mut batch, 0..kept);
    }
    if taken == most {
        // There may be more, for which no event will come.
        socket.schedule(&shared.line, number, station.now);
    }
    if slow {
        station.share_work(socket.cost.get());
    } else {
        answer_batch(station, number, &mut batch, kept);
    }
    station.batch = Some(batch);
    socket.end();
}

/// Answers a batch; after a second slow answer (the first may be a worker that was preempted) others get the rest.
fn answer_batch(station: &mut Station<'_>, number: usize, batch: &mut Batch, taken: usize) {
    let shared = station.shared;
    let socket = &shared.datagrams.sockets[number];
    let ledger = station.row().of(socket.column);
    if taken == 0 {
        return;
    }
    station.begin(socket.cost.get());
    let mut lens = [NONE; DATAGRAMS_AT_ONCE];
    let (mut unsent, mut since, mut slow) = (0, station.now, 0);
    for index in 0..taken {
        let request = &batch.requests[index * batch.request_size..][..batch.taken[index].len];
        let reply = &mut batch.replies[index * batch.reply_size..][..batch.reply_size];
        let began = station.now;
        lens[index] = answer(station, socket, ledger, request, batch.taken[index].peer, reply);
        if station.now - since > HOLD_BACK {
            send(socket, ledger, batch, &lens, unsent..index + 1);
            (unsent, since) = (index + 1, station.now);
        }
        slow += usize::from(station.now - began > SLOW_TURN);
        if slow > 1 && index + 1 < taken {
            send(socket, ledger, batch, &lens, unsent..index + 1);
            unsent = taken;
            post_batch(station, number, batch, index + 1..taken);
            break;
        }
    }
    send(socket, ledger, batch, &lens, unsent..taken);
    station.finish();
}

/// Puts part of a batch into the line; what has no place there is answered here.
fn post_batch(station: &mut Station<'_>, number: usize, batch: &mut Batch, part: Range<usize>) {
    let shared = station.shared;
    let socket = &shared.datagrams.sockets[number];
    let ledger = station.row().of(socket.column);
    for index in part {
        let taken = batch.taken[index];
        let request = &batch.requests[index * batch.request_size..][..taken.len];
        let intake = shared.intake();
        let posted = || intake.post(number, &taken, request, station.now);
        if posted() {
            continue;
        }
        let displaces = shared.displaces_oldest(station.limits.server.overload);
        if displaces && intake.drop_oldest(station.row(), station.now) && posted() {
            continue;
        }
        let busy = station.meter().is_busy();
        if !busy {
            station.meter().begin(station.now);
        }
        station.share_work(socket.cost.get());
        let room = &mut batch.replies[..batch.reply_size];
        let len = answer(station, socket, ledger, request, taken.peer, room);
        if len != NONE {
            let reply = Given { data: &batch.replies[..len], to: taken.peer, from: taken.local };
            socket.send(&[reply], ledger);
        }
        if !busy {
            station.finish();
        }
    }
}

/// Calls the service for one datagram; the length of its reply, or [`NONE`].
fn answer(
    station: &mut Station<'_>,
    socket: &DatagramSocket,
    ledger: &Ledger,
    request: &[u8],
    address: SocketAddr,
    room: &mut [u8],
) -> usize {
    let (counts, service) = (&station.shared.counts, &socket.service);
    let peer = Peer::new(canonical(address).into()).at(&socket.url);
    let (began, probe) = (station.now, socket.cost.probe());
    let called = counts.contain(|| {
        if !service.verify(&peer) {
            return Ok(None);
        }
        let most = service.reply_max(request.len()).min(room.len());
        let mut reply = Reply::new(peer.clone(), &mut room[..most]);
        service.datagram(request, &mut reply).map(|()| Some(reply.finish()))
    });
    station.read_clock();
    let took = station.now.saturating_sub(began);
    // A worker that was preempted looks slow. One such answer must not turn a cheap service into one whose datagrams are
    // handed over one by one; six in a row do.
    match probe {
        Some(probe) => socket.cost.note_probed(probe.end(took)),
        None => socket.cost.note(took.min(2 * SLOW_TURN)),
    }
    let error = match called {
        Some(Ok(Some(len))) => {
            ledger.turn(TurnOutcome::Ok, took);
            return len.unwrap_or(NONE);
        }
        Some(Ok(None)) => {
            ledger.datagrams_dropped(DatagramDrop::RefusedSource, 1);
            return NONE;
        }
        Some(Err(error)) => error,
        None => io::Error::other("the service panicked"),
    };
    ledger.turn(TurnOutcome::Error, took);
    counts.contain(|| service.datagram_failed(&peer, &error));
    // Its drop may be the service's code too.
    counts.contain(|| drop(error));
    NONE
}

/// Answers a datagram that waited in the line.
pub(crate) fn answer_waiting(station: &mut Station<'_>, slot: u32, since: Nanos) {
    let shared = station.shared;
    let waited = station.now.saturating_sub(since);
    let letter = shared.datagrams.slots().lock(slot);
    let socket = &shared.datagrams.sockets[letter.socket];
    let ledger = station.row().of(socket.column);
    if is_too_late(&station.limits.server, ledger, waited) {
        drop(letter);
        return shared.intake().drop_waiting(slot, station.row(), DatagramDrop::QueueTimeout);
    }
    shared.line.datagram_left();
    ledger.waited(waited);
    let mut batch = station.batch.take().unwrap_or_else(|| Batch::new(&station.limits.server));
    station.begin_turn(&socket.cost);
    let Taken { peer, local, .. } = letter.taken;
    let room = &mut batch.replies[..batch.reply_size];
    let began = station.now;
    let len = answer(station, socket, ledger, letter.request(), peer, room);
    let source = || Sharing::source(shared.sharing.heap(socket.column, peer.ip()));
    shared.order.note_cost(source, station.now.saturating_sub(began));
    if len != NONE {
        socket.send(&[Given { data: &batch.replies[..len], to: peer, from: local }], ledger);
    }
    station.batch = Some(batch);
    drop(letter);
    shared.datagrams.slots().give_back(slot);
    socket.end();
    station.finish();
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

/// Keeps of a batch the datagrams that are to be answered; the others are counted. How many it keeps.
fn sift(
    shared: &Shared,
    tried: DryRun,
    batch: &mut Batch,
    taken: usize,
    ledger: &Ledger,
    now: Nanos,
) -> usize {
    let refuses = || ledger.refuses(tried, WouldDrop::SourceRate);
    let mut rates = shared.datagrams.rates.lock();
    let mut kept = 0;
    for index in 0..taken {
        let Taken { peer, truncated, .. } = batch.taken[index];
        let why = if truncated {
            DatagramDrop::Oversize
        } else if shared.datagrams.refuses(peer) {
            DatagramDrop::RefusedSource
        } else if let Some(Err(why)) =
            rates.as_mut().map(|rates| rates.take(peer, batch.request(index), now, refuses))
        {
            shared.refusals.sources.refused(peer.ip(), shared.sharing.prefix());
            why
        } else {
            batch.keep(index, kept);
            kept += 1;
            continue;
        };
        ledger.datagrams_dropped(why, 1);
    }
    kept
}

/// For the timekeeper: while every worker is in a turn, takes datagrams that none came to take for [`OVERDUE`], so that the
/// queue's bound is what drops them.
pub(crate) fn receive_for_busy_workers(shared: &Shared, limits: &Limits, batch: &mut Option<Box<Batch>>) {
    let sockets = &shared.datagrams.sockets;
    let then = shared.clock.now().saturating_sub(OVERDUE);
    let overdue = |socket: &DatagramSocket| socket.is_scheduled_since(then);
    if !sockets.iter().any(overdue) || shared.free_workers() > 0 {
        return;
    }
    let batch = batch.get_or_insert_with(|| Batch::new(limits));
    let mut older = shared.displaces_oldest(limits.overload);
    for (number, socket) in sockets.iter().enumerate().filter(|(_, socket)| overdue(socket)) {
        let ledger = shared.counts.row(KEEPER_ROW).of(socket.column);
        for _ in 0..KEEPER_BATCHES {
            // Still scheduled: the worker that takes the entry will look once more.
            let taken = socket.receive(batch, DATAGRAMS_AT_ONCE, ledger);
            let now = shared.clock.now();
            for kept in 0..sift(shared, limits.dry_run, batch, taken, ledger, now) {
                let (taken, at) = (&batch.taken[kept], kept * batch.request_size);
                let request = &batch.requests[at..][..taken.len];
                shared.intake().post_or_drop(number, taken, request, now, &mut older);
            }
            if taken < DATAGRAMS_AT_ONCE {
                break;
            }
        }
    }
    shared.crew.work_queued();
}
