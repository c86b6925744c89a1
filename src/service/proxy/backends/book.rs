//! The book: all that the gate knows of backends, of places, and of clients that wait. One lock guards it.

use super::ask::{Asking, BackendId, Passed, Refusal, Wake, Woken};
use super::health::Health;
use super::name::Name;
use super::priority::PriorityList;
use super::unreached::Unreached;
use super::wait::{Joined, WaitLimits, WaitList};
use crate::clock::Nanos;
use crate::metrics::backends::{BackendSnapshot, BackendsSnapshot};
use crate::metrics::histogram::Histogram;
use crate::metrics::snapshot::HistogramSnapshot;
use crate::reason::BackendFailure;
use crate::service::proxy::address::BackendAddress;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The limits of a gate's backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BackendLimits {
    /// How many connections each backend may have.
    pub(crate) connections: usize,
    /// How many connections all backends together may have; `None`: no limit but that of each.
    pub(crate) total: Option<usize>,
    /// Whether checks, and not clients, try the backends that were set aside.
    pub(crate) checked: bool,
    /// Whether one of several places is kept for priority requests.
    pub(crate) reserve: bool,
    pub(crate) wait: WaitLimits,
}

/// A place that was given out, as the book knows it.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) id: BackendId,
    pub(super) address: BackendAddress,
    pub(super) passed: Arc<Passed>,
    began: Nanos,
    trial: bool,
    priority: bool,
}

/// The backend that a client should go to, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Backend(usize),
    /// No backend that is up has a free place.
    Full,
    /// No backend is up.
    Nothing,
}

/// The state of a ticket, as its owner sees it.
#[derive(Debug)]
pub(super) enum TicketState {
    Waiting { until: Nanos },
    Granted(Grant),
    Refused(Refusal),
}

#[derive(Debug)]
struct Backend {
    address: BackendAddress,
    life: u32,
    /// It is one of the gate's addresses. Otherwise it is leaving, while it has connections, or its entry is free.
    present: bool,
    in_use: usize,
    taken: u64,
    given_back: u64,
    /// The number of the choice that last chose it: choices are counted up.
    chosen: u64,
    checked: Nanos,
    health: Health,
    connected: u64,
    failures: [u64; BackendFailure::COUNT],
    connect: Histogram,
    /// Why the last attempt failed that did.
    last_failure: Option<Unreached>,
    passed: Arc<Passed>,
}

/// A slot for one client that waits. `life` tells its owners apart: it counts up when the slot is freed.
struct Waiter {
    life: u32,
    stage: WaiterStage,
}

enum WaiterStage {
    Free,
    Waiting { since: Nanos, wake: Wake },
    Granted(Grant),
    Refused(Refusal),
}

/// The book; see the head of this file.
pub(super) struct Book {
    limits: BackendLimits,
    all: Vec<Backend>,
    in_use: usize,
    /// How many of the places in use are held by priority requests.
    priority_in_use: usize,
    taken: u64,
    given_back: u64,
    list: WaitList,
    priority: PriorityList,
    /// The last place that went to a client that had waited went to a priority request.
    favoured: bool,
    waiters: Vec<Waiter>,
    free: Vec<u32>,
    woken: Woken,
    wait: Histogram,
    refused: [u64; 4],
    chosen: u64,
    luck: u64,
    /// Whether any backend was ever reached.
    reached_once: bool,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").field("backends", &self.all).field("waiting", &self.waiting()).finish()
    }
}

impl Book {
    pub(super) fn new(limits: BackendLimits, seed: u64) -> Self {
        Self {
            limits,
            all: Vec::new(),
            in_use: 0,
            priority_in_use: 0,
            taken: 0,
            given_back: 0,
            priority: PriorityList::default(),
            favoured: false,
            list: WaitList::new(limits.wait),
            waiters: Vec::new(),
            free: Vec::new(),
            woken: Woken::default(),
            wait: Histogram::default(),
            refused: [0; 4],
            chosen: 0,
            luck: seed,
            reached_once: false,
        }
    }

