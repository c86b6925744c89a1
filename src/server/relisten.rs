//! Listeners that open and close while the server serves, together with its limits: all of it or nothing.
//!
//! A listener that opens is bound first, which can fail. It has its seat and its limits before the server accepts a client
//! there. A listener that closes still accepts the connections that the kernel had completed, as a server does at its end.
//! Its connections stay open until their clients leave, for `drain_timeout` at most (see `keep/closed.rs`).

use super::accept::newcomers::close_socket;
use super::accept::relisten::Relisten;
use super::change::{SetLimitsError, WantedListeners};
use super::error::BuildError;
use super::handle::Handle;
use super::listen::{Around, Listen, ListenOffer};
use super::listener::Listener;
use super::poll::poller::Source;
use super::shared::Shared;
use crate::limits::Limits;
use crate::transport::address::Address;
use crate::transport::listen::ListenSocket;
use crossbeam_channel::RecvTimeoutError;
use std::os::fd::AsFd;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// How long the acceptor may take to close listeners: it waits for handshakes that are under way for 50 ms at most.
const DONE_WITHIN: Duration = Duration::from_secs(5);

/// A listener that is to open.
pub(crate) struct Opening {
    /// The position of the one that was closed and is to open again; a new one has none.
    pub(crate) again: Option<usize>,
    pub(crate) listen: Listen,
}

/// One that has its number among those of its kind, and its position among all.
pub(crate) struct Placed {
    pub(crate) number: usize,
    /// The same number, if it opens again.
    pub(crate) again: Option<usize>,
    /// Of one that is new.
    pub(crate) position: usize,
    pub(crate) listen: Listen,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelistenError {
    #[error(transparent)]
    Limits(#[from] SetLimitsError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{}", no_seat(*.0))]
    NoSeat(usize),
    #[error("the server is about to end, and opens no listener")]
    Ending,
    #[error("listener {0} is open")]
    Open(Address),
}

/// Why there is no seat for another listener, where there can be this number of them.
pub(crate) fn no_seat(most: usize) -> String {
    format!(
        "with the listeners that were closed there would be more than {most}: until a restart there can be {most} at most, \
         because memory is set aside for that many (listeners-ceiling)"
    )
}

/// A listener that is bound, and whose seat is waiting for it.
struct Bound {
    number: usize,
    /// What the acceptor accepts from.
    socket: ListenSocket,
    seat: BoundFor,
}

enum BoundFor {
    New(Box<Listener>),
    /// Its listener is there, and gets this socket.
    Again(ListenSocket),
}

impl Bound {
    fn with_socket<T>(&self, look: impl FnOnce(&ListenSocket) -> T) -> Option<T> {
        match &self.seat {
            BoundFor::New(listener) => listener.socket().as_ref().map(look),
            BoundFor::Again(socket) => Some(look(socket)),
        }
    }
}

/// Limits that are in force, and listeners that have their seats and accept nobody yet.
#[must_use = "the listeners accept when it is finished"]
pub(crate) struct Relistening<'a> {
    shared: &'a Shared,
    /// Nobody changes anything else meanwhile.
    _alone: MutexGuard<'a, ()>,
    open: Vec<(usize, ListenSocket)>,
    /// Listeners for datagrams that have their seats and receive nothing yet.
    datagrams: Vec<usize>,
}

impl Handle {
    /// Changes the limits, with what `own` makes of them for the listener at each position, and opens listeners: new ones have
    /// the next positions, in their order. They accept once the returned value is [finished](Relistening::finish). `datagrams`
    /// says whether a listener for datagrams will be open then.
    pub(crate) fn relisten(
        &self,
        limits: Limits,
        own: &dyn Fn(usize, &Limits) -> Limits,
        openings: Vec<Opening>,
        datagrams: bool,
        around: &Around<'_>,
    ) -> Result<Relistening<'_>, RelistenError> {
        let shared = &self.shared;
        let alone = shared.limits.change();
        if !openings.is_empty() && !shared.life.takes_newcomers() {
            return Err(RelistenError::Ending);
        }
        let first = shared.listeners.len();
        let placed = shared.place(openings)?;
        let of_new = |one: &&Placed| one.again.is_none() && !one.listen.takes_datagrams();
        let new: Vec<_> = placed.iter().filter(of_new).map(|one| one.position).collect();
        let own = |number: usize, server: &Limits| match number.checked_sub(first) {
            Some(beyond) => own(new[beyond], server),
            None => own(shared.listeners[number].position, server),
        };
        let wanted = WantedListeners { taken: first + new.len(), datagrams };
        let (after, _) = shared.would_change(limits, &own, wanted)?;
        let (mut bound, mut bound_datagrams) = (Vec::new(), Vec::new());
        for one in placed {
            if one.listen.takes_datagrams() {
                bound_datagrams.push(shared.bind_datagrams(one, &after.server, around)?);
            } else {
                bound.push(shared.bind(one, &after.listeners, around)?);
            }
        }
        shared.start_more(after.server.workers)?;
        shared.register(&bound)?;
        if let Err(error) = shared.register_datagrams(&bound_datagrams) {
            shared.unregister(&bound);
            return Err(error.into());
        }
        let open = bound.into_iter().map(|bound| shared.seat(bound)).collect();
        let datagrams = bound_datagrams.into_iter().map(|bound| shared.seat_datagrams(bound)).collect();
        shared.put_in_force(after);
        Ok(Relistening { shared, _alone: alone, open, datagrams })
    }
}

