//! One client's session at the gate: it takes a place at a backend (and waits for one if it must), connects, and relays
//! bytes until both sides have ended.

use super::backends::{Asking, BackendId, Look, Place, PlaceAnswer, Refusal, Ticket, Unreached, Wake};
use super::connect::{self, Arrival, Connecting};
use super::gate::{ConnectOn, Gate, Settings, source, wait_limits};
use super::lent::Lent;
use super::relay::{Ended, PairProgress, PairSide, Patience, Relay, Sockets};
use super::socket::{BackendSocket, Store};
use crate::clock::Nanos;
use crate::current::CurrentView;
use crate::reason::{BackendFailure, CloseReason, DropReason};
use crate::service::{Fault, Session, SocketEvent, SocketEvents, Stream, Turn, WatchFor};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// When TCP keep-alive is switched on for a pair. Most pairs end sooner, and are spared the system calls.
const KEEP_ALIVE_AFTER: Nanos = 30_000_000_000;

/// An open pair adds its bytes to the backend's counters in steps of this size: adding is an atomic operation on memory
/// that all workers share.
const COUNTED_AT_ONCE: u64 = 64 * 1024;

/// A client that waits for a place is watched after this time. In an overload most have an answer before it (128 that wait before a
/// backend of 700 requests a second make room for others within 35 ms where 4,500 come in a second): they are
/// spared a system call and a turn for what they send meanwhile. One that leaves sooner is noticed now, or when it has its place.
const WATCH_AFTER: Nanos = 100_000_000;

/// A client that was not watched is looked at before it is served, if it has waited for this time. (A younger one is hardly gone, and
/// the look is a system call.)
const LOOK_AFTER: Nanos = 5_000_000;

/// The session of one client.
pub(super) struct GateSession {
    gate: Arc<Gate>,
    settings: CurrentView<Settings>,
    stage: GateStage,
    /// Backends that could not be reached for this client.
    tried: Vec<BackendId>,
    /// By when a backend must be reached; 0 until the first attempt.
    deadline: Nanos,
}

/// How far the session has come.
///
/// The socket to the backend must be closed before its place is given back, or the backend would briefly have one
/// connection too many. Fields are dropped in their order, so in each stage the socket stands before the place.
enum GateStage {
    /// The client has no place and has not asked for one.
    New,
    Waiting(Ticket, Watch),
    Connecting {
        connecting: Box<Connecting>,
        place: Place,
    },
    Paired(Box<Pair>),
    Over,
}

/// Whether a client that waits for a place is watched.
struct Watch {
    from: Nanos,
    is_on: bool,
}

struct Pair {
    relay: Relay,
    backend: BackendSocket,
    place: Place,
    /// Bytes that the backend's counters do not have yet.
    to_backend: u64,
    to_client: u64,
    /// The poller watches the backend's socket for room to write as well as for input.
    watched_both: bool,
    backend_is_tcp: bool,
    /// When to switch keep-alive on; `None` once it is on.
    keep_alive: Option<Nanos>,
}

/// What a step leads to: the end of the turn, or the next step.
enum Then {
    Turn(Turn),
    GoOn,
}

impl Session for GateSession {
    fn turn(&mut self, stream: &mut Stream<'_>) -> io::Result<Turn> {
        let now = stream.began(self.gate.clock);
        self.settings.look(&self.gate.settings);
        loop {
            let then = match &mut self.stage {
                GateStage::New => self.ask(stream, now)?,
                GateStage::Waiting(..) => self.wait(stream, now)?,
                GateStage::Connecting { .. } => self.connect(stream, now)?,
                GateStage::Paired(_) => return self.relay(stream, now),
                GateStage::Over => return Ok(Turn::Close),
            };
            if let Then::Turn(turn) = then {
                return Ok(turn);
            }
        }
    }

    fn finish(&mut self, reason: CloseReason) {
        if let GateStage::Paired(pair) = &mut self.stage {
            pair.count();
            let in_order =
                matches!(reason, CloseReason::Client | CloseReason::Server | CloseReason::IdleTimeout);
            if !in_order {
                pair.backend.abort();
            }
        }
        self.stage = GateStage::Over;
    }
}

