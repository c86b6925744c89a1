//! The end of a connection: every ending goes through this module, and is counted here.

pub(crate) mod farewells;
pub(crate) mod last_words;
pub(crate) mod late_closes;
pub(crate) mod linger;
pub(crate) mod shedding;
#[cfg(test)]
mod tests;

use crate::metrics::stats::{CountedAs, Ledger};
use crate::reason::{CloseReason, DropReason};
use crate::server::counts::Counts;
use crate::server::poll::ThreadCrew;
use crate::server::poll::poller::Poller;
use crate::server::queue::connection::Connection;
use crate::server::queue::line::{Entry, Job, Line};
use crate::server::queue::owned::Owned;
use crate::server::queue::table::{NEVER, Table};
use crate::service::Session;
use crate::sys::Clock;
use crate::transport::socket::{ClientSocket, reset_on_close, say_last};
use farewells::{Farewell, Farewells};
use last_words::LastWords;
use late_closes::LateCloses;
use linger::Lingers;
use std::sync::atomic::Ordering::Relaxed;

/// How a socket is put away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// RST: no TIME_WAIT, and what the kernel still holds for the client is thrown away.
    Reset,
    /// FIN, at once: the client has ended, or owes nothing.
    Fin,
    /// The same, when there is time: the client has left.
    Late,
    /// FIN, then what the client still sends is discarded until its FIN: see [`linger`].
    Polite,
}

impl Ending {
    fn of(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Client | CloseReason::IdleTimeout => Ending::Fin,
            CloseReason::Server
            | CloseReason::Protocol
            | CloseReason::ReadTimeout
            | CloseReason::InputLimit
            | CloseReason::Handshake
            | CloseReason::Overload
            | CloseReason::Shutdown => Ending::Polite,
            CloseReason::WriteTimeout
            | CloseReason::Reset
            | CloseReason::Panic
            | CloseReason::OutputLimit
            | CloseReason::Error => Ending::Reset,
        }
    }
}

/// The parts that an ending needs. It is made for each, and is only references.
#[derive(Clone, Copy)]
pub(crate) struct Closer<'a> {
    pub(crate) clock: &'a Clock,
    pub(crate) table: &'a Table,
    pub(crate) line: &'a Line,
    pub(crate) poller: &'a Poller,
    pub(crate) crew: &'a ThreadCrew,
    pub(crate) counts: &'a Counts,
    pub(crate) farewells: &'a Farewells,
    pub(crate) lingers: &'a Lingers,
    pub(crate) late_closes: &'a LateCloses,
}

/// The [`Closer`] of a struct that has its parts as fields: the server, or what stands in for it in the unit tests.
macro_rules! closer {
    ($parts:expr) => {
        $crate::server::close::Closer {
            clock: &$parts.clock,
            table: &$parts.table,
            line: &$parts.line,
            poller: &$parts.poller,
            crew: &$parts.crew,
            counts: &$parts.counts,
            farewells: &$parts.farewells,
            lingers: &$parts.lingers,
            late_closes: &$parts.late_closes,
        }
    };
}
pub(crate) use closer;