    pub(super) fn limits(&self) -> &BackendLimits {
        &self.limits
    }

    /// The backends that are not leaving.
    pub(super) fn present(&self) -> Vec<BackendId> {
        let present = self.all.iter().enumerate().filter(|(_, backend)| backend.present);
        present.map(|(index, _)| self.id(index)).collect()
    }

    /// The bytes that a book can take. Each of its lists doubles when it grows.
    pub(super) fn memory_ceiling(wait: &WaitLimits, backends: usize) -> usize {
        let slots = WaitList::slots_for(wait.most);
        let lists = size_of::<Waiter>() + size_of::<u32>() + size_of::<Wake>();
        let backend = 2 * size_of::<Backend>() + size_of::<Passed>() + Histogram::BYTES;
        Histogram::BYTES + backends * backend + slots * 2 * lists + WaitList::memory_ceiling(wait)
    }

    pub(super) fn set_limits(&mut self, limits: BackendLimits, now: Nanos) {
        self.limits = limits;
        self.list.set_limits(limits.wait, now);
    }

    pub(super) fn set_addresses(&mut self, addresses: &[BackendAddress]) {
        for backend in &mut self.all {
            backend.present &= addresses.contains(&backend.address);
        }
        for address in addresses {
            let known = |backend: &&mut Backend| {
                backend.address == *address && (backend.present || backend.in_use > 0)
            };
            if let Some(backend) = self.all.iter_mut().find(known) {
                backend.present = true;
                // Another name may lead to it now.
                backend.address = address.clone();
                continue;
            }
            let new = |life| Backend {
                address: address.clone(),
                life,
                present: true,
                in_use: 0,
                taken: 0,
                given_back: 0,
                chosen: 0,
                checked: 0,
                health: Health::default(),
                connected: 0,
                failures: [0; BackendFailure::COUNT],
                connect: Histogram::default(),
                last_failure: None,
                passed: Arc::default(),
            };
            match self.all.iter_mut().find(|backend| !backend.present && backend.in_use == 0) {
                Some(free) => *free = new(free.life + 1),
                None => self.all.push(new(0)),
            }
        }
    }

    fn id(&self, index: usize) -> BackendId {
        BackendId { index: index as u32, life: self.all[index].life }
    }

    /// The backend with this id, if its entry has not been given to another one.
    fn backend(&mut self, id: BackendId) -> Option<&mut Backend> {
        self.all.get_mut(id.index as usize).filter(|backend| backend.life == id.life)
    }

    /// Whether `total` allows one more connection.
    fn has_room(&self) -> bool {
        self.limits.total.is_none_or(|total| self.in_use < total)
    }

    /// The most connections that all present backends together may have.
    fn limit(&self) -> usize {
        let present = self.all.iter().filter(|backend| backend.present).count();
        let sum = present * self.limits.connections;
        self.limits.total.map_or(sum, |total| total.min(sum))
    }

    pub(super) fn has_other(&self, tried: &[BackendId], this: BackendId) -> bool {
        let other = |(index, backend): (usize, &Backend)| {
            let id = self.id(index);
            backend.present && backend.health.is_up() && id != this && !tried.contains(&id)
        };
        self.all.iter().enumerate().any(other)
    }

    pub(super) fn is_any_up(&self) -> bool {
        self.all.iter().any(|backend| backend.present && backend.health.is_up())
    }

    /// The choice for a client that has just asked and has tried these backends already. While others wait it gets none:
    /// nobody overtakes them.
    pub(super) fn choose_for_newcomer(&mut self, asking: &Asking<'_>, now: Nanos) -> Choice {
        if self.limits.wait != asking.wait {
            self.set_limits(BackendLimits { wait: asking.wait, ..self.limits }, now);
        }
        if self.waiting() > 0 {
            self.settle(now);
        } else {
            self.list.observe(now);
        }
        let ahead = if asking.priority { self.priority.len() } else { self.waiting() };
        if ahead > 0 && asking.tried.is_empty() {
            // Since those ahead wait for any backend, one is up, and none has a place.
            return Choice::Full;
        }
        match self.choose(asking.priority, asking.tried, now) {
            Choice::Backend(_) if ahead > 0 => Choice::Full,
            choice => choice,
        }
    }

