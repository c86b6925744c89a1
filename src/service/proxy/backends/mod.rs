//! The backends of a gate: how many connections each may have, which backend is next, and which clients wait for a place.
//!
//! A [`Place`] is taken before connecting, and is given back when it is dropped, after the socket was closed. So a backend
//! never has more connections than its limit, however they end. If there is no place, the client gets a [`Ticket`]. A
//! place that is given back goes, under the same lock, to the ticket whose turn it is. So no newcomer can overtake it, and
//! no place is lost when a client leaves with one that it has not used.
//!
//! ```text
//!   take ----> Place ----> reached | failed ----> dropped: given back
//!     |          ^                                    |
//!     |          | look                               v
//!     +--> Ticket (waits) <------- woken ------- whose turn it is (wait.rs)
//!     +--> Refusal
//! ```
//!
//! Nothing here knows a socket. The clock and the random seed are handed in, so a test can run a day in a moment.

mod ask;
mod book;
mod health;
mod name;
mod priority;
mod unreached;
mod wait;

#[cfg(all(test, not(model)))]
mod tests;

pub(crate) use ask::{Asking, BackendId, Refusal, Wake};
pub(crate) use book::BackendLimits;

pub(crate) use unreached::Unreached;
pub(crate) use wait::WaitLimits;

use super::address::BackendAddress;
use crate::clock::Nanos;
use crate::metrics::backends::BackendsSnapshot;
use crate::reason::RequestFailure;
use crate::sys::Clock;
use crate::sys::sync::{Mutex, MutexGuard};
use book::{Book, Choice, Grant};
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// The clock that the backends read: the real one, or a test's.
#[derive(Clone, Debug)]
pub(crate) enum BackendClock {
    Real(Clock),
    #[cfg(test)]
    Made(Arc<AtomicU64>),
}

impl BackendClock {
    fn now(&self) -> Nanos {
        match self {
            BackendClock::Real(clock) => clock.now(),
            #[cfg(test)]
            BackendClock::Made(now) => now.load(Ordering::Relaxed),
        }
    }
}

/// All backends of one gate.
#[derive(Debug)]
pub(crate) struct Backends {
    time: BackendClock,
    book: Mutex<Book>,
}

/// The answer.
#[derive(Debug)]
#[must_use]
pub(crate) enum PlaceAnswer {
    Place(Place),
    /// The client waits. Its session is woken when the ticket has an answer.
    Wait(Ticket),
    Refused(Refusal),
}

impl Backends {
    /// Backends with these limits. `seed` is a random number: it varies the pauses of backends that are set aside.
    pub(crate) fn new(limits: BackendLimits, time: BackendClock, seed: u64) -> Arc<Self> {
        Arc::new(Self { time, book: Mutex::new(Book::new(limits, seed)) })
    }