impl Closer<'_> {
    /// Ends a connection.
    pub(crate) fn close(&self, owned: Owned<'_>, reason: CloseReason) {
        let (ledger, from) = (owned.ledger, owned.place);
        self.end(owned, Ending::of(reason), reason, &LastWords::default(), || ledger.closed(from, reason));
    }

    /// Ends a connection whose client has left while there is no time for it: its socket is closed [later](late_closes).
    pub(crate) fn close_late(&self, owned: Owned<'_>) {
        let (ledger, from, reason) = (owned.ledger, owned.place, CloseReason::Client);
        self.end(owned, Ending::Late, reason, &LastWords::default(), || ledger.closed(from, reason));
    }

    /// Ends a connection whose client has not got through its handshake in time: nobody waits for what it may still send.
    pub(crate) fn abandon(&self, owned: Owned<'_>) {
        let (ledger, from, reason) = (owned.ledger, owned.place, CloseReason::Handshake);
        self.end(owned, Ending::Fin, reason, &LastWords::default(), || ledger.closed(from, reason));
    }

    /// Ends a connection with these words, or with a reset where there are none.
    pub(crate) fn close_with(&self, owned: Owned<'_>, reason: CloseReason, words: &LastWords) {
        let ending = if words.text.is_empty() { Ending::Reset } else { Ending::Polite };
        let (ledger, from) = (owned.ledger, owned.place);
        self.end(owned, ending, reason, words, || ledger.closed(from, reason));
    }

    /// Cuts a connection: RST, whatever it was doing.
    pub(crate) fn cut(&self, owned: Owned<'_>) {
        let (ledger, from, reason) = (owned.ledger, owned.place, CloseReason::Shutdown);
        self.end(owned, Ending::Reset, reason, &LastWords::default(), || ledger.closed(from, reason));
    }

    /// Turns a connection away before its first request, with these words where there are any.
    pub(crate) fn shed(&self, owned: Owned<'_>, reason: DropReason, words: &LastWords) {
        let ending = if words.text.is_empty() { Ending::Reset } else { Ending::Polite };
        let (ledger, from) = (owned.ledger, owned.place);
        // A connection whose first request came late has a session, which learns of its end.
        self.end(owned, ending, CloseReason::Server, words, || ledger.shed(from, reason));
    }

    /// `count` is called before the client can see the end, so that whoever sees the end can see the count.
    fn end(
        &self,
        owned: Owned<'_>,
        ending: Ending,
        reason: CloseReason,
        words: &LastWords,
        count: impl FnOnce(),
    ) {
        let connection = owned.connection().take();
        owned.slot.deadline.store(NEVER, Relaxed);
        let Some(mut connection) = connection else {
            debug_assert!(false, "a connection that is owned is there");
            return;
        };
        // Nothing may come between the parts of a record.
        let is_between = connection.kept.is_empty();
        connection.kept.discard();
        let mut session = connection.session.take();
        if owned.place == CountedAs::Active
            && let Some(session) = session.take()
        {
            // The worker that ends it tells its session. From elsewhere a worker does so later.
            self.tell(session, reason);
        }
        self.say_last(owned.id.slot, &connection.socket, (ending, is_between), &words.text);
        count();
        let registered = connection.is_registered();
        let Connection { socket, _permit: permit, .. } = connection;
        let permit = permit.into_inner();
        owned.slot.state.release();
        self.table.give_back(owned.id.slot);
        match ending {
            Ending::Late => self.late_closes.add(socket, permit.open()),
            _ => self.put_away(socket, ending, words, registered),
        }
        // The place is given back when the session has been told.
        if let Some(session) = session
            && self.farewells.add(Farewell { session, reason, permit })
        {
            self.queue_farewells();
        }
    }

    /// Says the last words, and ends the TLS of a connection, if it has any: its client is told that this was all, if nothing
    /// is left to be sent.
    fn say_last(&self, slot: u32, socket: &ClientSocket, (ending, is_between): (Ending, bool), words: &[u8]) {
        match self.table.side(slot).and_then(|mut side| side.take()) {
            Some(mut side) if ending != Ending::Reset && is_between => {
                say_last(socket, &side.last_words(words));
            }
            None if !words.is_empty() => {
                say_last(socket, words);
            }
            _ => {}
        }
    }

    /// Tells a session why its connection has ended, and drops it.
    pub(crate) fn tell(&self, mut session: Box<dyn Session>, reason: CloseReason) {
        // Dropping a session runs its author's code too; apart, since a panic while another unwinds would abort the
        // process.
        self.counts.contain(|| session.finish(reason));
        self.counts.contain(|| drop(session));
    }

    /// Tells a session whose connection was ended by another thread, and gives the connection's place back.
    pub(crate) fn say_farewell(&self, farewell: Farewell) {
        let Farewell { session, reason, permit } = farewell;
        self.tell(session, reason);
        drop(permit);
        self.farewells.told();
    }

    /// Puts the job for farewells into the line; the caller has answered or made the call for it.
    pub(crate) fn queue_farewells(&self) {
        self.line.push(Entry { since: self.clock.now(), job: Job::Farewell });
        self.crew.work_queued();
    }

    /// Refuses a socket that was accepted and is no connection yet, with these words where there are any.
    pub(crate) fn refuse(
        &self,
        socket: ClientSocket,
        ledger: &Ledger,
        reason: DropReason,
        words: &LastWords,
    ) {
        ledger.refused(reason);
        let told = say_last(&socket, &words.text);
        self.put_away(socket, if told { Ending::Polite } else { Ending::Reset }, words, false);
    }

    fn put_away(&self, socket: ClientSocket, ending: Ending, words: &LastWords, registered: bool) {
        match ending {
            Ending::Fin | Ending::Late => {}
            Ending::Reset => reset_on_close(&socket),
            Ending::Polite => {
                let unregister = |socket: &ClientSocket| {
                    if registered {
                        self.poller.remove(socket);
                    }
                };
                if self.lingers.linger(socket, self.clock.now(), words.is_all, unregister) {
                    self.crew.rouse_keeper();
                }
            }
        }
    }
}
