//! The world: events in the order of time, and what must be true after each of them.

use super::clients::{ClientDoing, ClientGroup, ClientModel, ClientPace};
use super::fairness::Fairness;
use super::random::SeededRandom;
use super::report::{GroupOutcome, RunReport};
use super::server::{
    ACCEPT_COST, ChannelModel, MS, REFUSE_COST, RequestModel, SECOND, ServerModel, ServingOrder, TurnModel,
    WorkModel, WorkersModel,
};
use crate::clock::Nanos;
use crate::server::queue::accounts::{Class, SourceId};
use crate::server::queue::order::{Arrivals, Offer, Order};
use crate::server::queue::shelf::{HALF_CLOSE, ShelfLimits};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// The timekeeper looks for what has expired this often.
const SCAN: Nanos = 50 * MS;

/// After how long a client whose handshake the kernel dropped asks again.
const SYN_AGAIN: Nanos = SECOND;

/// While it is not calm, what stands in the backlog is worked off in this time, and the backlog is at least this deep.
const BACKLOG_TIME: Nanos = 50 * MS;
const BACKLOG_LEAST: usize = 8;

/// Places for datagrams.
const DATAGRAMS: usize = 128;

/// All entries are counted once in this many steps: it is a pass over all connections.
const COUNT_EVERY: u64 = 256;

/// How long the head must have waited before the newest is served, in the prototype's second order.
const NEWEST_AFTER: Nanos = 50 * MS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WorldEvent {
    /// A client has something to ask.
    Ask { client: usize, asks: u32 },
    /// Its patience is over.
    Timeout { client: usize, asks: u32 },
    /// It asks the kernel again for a connection.
    Knock { client: usize, asks: u32 },
    /// Clients of a group that come once come.
    Arrive { group: usize },
    /// The timekeeper's round.
    Scan,
}

/// Where a request is that the server knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    Free,
    Idle,
    Waiting,
    Served,
}

#[derive(Clone, Copy, Debug)]
struct ConnectionModel {
    generation: u32,
    at: Whereabouts,
    newcomer: bool,
    /// Since when its request waits.
    since: Nanos,
    /// Its client has reset it.
    reset: bool,
    /// Its client closed its sending half with its request, and listens for the reply: the server cannot tell that from
    /// leaving.
    half_closed: bool,
}

pub(super) struct World {
    rules: ServerModel,
    groups: Vec<ClientGroup>,
    clients: Vec<ClientModel>,
    free_clients: Vec<Vec<usize>>,
    came: u128,
    now: Nanos,
    random: SeededRandom,
    events: BinaryHeap<Reverse<(Nanos, u64, WorldEvent)>>,
    steps: u64,
    order: Order<RequestModel>,
    channel: ChannelModel,
    workers: WorkersModel,
    connections: Vec<ConnectionModel>,
    free: Vec<u32>,
    datagrams: Vec<bool>,
    /// Clients in the kernel's backlog, with the number of their request, and since when.
    backlog: VecDeque<(usize, u32, Nanos)>,
    newcomers: usize,
    waiting_datagrams: usize,
    /// Processor time that refusals may take, and when it was last looked at.
    budget: f64,
    budget_at: Nanos,
    /// Whether a newcomer had to make room since it was calm.
    overflowed: bool,
    stood_at: Nanos,
    /// Kept only where all turns cost the same.
    fairness: Option<Fairness>,
    pub(super) report: RunReport,
}