    /// The bytes that this number of backends can take, with the clients that wait for them.
    pub(crate) fn memory_ceiling(wait: &WaitLimits, backends: usize) -> usize {
        Book::memory_ceiling(wait, backends)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the book under its lock, and then wakes every session whose ticket has got its answer by it.
    fn change<R>(&self, change: impl FnOnce(&mut Book, Nanos) -> R) -> R {
        self.change_at(self.time.now(), change)
    }

    /// The same for a caller that knows the time.
    fn change_at<R>(&self, now: Nanos, change: impl FnOnce(&mut Book, Nanos) -> R) -> R {
        self.consult(|book| {
            let result = change(book, now);
            book.settle(now);
            result
        })
    }

    /// The same for a change that frees no place, so that the clients that wait have nothing to gain from it; the caller
    /// knows the time.
    fn consult<R>(&self, change: impl FnOnce(&mut Book) -> R) -> R {
        let (result, woken) = {
            let mut book = self.book();
            let result = change(&mut book);
            (result, book.take_woken())
        };
        // Wake without the lock: a session that is woken takes it.
        woken.wake();
        result
    }

    /// Sets the addresses of all backends. Connections to an address that is gone go on, but get no new ones beside them.
    pub(crate) fn set_addresses(&self, addresses: &[BackendAddress]) {
        self.change(|book, _| book.set_addresses(addresses));
    }

    /// Counts that the name with these addresses could not be resolved again.
    pub(crate) fn not_resolved(&self, addresses: &[BackendAddress]) {
        self.book().not_resolved(addresses);
    }

    /// Counts a client that was refused because no backend could be reached for it in time.
    pub(crate) fn reached_none(&self) {
        self.book().refused(Refusal::NoBackend);
    }

    /// Sets the addresses of all backends, and changes the limits. Clients that have a place keep it, so a lower limit holds
    /// only once enough of them have left.
    pub(crate) fn change_to(
        &self,
        addresses: &[BackendAddress],
        limits: impl FnOnce(&BackendLimits) -> BackendLimits,
    ) {
        self.change(|book, now| {
            let limits = limits(book.limits());
            book.set_limits(limits, now);
            book.set_addresses(addresses);
        });
    }

    #[cfg(test)]
    pub(crate) fn set_limits(&self, limits: BackendLimits) {
        self.change(|book, now| book.set_limits(limits, now));
    }

    /// Which of the backends the gate still has.
    pub(crate) fn present(&self) -> Vec<BackendId> {
        self.book().present()
    }

    /// Takes a place at the backend with the smallest share of its places in use. If none is free, returns a ticket, or the
    /// reason why the client may not wait either.
    pub(crate) fn take(self: &Arc<Self>, asking: &Asking<'_>, waiter: impl FnOnce() -> Wake) -> PlaceAnswer {
        let now = asking.now;
        self.consult(|book| {
            let refusal = match book.choose_for_newcomer(asking, now) {
                Choice::Backend(index) => {
                    book.waited(now.saturating_sub(asking.since));
                    return PlaceAnswer::Place(self.place(book.grant(index, asking.priority, now)));
                }
                Choice::Full => match book.wait(asking, waiter(), now) {
                    Ok((slot, life)) => {
                        if !asking.tried.is_empty() {
                            // While it waits it may also have a place at a backend that it has tried.
                            book.settle(now);
                        }
                        let until = book.until(asking.since);
                        let backends = self.clone();
                        return PlaceAnswer::Wait(Ticket { backends, slot, life, until, is_open: true });
                    }
                    Err(refusal) => refusal,
                },
                Choice::Nothing => Refusal::NoBackend,
            };
            book.refused(refusal);
            PlaceAnswer::Refused(refusal)
        })
    }

    /// Takes a place at a backend that is due for a check: if its last connection is `every` ago, or if it was set aside
    /// and its pause is over.
    pub(crate) fn take_for_check(self: &Arc<Self>, every: Nanos) -> Option<Place> {
        self.change(|book, now| {
            book.choose_for_check(every, now).map(|index| self.place(book.grant(index, false, now)))
        })
    }

    fn place(self: &Arc<Self>, grant: Grant) -> Place {
        Place { backends: self.clone(), grant, is_given_back: false }
    }

    /// Whether there is another backend to try.
    pub(crate) fn has_other(&self, tried: &[BackendId], this: BackendId) -> bool {
        self.book().has_other(tried, this)
    }

    /// How many clients wait for a place, and how many places there are in all.
    pub(crate) fn pressure(&self) -> (u64, u64) {
        self.book().pressure()
    }

    /// All counts, as they are now.
    pub(crate) fn snapshot(&self) -> BackendsSnapshot {
        self.book().snapshot(self.time.now())
    }
}

/// A place at a backend. Drop it after the socket is closed.
#[derive(Debug)]
#[must_use]
pub(crate) struct Place {
    backends: Arc<Backends>,
    grant: Grant,
    is_given_back: bool,
}

impl Place {
    /// The address to connect to.
    pub(crate) fn address(&self) -> &BackendAddress {
        &self.grant.address
    }

    pub(crate) fn backend(&self) -> BackendId {
        self.grant.id
    }

