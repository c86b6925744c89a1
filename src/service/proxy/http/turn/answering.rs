//! The answering stage of a turn: sends the request to the backend, and the backend's answer to the client.

use super::{CONTINUE, GateTurn, Onward};
use crate::clock::Nanos;
use crate::reason::RequestFailure;
use crate::service::held::Held;
use crate::service::proxy::http::answer::AnswerFault;
use crate::service::proxy::http::exchange::{BackendHeard, Exchange};
use crate::service::proxy::http::pending::UploadFault;
use crate::service::proxy::http::stage::RequestStage;
use crate::service::proxy::http::words::GateWords;
use crate::service::proxy::lent::room;
use crate::service::proxy::session::GateSession;
use crate::service::{Fault, Pool, Received, Session, SocketEvents, Turn, WatchFor};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// While at least this many bytes of an answer wait for the client, nothing more is read from the backend. At most as many
/// are read at once.
fn answer_kept((pool, most): (&Arc<Pool>, usize)) -> usize {
    room(pool.used(), most)
}

/// The outcome of reading more of the client's body.
enum Fed {
    Some,
    /// There is nothing to read now, or the turn has read enough.
    Enough,
    /// The request is over.
    Over(Onward),
}

impl GateTurn<'_, '_> {
    pub(super) fn begin(&mut self, mut exchange: Exchange) -> io::Result<Onward> {
        if std::mem::take(&mut exchange.pending.expects_continue) {
            self.scratch.extend_from_slice(CONTINUE);
            self.deliver()?;
        }
        self.answer(Box::new(exchange))
    }

    /// Sends what has come of the request, and passes on what has come of the answer.
    pub(super) fn answer(&mut self, mut exchange: Box<Exchange>) -> io::Result<Onward> {
        if self.has_left() {
            return self.leave();
        }
        exchange.push(self.store(), self.now);
        let mut enough = false;
        while !enough && exchange.wants_upload() && self.unread {
            match self.feed(&mut exchange)? {
                Fed::Some => {}
                Fed::Enough => enough = true,
                Fed::Over(onward) => return Ok(onward),
            }
        }
        let pool = self.store();
        let mut passed = 0;
        while self.begun.out.len() < answer_kept(pool) {
            let mut asked = exchange.pending.asked;
            asked.keep &= exchange.pending.has_come() && !self.stream.is_draining();
            let (_, buffer) = self.stream.raw();
            let room = answer_kept(pool).min(buffer.len());
            let buffer = &mut buffer[..room];
            let heard = exchange.hear(buffer, asked, pool, &mut self.scratch, self.now);
            if let BackendHeard::Switched { read, after } = heard {
                self.scratch.extend_from_slice(&buffer[read - after..read]);
            }
            passed += self.scratch.len();
            exchange.place.passed(0, self.scratch.len() as u64);
            if matches!(heard, BackendHeard::Done) {
                return self.finish(*exchange);
            }
            self.deliver()?;
            match heard {
                BackendHeard::Nothing => break,
                BackendHeard::Some if passed >= self.bounds.turn_bytes => {
                    self.begun.stage = RequestStage::Answering(exchange);
                    return Ok(Onward::Turn(Turn::Again));
                }
                BackendHeard::Some | BackendHeard::Done => {}
                BackendHeard::Switched { .. } => return self.switch(exchange),
                BackendHeard::Lost => return self.lose(*exchange),
                BackendHeard::Fault(AnswerFault::Unreadable(_)) if exchange.can_be_repeated_after_noise() => {
                    return self.repeat(*exchange);
                }
                BackendHeard::Fault(fault) => {
                    return self.spoil(&mut exchange, RequestFailure::Unreadable, 502, &fault.to_string());
                }
            }
        }
        self.await_answer(exchange)
    }

    /// Parks until the backend or the client goes on, whichever the exchange waits for.
    fn await_answer(&mut self, mut exchange: Box<Exchange>) -> io::Result<Onward> {
        let mut until = Nanos::MAX;
        if exchange.wants_upload() {
            until = exchange.upload.deadline(self.bounds.read_timeout);
            if self.now >= until {
                return self.upload_timeout(&mut exchange);
            }
            exchange.pause();
        } else {
            exchange.restart_upload(self.now);
            let pool = (self.stream.output_pool(), self.bounds.output_total);
            if self.begun.out.len() >= answer_kept(pool) {
                exchange.pause();
            } else {
                until = exchange.deadline(self.settings.http.backend_timeout);
                if self.now >= until {
                    let text = "the backend did not answer in time";
                    return self.spoil(&mut exchange, RequestFailure::Timeout, 504, text);
                }
            }
        }
        self.watch_output(&mut exchange)?;
        let more = exchange.wants_upload() && self.filled && self.unread;
        self.begun.stage = RequestStage::Answering(exchange);
        if more { Ok(Onward::Turn(Turn::Again)) } else { self.park(until) }
    }

    /// Makes the poller say when the backend takes more, if it has not taken all.
    fn watch_output(&mut self, exchange: &mut Exchange) -> io::Result<()> {
        if !exchange.is_taken() && !exchange.deaf && !exchange.watched_both {
            let socket = exchange.socket.as_fd();
            match &exchange.route {
                Some(route) => self.stream.route_output(socket, route)?,
                None => self.stream.watch(socket, WatchFor::OutputToo)?,
            }
            exchange.watched_both = true;
        }
        Ok(())
    }