impl World {
    pub(super) fn new(rules: ServerModel, groups: &[ClientGroup], seed: u64) -> Self {
        let limits = ShelfLimits {
            connections: rules.max_connections,
            datagrams: DATAGRAMS,
            doubtful_max: rules.queue,
            fresh: rules.fresh,
            knows_refused: false,
        };
        let mut world = Self {
            rules,
            groups: groups.to_vec(),
            clients: Vec::new(),
            free_clients: vec![Vec::new(); groups.len()],
            came: 0,
            now: MS,
            random: SeededRandom::new(seed),
            events: BinaryHeap::new(),
            steps: 0,
            order: Order::new(limits, rules.target),
            channel: ChannelModel {
                queue: VecDeque::new().into(),
                hung_up: vec![false; rules.max_connections].into(),
            },
            workers: WorkersModel::new(rules.work),
            connections: Vec::new(),
            free: Vec::new(),
            datagrams: vec![false; DATAGRAMS],
            backlog: VecDeque::new(),
            newcomers: 0,
            waiting_datagrams: 0,
            budget: 0.0,
            budget_at: 0,
            overflowed: false,
            stood_at: 0,
            fairness: None,
            report: RunReport { groups: vec![GroupOutcome::default(); groups.len()], ..RunReport::default() },
        };
        (0..groups.len()).for_each(|group| world.settle(group));
        world.at(SCAN, WorldEvent::Scan);
        world
    }

    /// Checks that sources get their shares; only where all turns cost the same.
    pub(super) fn with_fairness(mut self) -> Self {
        self.fairness = Some(Fairness::default());
        self
    }

    /// Runs until `end` and says what came of it.
    pub(super) fn run(mut self, end: Nanos) -> RunReport {
        loop {
            let next = self.events.peek().map_or(end, |Reverse((at, ..))| *at);
            let next = next.min(self.workers.next_done().unwrap_or(end)).min(end);
            self.workers.work_until(next);
            self.now = next;
            if next == end {
                self.report.done = (self.workers.worked + self.workers.taken) / self.rules.cost as f64;
                self.drain();
                return self.report;
            }
            self.step();
            self.audit();
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        while let Some(turn) = self.workers.take_done() {
            self.finish(turn);
        }
        while let Some(&Reverse((at, _, event))) = self.events.peek()
            && at <= self.now
        {
            self.events.pop();
            self.happen(event);
        }
        self.accept();
        self.start_turns();
        if self.order.standing().stands() {
            self.report.stood += self.now - self.stood_at;
        }
        self.stood_at = self.now;
    }

    fn at(&mut self, time: Nanos, event: WorldEvent) {
        let number = self.events.len() as u64 + self.steps * 100_000;
        self.events.push(Reverse((time.max(self.now), number, event)));
    }

    fn happen(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::Ask { client, asks } if self.clients[client].asks == asks => self.ask(client),
            WorldEvent::Timeout { client, asks } if self.clients[client].is_waiting(asks) => {
                self.leave(client)
            }
            WorldEvent::Knock { client, asks } if self.clients[client].is_waiting(asks) => self.knock(client),
            WorldEvent::Arrive { group } => self.arrive(group),
            WorldEvent::Scan => self.scan(),
            _ => {}
        }
    }
}

// The clients.
impl World {
    /// Lets the clients of a group begin.
    fn settle(&mut self, group: usize) {
        let ClientGroup { clients, pace, from, connected, .. } = self.groups[group];
        if matches!(pace, ClientPace::Once { .. } | ClientPace::Bursts { .. }) {
            return self.at(from, WorldEvent::Arrive { group });
        }
        for _ in 0..clients {
            let client = self.new_client(group);
            let first = match pace {
                ClientPace::Closed(_) => from + self.random.within(0..50 * MS),
                _ => pace.next(from, from, &mut self.random).expect("a pace of its own"),
            };
            if connected {
                self.clients[client].connection = self.open(false);
            }
            self.at(first, WorldEvent::Ask { client, asks: 0 });
        }
    }

    fn new_client(&mut self, group: usize) -> usize {
        let source = self.came / self.groups[group].per_source as u128;
        self.came += 1;
        let source =
            if self.rules.fair { SourceId((group as u128) << 64 | source) } else { SourceId::EVERYONE };
        let client = ClientModel {
            group,
            source,
            doing: ClientDoing::Nothing,
            connection: None,
            asks: 0,
            unheard: false,
            queued: false,
        };
        if let Some(free) = self.free_clients[group].pop() {
            // Timers of the last client of this number must not reach this one.
            self.clients[free] = ClientModel { asks: self.clients[free].asks + 1, ..client };
            return free;
        }
        self.clients.push(client);
        self.clients.len() - 1
    }

