//! A worker: takes entries from the line, does what each asks for, and polls when there are none.

use super::harvest::harvest;
use super::station::Station;
use super::{answer, farewell, serve};
use crate::admit::bell::Awaited;
use crate::server::close::shedding::{Shedding, shed};
use crate::server::poll::ThreadLead;
use crate::server::queue::line::Job;
use crate::server::queue::order::Offer;
use crate::server::shared::Shared;
use std::time::Duration;

/// The leader's wait in the poll has this deadline, though an event or a wake ends it.
const LEAD_WAIT: Duration = Duration::from_secs(1);

/// Works until the server has stopped. A panic outside of services would be a bug of ours; it ends the round and not the
/// worker.
pub(crate) fn run(shared: &Shared, me: usize) {
    shared.crew.rouse().register(me);
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

/// Empties the line, then polls for more, or sleeps if another worker does.
fn round(station: &mut Station<'_>) {
    let shared = station.shared;
    station.read_clock();
    while let Some(offer) = shared.order.take(station.now, shared) {
        let entry = match offer {
            Offer::Turn(entry) => entry,
            Offer::GiveUp(entry) => {
                shed(shared, station.row(), &entry, Shedding::Gone, station.now);
                continue;
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
            return;
        }
        if std::mem::take(&mut station.surplus) && shared.has_work() {
            return shared.crew.stand_back(station.me, || shared.life.is_stopped());
        }
    }
    // With a queue of 0, a free worker is the place that a newcomer waits for.
    shared.bell.ring_for_all(Awaited::QueuePlace);
    match shared.crew.lead() {
        Some(lead) => lead_for_a_while(station, &lead),
        None => shared.crew.sleep(station.me, || shared.has_work() || shared.life.is_stopped()),
    }
}

/// Waits for events as the leader and puts them into the line.
fn lead_for_a_while(station: &mut Station<'_>, lead: &ThreadLead<'_>) {
    let (shared, row) = (station.shared, station.row());
    // A glance first: under load something is ready, and resting costs more than a look.
    if harvest(shared, lead, Duration::ZERO, row) > 0 {
        return;
    }
    let began = station.now;
    if station.busy_poll.is_worth_it() && spin(station, lead) {
        return;
    }
    let busy_poll = &mut station.busy_poll;
    lead.rest(
        || shared.has_work() || shared.life.is_stopped(),
        || {
            if harvest(shared, lead, LEAD_WAIT, row) > 0 {
                busy_poll.slept(shared.clock.now() - began);
            }
        },
    );
}

/// Polls for a moment without sleeping; true when there is work.
fn spin(station: &mut Station<'_>, lead: &ThreadLead<'_>) -> bool {
    let (shared, row) = (station.shared, station.row());
    let began = shared.clock.now();
    let mut last = began;
    loop {
        if harvest(shared, lead, Duration::ZERO, row) > 0 || shared.has_work() {
            station.busy_poll.paid();
            return true;
        }
        let now = shared.clock.now();
        if station.busy_poll.is_over(began, last, now) {
            return false;
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
