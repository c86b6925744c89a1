//! The acceptor: one thread that accepts, admits and refuses connections while the server is overloaded. It never waits
//! for a client.
//!
//! Without overload this thread sleeps: the leader, the worker that polls, accepts newcomers itself (see
//! [`newcomers`](super::newcomers)). The leader wakes the acceptor when a newcomer must be refused or left in the
//! kernel's backlog, and when accept fails.

#[cfg(test)]
mod tests;

use super::errors::classify;
use super::newcomers::{Newcomers, close_socket};
use super::relisten::Relisten;
use crate::admit::bell::{Awaited, Scope};
use crate::admit::turns::accounts::Class;
use crate::admit::turns::standing::INTERVAL;
use crate::limits::Overload;
use crate::reason::{AcceptError, DropReason, WouldDrop};
use crate::server::close::late_closes::CLOSED_AT_ONCE;
use crate::server::close::shedding::{Shedding, shed, shelve};
use crate::server::counts::ACCEPTOR_ROW;
use crate::server::pulse::Vital;
use crate::server::queue::line::{Claim, Entry};
use crate::server::shared::Shared;
use crate::transport::address::ClientAddress;
use crate::transport::listen::{ListenSocket, accept_queue};
use crate::transport::socket::ClientSocket;
use crossbeam_channel::Receiver;
use mio::{Events, Poll};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// Accepts from one listener before the next has its turn.
const ACCEPT_BATCH: usize = 64;

/// The longest wait without a reason; wakes and connections end it.
const WAIT: Duration = Duration::from_secs(1);

/// How often a wait for a place looks by itself, should nobody call.
const LOOK: Duration = Duration::from_millis(20);

/// A full queue is a burst, which workers may be about to take, before it is an overload: for this time newcomers are left
/// in the kernel's backlog instead of being refused, unless the queue stands. It is the time after which a queue stands.
const BURST: Duration = Duration::from_nanos(INTERVAL);

/// When the budget of refusals is used up, the acceptor sleeps at least this long, and then refuses as many as it may by then. A
/// refusal that a thread has to be woken for costs more than one among several: `tidegate-bench scene surge-http` told twice as many
/// clients within half the time. Chosen: with 2 ms it gained less. Newcomers that come meanwhile stand in the backlog, which
/// holds what is done in 50 ms.
const REFUSED_TOGETHER: Duration = Duration::from_millis(4);

/// Back-off after an error of accept.
const BACK_OFF_FIRST: Duration = Duration::from_millis(5);
const BACK_OFF_LAST: Duration = Duration::from_secs(1);

/// So many entries are looked at for a newcomer that can be dropped.
const LOOKED_AT: usize = 64;

/// Descriptors held so that a connection can be accepted and refused when there is no other.
const SPARES: usize = 2;

/// How long a handshake that has begun is waited for when the listeners close, after the one before. On one machine its
/// last step is handled within microseconds of the first, or when the processor is free again.
const LAST_HANDSHAKES: Duration = Duration::from_millis(1);
/// For how long at most, all together.
const LAST_HANDSHAKES_MAX: Duration = Duration::from_millis(50);

pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    poll: Poll,
    watched: Vec<Watched>,
    /// The one that is looked at first.
    first: usize,
    /// Listeners that open and close.
    relistens: Receiver<Relisten>,
    spares: Vec<OwnedFd>,
    back_off: Duration,
    /// Clients that were accepted, and that were turned away, since the cost was last measured.
    accepted: u32,
    refused: u32,
    /// The queue stood when this was last looked at.
    stood: bool,
}