    fn waiting(&self) -> usize {
        self.list.len() + self.priority.len()
    }

    /// Whether only a priority request may have the last free place: while no such request has a place.
    fn is_last_kept(&self) -> bool {
        if !self.limits.reserve || self.priority_in_use > 0 {
            return false;
        }
        let (mut places, mut free) = (0, 0);
        for backend in self.all.iter().filter(|one| one.present && one.health.is_up()) {
            places += self.limits.connections;
            free += self.limits.connections.saturating_sub(backend.in_use);
        }
        let total = self.limits.total.unwrap_or(usize::MAX);
        places.min(total) > 1 && free.min(total.saturating_sub(self.in_use)) <= 1
    }

    /// A backend that is due for a trial, or else the one with the smallest share of its places in use. Among equals it
    /// is the one that was chosen longest ago.
    fn choose(&self, priority: bool, tried: &[BackendId], now: Nanos) -> Choice {
        let any_up = self.is_any_up();
        let room = self.has_room();
        let kept = !priority && self.is_last_kept();
        let (mut best, mut full) = (None::<usize>, false);
        for (index, backend) in self.all.iter().enumerate() {
            if !backend.present || tried.contains(&self.id(index)) {
                continue;
            }
            let due = !self.limits.checked && backend.health.is_due(now, any_up);
            if !due && !backend.health.is_up() {
                continue;
            }
            if !room || backend.in_use >= self.limits.connections || (kept && !due) {
                full = true;
            } else if due {
                return Choice::Backend(index);
            } else if best.is_none_or(|best| backend.load() < self.all[best].load()) {
                best = Some(index);
            }
        }
        match best {
            Some(index) => Choice::Backend(index),
            None if full => Choice::Full,
            None => Choice::Nothing,
        }
    }

    pub(super) fn choose_for_check(&self, every: Nanos, now: Nanos) -> Option<usize> {
        let any_up = self.is_any_up();
        let kept = self.is_last_kept();
        let room = |backend: &Backend| {
            let kept = kept && backend.health.is_up();
            backend.in_use < self.limits.connections && self.in_use < self.limit() && !kept
        };
        let due = |backend: &Backend| {
            backend.health.is_due(now, any_up) || now.saturating_sub(backend.checked) >= every
        };
        self.all.iter().position(|backend| backend.present && room(backend) && due(backend))
    }

    /// Gives out a place at this backend.
    pub(super) fn grant(&mut self, index: usize, priority: bool, now: Nanos) -> Grant {
        let id = self.id(index);
        self.chosen += 1;
        self.in_use += 1;
        self.priority_in_use += usize::from(priority);
        self.taken += 1;
        let backend = &mut self.all[index];
        backend.chosen = self.chosen;
        backend.checked = now;
        backend.in_use += 1;
        backend.taken += 1;
        let trial = backend.health.try_now();
        let (address, passed) = (backend.address.clone(), backend.passed.clone());
        Grant { id, address, passed, began: now, trial, priority }
    }

    pub(super) fn give_back(&mut self, grant: &Grant, _now: Nanos) {
        self.in_use -= 1;
        self.priority_in_use -= usize::from(grant.priority);
        self.given_back += 1;
        if let Some(backend) = self.backend(grant.id) {
            backend.in_use -= 1;
            backend.given_back += 1;
            if grant.trial {
                backend.health.trial_over();
            }
        }
    }

    /// Notes that a connection was made. True if the backend had been set aside until now.
    pub(super) fn reached(&mut self, id: BackendId, took: Nanos, now: Nanos) -> bool {
        self.reached_once = true;
        let Some(backend) = self.backend(id) else { return false };
        let was_up = backend.health.is_up();
        backend.connected += 1;
        backend.connect.observe(took);
        backend.health.reached(now);
        !was_up
    }

