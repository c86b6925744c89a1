//! The parts of a server, which all its threads share. It has getters only: what needs several parts at once is in the
//! folders of the stages, like `accept` and `turn`.

use super::accept::relisten::Relisten;
use super::close::farewells::Farewells;
use super::close::last_words::LastWords;
use super::close::late_closes::LateCloses;
use super::close::linger::Lingers;
use super::close::{Closer, closer};
use super::counts::Counts;
use super::datagram::post::Intake;
use super::datagram::socket::DatagramListeners;
use super::extras::Tick;
use super::in_force::LiveLimits;
use super::lifecycle::Lifecycle;
use super::listener::Listener;
use super::listeners::Listeners;
use super::poll::ThreadCrew;
use super::poll::efforts::Efforts;
use super::poll::poller::Poller;
use super::pulse::Pulse;
use super::queue::line::{Claim, Entry, Line};
use super::queue::order::Order;
use super::queue::owned::Owned;
use super::queue::state::ConnectionId;
use super::queue::table::Table;
use super::queue::wheel::Wheel;
use super::refusals::Refusals;
use crate::admit::Admission;
use crate::admit::bell::{Awaited, Bell, Scope};
use crate::admit::refusal_budget::RefusalBudget;
use crate::admit::sharing::Sharing;
use crate::clock::Nanos;
use crate::limits::{Limits, Overload};
use crate::service::{Context, Holdings, Host};
use crate::sys::Clock;
use crate::transport::address::Address;
use crossbeam_channel::Sender;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(crate) struct Shared {
    pub(crate) limits: LiveLimits,
    pub(crate) clock: Clock,
    pub(crate) life: Lifecycle,
    pub(crate) listeners: Listeners,
    /// Takes listeners that open and close to the acceptor, which has to be called then.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the program opens and closes listeners"))]
    pub(crate) relistens: Sender<Relisten>,
    pub(crate) datagrams: DatagramListeners,
    pub(crate) admission: Arc<Admission>,
    /// The acceptor waits for it.
    pub(crate) bell: Arc<Bell>,
    /// For each listener: newcomers stand there that the leader did not take, so the acceptor must.
    pub(crate) calls: Box<[AtomicBool]>,
    /// For each listener: the acceptor holds its newcomers back, and the leader passes them by.
    pub(crate) holding: Box<[AtomicBool]>,
    /// Refusals that may be made, `refusal_rate`: locked for each, and they are few.
    pub(crate) refusal_budget: Mutex<RefusalBudget>,
    /// Processors have rest, as far as the timekeeper knows.
    pub(crate) rest: AtomicBool,
    /// Connections that a listener's backlog may hold while the queue stands, where it has no number of its own: what
    /// the workers do in a moment.
    pub(crate) shallow_backlog: AtomicUsize,
    /// The time to work off what waits, in seconds, as the timekeeper last estimated it.
    pub(crate) wait_estimate: AtomicU64,
    /// The server as sessions see it.
    pub(crate) host: Arc<dyn Host>,
    /// When sessions that asked for it are called.
    pub(crate) wheel: Wheel,
    pub(crate) table: Table,
    pub(crate) line: Line,
    /// The order of turns while the queue stands.
    pub(crate) order: Order<Entry>,
    pub(crate) sharing: Sharing,
    pub(crate) poller: Poller,
    pub(crate) crew: ThreadCrew,
    /// Workers in turns that compute, or that may wait.
    pub(crate) efforts: Efforts,
    pub(crate) counts: Counts,
    pub(crate) pulse: Pulse,
    pub(crate) farewells: Farewells,
    pub(crate) lingers: Lingers,
    pub(crate) late_closes: LateCloses,
    pub(crate) refusals: Refusals,
    pub(crate) tick: Option<Tick>,
    /// Memory for replies that clients have not taken, of all connections together.
    pub(crate) output_total: Arc<Holdings>,
    /// Memory for requests that are not answered, of all connections together.
    pub(crate) input_total: Arc<Holdings>,
}

