//! One turn of a connection: it begins with replies that could not be sent before, and ends when the connection is
//! parked, queued again or closed.

use super::opening::LOOK_AFTER;
use super::parking::Next;
use super::station::Station;
use super::{greeting, handshake, opening, parking};
use crate::admit::sharing::Sharing;
use crate::clock::{Nanos, nanos};
use crate::reason::{CloseReason, DropReason, TurnOutcome, TurnShed, WouldDrop};
use crate::server::close::shedding::turn_away;
use crate::server::listener::Listener;
use crate::server::queue::connection::{Connection, LastInput, Waiting};
use crate::server::queue::line::Claim;
use crate::server::queue::owned::Owned;
use crate::server::queue::state::{ConnectionId, Marks};
use crate::server::shared::Shared;
use crate::service::{
    Context, Fault, Peer, Seat, Session, SocketEvent, SocketEvents, Stream, Turn, TurnPeer, Turned, WebTurn,
};
use crate::transport::socket::{has_left, unread};
use std::cell::RefCell;
use std::io;

/// What the service said, as the worker sees it.
enum Verdict {
    Next(Turn),
    Failed(CloseReason),
    /// The client is turned away.
    Refused(DropReason),
}

/// Gives one entry its turn.
pub(crate) fn serve(station: &mut Station<'_>, id: ConnectionId, claim: Claim, since: Nanos) {
    let shared = station.shared;
    if claim == Claim::Newcomer {
        shared.newcomer_left(id);
    }
    let Some((mut owned, marks)) = Owned::take(&shared.table, id, claim, station.row()) else { return };
    let waited = station.now.saturating_sub(since);
    owned.ledger.waited(waited);
    // The service's `verify` and `connect` are part of the first turn: they may be slow too.
    station.begin_turn(&shared.listeners[owned.listener()].cost);
    if claim == Claim::Newcomer {
        if let Some(reason) = opening::unwelcome(station, &owned, waited, marks.hangup()) {
            station.finish();
            return turn_away(shared, owned, reason);
        }
    } else if marks.hangup() && waited > LOOK_AFTER && is_gone(&owned) {
        station.finish();
        shared.order.refund(Sharing::source(owned.slot.heap()));
        owned.ledger.turn_shed(TurnShed::ClientGone);
        return shared.closer().close(owned, CloseReason::Reset);
    }
    if claim == Claim::Turn && station.limits.server.dry_run.has(WouldDrop::QueueTimeout) {
        // Where the limit is in force the timekeeper has given it up before.
        opening::is_too_late(&station.limits.listeners[owned.listener()], owned.ledger, waited);
    }
    owned.begin_turn();
    let (clock, now) = (shared.clock, station.now);
    turn(station, owned, marks, |session, stream| {
        stream.has_waited(waited);
        stream.has_begun(clock, now);
        session.turn(stream)
    });
}

/// Whether a client that has hung up is gone for certain: its connection failed. (One that has closed its half may still
/// listen.)
fn is_gone(owned: &Owned<'_>) -> bool {
    owned.connection().as_ref().is_some_and(|connection| has_left(&connection.socket, false))
}

/// A connection's request has waited too long: its session tells the client.
pub(crate) fn tell_overloaded(station: &mut Station<'_>, id: ConnectionId) {
    let shared = station.shared;
    let Some((mut owned, marks)) = Owned::take(&shared.table, id, Claim::Turn, station.row()) else { return };
    station.begin(0);
    owned.begin_turn();
    let wait = shared.wait_estimate();
    turn(station, owned, marks, |session, stream| session.overloaded(stream, wait));
}

/// What is asked of a session: its turn, or to tell its client of the overload.
type Ask<'f> = dyn Fn(&mut dyn Session, &mut Stream<'_>) -> io::Result<Turn> + 'f;