impl Relistening<'_> {
    /// Lets the new listeners accept, and closes those at these positions. It waits until that is done; a closed listener for
    /// datagrams takes nothing more then, and may still answer.
    pub(crate) fn finish(self, closing: &[usize]) {
        let shared = self.shared;
        self.datagrams.iter().for_each(|&number| shared.start_datagrams(number));
        shared.close_datagrams(closing);
        let numbered = shared.listeners.iter().enumerate();
        let closing = numbered.filter(|(_, listener)| closing.contains(&listener.position));
        let close: Vec<_> = closing.map(|(number, _)| number).collect();
        if self.open.is_empty() && close.is_empty() {
            return;
        }
        let opened: Vec<_> = self.open.iter().map(|(number, _)| *number).collect();
        close.iter().for_each(|&number| shared.listeners[number].close(shared.clock.now()));
        let (done, told) = crossbeam_channel::bounded(1);
        let sent = shared.relistens.try_send(Relisten { open: self.open, close, done });
        shared.bell.call();
        // What is late is done all the same.
        if sent.is_err() || told.recv_timeout(DONE_WITHIN) == Err(RecvTimeoutError::Disconnected) {
            // The acceptor has ended with its server: nobody would close these.
            opened.iter().for_each(|&number| close_socket(shared, number));
        }
        shared.crew.wake_keeper();
    }
}

impl Shared {
    /// How many listeners there have been, those for datagrams included.
    fn positions(&self) -> usize {
        self.listeners.len() + self.datagrams.sockets.len()
    }

    /// Gives each that opens its number and its position: one that opens again those that it had, another the next.
    fn place(&self, openings: Vec<Opening>) -> Result<Vec<Placed>, RelistenError> {
        let (mut number, mut number_of_datagrams) = (self.listeners.len(), self.datagrams.sockets.len());
        let mut position = self.positions();
        let mut placed = Vec::new();
        for Opening { again, listen } in openings {
            let next = if listen.takes_datagrams() { &mut number_of_datagrams } else { &mut number };
            let known = again.and_then(|position| match listen.takes_datagrams() {
                true => self.datagrams.sockets.iter().position(|one| one.position == position),
                false => self.listeners.iter().position(|one| one.position == position),
            });
            placed.push(Placed { number: known.unwrap_or(*next), again: known, position, listen });
            if known.is_none() {
                (*next, position) = (*next + 1, position + 1);
            }
        }
        if position > self.listeners.room() {
            return Err(RelistenError::NoSeat(self.listeners.room()));
        }
        Ok(placed)
    }

    /// Binds a listener for connections.
    fn bind(&self, placed: Placed, limits: &[Limits], around: &Around<'_>) -> Result<Bound, RelistenError> {
        let Placed { number, again, position, mut listen } = placed;
        let address = listen.address;
        let cannot = |source| BuildError::Bind { address, source };
        if again.is_some_and(|number| self.listeners[number].socket().is_some()) {
            return Err(RelistenError::Open(address));
        }
        let socket = listen.open(&limits[number], around)?;
        let ours = socket.try_clone().map_err(cannot)?;
        let seat = match (again, &listen.offer) {
            (None, ListenOffer::Stream(service)) => {
                let service = service.clone();
                let listener = listen.seated(socket, service, position, &limits[number], around)?;
                BoundFor::New(Box::new(listener))
            }
            _ => BoundFor::Again(socket),
        };
        Ok(Bound { number, socket: ours, seat })
    }

    /// Puts the sockets into the poller. Nobody is accepted there before the acceptor says so.
    fn register(&self, bound: &[Bound]) -> Result<(), BuildError> {
        for (at, one) in bound.iter().enumerate() {
            self.holding[one.number].store(true, SeqCst);
            let added =
                one.with_socket(|socket| self.poller.add(socket.as_fd(), Source::Listener(one.number)));
            if let Some(Err(source)) = added {
                self.unregister(&bound[..at]);
                return Err(BuildError::Start { what: "the acceptor", source });
            }
        }
        Ok(())
    }

    /// Takes them out of the poller again.
    fn unregister(&self, bound: &[Bound]) {
        for one in bound {
            one.with_socket(|socket| self.poller.remove(socket));
        }
    }

    /// Gives a listener its seat; its number, and the socket for the acceptor.
    fn seat(&self, bound: Bound) -> (usize, ListenSocket) {
        let Bound { number, socket, seat } = bound;
        match seat {
            BoundFor::Again(socket) => {
                self.listeners[number].open_again(socket);
                // Of those that were to end, some have left something unread for it.
                self.call(number, |_| true);
            }
            BoundFor::New(listener) => {
                if listener.tls.is_some() {
                    self.table.make_room_for_tls();
                }
                self.counts.open([number]);
                let seat = self.listeners.add(*listener);
                debug_assert_eq!(seat, Some(number), "it was looked for one");
            }
        }
        (number, socket)
    }
}
