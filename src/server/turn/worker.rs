//! A worker: takes entries from the line, does what each asks for, and polls when there are none.

use super::harvest::{Harvest, harvest};
use super::station::Station;
use super::{answer, farewell, following, serve};
use crate::admit::bell::Awaited;
use crate::server::close::shedding::{Shedding, shed};
use crate::server::poll::ThreadLead;
use crate::server::queue::line::{Entry, Job};
use crate::server::queue::order::Offer;
use crate::server::shared::Shared;
use std::time::Duration;

/// The leader's wait in the poll has this deadline, though an event or a wake ends it.
const LEAD_WAIT: Duration = Duration::from_secs(1);

/// Works until the server has stopped. A panic outside of services would be a bug of ours; it ends the round and not the
/// worker.
pub(crate) fn run(shared: &Shared, me: usize) {
    shared.crew.rouse().register(me);
    following::register(shared, me);
    let mut station = Station::new(shared, me);
    be_nice(station.limits.server.worker_nice);
    while !shared.life.is_stopped() {
        station.look_at_limits();
        if station.is_surplus() {
            stay_out(&station);
            continue;
        }
        if shared.counts.contain(|| round(&mut station)).is_none() {
            station.finish();
        }
    }
    // The last one out tells the timekeeper.
    if shared.life.worker_ended() {
        shared.crew.wake_keeper();
    }
}

/// Takes no work until more workers are wanted, or the server has stopped.
fn stay_out(station: &Station<'_>) {
    let shared = station.shared;
    let wanted = || station.me < shared.limits.current().server.workers || shared.life.is_stopped();
    shared.crew.stay_out(station.me, wanted, || shared.has_work());
}

/// Empties the line, then polls for more, or sleeps if another worker does. As the leader it goes on with what it has found.
fn round(station: &mut Station<'_>) {
    let shared = station.shared;
    station.read_clock();
    station.alone = false;
    // A panic outside of services may have left one.
    leave_to_others(shared, following::take());
    let mut next = shared.order.take(station.now, shared);
    let mut follows = false;
    loop {
        while let Some(offer) = next {
            if !follows {
                following::open();
            }
            let after = follow(station, offer);
            station.alone = false;
            // It has waited since now: the turn that woke it was about to end.
            let following = following::take().map(|entry| Entry { since: station.now, ..entry });
            if after == After::Leave {
                return leave_to_others(shared, following);
            }
            if may_stand_back(station, following.as_ref()) {
                return stand_back(station);
            }
            follows = following.is_some();
            next = following.map(Offer::Turn).or_else(|| shared.order.take(station.now, shared));
        }
        // With a queue of 0, a free worker is the place that a newcomer waits for.
        shared.bell.ring_for_all(Awaited::QueuePlace);
        let Some(lead) = shared.crew.lead() else {
            return shared.crew.sleep(station.me, || shared.has_work() || shared.life.is_stopped());
        };
        let found = lead_for_a_while(station, &lead);
        drop(lead);
        let Some(entry) = found.first else { return };
        match found.events {
            // It was found just now.
            1 => station.now = found.at,
            _ => station.read_clock(),
        }
        station.alone = found.events == 1;
        next = Some(Offer::Turn(entry));
    }
}

/// Puts what would have followed the worker's turn into the line: the worker takes no more for now.
fn leave_to_others(shared: &Shared, following: Option<Entry>) {
    if let Some(entry) = following {
        shared.line.push(entry);
        shared.crew.work_queued();
    }
}

/// What a worker does after it has followed an offer.
#[derive(PartialEq)]
enum After {
    GoOn,
    /// It takes no more for now: it is to look whether it still works.
    Leave,
}

/// Does what an entry asks for.
#[inline]
fn follow(station: &mut Station<'_>, offer: Offer<Entry>) -> After {
    let shared = station.shared;
    let entry = match offer {
        Offer::Turn(entry) => entry,
        Offer::GiveUp(entry) => {
            shed(shared, station.row(), &entry, Shedding::Gone, station.now);
            return After::GoOn;
        }
    };
    station.look_at_limits();
    match entry.job {
        Job::Turn(id, claim) => serve::serve(station, id, claim, entry.since),
        Job::Overloaded(id) => serve::tell_overloaded(station, id),
        Job::Datagram(slot) => answer::answer_waiting(station, slot, entry.since),
        Job::Receive(socket) => answer::receive(station, socket as usize),
        Job::Tick => tick(station),
        Job::Farewell => farewell::say_farewell(station),
    }
    if shared.life.is_stopped() || station.is_surplus() {
        return After::Leave;
    }
    After::GoOn
}