    /// Notes that the connection was made, and how long that took.
    pub(crate) fn reached(&self, took: Nanos) {
        if self.backends.change(|book, now| book.reached(self.grant.id, took, now)) {
            tracing::info!(backend = %self.grant.address, "a backend is back");
        }
    }

    /// Notes that the backend could not be reached, or reset the connection before it was used.
    pub(crate) fn failed(&self, unreached: impl Into<Unreached>) {
        let unreached = unreached.into();
        let backend = &self.grant.address;
        if self.backends.change(|book, now| book.failed(&self.grant, &unreached, now)) {
            let Unreached { failure, why } = unreached;
            match &*why {
                "" => tracing::warn!(%backend, reason = %failure, "a backend is set aside"),
                why => tracing::warn!(%backend, reason = %failure, why, "a backend is set aside"),
            }
        }
    }

    /// Counts an answer of the backend with this status.
    pub(crate) fn answered(&self, status: u16) {
        self.grant.passed.answered(status);
    }

    /// Counts a request that the backend did not answer as it should.
    pub(crate) fn spoiled(&self, failure: RequestFailure) {
        self.grant.passed.failures[failure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was sent on a connection which had served others, or, with `again`, one that was repeated on
    /// another connection.
    pub(crate) fn reused(&self, again: bool) {
        let passed = &self.grant.passed;
        let counter = if again { &passed.repeated } else { &passed.reused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that went through the connection.
    pub(crate) fn passed(&self, to_backend: u64, to_client: u64) {
        self.grant.passed.to_backend.fetch_add(to_backend, Ordering::Relaxed);
        self.grant.passed.to_client.fetch_add(to_client, Ordering::Relaxed);
    }
}

impl Place {
    /// Gives the place back at a time that the caller knows. Without this it is given back when it is dropped, and the clock
    /// is read for it.
    pub(crate) fn give_back(mut self, now: Nanos) {
        self.is_given_back = true;
        self.backends.change_at(now, |book, now| book.give_back(&self.grant, now));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_given_back {
            self.backends.change(|book, now| book.give_back(&self.grant, now));
        }
    }
}

/// The answer of a ticket.
#[derive(Debug)]
pub(crate) enum Look {
    /// There is no place yet. Look again when woken, and at this time at the latest.
    Waiting {
        until: Nanos,
    },
    Place(Place),
    Refused(Refusal),
}

/// A client's wait for a place. Dropping the ticket ends the wait, and gives back a place that it may have got already.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ticket {
    backends: Arc<Backends>,
    slot: u32,
    life: u32,
    until: Nanos,
    /// It has not had its answer.
    is_open: bool,
}

impl Ticket {
    /// When to look at the latest, as was known when the wait began.
    pub(crate) fn until(&self) -> Nanos {
        self.until
    }

    /// Whether there is a place now. After any answer but `Waiting` the ticket is used up.
    pub(crate) fn look(&mut self, now: Nanos) -> Look {
        let seen = self.backends.consult(|book| book.look(self.slot, self.life, now));
        self.is_open = matches!(seen, book::TicketState::Waiting { .. });
        match seen {
            book::TicketState::Waiting { until } => Look::Waiting { until },
            book::TicketState::Granted(grant) => Look::Place(self.backends.place(grant)),
            book::TicketState::Refused(refusal) => Look::Refused(refusal),
        }
    }

    #[cfg(test)]
    fn look_now(&mut self) -> Look {
        self.look(self.backends.time.now())
    }

    /// Notes that the client has closed at least its sending half. If it has waited for a while it has probably left, and
    /// is then served only when nobody else waits.
    pub(crate) fn hung_up(&self) {
        self.backends.change(|book, now| book.hung_up(self.slot, self.life, now));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        self.backends.consult(|book| {
            // One that was refused leaves nothing to others.
            if !book.forget_refused(self.slot, self.life) {
                let now = self.backends.time.now();
                book.leave(self.slot, self.life, now);
                book.settle(now);
            }
        });
    }
}