/// One listener's socket, and what is known of those who stand there.
struct Watched {
    /// Nothing once it is closed.
    socket: Option<ListenSocket>,
    /// The kernel may have connections for us: true until it says that it has none.
    ready: bool,
    /// Since when newcomers have found a full queue, until there was a place, for `wait:D`.
    full_since: Option<Instant>,
    /// The same, until the kernel had no more of them.
    burst_since: Option<Instant>,
    /// How many are to be turned away whatever that costs: they stand in a backlog that is too deep for a queue that
    /// stands, before all who come later.
    surplus: usize,
    /// Newcomers are left in the kernel's backlog for this time, or until the bell rings.
    held: Option<Duration>,
}

impl Watched {
    fn new(socket: ListenSocket) -> Self {
        Self { socket: Some(socket), ready: true, ..Self::closed() }
    }

    fn closed() -> Self {
        Self { socket: None, ready: false, full_since: None, burst_since: None, surplus: 0, held: None }
    }

    /// Accepts one without waiting; where it is closed there is none.
    fn accept(&self) -> io::Result<(ClientSocket, ClientAddress)> {
        self.socket.as_ref().map_or_else(|| Err(io::ErrorKind::WouldBlock.into()), ListenSocket::accept)
    }

    /// The kernel has no more; an event will tell of the next.
    fn empty(&mut self) {
        self.ready = false;
        self.full_since = None;
        self.burst_since = None;
        self.surplus = 0;
    }

    /// The queue begins to stand: who waits in the kernel beyond `most` is surplus.
    fn clear_beyond(&mut self, most: usize) {
        let waiting = self.socket.as_ref().and_then(accept_queue);
        self.surplus = waiting.map_or(0, |waiting| waiting.saturating_sub(most));
        self.ready |= self.surplus > 0;
    }

    /// Whether the kernel has a connection for us, without taking it.
    fn is_waited_at(&self) -> bool {
        let Some(socket) = &self.socket else { return false };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&now));
        // When the kernel cannot say, accept will.
        polled.map_or(true, |ready| ready > 0)
    }
}

/// What came of trying to accept one connection.
enum Step {
    /// Try the next.
    Next,
    /// The kernel has no more.
    Empty,
    /// Accept nothing from this listener for this time, or until there is a place.
    Hold(Duration),
    /// Accept nothing from any listener for this time.
    Pause(Duration),
}

