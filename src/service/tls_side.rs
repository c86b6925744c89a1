//! What a connection that speaks TLS keeps between its turns, and the steps of its handshake.

use super::held::Held;
use super::holdings::Deposit;
use super::secured::{SecuredTurn, TlsBuffers};
use super::{Context, Fault, Kept, Peer, Seat};
use crate::clock::Nanos;
use crate::reason::HandshakeFailure;
use crate::transport::socket::{ClientSocket, receive, send};
use crate::transport::tls::{Advance, Broken, Engine, Setup, TlsFacts};
use std::io;
use std::sync::Arc;

/// The first byte of a client that speaks TLS: the type of a record of the handshake.
const HANDSHAKE_RECORD: u8 = 22;

/// The beginnings of HTTP requests, by method.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI ",
];

/// The answer to a client that speaks HTTP to a listener for TLS.
const USE_HTTPS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 40\r\nConnection: close\r\n\r\nThis port speaks TLS: use https:// URLs\n";

/// The TLS of a connection. Between two turns it has no buffer: the rest of the client's records is kept as other
/// input is.
#[derive(Debug)]
pub(crate) struct TlsSide {
    engine: Engine,
    left: Option<Deposit>,
    /// When the client's first byte was seen.
    began: Nanos,
    /// What was agreed on, once the handshake is over.
    facts: Option<Arc<TlsFacts>>,
}

/// The state of a handshake after a turn.
#[derive(Debug)]
pub(crate) enum Shake {
    /// The client has sent nothing.
    Silent,
    /// The handshake needs more input.
    Waits,
    Done,
    Failed {
        failure: HandshakeFailure,
        why: String,
    },
    /// The client has left without sending a byte.
    Left,
}

impl Shake {
    fn failed(failure: HandshakeFailure, why: impl Into<String>) -> Self {
        Shake::Failed { failure, why: why.into() }
    }
}

/// What a handshake needs of the turn that it has.
pub(crate) struct ShakeTurn<'a> {
    pub(crate) socket: &'a ClientSocket,
    pub(crate) peer: &'a Peer,
    pub(crate) kept: &'a mut Kept,
    pub(crate) buffers: &'a mut TlsBuffers,
    pub(crate) context: Context<'a>,
    pub(crate) seat: Seat,
    pub(crate) now: Nanos,
}

impl TlsSide {
    /// That of a connection whose handshake is over.
    #[cfg(all(test, feature = "tls"))]
    pub(crate) fn opened(engine: Engine) -> Self {
        Self { engine, left: None, began: 0, facts: None }
    }

    /// The most memory that it takes.
    pub(crate) const BYTES: usize = size_of::<Self>() + Engine::BYTES;

    /// Takes the handshake as far as the client's input goes. `side` is filled when the client's first byte is there,
    /// so a silent client costs no memory.
    pub(crate) fn shake(side: &mut Option<Box<Self>>, setup: &Setup, turn: &mut ShakeTurn<'_>) -> Shake {
        turn.buffers.out.clear();
        let left = match side {
            Some(side) => side.take_up(turn.buffers),
            None => {
                turn.buffers.records.load(&[]);
                Ok(())
            }
        };
        if left.is_err() {
            return Shake::failed(
                HandshakeFailure::InputLimit,
                "its input was given up for another client's",
            );
        }
        let shake = Self::go_on(side, setup, turn);
        match shake {
            Shake::Waits | Shake::Done => {}
            _ => return shake,
        }
        let Some(side) = side else { return shake };
        match side.put_down(turn.buffers, turn.peer, turn.seat, &turn.context) {
            Ok(()) => shake,
            Err(error) => Shake::failed(HandshakeFailure::InputLimit, error.to_string()),
        }
    }

