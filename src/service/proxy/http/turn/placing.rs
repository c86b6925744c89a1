//! The stages of a turn that lead to a backend: getting a place, and a connection.

use super::{GateTurn, Onward};
use crate::reason::BackendFailure;
use crate::service::proxy::backends::{Asking, Look, Place, PlaceAnswer, Refusal, Ticket, Unreached, Wake};
use crate::service::proxy::connect::{Arrival, Connecting};
use crate::service::proxy::gate::wait_limits;
use crate::service::proxy::http::exchange::{BackendLine, Exchange};
use crate::service::proxy::http::pending::Pending;
use crate::service::proxy::http::spares::{Reuser, SpareConnection};
use crate::service::proxy::http::stage::RequestStage;
use crate::service::proxy::http::words::GateWords;
use crate::service::{Turn, WatchFor};
use std::io;
use std::os::fd::AsFd;

impl GateTurn<'_, '_> {
    /// Asks for a place at a backend.
    pub(super) fn ask(&mut self, mut pending: Box<Pending>) -> io::Result<Onward> {
        let stream = &*self.stream;
        let asking = Asking {
            source: pending.source,
            priority: pending.priority,
            since: self.now,
            now: self.now,
            tried: &pending.tried,
            wait: wait_limits(stream.limits()),
        };
        match self.gate.gate.backends.take(&asking, || Wake::Session(stream.waker())) {
            PlaceAnswer::Place(place) => self.set_out(place, pending, false),
            PlaceAnswer::Wait(ticket) => self.queue_up(ticket, pending),
            PlaceAnswer::Refused(refusal) => self.turn_away(&mut pending, refusal),
        }
    }

    /// The request begins to wait. Its ticket is looked at when it is woken for it.
    fn queue_up(&mut self, ticket: Ticket, pending: Box<Pending>) -> io::Result<Onward> {
        if self.has_left() {
            return self.leave();
        }
        let until = ticket.until();
        self.begun.stage = RequestStage::Waiting { ticket, pending };
        self.park(until)
    }

    /// Checks whether the request's ticket has got its place.
    pub(super) fn wait(&mut self, mut ticket: Ticket, mut pending: Box<Pending>) -> io::Result<Onward> {
        if self.has_left() {
            return self.leave();
        }
        match ticket.look(self.now) {
            Look::Waiting { until } => {
                self.begun.stage = RequestStage::Waiting { ticket, pending };
                self.park(until)
            }
            Look::Place(place) => self.set_out(place, pending, false),
            Look::Refused(refusal) => self.turn_away(&mut pending, refusal),
        }
    }

    fn turn_away(&mut self, pending: &mut Pending, refusal: Refusal) -> io::Result<Onward> {
        let seconds = self.gate.retry_after();
        let busy = |text| GateWords { status: 503, text, retry_after: Some(seconds) };
        match refusal {
            Refusal::ClientGone => self.leave(),
            Refusal::QueueFull => self.give_up(pending, busy("too many requests wait for the backend")),
            Refusal::QueueTimeout => {
                self.give_up(pending, busy("the request waited too long for the backend"))
            }
            Refusal::NoBackend => {
                let text = "no backend can be reached";
                self.give_up(pending, GateWords { status: 502, text, retry_after: None })
            }
        }
    }