impl Acceptor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        poll: Poll,
        sockets: Vec<ListenSocket>,
        relistens: Receiver<Relisten>,
    ) -> Self {
        let watched = sockets.into_iter().map(Watched::new).collect();
        let spares = (0..SPARES).map_while(|_| spare().ok()).collect();
        Self {
            shared,
            poll,
            watched,
            first: 0,
            relistens,
            spares,
            back_off: BACK_OFF_FIRST,
            accepted: 0,
            refused: 0,
            stood: false,
        }
    }

    /// Accepts when called until the server drains; then takes what the kernel had completed, and
    /// ends.
    pub(crate) fn run(mut self) {
        crate::sys::ask_for_short_slices();
        let mut events = Events::with_capacity(1);
        while !self.shared.life.is_draining() && !self.shared.life.is_handed_over() {
            self.shared.pulse.beat(Vital::Acceptor);
            if self.shared.life.has_enough() {
                self.close_listeners();
            }
            // It fails with EINTR only, and then the loop looks at everything again.
            let _ = self.poll.poll(&mut events, Some(self.rest()));
            self.shared.bell.wait_for_nothing();
            self.guarded(Self::relisten);
            self.take_calls();
            self.guarded(Self::accept_all);
            self.tell_who_is_held();
        }
        self.guarded(Self::drain);
        self.shared.life.acceptor_ended();
    }

    fn newcomers(&self) -> Newcomers<'_> {
        Newcomers { shared: &self.shared, row: self.shared.counts.row(ACCEPTOR_ROW) }
    }

    /// How long there is nothing to do, if nobody calls.
    fn rest(&self) -> Duration {
        let ready = self.watched.iter().filter(|watched| watched.ready);
        ready.map(|watched| watched.held.unwrap_or_default()).min().unwrap_or(WAIT)
    }

    /// Says at which listeners newcomers are held back, so that the leader passes them by.
    fn tell_who_is_held(&mut self) {
        let open = self.watched.iter_mut().zip(&self.shared.holding);
        // Where none is open one may be about to open, and holds back until it has.
        for (watched, holding) in open.filter(|(watched, _)| watched.socket.is_some()) {
            let holds = watched.held.is_some();
            if holding.swap(holds, SeqCst) && !holds {
                // The leader passed newcomers by until just now, and no event tells of them again.
                watched.ready = true;
            }
        }
    }

    /// Marks the listeners at which the leader has left newcomers standing.
    fn take_calls(&mut self) {
        for index in 0..self.watched.len() {
            self.watched[index].ready |= self.newcomers().take_call(index);
        }
    }

    /// A panic here would be a bug of ours; it ends the step and not the thread.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let shared = self.shared.clone();
        shared.counts.contain(|| step(self))
    }

    /// Takes from every listener in turn until the kernel has no more, or until its newcomers must be held back.
    fn accept_all(&mut self) {
        let before = crate::sys::thread_time();
        self.accept_in_turn();
        if self.refused > 0 {
            let now = crate::sys::thread_time();
            if let (Some(before), Some(now)) = (before, now) {
                let spent = Duration::from_nanos(now.saturating_sub(before));
                // What was admitted to stay costs about as much; only the share of the others is for the budget.
                self.shared.refusal_budget().note_cost(spent, self.accepted.max(self.refused));
            }
            self.refused = 0;
        }
        self.accepted = 0;
    }

    fn accept_in_turn(&mut self) {
        if self.watched.is_empty() {
            return;
        }
        let stands = self.shared.order.standing().stands();
        if stands && !self.stood {
            let most = self.shared.shallow_backlog();
            self.watched.iter_mut().for_each(|watched| watched.clear_beyond(most));
        }
        self.stood = stands;
        if stands {
            self.refuse_surplus();
        }
        self.watched.iter_mut().for_each(|watched| watched.held = None);
        // Each begins in turn, so that the budget of refusals is not always the same listener's.
        self.first = (self.first + 1) % self.watched.len();
        for nth in 0..self.watched.len() {
            let index = (self.first + nth) % self.watched.len();
            for _ in 0..ACCEPT_BATCH {
                let watched = &self.watched[index];
                if !watched.ready || watched.held.is_some() || self.shared.life.has_enough() {
                    break;
                }
                match self.step(index) {
                    Step::Next => {}
                    Step::Empty => self.watched[index].empty(),
                    Step::Hold(time) => self.watched[index].held = Some(time),
                    Step::Pause(time) => return self.pause(time),
                }
            }
        }
    }

    /// All newcomers wait for this time; then each listener is looked at.
    fn pause(&mut self, time: Duration) {
        for watched in self.watched.iter_mut().filter(|watched| watched.socket.is_some()) {
            watched.ready = true;
            watched.held = Some(time);
        }
    }

    fn step(&mut self, index: usize) -> Step {
        if let Some((reason, scope)) = self.newcomers().obstacle(index) {
            return self.overload(index, reason, scope);
        }
        self.watched[index].full_since = None;
        match self.accept(index) {
            Ok((socket, peer)) => self.admit(index, socket, peer),
            Err(step) => step,
        }
    }

    /// No newcomer can be admitted: refuse one within the budget, or leave it in the kernel's backlog until there is a
    /// place, a token, or no patience left.
    fn overload(&mut self, index: usize, reason: DropReason, scope: Scope) -> Step {
        let limits = self.shared.limits.current();
        let overload = limits.listeners[index].overload;
        // Whom a dry run lets in is no refusal for the budget, and pushes nobody out.
        let dry = WouldDrop::of_newcomer(reason).is_some_and(|would| limits.server.dry_run.has(would));
        let displaces = reason == DropReason::QueueFull && self.shared.displaces_oldest(overload);
        // At the expense of a listener that has more than its share, one is let in whatever the refusal costs: there are no
        // more of those than are served here.
        let fullest = (displaces && scope == Scope::All).then(|| self.above_its_share(index)).flatten();
        let is_free = dry || fullest.is_some();
        let stands = self.shared.order.standing().stands();
        let watched = &mut self.watched[index];
        // While the queue stands there nearly always is a newcomer. A refusal that the budget pays for does not look first: the
        // accept tells if there is none.
        let paid = displaces && stands && !is_free && watched.surplus == 0 && self.shared.may_refuse();
        if !paid && !watched.is_waited_at() {
            return Step::Empty;
        }
        let now = Instant::now();
        if reason == DropReason::QueueFull {
            let full = now.saturating_duration_since(*watched.full_since.get_or_insert(now));
            let burst = now.saturating_duration_since(*watched.burst_since.get_or_insert(now));
            let patience = match overload {
                Overload::Wait(patience) => patience.saturating_sub(full),
                _ if stands => Duration::ZERO,
                _ => BURST.saturating_sub(burst),
            };
            if !patience.is_zero() {
                return self.hold(index, (reason, scope), patience);
            }
        }
        let watched = &mut self.watched[index];
        if watched.surplus > 0 {
            watched.surplus -= 1;
        } else if !is_free && !paid && !self.shared.may_refuse() {
            let next = self.shared.refusal_budget().next(now);
            return self.hold(index, (reason, scope), next.unwrap_or(WAIT).max(REFUSED_TOGETHER));
        }
        let (socket, peer) = match self.accept(index) {
            Ok(accepted) => accepted,
            Err(step) => {
                if !is_free {
                    self.shared.refusal_budget().give_back();
                }
                return step;
            }
        };
        if !self.newcomers().refuses(index, reason) {
            return self.let_in_beside(index, socket, peer);
        }
        if displaces && self.displace(fullest.map_or(scope, Scope::Listener)) {
            return self.admit(index, socket, peer);
        }
        self.refuse(index, socket, reason);
        Step::Next
    }

    /// Refuses a socket that was accepted, with words.
    fn refuse(&mut self, index: usize, socket: ClientSocket, reason: DropReason) {
        let (ledger, words) = (self.newcomers().row.of(index), self.shared.words(index));
        self.shared.closer().refuse(socket, ledger, reason, &words);
        self.refused += 1;
    }

    /// Waits for a place, for at most `time`, unless there is one by now.
    fn hold(&self, index: usize, (reason, scope): (DropReason, Scope), time: Duration) -> Step {
        let awaited = match reason {
            DropReason::MaxConnections => Awaited::ConnectionPlace,
            _ => Awaited::QueuePlace,
        };
        self.shared.bell.wait_for(awaited, scope);
        if self.newcomers().obstacle(index).is_none() {
            return Step::Next;
        }
        Step::Hold(time.min(LOOK))
    }

    /// The listener at which most newcomers wait, if fewer wait at this one than its equal part of the queue that all share.
    fn above_its_share(&self, index: usize) -> Option<usize> {
        let waiting = |listener: usize| self.shared.listeners[listener].newcomers.waiting();
        let open = self.watched.iter().filter(|watched| watched.socket.is_some()).count();
        let share = self.shared.line.newcomers().places() / open.max(1);
        let fullest = (0..self.watched.len()).max_by_key(|&listener| waiting(listener));
        fullest.filter(|&fullest| waiting(index) < share && fullest != index)
    }

    /// Refuses the newcomers that are too many since fewer may wait, whatever that costs. If they stayed until others make them
    /// give up their places, each of those others would wait as long in its turn.
    fn refuse_surplus(&mut self) {
        for _ in 0..self.shared.line.newcomers().surplus(|| self.shared.free_workers()) {
            if !self.displace(Scope::All) {
                break;
            }
        }
    }

    /// Refuses a newcomer that waits, of one listener or of all: of the source that has the most, the one that has waited longest.
    /// False if there was no newcomer to refuse.
    fn displace(&mut self, scope: Scope) -> bool {
        let shared = &*self.shared;
        // Established connections are in the line too; they keep their places.
        let newcomer = |entry: &Entry| match (entry.turn(), scope) {
            (Some((_, Claim::Newcomer)), Scope::All) => true,
            (Some((id, Claim::Newcomer)), Scope::Listener(listener)) => {
                shared.table.get(id.slot).is_some_and(|slot| slot.listener() == listener)
            }
            _ => false,
        };
        let now = shared.clock.now();
        let stands = shared.order.standing().stands() || shared.order.len() > 0;
        // Workers in long turns may have left newcomers in the line: they belong on the shelf, where it is known whose
        // source has how many.
        if stands && !shared.line.is_empty() {
            shelve(shared, self.newcomers().row, None, now);
        }
        let displaced = shared.order.displace_one(Class::Newcomer, now, newcomer).or_else(|| {
            let oldest = shared.line.pop_first(LOOKED_AT, newcomer);
            shared.crew.work_queued();
            oldest
        });
        let Some(entry) = displaced else { return false };
        let all = shared.line.newcomers();
        if scope == Scope::All || !all.has_place(|| 0) {
            all.note_overflow();
        }
        shed(shared, self.newcomers().row, &entry, Shedding::Displaced, now);
        self.refused += 1;
        true
    }

    /// Admits a newcomer that finds no place in the queue, in a dry run of it.
    fn let_in_beside(&self, index: usize, socket: ClientSocket, peer: ClientAddress) -> Step {
        if self.newcomers().admit(index, socket, peer, true) {
            self.shared.newcomer_beside(index);
        }
        self.shared.crew.work_queued();
        Step::Next
    }

    /// Admits a socket, and wakes a worker for it if none is awake.
    fn admit(&self, index: usize, socket: ClientSocket, peer: ClientAddress) -> Step {
        self.newcomers().admit(index, socket, peer, true);
        self.shared.crew.work_queued();
        Step::Next
    }

    fn close_listeners(&mut self) {
        (0..self.watched.len()).for_each(|index| close_socket(&self.shared, index));
        self.watched.clear();
    }

    /// Listeners have opened, and others are to close.
    fn relisten(&mut self) {
        while let Ok(Relisten { open, close, done }) = self.relistens.try_recv() {
            for (index, socket) in open {
                while self.watched.len() <= index {
                    self.watched.push(Watched::closed());
                }
                self.watched[index] = Watched::new(socket);
            }
            let close: Vec<_> = close.into_iter().filter(|&index| index < self.watched.len()).collect();
            self.take_the_last(&close);
            for index in close {
                close_socket(&self.shared, index);
                self.watched[index] = Watched::closed();
            }
            // Whoever waits for it may have given up.
            let _ = done.send(());
        }
    }

    fn accept(&mut self, index: usize) -> Result<(ClientSocket, ClientAddress), Step> {
        match self.watched[index].accept() {
            Ok((socket, peer)) => {
                self.back_off = BACK_OFF_FIRST;
                self.accepted += 1;
                self.take_spares_back();
                Ok((socket, peer))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Step::Empty),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Step::Next),
            Err(error) => Err(self.accept_failed(index, &error)),
        }
    }

    /// Counts an error of accept by its class and says how to go on: never by ending, never by
    /// trying again at once for ever.
    fn accept_failed(&mut self, index: usize, error: &io::Error) -> Step {
        let class = classify(error);
        let no_descriptor = matches!(class, AcceptError::Emfile | AcceptError::Enfile);
        if no_descriptor && !self.watched[index].is_waited_at() {
            // The kernel says so before it looks whether anybody waits.
            return Step::Empty;
        }
        if no_descriptor && self.shared.late_closes.close(CLOSED_AT_ONCE) > 0 {
            // Those of clients that have left are free now.
            return Step::Next;
        }
        self.shared.listeners[index].accept_failed(class);
        if class == AcceptError::Aborted {
            // The client is at fault, and only this one.
            return Step::Next;
        }
        if no_descriptor && self.refuse_on_spare(index) {
            // Nobody is kept waiting, so there is nothing to back off from.
            self.back_off = BACK_OFF_FIRST;
            return Step::Next;
        }
        let pause = self.back_off;
        self.back_off = (pause * 2).min(BACK_OFF_LAST);
        Step::Pause(pause)
    }

    /// Out of descriptors: gives up a spare one, accepts on it, refuses, and takes it back. Within
    /// the budget of refusals; false when nothing could be done.
    fn refuse_on_spare(&mut self, index: usize) -> bool {
        if !self.shared.may_refuse() {
            return false;
        }
        let shared = self.shared.clone();
        // The leader accepts too, and must not get the descriptor that is free for a moment: the client would be let in, and
        // the spare one lost.
        let _alone = shared.listeners[index].socket();
        self.spares.pop();
        let accepted = self.watched[index].accept();
        let refused = accepted.is_ok();
        if !refused {
            self.shared.refusal_budget().give_back();
        }
        if let Ok((socket, _)) = accepted {
            self.refuse(index, socket, DropReason::FdReserve);
        }
        self.take_spares_back();
        refused
    }

    /// Opens the spare descriptors that are missing, as far as there are any.
    fn take_spares_back(&mut self) {
        while self.spares.len() < SPARES {
            match spare() {
                Ok(fd) => self.spares.push(fd),
                Err(_) => break,
            }
        }
    }

    /// Closes the listeners.
    fn drain(&mut self) {
        // What has just opened is closed as well as the others.
        self.relisten();
        let ours: Vec<usize> =
            (0..self.watched.len()).filter(|&index| !self.shared.listeners[index].is_handed_over()).collect();
        self.take_the_last(&ours);
        self.close_listeners();
    }

    /// Before listeners are closed, accepts the clients that the kernel has welcomed already, so that none is reset: no more
    /// handshakes begin, then it accepts what there is, and those whose handshake was under way.
    fn take_the_last(&mut self, listeners: &[usize]) {
        for &index in listeners {
            if let Some(socket) = &mut *self.shared.listeners[index].socket() {
                socket.remove_file();
            }
            if let Some(socket) = &self.watched[index].socket {
                socket.take_no_more();
            }
        }
        let until = Instant::now() + LAST_HANDSHAKES_MAX;
        loop {
            listeners.iter().for_each(|&index| self.accept_completed(index));
            if !self.is_anybody_late(listeners) || Instant::now() > until {
                break;
            }
        }
    }

    /// Accepts what the kernel has at a listener that takes no more. Bounded, should the filter be impossible: with a backlog
    /// of 0 the kernel still completes one handshake at a time.
    fn accept_completed(&mut self, index: usize) {
        for _ in 0..self.shared.limits.current().listeners[index].backlogs().0 + ACCEPT_BATCH {
            match self.accept(index) {
                Ok((socket, peer)) => {
                    self.admit(index, socket, peer);
                }
                Err(Step::Next) => {}
                Err(_) => break,
            }
        }
    }

    /// Waits a moment for the last handshakes; whether one has come to its end.
    fn is_anybody_late(&self, listeners: &[usize]) -> bool {
        let sockets = listeners.iter().filter_map(|&index| self.watched[index].socket.as_ref());
        let mut asked: Vec<_> = sockets
            .filter(|socket| socket.ends_handshakes())
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        let wait = Timespec { tv_sec: 0, tv_nsec: LAST_HANDSHAKES.subsec_nanos().into() };
        !asked.is_empty() && poll(&mut asked, Some(&wait)).is_ok_and(|ready| ready > 0)
    }
}

fn spare() -> io::Result<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from)
}