    fn arrive(&mut self, group: usize) {
        let (comers, next) = match self.groups[group].pace {
            ClientPace::Once { rate } => (1, self.random.interval(SECOND / rate)),
            ClientPace::Bursts { clients, every } => (clients, every),
            ClientPace::Closed(_) | ClientPace::Standing { .. } => unreachable!("they stay"),
        };
        for _ in 0..comers {
            let client = self.new_client(group);
            self.ask(client);
        }
        self.at(self.now + next, WorldEvent::Arrive { group });
    }

    fn ask(&mut self, client: usize) {
        let group = self.groups[self.clients[client].group];
        let asking = &mut self.clients[client];
        asking.doing = ClientDoing::Waiting(self.now);
        asking.asks += 1;
        asking.unheard = false;
        let (asks, connection) = (asking.asks, asking.connection);
        self.report.groups[asking.group].asked += 1;
        self.at(self.now + group.patience, WorldEvent::Timeout { client, asks });
        if group.datagrams {
            return self.send_datagram(client);
        }
        let Some((slot, generation)) = connection else { return self.knock(client) };
        let half_closed = self.random.happens(group.half_close);
        if half_closed {
            self.channel.hung_up.borrow_mut()[slot as usize] = true;
        }
        let connection = &mut self.connections[slot as usize];
        connection.half_closed = half_closed;
        assert_eq!((connection.at, connection.generation), (Whereabouts::Idle, generation));
        (connection.at, connection.since) = (Whereabouts::Waiting, self.now);
        let class = if connection.newcomer { Class::Newcomer } else { Class::Established };
        self.enqueue(slot, generation, class, client);
    }

    fn knock(&mut self, client: usize) {
        let asks = self.clients[client].asks;
        if self.backlog.len() < self.backlog_limit() {
            self.backlog.push_back((client, asks, self.now));
        } else {
            self.report.unheard += 1;
            self.clients[client].unheard = true;
            self.at(self.now + SYN_AGAIN, WorldEvent::Knock { client, asks });
        }
    }

    fn backlog_limit(&self) -> usize {
        let calm = self.order.standing().is_calm(self.now);
        let small = self.soon().min(self.rules.backlog);
        match self.rules.rule {
            ServingOrder::Shelf if calm => self.rules.backlog_deep,
            ServingOrder::Shelf => small,
            _ => self.rules.backlog,
        }
    }

    fn send_datagram(&mut self, client: usize) {
        let free = |world: &Self| world.datagrams.iter().position(|taken| !taken);
        if free(self).is_none()
            && let Some(request) = self.order.displace(Class::Datagram, self.now)
        {
            self.report.displaced += 1;
            self.shed(&request);
        }
        let Some(place) = free(self) else { return };
        self.datagrams[place] = true;
        self.waiting_datagrams += 1;
        self.enqueue(place as u32, 0, Class::Datagram, client);
    }

    fn enqueue(&mut self, slot: u32, generation: u32, class: Class, client: usize) {
        let ClientModel { source, asks: ask, .. } = self.clients[client];
        let request = RequestModel { slot, generation, since: self.now, class, source, client, ask };
        self.clients[client].queued = true;
        self.newcomers += usize::from(class == Class::Newcomer);
        self.channel.push(request);
    }

    /// A client has lost patience.
    fn leave(&mut self, client: usize) {
        let left = self.clients[client];
        let group = self.groups[left.group];
        self.clients[client].doing = ClientDoing::Nothing;
        self.clients[client].connection = None;
        if let Some((slot, generation)) = left.connection {
            self.hang_up(slot, generation, group.resets);
        }
        self.next_ask(client, self.now, self.now + group.pause);
    }