    /// Notes that an attempt failed. True if the backend is set aside from now on.
    pub(super) fn failed(&mut self, grant: &Grant, unreached: &Unreached, now: Nanos) -> bool {
        let failure = unreached.failure;
        let luck = self.luck();
        let Some(backend) = self.backend(grant.id) else { return false };
        let was_up = backend.health.is_up();
        backend.failures[failure as usize] += 1;
        backend.last_failure = Some(unreached.clone());
        // The gate itself lacked descriptors, ports or memory, which says nothing about the backend.
        if failure != BackendFailure::Local {
            backend.health.failed(grant.began, grant.trial, now, luck);
        }
        was_up && !backend.health.is_up()
    }

    /// The next number of a sequence that differs from gate to gate (splitmix64).
    fn luck(&mut self) -> u64 {
        self.luck = self.luck.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.luck;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Adds a client to those that wait, and returns the name of its slot.
    pub(super) fn wait(&mut self, asking: &Asking<'_>, wake: Wake, now: Nanos) -> Result<Name, Refusal> {
        let full = if asking.priority { self.priority.is_full() } else { self.limits.wait.most == 0 };
        if full {
            return Err(Refusal::QueueFull);
        }
        let Some(name) = self.free_name(asking.priority) else {
            if !asking.priority {
                self.list.note_refused();
            }
            return Err(Refusal::QueueFull);
        };
        let joined = if asking.priority {
            self.priority.join(name, asking.since);
            Joined::Waits
        } else {
            self.list.join(name, asking.source, asking.since, now)
        };
        let (slot, _) = name;
        match joined {
            Joined::Waits => {}
            Joined::Displaced(oldest) => self.refuse(oldest, Refusal::QueueFull),
            Joined::Full => {
                self.free.push(slot);
                return Err(Refusal::QueueFull);
            }
        }
        self.waiters[slot as usize].stage = WaiterStage::Waiting { since: asking.since, wake };
        Ok(name)
    }

    /// A name for one more client that waits. There is none when many tickets have their answer, and their owners have not
    /// looked yet. Priority requests have some names for themselves.
    fn free_name(&mut self, priority: bool) -> Option<Name> {
        let most = self.list.slots() - if priority { 0 } else { PriorityList::SLOTS };
        if self.waiters.len() - self.free.len() >= most {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.waiters.push(Waiter { life: 0, stage: WaiterStage::Free });
            self.waiters.len() as u32 - 1
        });
        Some((slot, self.waiters[slot as usize].life))
    }

    /// Refuses a client that waits, and wakes it.
    fn refuse(&mut self, (slot, life): Name, refusal: Refusal) {
        self.refused(refusal);
        let waiter = &mut self.waiters[slot as usize];
        debug_assert_eq!(waiter.life, life);
        if let WaiterStage::Waiting { wake, .. } =
            std::mem::replace(&mut waiter.stage, WaiterStage::Refused(refusal))
        {
            self.woken.push(wake, Some(refusal));
        }
    }

    /// Records how long a client waited that has a place now.
    pub(super) fn waited(&mut self, time: Nanos) {
        self.wait.observe(time);
    }

    /// Counts a failed lookup for each backend with one of these addresses.
    pub(super) fn not_resolved(&mut self, addresses: &[BackendAddress]) {
        for backend in self.all.iter_mut().filter(|one| one.present && addresses.contains(&one.address)) {
            backend.failures[BackendFailure::Resolve as usize] += 1;
        }
    }

    /// Counts a refusal.
    pub(super) fn refused(&mut self, refusal: Refusal) {
        self.refused[refusal as usize] += 1;
    }