/// The slot is locked once for all of a turn, and free before the connection is anybody else's.
fn turn(
    station: &mut Station<'_>,
    owned: Owned<'_>,
    marks: Marks,
    ask: impl Fn(&mut dyn Session, &mut Stream<'_>) -> io::Result<Turn>,
) {
    let shared = station.shared;
    let mut turned = Turned::default();
    let was_waiting;
    let next = {
        let mut guard = owned.connection();
        let Some(connection) = guard.as_mut() else {
            debug_assert!(false, "a connection that is owned is there");
            return;
        };
        was_waiting = connection.waiting.get();
        match (connection.in_drain.is_known(), shared.ends(owned.listener())) {
            (false, true) => connection.in_drain = LastInput::of(unread(&connection.socket)),
            // Its listener was closed, and has opened again before it ended.
            (true, false) => connection.in_drain = LastInput::default(),
            _ => {}
        }
        let next = match before_service(station, &owned, connection) {
            Some(next) => next,
            None => converse(station, &owned, connection, marks, &mut turned, &ask),
        };
        match next {
            Next::Park(waiting) => {
                let from = (owned.id, owned.listener());
                parking::prepare(station, from, connection, waiting, &turned)
            }
            other => other,
        }
    };
    match next {
        Next::Park(waiting) => {
            // A call that was asked for before and has not come is in the wheel.
            if let Waiting::Call { at } = waiting
                && waiting != was_waiting
                && shared.wheel.arm(owned.id, at)
            {
                shared.crew.rouse_keeper();
            }
            // They may have changed during the turn: the timekeeper sees to connections that are parked by then.
            station.look_at_limits();
            let limits = &station.limits.listeners[owned.listener()];
            let deadline = parking::deadline(limits, waiting, station.now);
            if deadline <= station.now {
                // The timekeeper does not find a connection that is in the line or has a turn whenever it looks.
                if handshake::ends_late(shared, &owned) {
                    return shared.closer().abandon(owned);
                }
                return shared.closer().close(owned, parking::late(waiting));
            }
            parking::park_or_requeue(shared, owned, deadline, station.now);
        }
        Next::Again if !shared.life.is_stopping() => parking::requeue(shared, owned, station.now),
        // Once turns are to end, nobody comes back to one that has more to do.
        Next::Again | Next::Cut => {
            shared.counts.cut_in_turn();
            shared.closer().cut(owned);
        }
        Next::End(reason) => {
            station.finish();
            shared.closer().close(owned, reason);
        }
        Next::Shed(reason) => turn_away(shared, owned, reason),
    }
}

/// What comes before the service's turn: replies that are kept from earlier turns, a balancer's header, and a TLS
/// handshake. Nothing when the service has its turn, which is the usual case.
#[inline]
fn before_service(station: &mut Station<'_>, owned: &Owned<'_>, connection: &mut Connection) -> Option<Next> {
    if !connection.kept.is_empty()
        && let Some(next) = flush_kept(station, owned, connection)
    {
        return Some(next);
    }
    if connection.session.is_some() && station.shared.listeners[owned.listener()].tls.is_none() {
        return None;
    }
    greet(station, owned, connection)
}

/// A balancer's header, and a TLS handshake.
fn greet(station: &mut Station<'_>, owned: &Owned<'_>, connection: &mut Connection) -> Option<Next> {
    if let Some(next) = greeting::hear(station, owned, connection) {
        return Some(next);
    }
    handshake::go_on(station, owned, connection)
}

/// Sends what is kept from earlier turns; nothing when all has gone and the service has its turn.
fn flush_kept(station: &mut Station<'_>, owned: &Owned<'_>, connection: &mut Connection) -> Option<Next> {
    if connection.kept.resume().is_err() {
        // Another source needed the room.
        return Some(Next::End(CloseReason::OutputLimit));
    }
    match connection.kept.flush(&connection.socket) {
        Ok(0) => {}
        Ok(n) => {
            connection.waiting = Waiting::Flush { since: station.now }.into();
            owned.ledger.bytes(0, n as u64);
        }
        Err(_) => return Some(Next::End(CloseReason::Reset)),
    }
    match connection.ending {
        _ if !connection.kept.is_empty() => {
            station.finish();
            Some(Next::Park(connection.waiting.get()))
        }
        Some(reason) => Some(Next::End(reason)),
        None => None,
    }
}

/// Gives the service its turn, and says what follows from it.
fn converse(
    station: &mut Station<'_>,
    owned: &Owned<'_>,
    connection: &mut Connection,
    marks: Marks,
    turned: &mut Turned,
    ask: &Ask<'_>,
) -> Next {
    let was_waiting = connection.waiting.get();
    let overdue = std::mem::take(&mut connection.overdue);
    let verdict;
    (*turned, verdict) = run_service(station, owned, connection, marks, ask);
    connection.in_drain.read(turned.received);
    let kept = !connection.kept.is_empty();
    let turn = match verdict {
        // It waited for its client when the time for that was over.
        Verdict::Failed(CloseReason::Shutdown) => return Next::Cut,
        Verdict::Failed(reason) => return Next::End(reason),
        Verdict::Refused(reason) => return Next::Shed(reason),
        Verdict::Next(turn) => turn,
    };
    let closing = if turned.ended { CloseReason::Client } else { CloseReason::Server };
    let closes = matches!(turn, Turn::Close);
    if closes && !kept {
        return Next::End(closing);
    }
    connection.ending = closes.then_some(closing);
    let unread = !turned.drained && turned.received > 0 && !turned.ended;
    if !kept && (unread || matches!(turn, Turn::Again)) {
        if turned.sent > 0 {
            // A request was answered, so what is half read later is another one.
            connection.waiting = Waiting::Request.into();
        }
        return Next::Again;
    }
    Next::Park(match (kept, turn, was_waiting) {
        (true, ..) => Waiting::Flush { since: station.now },
        (_, Turn::ParkFor(time), Waiting::Call { at })
            if turned.earlier_call
                && (station.now..=station.now.saturating_add(nanos(time))).contains(&at) =>
        {
            Waiting::Call { at }
        }
        (_, Turn::ParkFor(time), _) => Waiting::Call { at: station.now.saturating_add(nanos(time)) },
        // An answer was sent, so what is half read now is another request.
        (_, Turn::Partial, Waiting::Rest { since }) if turned.sent == 0 => Waiting::Rest { since },
        (_, Turn::Partial, _) => Waiting::Rest { since: station.now },
        // It was idle for too long, and what it did in time was no request.
        _ if overdue && turned.received + turned.sent == 0 => return Next::End(CloseReason::IdleTimeout),
        _ => Waiting::Request,
    })
}

/// Calls the service, and counts what it did.
fn run_service(
    station: &mut Station<'_>,
    owned: &Owned<'_>,
    connection: &mut Connection,
    marks: Marks,
    ask: &Ask<'_>,
) -> (Turned, Verdict) {
    let shared = station.shared;
    let listener = &shared.listeners[owned.listener()];
    let probe = listener.cost.probe();
    // A half request is read to its end, whenever that comes.
    let is_half = matches!(connection.waiting.get(), Waiting::Rest { .. });
    let last_input = connection.in_drain.bytes().filter(|&most| most > 0 || !is_half);
    let Connection { socket, session, kept, address, .. } = connection;
    let mut side = shared.table.side(owned.id.slot);
    let mut side = side.as_deref_mut().and_then(|side| side.as_deref_mut());
    let peer = &TurnPeer::new(address, &listener.url, side.as_ref().and_then(|side| side.facts()));
    let seat = Seat { slot: owned.id.slot, generation: owned.id.generation.0 };
    let web = listener.web.as_ref().map(|counts| {
        WebTurn::new(counts, station.me, shared.clock, station.now)
            .logged(listener.access_log.as_ref(), &listener.url)
    });
    let context = Context {
        web: web.as_ref(),
        ..shared.context(listener, &station.limits.listeners[owned.listener()])
    };
    let mut taken_up = Ok(());
    let secured = side.as_mut().map(|side| {
        let (secured, taken) = side.turn(&mut station.tls_buffers, context.is_unix);
        taken_up = taken;
        RefCell::new(secured)
    });
    let mut stream = Stream::new(socket, peer, &mut station.buffers, kept, &context, seat, marks.hangup());
    stream.secure(secured.as_ref());
    if let Some(most) = last_input {
        stream.read_at_most(most);
    }
    let (other, other_hangup) = marks.other();
    stream.tell(SocketEvents {
        client: SocketEvent::of(marks.client(), marks.hangup()),
        other: SocketEvent::of(other, other_hangup),
    });
    let result = match session {
        // What was left of the client's input was given up for another's.
        _ if taken_up.is_err() => Some(taken_up.map(|()| Turn::Close)),
        Some(session) => shared.counts.contain(|| ask(&mut **session, &mut stream)),
        None => None,
    };
    let (turned, mut flushed) = stream.finish();
    if let Some(side) = side {
        flushed = flushed.and(side.put_down(&mut station.tls_buffers, peer.get(), seat, &context));
    }
    let began = station.now;
    station.finish();
    let took = station.now.saturating_sub(began);
    if let Some(web) = &web {
        web.end(station.now);
    }
    match probe {
        Some(probe) => listener.cost.note_probed(probe.end(took)),
        None => listener.cost.note(took),
    }
    shared.order.note_cost(|| Sharing::source(owned.slot.heap()), took);
    owned.ledger.bytes(turned.received, turned.sent);
    // What a failing service had said before it failed was sent, if it could be.
    let result = result.map(|result| result.and_then(|turn| flushed.map(|()| turn)));
    let (outcome, verdict) = judge(shared, owned, listener, peer, turned, result);
    owned.ledger.turn(outcome, took);
    (turned, verdict)
}

/// How a turn is counted, and what follows from it; nothing was returned where the service panicked.
fn judge(
    shared: &Shared,
    owned: &Owned<'_>,
    listener: &Listener,
    peer: &TurnPeer<'_>,
    turned: Turned,
    result: Option<io::Result<Turn>>,
) -> (TurnOutcome, Verdict) {
    let error = match result {
        Some(Ok(turn)) => {
            let outcome = turned.outcome();
            // Nor is half a request one.
            if outcome == TurnOutcome::Empty || turned.sent == 0 && matches!(turn, Turn::Partial) {
                shared.order.found_nothing(owned.id.slot);
            }
            return (outcome, Verdict::Next(turn));
        }
        Some(Err(error)) => error,
        None => {
            tell_failed(shared, listener, peer.get(), io::Error::other("the service panicked"));
            return (TurnOutcome::Error, Verdict::Failed(CloseReason::Panic));
        }
    };
    let reason = failure(&error, shared);
    match Fault::of(&error) {
        Some(Fault::Refused(reason)) => return (TurnOutcome::Ok, Verdict::Refused(reason)),
        // Many clients leave like this. What they had asked for in whole was answered.
        Some(Fault::Truncated) => return (turned.outcome(), Verdict::Failed(reason)),
        _ => tell_failed(shared, listener, peer.get(), error),
    }
    let timeout = matches!(reason, CloseReason::ReadTimeout | CloseReason::WriteTimeout);
    (if timeout { TurnOutcome::Timeout } else { TurnOutcome::Error }, Verdict::Failed(reason))
}

/// Tells a service, and the log at `-v`, that a turn failed. The error is dropped here: its drop may be the service's
/// code too.
fn tell_failed(shared: &Shared, listener: &Listener, peer: &Peer, error: io::Error) {
    tracing::debug!(listener = %listener.url, peer = %peer.address, %error, "a turn failed");
    shared.counts.contain(|| listener.service.turn_failed(peer, &error));
    shared.counts.contain(|| drop(error));
}

/// The reason that an error of a turn is counted as.
fn failure(error: &io::Error, shared: &Shared) -> CloseReason {
    match Fault::of(error) {
        Some(Fault::OutputLimit) => return CloseReason::OutputLimit,
        Some(Fault::InputLimit) => return CloseReason::InputLimit,
        Some(Fault::ReadTimeout) => return CloseReason::ReadTimeout,
        Some(Fault::WriteTimeout) => return CloseReason::WriteTimeout,
        Some(Fault::Shutdown) => return CloseReason::Shutdown,
        Some(Fault::Idle) => return CloseReason::IdleTimeout,
        Some(Fault::Refused(_)) => return CloseReason::Server,
        Some(Fault::LineTooLong) => return CloseReason::Protocol,
        Some(Fault::Truncated) => return CloseReason::Client,
        None => {}
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => CloseReason::Reset,
        io::ErrorKind::UnexpectedEof => CloseReason::Client,
        io::ErrorKind::InvalidData => CloseReason::Protocol,
        io::ErrorKind::TimedOut => CloseReason::ReadTimeout,
        _ if shared.life.is_stopping() => CloseReason::Shutdown,
        _ => CloseReason::Error,
    }
}