impl Shared {
    /// What ends connections.
    pub(crate) fn closer(&self) -> Closer<'_> {
        closer!(self)
    }

    /// What puts datagrams into the line.
    pub(crate) fn intake(&self) -> Intake<'_> {
        Intake { datagrams: &self.datagrams, line: &self.line, counts: &self.counts, order: &self.order }
    }

    /// What turns of a listener's connections share, under these limits.
    pub(crate) fn context<'a>(&'a self, listener: &'a Listener, limits: &'a Limits) -> Context<'a> {
        Context {
            words: &listener.words,
            limits,
            output_total: &self.output_total,
            input_total: &self.input_total,
            stopping: self.life.stopping_flag(),
            draining: if listener.is_ending() { listener.ending_flag() } else { self.life.draining_flag() },
            host: &self.host,
            is_unix: listener.address.is_unix(),
            web: None,
        }
    }

    /// Whether the connections of a listener are to end: the server drains, or the listener has been closed for long.
    pub(crate) fn ends(&self, listener: usize) -> bool {
        self.life.is_draining() || self.listeners[listener].is_ending()
    }

    /// The limit that leaves no place in the queue for a newcomer of this listener; none if there is a place.
    pub(crate) fn queue_full(&self, listener: usize) -> Option<Scope> {
        let own = &self.listeners[listener].newcomers;
        // The listener's own first: whoever makes room there makes room for all.
        if !own.has_place(|| self.free_workers()) {
            return Some(Scope::Listener(listener));
        }
        let has_place = self.line.newcomers().has_place(|| self.free_workers());
        (!has_place).then_some(Scope::All)
    }

    /// Puts a newcomer into the line for its first turn; it waits since then.
    pub(crate) fn queue_newcomer(&self, owned: Owned<'_>, since: Nanos) {
        self.listeners[owned.listener()].newcomers.came();
        owned.requeue(&self.line, Claim::Newcomer, since);
    }

    /// The newcomer that came last at a listener was let in beside a limit: it takes no place in either queue.
    pub(crate) fn newcomer_beside(&self, listener: usize) {
        self.line.newcomers().is_beside();
        self.listeners[listener].newcomers.is_beside();
    }

    /// A newcomer that was taken out of the line has met its worker, or is turned away: it waits no longer.
    pub(crate) fn newcomer_left(&self, id: ConnectionId) {
        self.line.newcomer_left();
        if let Some(slot) = self.table.get(id.slot) {
            self.listeners[slot.listener()].newcomers.left();
        }
    }

    /// Wakes the acceptor if it waits for a place in the queue, and there are some again.
    pub(crate) fn ring_for_queue_places(&self, listener: usize) {
        let rooms = [
            (Scope::All, self.line.newcomers()),
            (Scope::Listener(listener), &self.listeners[listener].newcomers),
        ];
        for (scope, room) in rooms {
            if self.bell.awaits(Awaited::QueuePlace, scope) && room.has_an_eighth_free() {
                self.bell.ring(Awaited::QueuePlace, scope);
            }
        }
    }

    /// Workers that are about to take what comes: those that stand back for others that compute are not.
    pub(crate) fn free_workers(&self) -> usize {
        if self.efforts.is_enough() { 0 } else { self.counts.free_workers() }
    }

    /// Whether too few workers are at the work that there is: fewer than there are processors have turns that will soon end.
    /// That many are `awake` without the caller.
    pub(crate) fn misses_a_worker(&self, awake: usize, now: Nanos) -> bool {
        !self.efforts.is_enough() && self.efforts.has_room(awake, self.counts.held_workers(now))
    }

    /// Whether something waits for a worker.
    pub(crate) fn has_work(&self) -> bool {
        !self.line.is_empty() || self.order.len() > 0
    }

    /// How many wait for a worker.
    pub(crate) fn waiting(&self) -> usize {
        self.line.len() + self.order.len()
    }

    /// The time to work off what waits.
    pub(crate) fn wait_estimate(&self) -> Duration {
        Duration::from_secs(self.wait_estimate.load(Relaxed))
    }

    /// Whether the oldest gives up its place to one that comes: where the freshest come first, whoever has waited
    /// longest has the least use for it.
    pub(crate) fn displaces_oldest(&self, overload: Overload) -> bool {
        match overload {
            Overload::DropOldest => true,
            Overload::Reject => self.order.prefers_fresh() && self.order.standing().stands(),
            Overload::Wait(_) => false,
        }
    }

    /// Whether there is no time for what nobody waits for: the queue stands, and the processors are busy.
    pub(crate) fn is_pressed(&self) -> bool {
        self.order.standing().stands() && !self.rest.load(Relaxed) && !self.life.is_draining()
    }

    pub(crate) fn shallow_backlog(&self) -> usize {
        self.shallow_backlog.load(Relaxed)
    }

    /// Whether a client may be turned away now, within the budget.
    pub(crate) fn may_refuse(&self) -> bool {
        let rest = self.rest.load(Relaxed);
        self.refusal_budget().take(Instant::now(), rest)
    }

    pub(crate) fn refusal_budget(&self) -> MutexGuard<'_, RefusalBudget> {
        self.refusal_budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a refused client of this listener is told.
    pub(crate) fn words(&self, listener: usize) -> LastWords {
        self.listeners[listener].refusal(self.wait_estimate())
    }

    /// The same for a client that has a connection. Inside TLS it can be told once its handshake is over.
    pub(crate) fn words_for(&self, owned: &Owned<'_>) -> LastWords {
        let side = self.table.side(owned.id.slot);
        let is_open = side.is_some_and(|side| side.as_ref().is_some_and(|side| side.is_open()));
        self.listeners[owned.listener()].refusal_where(is_open, self.wait_estimate())
    }

    /// The addresses of all listeners, in the order they were given.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let streams = self.listeners.iter().map(|listener| (listener.position, listener.address));
        let datagrams = self.datagrams.sockets.iter().map(|socket| (socket.position, socket.address.into()));
        let mut all: Vec<_> = streams.chain(datagrams).collect();
        all.sort_unstable_by_key(|&(position, _)| position);
        all.into_iter().map(|(_, address)| address).collect()
    }
}
