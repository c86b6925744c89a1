//! Changing the limits of a server that serves: all of what is asked for, or nothing.

use super::capacity::doubtful_max;
use super::in_force::InForce;
use super::queue::state::{ConnectionId, Marks};
use super::queue::table::{NEVER, Slot};
use super::shared::Shared;
use super::start::start_workers;
use super::turn::harvest::ready;
use crate::limits::{LimitError, Limits, TABLE};
use crate::metrics::snapshot::Ceilings;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Why the limits of a running server were not changed; none of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetLimitsError {
    /// A limit, or a relation between limits, cannot hold.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// Limits would change by which something was sized when the server started: their names.
    #[error("{}", at_a_restart(.0))]
    Fixed(Vec<&'static str>),
    /// A limit is higher than this server can have it: something was sized when it started.
    #[error("{name} is {wanted}: until a restart it can be {most} at most, {why}")]
    Above {
        /// Its name.
        name: &'static str,
        /// What was asked for.
        wanted: usize,
        /// The most that it can be.
        most: usize,
        /// What was sized by it.
        why: &'static str,
    },
    /// The system does not give threads for more workers.
    #[error("workers: the system does not give {0} more threads")]
    Threads(usize),
}

fn at_a_restart(names: &[&'static str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match &names[..] {
        [] => "a limit takes effect at a restart".to_owned(),
        [one] => format!("{one} takes effect at a restart"),
        [first @ .., last] => format!("{} and {last} take effect at a restart", first.join(", ")),
    }
}

/// A limit that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitChange {
    /// Its name: the option without `--`.
    pub name: &'static str,
    /// The URL of the listener, if it has changed there alone.
    pub listener: Option<String>,
    /// Its value before, with its unit.
    pub before: String,
    /// Its value from now on, with its unit.
    pub after: String,
}

impl std::fmt::Display for LimitChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, listener, before, after } = self;
        write!(f, "{name} {before} -> {after}")?;
        match listener {
            Some(listener) => write!(f, " at {listener}"),
            None => Ok(()),
        }
    }
}

/// Whether what was sized at the start is large enough, for a server with or without a listener for datagrams.
pub(crate) fn room_for(ceilings: &Ceilings, limits: &Limits, datagrams: bool) -> Result<(), SetLimitsError> {
    let above = |name, wanted, most, why| SetLimitsError::Above { name, wanted, most, why };
    let (connections, most) = (limits.max_connections, ceilings.connections);
    if connections > most {
        let why = "because memory and file descriptors are set aside for that many (connections-ceiling)";
        return Err(above("max-connections", connections, most, why));
    }
    let (workers, most) = (limits.workers, ceilings.workers);
    if workers > most {
        let why = "because memory is set aside for that many (workers-ceiling)";
        return Err(above("workers", workers, most, why));
    }
    let most = ceilings.datagrams.saturating_sub(limits.workers);
    if datagrams && limits.queue > most {
        let why = "because there are places for that many datagrams";
        return Err(above("queue", limits.queue, most, why));
    }
    Ok(())
}

/// The listeners that a server would have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WantedListeners {
    /// Seats of listeners for connections that would be taken.
    pub(crate) taken: usize,
    /// One for datagrams would be open.
    pub(crate) datagrams: bool,
}

impl Shared {
    /// Puts these limits in force, beside what `own` makes of them for each listener for connections, by its number. What has
    /// changed.
    pub(crate) fn set_limits(
        self: &Arc<Self>,
        server: Limits,
        own: &dyn Fn(usize, &Limits) -> Limits,
    ) -> Result<Vec<LimitChange>, SetLimitsError> {
        let _alone = self.limits.change();
        let wanted = WantedListeners { taken: self.listeners.len(), datagrams: self.takes_datagrams() };
        let (after, changes) = self.would_change(server, own, wanted)?;
        if !changes.is_empty() {
            self.start_more(after.server.workers)?;
            self.put_in_force(after);
        }
        Ok(changes)
    }

    /// Whether a listener for datagrams is open.
    pub(crate) fn takes_datagrams(&self) -> bool {
        self.datagrams.sockets.iter().any(|socket| socket.closed_at().is_none())
    }

    /// What would be in force then, with these listeners, and what differs from what is.
    pub(crate) fn would_change(
        &self,
        server: Limits,
        own: &dyn Fn(usize, &Limits) -> Limits,
        WantedListeners { taken, datagrams }: WantedListeners,
    ) -> Result<(InForce, Vec<LimitChange>), SetLimitsError> {
        let before = self.limits.current();
        server.check()?;
        let url =
            |number| if number < self.listeners.len() { &*self.listeners[number].url } else { "that is new" };
        let listeners = (0..taken).map(|number| {
            let limits = own(number, &server).part_of(&server);
            let told = |error| LimitError(format!("listener {}: {error}", url(number)));
            limits.check_beside(&server).map_err(told).map(|()| limits)
        });
        let nobody = (taken..self.listeners.room()).map(|_| Ok(server.clone()));
        let listeners = listeners.chain(nobody).collect::<Result<_, LimitError>>()?;
        let after = InForce { server, listeners, since: self.clock.now() };
        let fixed: Vec<_> = (TABLE.iter().filter(|limit| !limit.is_live()))
            .filter(|limit| (limit.get)(&before.server) != (limit.get)(&after.server))
            .map(|limit| limit.name)
            .collect();
        if !fixed.is_empty() {
            return Err(SetLimitsError::Fixed(fixed));
        }
        room_for(&self.ceilings(), &after.server, datagrams)?;
        let changes = self.changes(&before, &after);
        Ok((after, changes))
    }