    /// Takes a spare connection to the backend or, if there is none or `new` is set, begins to open one.
    pub(super) fn set_out(
        &mut self,
        place: Place,
        mut pending: Box<Pending>,
        new: bool,
    ) -> io::Result<Onward> {
        let backends = &self.gate.gate.backends;
        if !new {
            let reuser = Reuser {
                backend: place.backend(),
                address: place.address(),
                seat: self.stream.seat(),
                can_be_risked: pending.can_be_risked(),
                now: self.now,
            };
            if let Some(spare) = self.gate.spares.take(&reuser) {
                let line = self.reuse(spare)?;
                place.reused(false);
                return self.begin(Exchange::new(line, place, pending, self.now));
            }
        }
        if pending.deadline == 0 {
            pending.deadline = self.settings.connect_deadline(self.now);
        }
        // While another backend is left to try, this one gets half of the remaining time.
        let left = pending.deadline.saturating_sub(self.now);
        let others = backends.has_other(&pending.tried, place.backend());
        let until = if others { self.now + left / 2 } else { pending.deadline };
        match Connecting::start(place.address(), self.greeting(), (self.now, until), self.store()) {
            Ok((mut connecting, Arrival::Wait { until })) => {
                if let Some(socket) = connecting.unwatched() {
                    self.stream.watch(socket, WatchFor::Both)?;
                }
                let connecting = Box::new(connecting);
                self.begun.stage = RequestStage::Connecting { connecting, place, pending };
                self.park(until)
            }
            Ok((_, made)) => self.arrive(made, place, pending),
            Err(unreached) => self.fail(place, pending, unreached),
        }
    }

    /// A spare connection, whose events this session is told of from now on.
    fn reuse(&self, spare: SpareConnection) -> io::Result<BackendLine> {
        let SpareConnection { socket, route, mut watched_both, .. } = spare;
        let route = match route {
            Some(route) => route,
            None => {
                watched_both = false;
                self.stream.route(socket.as_fd(), true)?
            }
        };
        Ok(BackendLine { socket, route: Some(route), watched_both, reused: true })
    }

    /// What a backend is sent first: the PROXY header, if the gate is to send one.
    fn greeting(&self) -> Vec<u8> {
        let Some(version) = self.settings.send_header else { return Vec::new() };
        let mut header = Vec::with_capacity(64);
        version.write_client(&self.peer().address, self.client.local_addr(), &mut header);
        header
    }

    /// Checks whether the connection to the backend is made, has failed, or must be waited for.
    pub(super) fn connect(
        &mut self,
        mut connecting: Box<Connecting>,
        place: Place,
        pending: Box<Pending>,
    ) -> io::Result<Onward> {
        if self.has_left() {
            drop(connecting);
            return self.leave();
        }
        match connecting.poll(self.now, self.store()) {
            Ok(Arrival::Wait { until }) => {
                if let Some(socket) = connecting.unwatched() {
                    self.stream.watch(socket, WatchFor::Both)?;
                }
                self.begun.stage = RequestStage::Connecting { connecting, place, pending };
                self.park(until)
            }
            Ok(made) => self.arrive(made, place, pending),
            Err(unreached) => {
                drop(connecting);
                self.fail(place, pending, unreached)
            }
        }
    }

    /// The backend could not be reached: the request tries another one, if there is time.
    fn fail(&mut self, place: Place, mut pending: Box<Pending>, unreached: Unreached) -> io::Result<Onward> {
        let failure = unreached.failure;
        place.failed(unreached);
        pending.tried.push(place.backend());
        drop(place);
        if failure == BackendFailure::Local || self.now >= pending.deadline {
            self.gate.gate.backends.reached_none();
            let timeout = failure == BackendFailure::Timeout;
            let text =
                if timeout { "the backend was not reached in time" } else { "no backend can be reached" };
            let status = if timeout { 504 } else { 502 };
            return self.give_up(&mut pending, GateWords { status, text, retry_after: None });
        }
        self.begun.stage = RequestStage::Ready(pending);
        Ok(Onward::GoOn)
    }

    /// The backend is connected, and the exchange begins.
    fn arrive(&mut self, arrival: Arrival, place: Place, pending: Box<Pending>) -> io::Result<Onward> {
        let Arrival::Made { socket, took, told } = arrival else { return Ok(Onward::Turn(Turn::Close)) };
        place.reached(took);
        let route = if told { None } else { Some(self.stream.route(socket.as_fd(), false)?) };
        let line = BackendLine { socket, route, watched_both: told, reused: false };
        self.begin(Exchange::new(line, place, pending, self.now))
    }
}