/// Whether the worker may sleep though there is work. Not with a turn that follows: no other worker sees its entry.
fn may_stand_back(station: &mut Station<'_>, following: Option<&Entry>) -> bool {
    following.is_none() && station.may_stand_back()
}

/// Sleeps while enough others are at the work.
fn stand_back(station: &Station<'_>) {
    let shared = station.shared;
    // Others may have lain down at the same moment, so that nobody is left.
    let is_missed = || shared.misses_a_worker(shared.crew.awake(), station.now);
    shared.crew.stand_back(station.me, || shared.life.is_stopped() || is_missed());
}

/// Waits for events as the leader. The first turn that they ask for is the caller's, the others are put into the line.
fn lead_for_a_while(station: &mut Station<'_>, lead: &ThreadLead<'_>) -> Harvest {
    let (shared, row) = (station.shared, station.row());
    // A glance first: under load something is ready, and resting costs more than a look.
    let found = harvest(shared, lead, Duration::ZERO, row, true);
    if found.events > 0 {
        return found;
    }
    let began = station.now;
    if station.busy_poll.is_worth_it()
        && let Some(found) = spin(station, lead)
    {
        return found;
    }
    let busy_poll = &mut station.busy_poll;
    let mut found = Harvest::default();
    lead.rest(
        || shared.has_work() || shared.life.is_stopped(),
        || {
            found = harvest(shared, lead, LEAD_WAIT, row, true);
            if found.events > 0 {
                let now = if found.at > 0 { found.at } else { shared.clock.now() };
                busy_poll.slept(now - began);
            }
        },
    );
    found
}

/// Polls for a moment without sleeping; what it found, or nothing in particular when there is work in the line.
fn spin(station: &mut Station<'_>, lead: &ThreadLead<'_>) -> Option<Harvest> {
    let (shared, row) = (station.shared, station.row());
    let began = shared.clock.now();
    let mut last = began;
    loop {
        let found = harvest(shared, lead, Duration::ZERO, row, true);
        if found.events > 0 || shared.has_work() {
            station.busy_poll.paid();
            return Some(found);
        }
        let now = shared.clock.now();
        if station.busy_poll.is_over(began, last, now) {
            return None;
        }
        last = now;
    }
}

/// Does the owner's housekeeping.
fn tick(station: &mut Station<'_>) {
    let shared = station.shared;
    let Some(tick) = &shared.tick else { return };
    // Nobody knows how long it takes: others go on with what there is.
    station.begin(u64::MAX);
    shared.counts.contain(|| tick.run());
    station.finish();
    tick.ended();
}

/// Lowers this thread's priority by `nice`.
fn be_nice(nice: i32) {
    // On Linux the call is about the calling thread; elsewhere threads share the priority of their process and nothing
    // would be won.
    #[cfg(target_os = "linux")]
    if nice > 0 {
        let thread = Some(rustix::thread::gettid());
        if let Ok(now) = rustix::process::getpriority_process(thread) {
            // More niceness never needs a privilege.
            let _ = rustix::process::setpriority_process(thread, (now + nice).min(19));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::server::BoundServer;
    use crate::server::extras::Extras;
    use crate::server::listeners::Listeners;

    /// It would sleep with the entry until the next event for it, while the place that this session was given stands idle.
    #[test]
    fn a_worker_whose_turn_is_followed_by_another_does_not_stand_back() {
        let limits = Limits::default().workers(64).max_connections(8).queue(8);
        let (listeners, datagrams) = (Listeners::new(Vec::new(), 0), Listeners::new(Vec::new(), 0));
        let server = BoundServer::new(limits, listeners, datagrams, Extras::default()).unwrap();
        let shared = server.shared();
        let mut station = Station::new(shared, 0);
        let entry = Entry { since: 3, job: Job::Tick };
        shared.line.push(entry);
        station.surplus = true;
        assert!(!may_stand_back(&mut station, Some(&entry)));
        assert!(may_stand_back(&mut station, None), "otherwise it does: others are at the work");
        assert!(!may_stand_back(&mut station, None), "and looks anew after its next turn");
    }
}