    /// The client of a connection is gone. The server hears of it, unless the connection has had no turn: such a one is not
    /// registered with the poller yet.
    fn hang_up(&mut self, slot: u32, generation: u32, reset: bool) {
        let connection = &mut self.connections[slot as usize];
        connection.reset |= reset;
        let shelf = self.rules.rule == ServingOrder::Shelf;
        if shelf && connection.newcomer {
            return;
        }
        let connection = *connection;
        self.channel.hung_up.borrow_mut()[slot as usize] = true;
        if connection.at != Whereabouts::Waiting || !shelf {
            return;
        }
        let class = Class::Established;
        if reset {
            if let Some(request) = self.order.gone(class, slot, generation, self.now) {
                self.report.gone += 1;
                self.shed(&request);
            }
            return;
        }
        if self.now - connection.since > HALF_CLOSE
            && let Some(fairness) = &mut self.fairness
        {
            fairness.left((false, slot));
        }
        if let Some(request) = self.order.hung_up(class, slot, generation, self.now) {
            self.report.given_up += 1;
            self.shed(&request);
        }
    }

    /// After its answer, or without one: asks again, or is gone for good.
    fn next_ask(&mut self, client: usize, asked: Nanos, not_before: Nanos) {
        let ClientModel { group, asks, .. } = self.clients[client];
        match self.groups[group].pace.next(asked, not_before, &mut self.random) {
            Some(next) => self.at(next, WorldEvent::Ask { client, asks }),
            None => self.free_clients[group].push(client),
        }
    }
}

// The door.
impl World {
    /// The acceptor, which runs before the workers do.
    fn accept(&mut self) {
        while let Some(&(client, asks, since)) = self.backlog.front() {
            let open = self.connections.len() - self.free.len();
            if open >= self.rules.max_connections || !(self.has_place() || self.make_place()) {
                break;
            }
            self.backlog.pop_front();
            self.overhead(ACCEPT_COST);
            let (slot, generation) = self.open(true).expect("there is a place for a connection");
            let connection = &mut self.connections[slot as usize];
            (connection.at, connection.since) = (Whereabouts::Waiting, since);
            let stays = self.clients[client].is_waiting(asks);
            if stays {
                self.clients[client].queued = true;
                self.clients[client].connection = Some((slot, generation));
            }
            let half_close = self.groups[self.clients[client].group].half_close;
            let half_closed = self.random.happens(half_close);
            if (!stays || half_closed) && self.rules.rule != ServingOrder::Shelf {
                self.channel.hung_up.borrow_mut()[slot as usize] = true;
            }
            let ClientModel { source, group, .. } = self.clients[client];
            let connection = &mut self.connections[slot as usize];
            connection.half_closed = half_closed;
            connection.reset = !stays && self.groups[group].resets;
            let class = Class::Newcomer;
            let request = RequestModel { slot, generation, since, class, source, client, ask: asks };
            self.newcomers += 1;
            self.channel.push(request);
        }
    }

    fn has_place(&self) -> bool {
        let free = self.rules.workers - self.workers.turns.len();
        let waiting = match self.rules.rule {
            ServingOrder::Shelf => self.newcomers,
            _ => self.channel.len(),
        };
        waiting < self.places() + free
    }

    /// How many newcomers may wait: while the queue stands and processors have no rest, as many as the workers serve soon, once
    /// some had to make room.
    fn places(&self) -> usize {
        let busy = self.rules.work != WorkModel::Sleep && self.rules.rule == ServingOrder::Shelf;
        if busy && self.overflowed && !self.order.standing().is_calm(self.now) {
            self.soon().min(self.rules.queue)
        } else {
            self.rules.queue
        }
    }

    /// How many turns the workers do in a moment.
    fn soon(&self) -> usize {
        let soon = self.rules.capacity() * BACKLOG_TIME as f64 / SECOND as f64;
        (soon as usize).max(BACKLOG_LEAST)
    }