    /// What was sized at the start.
    pub(crate) fn ceilings(&self) -> Ceilings {
        let (connections, workers) = (self.table.capacity(), self.counts.meters().len());
        let (datagrams, listeners) = (self.datagrams.capacity(), self.listeners.room());
        Ceilings { connections, workers, datagrams, listeners }
    }

    /// Starts the workers up to this number that were never started. They take no work before the limits let them.
    pub(crate) fn start_more(self: &Arc<Self>, workers: usize) -> Result<(), SetLimitsError> {
        let started = self.life.workers_started();
        let more = workers.saturating_sub(started);
        if more == 0 || self.life.is_stopped() {
            return Ok(());
        }
        self.life.workers_start(more);
        (0..more).for_each(|_| self.crew.join());
        start_workers(self, started..workers).map_err(|_| {
            (0..more).for_each(|_| self.crew.part());
            self.life.workers_fail(more);
            SetLimitsError::Threads(more)
        })
    }

    /// From here on nothing can fail.
    pub(crate) fn put_in_force(&self, after: InForce) {
        let (server, own) = (after.server.clone(), after.listeners.clone());
        let more_or_fewer = self.limits.current().server.workers != server.workers;
        self.limits.replace(after);
        self.order.standing().set_target(crate::clock::nanos(server.queue_target));
        self.refusal_budget().set_rate(server.refusal_rate, Instant::now());
        self.lingers.set_limits(&server);
        self.line.newcomers().set_limit(server.queue);
        self.listeners.iter().zip(&own).for_each(|(listener, own)| listener.newcomers.set_limit(own.queue));
        self.counts.set_workers(server.workers);
        self.order.set_doubtful_max(doubtful_max(&server));
        self.admission.set_limits(&server, &own, Instant::now());
        self.sharing.set_limits(&server);
        self.datagrams.rates.set_limits(&server);
        // More closes may linger: their sockets are descriptors too.
        crate::sys::raise_open_files((self.table.capacity() + server.lingering + server.fd_reserve) as u64);
        // Workers see them at their next turn. The timekeeper has backlogs to set and deadlines to move; the acceptor may
        // hold newcomers back that are to be refused now.
        self.crew.wake_keeper();
        self.bell.call();
        if more_or_fewer {
            // Those that rest look whether they are wanted.
            self.crew.wake_all();
        }
    }

    /// Gives a turn to each session of a listener that has asked to be called at a time, since it may want another time now.
    #[cfg_attr(
        not(feature = "cli"),
        allow(dead_code, reason = "gates change when the program reads its file again")
    )]
    pub(crate) fn call_sessions(&self, listener: usize) {
        // Also a session that has a turn now: it may have looked before.
        self.call(listener, |slot| slot.deadline.load(Relaxed) == NEVER);
    }

    /// Gives a turn to each connection of a listener of which `wanted` says so.
    #[cfg_attr(
        not(feature = "cli"),
        allow(dead_code, reason = "gates change when the program reads its file again")
    )]
    pub(crate) fn call(&self, listener: usize, wanted: impl Fn(&Slot) -> bool) {
        for (number, slot) in self.table.iter() {
            // The life first: if it is over by now, nothing happens.
            let Some(generation) = slot.state.generation() else { continue };
            if slot.listener() == listener && wanted(slot) {
                let id = ConnectionId { slot: number, generation };
                self.counts.foreign(|row| {
                    ready(self, id, Marks::NONE, row, &mut || self.clock.now());
                });
            }
        }
        self.crew.work_queued();
    }

    /// What differs: for all listeners, and for one alone.
    fn changes(&self, before: &InForce, after: &InForce) -> Vec<LimitChange> {
        let mut changes = Vec::new();
        for limit in TABLE {
            let differs = |old: &Limits, new: &Limits| {
                let (old, new) = ((limit.get)(old), (limit.get)(new));
                (old != new).then(|| (limit.show(old), limit.show(new)))
            };
            let of_server = differs(&before.server, &after.server);
            let name = limit.name;
            changes.extend(of_server.clone().map(|(before, after)| LimitChange {
                name,
                listener: None,
                before,
                after,
            }));
            let both = before.listeners.iter().zip(&after.listeners).zip(self.listeners.iter());
            for ((old, new), listener) in both {
                let own = differs(old, new).filter(|own| of_server.as_ref() != Some(own));
                let listener = Some(listener.url.to_string());
                changes.extend(own.map(|(before, after)| LimitChange { name, listener, before, after }));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_that_cannot_change_are_named() {
        let told = |names: &[&'static str]| SetLimitsError::Fixed(names.to_vec()).to_string();
        assert_eq!(told(&["workers"]), "`workers` takes effect at a restart");
        assert_eq!(told(&["workers", "fair"]), "`workers` and `fair` take effect at a restart");
        assert_eq!(told(&["a", "b", "c"]), "`a`, `b` and `c` take effect at a restart");
    }

    #[test]
    fn a_change_says_what_was_and_what_is() {
        let (before, after) = ("60s".to_owned(), "5s".to_owned());
        let mut change = LimitChange { name: "idle-timeout", listener: None, before, after };
        assert_eq!(change.to_string(), "idle-timeout 60s -> 5s");
        change.listener = Some("tcp://127.0.0.1:5000".to_owned());
        assert_eq!(change.to_string(), "idle-timeout 60s -> 5s at tcp://127.0.0.1:5000");
    }
}