    fn go_on(side: &mut Option<Box<Self>>, setup: &Setup, turn: &mut ShakeTurn<'_>) -> Shake {
        loop {
            let space = turn.buffers.records.space();
            if space.is_empty() {
                return Shake::failed(HandshakeFailure::Malformed, "the handshake is too long");
            }
            match receive(turn.socket, space) {
                Ok(Some(n)) if n > 0 => turn.buffers.records.filled(n),
                Ok(None) if side.is_none() => return Shake::Silent,
                Ok(None) => return Shake::Waits,
                _ if side.is_none() => return Shake::Left,
                _ => return Shake::failed(HandshakeFailure::ClientGone, "the client left in the middle"),
            }
            if side.is_none() {
                if turn.buffers.records.bytes().first() != Some(&HANDSHAKE_RECORD) {
                    return refuse_plain(turn);
                }
                match setup.engine() {
                    Ok(engine) => {
                        *side = Some(Box::new(Self { engine, left: None, began: turn.now, facts: None }))
                    }
                    Err(broken) => return Shake::failed(broken.failure, broken.why),
                }
            }
            let Some(side) = side else { continue };
            let advanced = side.engine.advance(&mut turn.buffers.records, &mut [], &mut turn.buffers.out);
            if let Err(error) = pass_on(turn) {
                return Shake::failed(HandshakeFailure::ClientGone, error.to_string());
            }
            match advanced {
                Ok((_, Advance::Opened)) => {
                    side.facts = Some(Arc::new(side.engine.facts()));
                    return Shake::Done;
                }
                Ok((_, Advance::NeedsInput | Advance::NoRoom)) => {}
                Ok((_, Advance::Ended)) => {
                    return Shake::failed(HandshakeFailure::ClientGone, "the client ended the handshake");
                }
                Err(Broken { failure, why }) => return Shake::failed(failure, why),
            }
        }
    }

    /// Prepares the TLS for a turn of its session.
    pub(crate) fn turn<'a>(
        &'a mut self,
        buffers: &'a mut TlsBuffers,
        is_unix: bool,
    ) -> (SecuredTurn<'a>, io::Result<()>) {
        buffers.out.clear();
        let taken = self.take_up(buffers);
        (SecuredTurn::new(&mut self.engine, buffers, is_unix), taken)
    }

    /// Puts the records that an earlier turn left into the worker's buffer.
    fn take_up(&mut self, buffers: &mut TlsBuffers) -> io::Result<()> {
        let left = self.left.take().map(Held::resume).transpose();
        let bytes = left.as_ref().ok().and_then(Option::as_ref).map_or(&[][..], Held::bytes);
        if !buffers.records.load(bytes) {
            return Err(Fault::InputLimit.into());
        }
        left.map(drop)
    }

    /// Keeps the records that the turn has left in the worker's buffer.
    pub(crate) fn put_down(
        &mut self,
        buffers: &mut TlsBuffers,
        peer: &Peer,
        seat: Seat,
        context: &Context<'_>,
    ) -> io::Result<()> {
        let bytes = buffers.records.bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        let mut held = Held::of(peer, context);
        held.extend(bytes, bytes.len(), context)?;
        self.left = Some(held.park(seat, context)?);
        Ok(())
    }

    /// Whether the handshake is over.
    pub(crate) fn is_open(&self) -> bool {
        self.engine.is_open()
    }

    /// When the handshake began.
    pub(crate) fn began(&self) -> Nanos {
        self.began
    }

    /// Whether the session may have input even if the kernel has none.
    pub(crate) fn has_input(&self) -> bool {
        self.engine.has_more()
    }

    /// What was agreed on in the handshake.
    pub(crate) fn facts(&self) -> Option<Arc<TlsFacts>> {
        self.facts.clone()
    }

    /// These words in records, and the record `close_notify`, which tells the client that nothing more will come.
    pub(crate) fn last_words(&mut self, words: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.engine.close_notify(words, &mut out);
        out
    }
}

/// Sends the records of the handshake. What the kernel does not take is kept.
fn pass_on(turn: &mut ShakeTurn<'_>) -> io::Result<()> {
    let out = &turn.buffers.out;
    let sent = if turn.kept.is_empty() && !out.is_empty() { send(turn.socket, out)? } else { 0 };
    let Context { limits, output_total, host, .. } = turn.context;
    turn.kept.keep(&out[sent..], turn.peer, limits, output_total, &**host)?;
    turn.buffers.out.clear();
    Ok(())
}

/// Tells a client that speaks HTTP, and not TLS, what is wrong.
fn refuse_plain(turn: &mut ShakeTurn<'_>) -> Shake {
    let said = turn.buffers.records.bytes();
    let is_http = METHODS.iter().any(|method| {
        let len = method.len().min(said.len());
        said[..len] == method[..len]
    });
    if !is_http {
        return Shake::failed(HandshakeFailure::NotTls, "the client does not speak TLS");
    }
    // The message is short. If the client cannot take it at once, it is not told.
    let _ = send(turn.socket, USE_HTTPS);
    Shake::failed(HandshakeFailure::NotTls, "the client speaks HTTP without TLS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(USE_HTTPS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        assert_eq!(length.parse(), Ok(body.len()));
    }
}