    /// Gives free places to the clients that wait, in their order. Refuses those that have waited too long, and all of
    /// them when no backend is up.
    pub(super) fn settle(&mut self, now: Nanos) {
        let timeout = self.list.timeout();
        while let Some(late) = self.priority.expire(now, timeout).or_else(|| self.list.expire(now)) {
            self.refuse(late, Refusal::QueueTimeout);
        }
        while self.waiting() > 0 {
            let (priority, choice) = self.choose_for_waiting(now);
            match choice {
                Choice::Full => break,
                Choice::Nothing => {
                    let Some(name) = self.priority.next().or_else(|| self.list.drain_one()) else { break };
                    self.refuse(name, Refusal::NoBackend);
                }
                Choice::Backend(index) => {
                    let next = if priority { self.priority.next() } else { self.list.next(now) };
                    let Some((slot, _)) = next else { break };
                    self.favoured = priority;
                    let grant = self.grant(index, priority, now);
                    let stage = &mut self.waiters[slot as usize].stage;
                    if let WaiterStage::Waiting { since, wake } =
                        std::mem::replace(stage, WaiterStage::Granted(grant))
                    {
                        self.waited(now.saturating_sub(since));
                        self.woken.push(wake, None);
                    }
                }
            }
        }
    }

    /// Whether a priority request is next among the clients that wait, and where the next client goes. While others wait,
    /// priority requests do not get two places in a row, so a flood of them cannot starve the others.
    fn choose_for_waiting(&self, now: Nanos) -> (bool, Choice) {
        let (priority, others) = (self.priority.len() > 0, self.list.len() > 0);
        let first = priority && !(others && self.favoured);
        match self.choose(first, &[], now) {
            Choice::Full if priority && !first => (true, self.choose(true, &[], now)),
            choice => (first, choice),
        }
    }

    pub(super) fn take_woken(&mut self) -> Woken {
        std::mem::take(&mut self.woken)
    }

    /// The state of a ticket. Its slot is freed unless the state is `Waiting`.
    pub(super) fn look(&mut self, slot: u32, life: u32, now: Nanos) -> TicketState {
        let waits = |book: &mut Self| match book.waiter(slot, life).map(|waiter| &waiter.stage) {
            Some(&WaiterStage::Waiting { since, .. }) => Some(since),
            _ => None,
        };
        if waits(self).is_some() {
            // An owner that looks when its time is over must be told so.
            self.settle(now);
            if let Some(since) = waits(self) {
                return TicketState::Waiting { until: self.until(since) };
            }
        }
        if self.waiter(slot, life).is_none() {
            return TicketState::Refused(Refusal::ClientGone);
        }
        match self.vacate(slot) {
            WaiterStage::Granted(grant) => TicketState::Granted(grant),
            WaiterStage::Refused(refusal) => TicketState::Refused(refusal),
            WaiterStage::Free | WaiterStage::Waiting { .. } => TicketState::Refused(Refusal::ClientGone),
        }
    }

    /// When a client must look at its ticket at the latest that has waited since then.
    pub(super) fn until(&self, since: Nanos) -> Nanos {
        // It expires when it has waited for longer than the timeout, so it looks one nanosecond later.
        since.saturating_add(self.list.timeout()).saturating_add(1)
    }

    fn waiter(&mut self, slot: u32, life: u32) -> Option<&mut Waiter> {
        self.waiters.get_mut(slot as usize).filter(|waiter| waiter.life == life)
    }

    /// Frees a slot for the next client.
    fn vacate(&mut self, slot: u32) -> WaiterStage {
        let waiter = &mut self.waiters[slot as usize];
        waiter.life = waiter.life.wrapping_add(1);
        let stage = std::mem::replace(&mut waiter.stage, WaiterStage::Free);
        self.free.push(slot);
        stage
    }

    pub(super) fn hung_up(&mut self, slot: u32, life: u32, now: Nanos) {
        if let Some(given_up) = self.list.hung_up((slot, life), now) {
            self.refuse(given_up, Refusal::ClientGone);
        }
    }

