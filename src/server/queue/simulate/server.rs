//! The server's models: the channel, the workers, the processor, and the rules at the door.

use crate::clock::Nanos;
use crate::server::queue::accounts::{Class, SourceId};
use crate::server::queue::order::{About, Arrivals};
use std::cell::RefCell;
use std::collections::VecDeque;

pub(super) const MS: Nanos = 1_000_000;
pub(super) const SECOND: Nanos = 1_000 * MS;

/// What accepting costs on the processor, and what accepting one and ending another costs.
pub(super) const ACCEPT_COST: Nanos = 5_000;
pub(super) const REFUSE_COST: Nanos = 10_000;

/// The order in which the server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServingOrder {
    /// As they came; who has hung up is skipped.
    InOrder,
    /// The newest once the head has waited 50 ms; who has hung up is skipped.
    Newest,
    /// The order of turns.
    Shelf,
}

/// What a turn does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkModel {
    /// It computes, on this many processors which all turns share.
    Processor(usize),
    /// It waits.
    Sleep,
}

/// The limits and manners of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerModel {
    pub(super) rule: ServingOrder,
    pub(super) workers: usize,
    pub(super) work: WorkModel,
    /// The mean cost of a turn.
    pub(super) cost: Nanos,
    /// How far a turn's cost is from it at most, as a share of it.
    pub(super) spread: f64,
    pub(super) queue: usize,
    pub(super) max_connections: usize,
    pub(super) backlog: usize,
    pub(super) backlog_deep: usize,
    pub(super) queue_timeout: Nanos,
    pub(super) target: Nanos,
    /// Each client's source counts; otherwise all are one.
    pub(super) fair: bool,
    /// The freshest first while the queue stands; without it in the order of arrival.
    pub(super) fresh: bool,
    /// The share of a processor that refusals may take.
    pub(super) refusals: f64,
}

impl ServerModel {
    pub(super) const DEFAULT: Self = Self {
        rule: ServingOrder::Shelf,
        workers: 32,
        work: WorkModel::Processor(1),
        cost: MS,
        spread: 0.0,
        queue: 128,
        max_connections: 10_000,
        backlog: 128,
        backlog_deep: 4_096,
        queue_timeout: 5 * SECOND,
        target: crate::server::queue::standing::TARGET,
        fair: true,
        fresh: true,
        refusals: 0.05,
    };

    /// Turns a second at most.
    pub(super) fn capacity(&self) -> f64 {
        let at_once = match self.work {
            WorkModel::Processor(processors) => processors.min(self.workers),
            WorkModel::Sleep => self.workers,
        };
        at_once as f64 * SECOND as f64 / self.cost as f64
    }
}

/// A request on its way through the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestModel {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) since: Nanos,
    pub(super) class: Class,
    pub(super) source: SourceId,
    pub(super) client: usize,
    /// Which of its client's requests it is.
    pub(super) ask: u32,
}

impl RequestModel {
    /// Which place on the shelf it has.
    pub(super) fn seat(&self) -> (bool, u32) {
        (self.class == Class::Datagram, self.slot)
    }
}

/// The channel, and what the state words say of hang-ups.
#[derive(Debug)]
pub(super) struct ChannelModel {
    pub(super) queue: RefCell<VecDeque<RequestModel>>,
    pub(super) hung_up: RefCell<Vec<bool>>,
}

impl ChannelModel {
    pub(super) fn push(&self, request: RequestModel) {
        self.queue.borrow_mut().push_back(request);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    pub(super) fn has_hung_up(&self, request: &RequestModel) -> bool {
        request.class != Class::Datagram && self.hung_up.borrow()[request.slot as usize]
    }
}

impl Arrivals<RequestModel> for ChannelModel {
    fn pop(&self) -> Option<RequestModel> {
        self.queue.borrow_mut().pop_front()
    }

    fn since(request: &RequestModel) -> Nanos {
        request.since
    }

    fn about(&self, request: &RequestModel) -> Option<About> {
        let &RequestModel { slot, generation, since, class, source, .. } = request;
        Some(About { slot, generation, since, class, source, hung_up: self.has_hung_up(request) })
    }
}

/// A turn that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct TurnModel {
    pub(super) request: RequestModel,
    pub(super) began: Nanos,
    /// What it has still to do: processor time, or time.
    pub(super) left: f64,
    /// It was given because nobody else waited.
    pub(super) spare: bool,
    /// Its client had closed its sending half with its request.
    pub(super) half_closed: bool,
}

/// The workers in turns, and the processors under them.
#[derive(Debug)]
pub(super) struct WorkersModel {
    pub(super) turns: Vec<TurnModel>,
    /// Processor time that the acceptor takes first, as the workers run after it.
    pub(super) overhead: f64,
    /// What all turns have done so far, and what the acceptor has taken of the processors.
    pub(super) worked: f64,
    pub(super) taken: f64,
    work: WorkModel,
    at: Nanos,
}

impl WorkersModel {
    pub(super) fn new(work: WorkModel) -> Self {
        Self { turns: Vec::new(), overhead: 0.0, worked: 0.0, taken: 0.0, work, at: 0 }
    }

    /// How much a turn does in a nanosecond.
    fn speed(&self) -> f64 {
        match self.work {
            WorkModel::Processor(processors) => (processors as f64 / self.turns.len() as f64).min(1.0),
            WorkModel::Sleep => 1.0,
        }
    }

    /// When the next turn is done, if nothing happens before.
    pub(super) fn next_done(&self) -> Option<Nanos> {
        let least = self.turns.iter().map(|turn| turn.left).reduce(f64::min)?;
        Some(self.at + (self.overhead + least.max(0.0) / self.speed()).ceil() as Nanos)
    }

    /// Lets time pass.
    pub(super) fn work_until(&mut self, now: Nanos) {
        let mut time = (now - self.at) as f64;
        self.at = now;
        let overhead = self.overhead.min(time);
        self.overhead -= overhead;
        if self.work != WorkModel::Sleep {
            time -= overhead;
            self.taken += overhead;
        }
        if self.turns.is_empty() {
            return;
        }
        let done = time * self.speed();
        self.worked += done * self.turns.len() as f64;
        self.turns.iter_mut().for_each(|turn| turn.left -= done);
    }

    /// Takes out a turn that is done.
    pub(super) fn take_done(&mut self) -> Option<TurnModel> {
        let done = self.turns.iter().position(|turn| turn.left < 1.0)?;
        Some(self.turns.swap_remove(done))
    }
}