impl GateSession {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        let settings = gate.settings.view();
        Self { gate, settings, stage: GateStage::New, tried: Vec::new(), deadline: 0 }
    }

    /// A session for a client whose connection to its backend exists already and becomes a pair: a WebSocket that came
    /// through the gate for HTTP.
    pub(super) fn adopted(
        gate: Arc<Gate>,
        place: Place,
        backend: BackendSocket,
        watched_both: bool,
        now: Nanos,
    ) -> Self {
        let relay = Relay::resumed(now);
        let pair = Box::new(Pair::new(relay, place, backend, watched_both, now));
        let settings = gate.settings.view();
        Self { gate, settings, stage: GateStage::Paired(pair), tried: Vec::new(), deadline: 0 }
    }

    /// Asks for a place at a backend.
    fn ask(&mut self, stream: &mut Stream<'_>, now: Nanos) -> io::Result<Then> {
        if stream.is_draining() {
            return Err(Fault::Refused(DropReason::Draining).into());
        }
        if self.speaks_first() {
            if stream.has_left(true) {
                return Err(Fault::Refused(DropReason::ClientGone).into());
            }
            if !stream.has_unread() {
                return Ok(Then::Turn(Turn::Park));
            }
        }
        // The first wait counts from the client's arrival. A client that asks again because its backend failed waits from
        // now on.
        let since = if self.deadline == 0 { now.saturating_sub(stream.waited()) } else { now };
        let limits = stream.limits();
        let asking = Asking {
            priority: false,
            source: source(stream.peer().address, limits.source_prefix),
            since,
            now,
            tried: &self.tried,
            wait: wait_limits(limits),
        };
        match self.gate.backends.take(&asking, || Wake::Silent(stream.waker())) {
            PlaceAnswer::Place(place) => self.set_out(stream, place, now),
            PlaceAnswer::Wait(ticket) => {
                let watch = Watch { from: now.saturating_add(WATCH_AFTER), is_on: false };
                self.stage = GateStage::Waiting(ticket, watch);
                Ok(Then::GoOn)
            }
            PlaceAnswer::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// Checks whether the client's ticket has got its place.
    fn wait(&mut self, stream: &mut Stream<'_>, now: Nanos) -> io::Result<Then> {
        if stream.is_draining() {
            return Err(Fault::Refused(DropReason::Draining).into());
        }
        if stream.has_hung_up() {
            let (client, _) = stream.raw();
            if connect::has_failed(client.as_fd()) || stream.has_left(self.speaks_first()) {
                return Err(Fault::Refused(DropReason::ClientGone).into());
            }
            if let GateStage::Waiting(ticket, _) = &self.stage {
                ticket.hung_up();
            }
        }
        let speaks_first = self.speaks_first();
        let GateStage::Waiting(ticket, watch) = &mut self.stage else { return Ok(Then::GoOn) };
        match ticket.look(now) {
            Look::Waiting { until } if now < watch.from => {
                stream.leave_unwatched();
                Ok(Then::Turn(park_until(until.min(watch.from), now)))
            }
            Look::Waiting { until } => {
                watch.is_on = true;
                Ok(Then::Turn(park_until(until, now)))
            }
            Look::Place(place) => {
                // No event would have told.
                let unseen = !watch.is_on && now.saturating_add(WATCH_AFTER - LOOK_AFTER) > watch.from;
                if unseen && stream.has_left(speaks_first) {
                    return Err(Fault::Refused(DropReason::ClientGone).into());
                }
                self.set_out(stream, place, now)
            }
            Look::Refused(refusal) => Err(refused(refusal)),
        }
    }

    /// Whether the client must send a byte before it gets a backend. Then one that closes without a byte needs none.
    fn speaks_first(&self) -> bool {
        self.settings.connect_on == ConnectOn::FirstByte
    }

    /// Begins to connect to the backend of this place.
    fn set_out(&mut self, stream: &mut Stream<'_>, place: Place, now: Nanos) -> io::Result<Then> {
        if self.deadline == 0 {
            self.deadline = self.settings.connect_deadline(now);
        }
        // While another backend is left to try, this one gets half of the remaining time.
        let left = self.deadline.saturating_sub(now);
        let others = self.gate.backends.has_other(&self.tried, place.backend());
        let until = if others { now + left / 2 } else { self.deadline };
        let greeting = self.greeting(stream);
        match Connecting::start(place.address(), greeting, (now, until), store(stream)) {
            Ok((mut connecting, Arrival::Wait { until })) => {
                if let Some(socket) = connecting.unwatched() {
                    stream.watch(socket, WatchFor::Both)?;
                }
                self.stage = GateStage::Connecting { connecting: Box::new(connecting), place };
                Ok(Then::Turn(park_until(until, now)))
            }
            Ok((_, made)) => self.arrive(stream, place, made, now),
            Err(unreached) => self.fail(&place, unreached, now),
        }
    }

    /// Checks whether the connection to the backend is made, has failed, or must be waited for.
    fn connect(&mut self, stream: &mut Stream<'_>, now: Nanos) -> io::Result<Then> {
        let GateStage::Connecting { connecting, .. } = &mut self.stage else { return Ok(Then::GoOn) };
        if stream.has_hung_up() && connect::has_failed(stream.raw().0.as_fd()) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match connecting.poll(now, store(stream)) {
            Ok(Arrival::Wait { until }) => {
                if let Some(socket) = connecting.unwatched() {
                    stream.watch(socket, WatchFor::Both)?;
                }
                Ok(Then::Turn(park_until(until, now)))
            }
            Ok(made) => match self.take_place() {
                Some(place) => self.arrive(stream, place, made, now),
                None => Ok(Then::GoOn),
            },
            Err(unreached) => match self.take_place() {
                Some(place) => self.fail(&place, unreached, now),
                None => Ok(Then::GoOn),
            },
        }
    }

    fn take_place(&mut self) -> Option<Place> {
        match std::mem::replace(&mut self.stage, GateStage::New) {
            GateStage::Connecting { place, .. } => Some(place),
            _ => None,
        }
    }

    /// The backend could not be reached: the session tries another one, if there is time.
    fn fail(&mut self, place: &Place, unreached: Unreached, now: Nanos) -> io::Result<Then> {
        let failure = unreached.failure;
        place.failed(unreached);
        self.tried.push(place.backend());
        self.stage = GateStage::New;
        if failure == BackendFailure::Local || now >= self.deadline {
            self.gate.backends.reached_none();
            return Err(refused(Refusal::NoBackend));
        }
        Ok(Then::GoOn)
    }

    /// The backend is connected, and the pair begins.
    fn arrive(
        &mut self,
        stream: &mut Stream<'_>,
        place: Place,
        arrival: Arrival,
        now: Nanos,
    ) -> io::Result<Then> {
        let Arrival::Made { socket: backend, took, told } = arrival else { return Ok(Then::GoOn) };
        place.reached(took);
        // The event that reported the connection may have reported the backend's first bytes too, so it is handed to the
        // relay. A backend that was connected at once had no event: it is watched from here on. Bytes may have come with the
        // end of a TLS handshake.
        let other = if backend.is_secured() {
            SocketEvent::Ready
        } else if told {
            stream.events().other
        } else {
            SocketEvent::Nothing
        };
        if !told {
            stream.watch(backend.as_fd(), WatchFor::Input)?;
        }
        let client = SocketEvent::of(true, stream.has_hung_up());
        stream.tell(SocketEvents { client, other });
        self.stage = GateStage::Paired(Box::new(Pair::new(Relay::new(now), place, backend, told, now)));
        Ok(Then::GoOn)
    }

    /// What a backend is sent first: the PROXY header, if the gate is to send one.
    fn greeting(&self, stream: &mut Stream<'_>) -> Vec<u8> {
        let Some(version) = self.settings.send_header else { return Vec::new() };
        let mut header = Vec::with_capacity(64);
        let near = stream.raw().0.local_addr();
        version.write_client(&stream.peer().address, near, &mut header);
        header
    }

    /// One turn of the pair: moves bytes, then parks or ends.
    fn relay(&mut self, stream: &mut Stream<'_>, now: Nanos) -> io::Result<Turn> {
        let patience = self.settings.patience();
        let GateStage::Paired(pair) = &mut self.stage else { return Ok(Turn::Close) };
        let limits = stream.limits();
        let pipes = self.gate.pipes(limits);
        // When the silence seems to have lasted too long, both sockets are read whatever the events say: bytes may have
        // come that were not reported yet.
        let late = now >= pair.relay.deadline(patience);
        let events = if late { SocketEvents::UNKNOWN } else { stream.events() };
        let (turn_bytes, pool_most) = (limits.turn_bytes, limits.output_total);
        let (pool, client_tls) = (stream.output_pool(), stream.client_tls());
        let client_is_tcp = !stream.is_unix();
        let (client, buffer) = stream.raw();
        let mut lent = Lent { buffer, pipes, pool, pool_most, turn_bytes };
        let Pair { relay, backend, backend_is_tcp, .. } = &mut **pair;
        let turned = backend.lend((pool, pool_most), |backend, backend_tls| {
            let client = client.as_fd();
            let backend_is_tcp = *backend_is_tcp;
            let sockets = Sockets { client, client_tls, backend, backend_tls, client_is_tcp, backend_is_tcp };
            relay.turn(sockets, events, &mut lent, now)
        })?;
        pair.to_backend += turned.to_backend;
        pair.to_client += turned.to_client;
        let ended = matches!(turned.progress, PairProgress::Ended(Ended::Finished(PairSide::Client)));
        stream.moved(turned.to_backend, turned.to_client, ended);
        match turned.progress {
            PairProgress::More => Ok(Turn::Again),
            PairProgress::Park => pair.park(stream, patience, now),
            PairProgress::Ended(Ended::Finished(_)) => Ok(Turn::Close),
            PairProgress::Ended(Ended::NoRoom) => Err(Fault::OutputLimit.into()),
            PairProgress::Ended(Ended::Reset(side)) => {
                if side == PairSide::Backend && !pair.relay.has_begun() {
                    return self.begin_again(stream, now);
                }
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    /// The backend reset its connection before a byte went either way, so another backend can serve the client.
    fn begin_again(&mut self, stream: &mut Stream<'_>, now: Nanos) -> io::Result<Turn> {
        let GateStage::Paired(pair) = std::mem::replace(&mut self.stage, GateStage::New) else {
            return Ok(Turn::Close);
        };
        let Pair { backend, place, .. } = *pair;
        drop(backend);
        let failed = self.fail(&place, BackendFailure::Reset.into(), now);
        drop(place);
        failed?;
        self.turn(stream)
    }
}

impl Pair {
    fn new(relay: Relay, place: Place, backend: BackendSocket, watched_both: bool, now: Nanos) -> Self {
        Self {
            relay,
            backend_is_tcp: place.address().is_tcp(),
            backend,
            place,
            to_backend: 0,
            to_client: 0,
            watched_both,
            keep_alive: Some(now.saturating_add(KEEP_ALIVE_AFTER)),
        }
    }

    /// Parks the pair until an event, or until it has been silent for too long.
    fn park(&mut self, stream: &mut Stream<'_>, patience: Patience, now: Nanos) -> io::Result<Turn> {
        let mut until = self.relay.deadline(patience);
        if now >= until {
            return Err(Fault::Idle.into());
        }
        if self.relay.awaits_output(PairSide::Client) {
            stream.want_output();
        }
        if self.relay.awaits_output(PairSide::Backend) && !self.watched_both {
            stream.watch(self.backend.as_fd(), WatchFor::OutputToo)?;
            self.watched_both = true;
        }
        if self.to_backend + self.to_client >= COUNTED_AT_ONCE {
            self.count();
        }
        match self.keep_alive {
            Some(at) if now >= at => {
                connect::keep_alive(stream.raw().0.as_fd());
                connect::keep_alive(self.backend.as_fd());
                self.keep_alive = None;
                self.count();
            }
            Some(at) => until = until.min(at),
            None => {}
        }
        // Each byte moves the deadline. Moving the timer each time would cost more than a call that comes too early and
        // parks again.
        stream.accept_earlier_call();
        Ok(park_until(until, now))
    }

    fn count(&mut self) {
        let (to_backend, to_client) =
            (std::mem::take(&mut self.to_backend), std::mem::take(&mut self.to_client));
        self.place.passed(to_backend, to_client);
    }
}

/// Where bytes are kept that a backend has not taken.
fn store<'a>(stream: &Stream<'a>) -> Store<'a> {
    (stream.output_pool(), stream.limits().output_total)
}

fn park_until(until: Nanos, now: Nanos) -> Turn {
    Turn::ParkFor(Duration::from_nanos(until.saturating_sub(now)))
}

/// The error that ends a session whose client is refused.
fn refused(refusal: Refusal) -> io::Error {
    Fault::Refused(refusal.reason()).into()
}

#[cfg(test)]
impl GateSession {
    /// The blocks of memory that a pair consists of, with the bytes that slow readers on both sides have not taken.
    pub(super) fn pair_bytes() -> [usize; 4] {
        use crate::service::pool::Buffer;
        [size_of::<Self>(), size_of::<Pair>(), size_of::<Buffer>(), size_of::<Buffer>()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_of_a_pair_is_small() {
        let (session, pair) = (size_of::<GateSession>(), size_of::<Pair>());
        assert!(session + pair <= crate::service::SESSION_BYTES, "{session} and {pair} bytes");
    }
}