    /// Refuses one for another, if the budget pays for it.
    fn make_place(&mut self) -> bool {
        if self.rules.rule == ServingOrder::Shelf {
            let earned = (self.now - self.budget_at) as f64 * self.rules.refusals;
            // A tenth of a second's worth at once.
            self.budget = (self.budget + earned).min(SECOND as f64 / 10.0 * self.rules.refusals);
            self.budget_at = self.now;
        }
        // What stands in a backlog that was deep until now must go, whatever it costs.
        let affordable = self.budget >= REFUSE_COST as f64 || self.backlog.len() > self.backlog_limit();
        let stands = self.order.standing().stands() || self.rules.rule != ServingOrder::Shelf;
        if !(affordable && stands) {
            return false;
        }
        if self.rules.rule != ServingOrder::Shelf {
            // The prototype refuses the newcomer itself, one for each turn.
            self.budget -= REFUSE_COST as f64;
            self.overhead(REFUSE_COST);
            if let Some((client, asks, _)) = self.backlog.pop_front() {
                self.tell_refused(client, asks);
            }
            return false;
        }
        self.shelve();
        let Some(request) = self.order.displace(Class::Newcomer, self.now) else { return false };
        self.overflowed = true;
        self.budget = (self.budget - REFUSE_COST as f64).max(0.0);
        self.overhead(REFUSE_COST - ACCEPT_COST);
        self.report.displaced += 1;
        self.shed(&request);
        true
    }

    fn overhead(&mut self, cost: Nanos) {
        if self.rules.work != WorkModel::Sleep {
            self.workers.overhead += cost as f64;
        }
    }

    /// A slot for a connection.
    fn open(&mut self, newcomer: bool) -> Option<(u32, u32)> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.connections.len() == self.rules.max_connections => return None,
            None => {
                let free = ConnectionModel {
                    generation: 0,
                    at: Whereabouts::Free,
                    newcomer,
                    since: 0,
                    reset: false,
                    half_closed: false,
                };
                self.connections.push(free);
                self.connections.len() as u32 - 1
            }
        };
        let connection = &mut self.connections[slot as usize];
        assert_eq!(connection.at, Whereabouts::Free);
        (connection.at, connection.newcomer) = (Whereabouts::Idle, newcomer);
        (connection.reset, connection.half_closed) = (false, false);
        self.channel.hung_up.borrow_mut()[slot as usize] = false;
        Some((slot, connection.generation))
    }

    fn close(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        assert_ne!(connection.at, Whereabouts::Free);
        connection.at = Whereabouts::Free;
        connection.generation += 1;
        self.free.push(slot);
    }
}

// The workers and the timekeeper.
impl World {
    fn start_turns(&mut self) {
        while self.workers.turns.len() < self.rules.workers {
            let Some(offer) = self.take() else { return };
            let request = match offer {
                Offer::Turn(request) => request,
                Offer::GiveUp(request) => {
                    self.report.given_up += 1;
                    self.shed(&request);
                    continue;
                }
            };
            if self.is_gone(&request) {
                self.report.gone += 1;
                self.order.refund(request.source);
                if let Some(fairness) = &mut self.fairness {
                    fairness.refunded(request.source);
                }
                self.shed(&request);
                continue;
            }
            self.leave_queue(&request, Whereabouts::Served);
            let group = self.groups[self.clients[request.client].group];
            let spread = 1.0 + self.rules.spread * (self.random.within(0..2_001) as f64 / 1_000.0 - 1.0);
            let left = self.rules.cost as f64 * group.cost * spread;
            let gone = !self.clients[request.client].is_waiting(request.ask);
            let spare = gone && !self.anyone_waits();
            let half_closed =
                request.class != Class::Datagram && self.connections[request.slot as usize].half_closed;
            self.workers.turns.push(TurnModel { request, began: self.now, left, spare, half_closed });
        }
    }

    /// Whether a client waits whose request is in the channel or on the shelf.
    fn anyone_waits(&self) -> bool {
        self.clients.iter().any(|client| client.queued && client.is_waiting(client.asks))
    }

    /// What a look at the socket says: the prototype takes every hang-up for having left.
    fn is_gone(&self, request: &RequestModel) -> bool {
        if request.class == Class::Datagram {
            return false;
        }
        let reset = self.connections[request.slot as usize].reset;
        reset || self.rules.rule != ServingOrder::Shelf && self.channel.has_hung_up(request)
    }

    fn take(&mut self) -> Option<Offer<RequestModel>> {
        match self.rules.rule {
            ServingOrder::InOrder => self.channel.pop().map(Offer::Turn),
            ServingOrder::Newest => {
                let mut queue = self.channel.queue.borrow_mut();
                let waited = queue.front().is_some_and(|head| self.now - head.since > NEWEST_AFTER);
                let request = if waited { queue.pop_back() } else { queue.pop_front() };
                request.map(Offer::Turn)
            }
            ServingOrder::Shelf if self.fairness.is_none() => self.order.take(self.now, &self.channel),
            ServingOrder::Shelf => self.take_and_check(),
        }
    }