    /// The owner of a ticket drops it: true if it was refused, and nothing else is to be done.
    pub(super) fn forget_refused(&mut self, slot: u32, life: u32) -> bool {
        let refused =
            self.waiter(slot, life).is_some_and(|waiter| matches!(waiter.stage, WaiterStage::Refused(_)));
        if refused {
            self.vacate(slot);
        }
        refused
    }

    /// The owner of a ticket drops it: whatever it has is given back.
    pub(super) fn leave(&mut self, slot: u32, life: u32, now: Nanos) {
        if self.waiter(slot, life).is_none() {
            return;
        }
        match self.vacate(slot) {
            WaiterStage::Waiting { .. } => {
                self.list.gone((slot, life), now);
                self.priority.remove((slot, life));
                self.refused(Refusal::ClientGone);
            }
            WaiterStage::Granted(grant) => self.give_back(&grant, now),
            WaiterStage::Refused(_) | WaiterStage::Free => {}
        }
    }

    /// How many clients wait, and how many places there are in all.
    pub(super) fn pressure(&self) -> (u64, u64) {
        (self.waiting() as u64, self.limit() as u64)
    }

    pub(super) fn snapshot(&self, now: Nanos) -> BackendsSnapshot {
        // Nobody else looks once the last client has left.
        self.list.observe(now);
        let known = |backend: &&Backend| backend.present || backend.in_use > 0;
        let refused = |refusal: Refusal| self.refused[refusal as usize];
        let oldest = self.list.oldest().into_iter().chain(self.priority.oldest()).min();
        let oldest = oldest.map(|since| now.saturating_sub(since));
        BackendsSnapshot {
            backends: self.all.iter().filter(known).map(|one| one.snapshot(&self.limits, now)).collect(),
            ready: self.reached_once && self.is_any_up(),
            in_use: self.in_use as u64,
            limit: self.limit() as u64,
            taken: self.taken,
            given_back: self.given_back,
            waiting: self.waiting() as u64,
            waiting_limit: self.limits.wait.most as u64,
            oldest: oldest.map(Duration::from_nanos),
            stood_for: self.list.stood_for(now).map(Duration::from_nanos),
            wait: read(&self.wait),
            queue_full: refused(Refusal::QueueFull),
            queue_timeout: refused(Refusal::QueueTimeout),
            no_backend: refused(Refusal::NoBackend),
            client_gone: refused(Refusal::ClientGone),
        }
    }
}

impl Backend {
    /// The order of backends in a choice: by places in use, then by when they were last chosen. All backends have the same
    /// limit, so the number in use stands for the share.
    fn load(&self) -> (usize, u64) {
        (self.in_use, self.chosen)
    }

    fn snapshot(&self, limits: &BackendLimits, now: Nanos) -> BackendSnapshot {
        BackendSnapshot {
            address: self.address.to_string(),
            leaving: !self.present,
            limit: limits.connections as u64,
            in_use: self.in_use as u64,
            taken: self.taken,
            given_back: self.given_back,
            connected: self.connected,
            failures: self.failures,
            connect: read(&self.connect),
            last_failure: self.last_failure.as_ref().map(|last| last.failure),
            last_failure_why: self.last_failure.as_ref().map_or(String::new(), |last| last.why.to_string()),
            aside_for: self.health.aside_for(now).map(Duration::from_nanos),
            to_backend: self.passed.to_backend.load(Ordering::Relaxed),
            to_client: self.passed.to_client.load(Ordering::Relaxed),
            answers: read_all(&self.passed.answers),
            request_failures: read_all(&self.passed.failures),
            reused: self.passed.reused.load(Ordering::Relaxed),
            repeated: self.passed.repeated.load(Ordering::Relaxed),
        }
    }
}

fn read_all<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|index| counters[index].load(Ordering::Relaxed))
}

fn read(histogram: &Histogram) -> HistogramSnapshot {
    let mut out = HistogramSnapshot::default();
    histogram.add_to(&mut out);
    out
}