    /// The client did not send its body in time.
    fn upload_timeout(&mut self, exchange: &mut Exchange) -> io::Result<Onward> {
        if exchange.answer.has_begun() {
            return Err(Fault::ReadTimeout.into());
        }
        let _ = self.last_words(
            408,
            "the body of the request did not come in time",
            Some(&mut exchange.pending),
        )?;
        Err(Fault::ReadTimeout.into())
    }

    /// Reads a piece of the body from the client.
    fn feed(&mut self, exchange: &mut Exchange) -> io::Result<Fed> {
        let peer = self.peer();
        let (input, output) = self.stream.split();
        let context = output.context;
        let data = match input.receive()? {
            Received::Data(data) => data,
            Received::Nothing => {
                // If the last read filled the buffer, then the stream has only refused to read more in this turn.
                self.unread = self.filled;
                return Ok(Fed::Enough);
            }
            Received::End => return self.leave().map(Fed::Over),
        };
        exchange.upload.moved(data.len(), self.now);
        match exchange.pending.feed(data, context) {
            Ok(used) if used < data.len() => {
                let mut held = Held::of_told(peer, context);
                held.extend(&data[used..], data.len(), context)?;
                self.begun.held = Some(held);
            }
            Ok(_) => {}
            Err(UploadFault::NoRoom) => return Err(Fault::InputLimit.into()),
            Err(UploadFault::Refused(refused)) if exchange.answer.has_begun() => return Err(refused.into()),
            Err(UploadFault::Refused(refused)) => {
                return self.refuse(refused, Some(&mut exchange.pending)).map(Fed::Over);
            }
        }
        self.filled = !self.stream.is_drained();
        self.unread = self.filled;
        exchange.push(self.store(), self.now);
        Ok(Fed::Some)
    }

    /// The answer is complete. The place is given back before the client can see that, so that its next request finds it
    /// free.
    fn finish(&mut self, mut exchange: Exchange) -> io::Result<Onward> {
        let keep = exchange.answer.keeps_client() && exchange.pending.has_come();
        exchange.place.answered(exchange.answer.status());
        self.count(exchange.answer.status(), Some(exchange.pending.since));
        exchange.pending.answered(exchange.answer.status(), exchange.answer.body());
        self.gate.held_for(exchange.age(self.now));
        let (spare, place, _) = exchange.part();
        // The connection becomes a spare one before the place is given back: see `spares`.
        if let Some(spare) = spare {
            self.gate.spares.put(place.backend(), spare, self.now);
        }
        place.give_back(self.now);
        self.deliver()?;
        self.begun.stage = if keep { RequestStage::between() } else { RequestStage::Ending };
        Ok(Onward::GoOn)
    }

    /// The backend's connection ended before the answer did.
    fn lose(&mut self, mut exchange: Exchange) -> io::Result<Onward> {
        if exchange.can_be_repeated() {
            return self.repeat(exchange);
        }
        let failure = if exchange.answer.has_begun() { RequestFailure::Cut } else { RequestFailure::Closed };
        self.spoil(&mut exchange, failure, 502, "the backend closed the connection without an answer")
    }

    /// Sends the request once more, on a new connection.
    fn repeat(&mut self, exchange: Exchange) -> io::Result<Onward> {
        let Exchange { socket, place, mut pending, .. } = exchange;
        drop(socket);
        pending.rewind();
        pending.repeated = true;
        // The backend may have had the request for longer than the time to reach one.
        pending.deadline = 0;
        place.reused(true);
        self.set_out(place, pending, true)
    }

    /// The backend does not answer as it should. The client gets an answer of the gate, or, if the backend's answer has
    /// begun, a reset.
    fn spoil(
        &mut self,
        exchange: &mut Exchange,
        failure: RequestFailure,
        status: u16,
        text: &str,
    ) -> io::Result<Onward> {
        exchange.place.spoiled(failure);
        tracing::debug!(backend = %exchange.place.address(), reason = %failure, text, "a request is not answered");
        if exchange.answer.has_begun() {
            self.count(exchange.answer.status(), None);
            exchange.pending.answered(exchange.answer.status(), exchange.answer.body());
            // A reset tells the client that its answer is not complete.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.scratch.clear();
        self.give_up(&mut exchange.pending, GateWords { status, text, retry_after: None })
    }

    /// Turns the two connections into a pair, once all bytes from before were delivered.
    pub(super) fn switch(&mut self, mut exchange: Box<Exchange>) -> io::Result<Onward> {
        if let Some(held) = self.begun.held.take() {
            let context = self.stream.context();
            exchange.pending.follow(held.bytes(), context)?;
        }
        exchange.push(self.store(), self.now);
        if exchange.deaf {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if exchange.is_taken() && self.begun.out.is_empty() {
            exchange.place.answered(exchange.answer.status());
            self.count(exchange.answer.status(), Some(exchange.pending.since));
            exchange.pending.answered(exchange.answer.status(), 0);
            let Exchange { socket, route, place, mut watched_both, .. } = *exchange;
            if route.is_some() {
                // It is this session's until its end.
                self.stream.watch(socket.as_fd(), WatchFor::Moved)?;
                watched_both = false;
            }
            let gate = self.gate.gate.clone();
            let tunnel = GateSession::adopted(gate, place, socket, watched_both, self.now);
            self.stream.tell(SocketEvents::UNKNOWN);
            return self.tunnel.insert(Box::new(tunnel)).turn(self.stream).map(Onward::Turn);
        }
        let until = exchange.deadline(self.settings.http.backend_timeout);
        if self.now >= until {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.watch_output(&mut exchange)?;
        self.begun.stage = RequestStage::Switching(exchange);
        self.park(until)
    }
}