    /// Tells the simple accounts what happens in the others.
    fn take_and_check(&mut self) -> Option<Offer<RequestModel>> {
        let shelved = self.order.len();
        let came: Vec<RequestModel> = self.channel.queue.borrow().iter().copied().collect();
        let offer = self.order.take(self.now, &self.channel);
        if shelved + self.order.len() == 0 {
            return offer;
        }
        self.note_came(&came[..came.len() - self.channel.len()]);
        let fairness = self.fairness.as_mut().expect("it is kept");
        match &offer {
            Some(Offer::Turn(request)) => fairness.picked(request),
            Some(Offer::GiveUp(request)) => fairness.left(request.seat()),
            None => {}
        }
        offer
    }

    /// Tells the simple accounts of those that are on the shelf now.
    fn note_came(&mut self, came: &[RequestModel]) {
        let Some(fairness) = &mut self.fairness else { return };
        for request in came {
            let doubtful = self.channel.has_hung_up(request) && self.now - request.since > HALF_CLOSE;
            if !doubtful {
                fairness.came(request);
            }
        }
    }

    /// Moves what workers in long turns have left in the line to the shelf.
    fn shelve(&mut self) {
        if self.channel.len() == 0 {
            return;
        }
        let came: Vec<RequestModel> = self.channel.queue.borrow().iter().copied().collect();
        let mut given_up = Vec::new();
        self.order.shelve(self.now, &self.channel, None, |offer| match offer {
            Offer::GiveUp(request) => given_up.push(request),
            Offer::Turn(request) => unreachable!("{request:?} can stand on the shelf"),
        });
        self.note_came(&came[..came.len() - self.channel.len()]);
        self.report.given_up += given_up.len();
        given_up.iter().for_each(|request| self.shed(request));
    }

    /// A request is in the queue no more.
    fn leave_queue(&mut self, request: &RequestModel, to: Whereabouts) {
        self.newcomers -= usize::from(request.class == Class::Newcomer);
        if self.clients[request.client].asks == request.ask {
            self.clients[request.client].queued = false;
        }
        if let Some(fairness) = &mut self.fairness {
            fairness.left(request.seat());
        }
        if request.class == Class::Datagram {
            assert!(self.datagrams[request.slot as usize], "a datagram is served twice");
            self.waiting_datagrams -= 1;
            return;
        }
        let connection = &mut self.connections[request.slot as usize];
        assert_eq!((connection.at, connection.generation), (Whereabouts::Waiting, request.generation));
        connection.at = to;
    }

    fn finish(&mut self, turn: TurnModel) {
        let TurnModel { request, began, .. } = turn;
        let left = self.clients[request.client];
        let ClientModel { group, doing, connection, .. } = left;
        let plan = self.groups[group];
        let cost = if self.rules.work == WorkModel::Sleep {
            self.now - began
        } else {
            (self.rules.cost as f64 * plan.cost) as Nanos
        };
        self.order.note_cost(|| request.source, cost);
        if self.rules.rule != ServingOrder::Shelf {
            self.budget = (self.budget + REFUSE_COST as f64).min(10.0 * REFUSE_COST as f64);
        }
        let useful = self.clients[request.client].is_waiting(request.ask);
        let mut stays = useful && !matches!(plan.pace, ClientPace::Once { .. } | ClientPace::Bursts { .. });
        if request.class == Class::Datagram {
            self.datagrams[request.slot as usize] = false;
        } else {
            stays &= !turn.half_closed;
            let served = &mut self.connections[request.slot as usize];
            (served.at, served.newcomer) = (Whereabouts::Idle, false);
            if !stays {
                self.close(request.slot);
            }
        }
        if !useful {
            // Nobody can see that who sent a datagram or closed its half at once has left, or for how long one waited
            // whose handshake was dropped. (The client may be another by now; then this one had left long before.)
            let unseen = request.class == Class::Datagram || turn.half_closed || left.unheard;
            if turn.spare || unseen {
                self.report.excused += plan.cost;
            } else {
                self.report.wasted(self.now, plan.cost);
            }
            return;
        }
        let ClientDoing::Waiting(asked) = doing else { unreachable!("it waits") };
        self.report.useful(group, self.now, self.now - asked, plan.cost);
        self.clients[request.client].doing = ClientDoing::Nothing;
        self.clients[request.client].connection = connection.filter(|_| stays);
        self.next_ask(request.client, asked, self.now);
    }

    /// A request is ended without a turn.
    fn shed(&mut self, request: &RequestModel) {
        self.leave_queue(request, Whereabouts::Idle);
        if request.class == Class::Datagram {
            self.datagrams[request.slot as usize] = false;
            return;
        }
        self.close(request.slot);
        self.tell_refused(request.client, request.ask);
    }

    fn tell_refused(&mut self, client: usize, ask: u32) {
        if !self.clients[client].is_waiting(ask) {
            return;
        }
        let refused = &mut self.clients[client];
        (refused.doing, refused.connection) = (ClientDoing::Nothing, None);
        let group = refused.group;
        self.report.groups[group].shed += 1;
        self.next_ask(client, self.now, self.now + self.groups[group].pause);
    }

    fn scan(&mut self) {
        for request in self.order.expire_late(self.now, self.rules.queue_timeout, |_, _| true) {
            self.report.expired += 1;
            self.shed(&request);
        }
        self.overflowed &= !self.order.standing().is_calm(self.now);
        let late = self.connections.iter().filter(|connection| {
            connection.at == Whereabouts::Waiting && self.now - connection.since > self.rules.queue_timeout
        });
        assert_eq!(
            late.count(),
            self.in_the_channel_for_too_long(),
            "an entry on the shelf has waited too long"
        );
        self.at(self.now + SCAN, WorldEvent::Scan);
    }

    /// Connections whose entry has waited too long and is not on the shelf yet.
    fn in_the_channel_for_too_long(&self) -> usize {
        let too_long = |request: &&RequestModel| {
            request.class != Class::Datagram && self.now - request.since > self.rules.queue_timeout
        };
        self.channel.queue.borrow().iter().filter(too_long).count()
    }

    /// The end: what waits is cut, and then nothing must be left.
    fn drain(&mut self) {
        while let Some(request) = self.order.drain_one().or_else(|| self.channel.pop()) {
            self.leave_queue(&request, Whereabouts::Idle);
            if request.class == Class::Datagram {
                self.datagrams[request.slot as usize] = false;
            }
        }
        self.count();
        assert_eq!(self.order.len() + self.channel.len() + self.newcomers + self.waiting_datagrams, 0);
    }
}

// What must be true after each step.
impl World {
    fn audit(&self) {
        let idle = self.workers.turns.len() < self.rules.workers;
        let waiting = self.channel.len() + self.order.len();
        assert!(!idle || waiting == 0, "{waiting} wait, and a worker is free");
        if self.rules.rule == ServingOrder::Shelf {
            assert!(self.newcomers <= self.rules.queue + self.rules.workers, "{} newcomers", self.newcomers);
        }
        assert!(self.backlog.len() <= self.rules.backlog_deep);
        if self.steps.is_multiple_of(COUNT_EVERY) {
            self.count();
        }
    }

    /// Counts every connection where it is.
    fn count(&self) {
        let at = |place| self.connections.iter().filter(|connection| connection.at == place).count();
        let queued = self.channel.len() + self.order.len();
        assert_eq!(at(Whereabouts::Waiting) + self.waiting_datagrams, queued, "an entry was lost or made up");
        let turns = self.workers.turns.iter().filter(|turn| turn.request.class != Class::Datagram).count();
        assert_eq!(at(Whereabouts::Served), turns);
        assert_eq!(at(Whereabouts::Free), self.free.len());
        let datagrams = self.datagrams.iter().filter(|&&taken| taken).count();
        assert_eq!(datagrams, self.waiting_datagrams + self.workers.turns.len() - turns);
    }
}
