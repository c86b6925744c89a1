//! An answer whose body is pulled: what is kept of it between its pieces.

use super::access_entry::AccessEntry;
use super::wire::{LAST_CHUNK, chunk_head};
use crate::service::Output;
use std::io;
use std::time::Duration;

/// How the end of the body is marked, as the headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is no body, and no header about it.
    None,
    Length(u64),
    Chunked,
    /// By the end of the connection: a client of HTTP/1.0 does not know chunks.
    UntilClose,
}

/// What comes after the piece that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pull {
    /// More: ask again. (After an empty piece, in another turn.)
    More,
    /// Nothing more now. Ask again after this time, or when the [`Waker`](crate::service::Waker) of the
    /// [response](super::Response::waker) is used. Meanwhile the connection is parked. While the server drains, this
    /// ends the connection.
    Later(Duration),
    /// This was the last piece; it may be empty.
    End,
}

pub(super) type NextPiece = Box<dyn FnMut(&mut Vec<u8>) -> io::Result<Pull> + Send>;

/// A body whose rest is still to be pulled.
pub(super) struct Pulled {
    framing: Framing,
    next: NextPiece,
    /// For the access log, if there is one: its line is written when the answer has ended, in whole or not.
    pub(super) entry: Option<Box<AccessEntry>>,
}

/// How far a turn has come with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulling {
    /// It is whole.
    Done,
    /// The rest is for another turn.
    Rest,
    /// The rest will be there after this time, or when the session is woken.
    Waits(Duration),
}

impl Pulled {
    pub(super) fn new(framing: Framing, next: NextPiece) -> Self {
        Self { framing, next, entry: None }
    }

    /// Sends pieces until the body is whole, the client does not take them, or the turn is over.
    pub(super) fn pump(&mut self, output: &mut Output<'_>) -> io::Result<Pulling> {
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let more = (self.next)(&mut piece)?;
            if let Framing::Length(left) = &mut self.framing {
                let short = || io::Error::other("a pulled body is longer than was said");
                *left = left.checked_sub(piece.len() as u64).ok_or_else(short)?;
            }
            send_piece(output, self.framing, &piece)?;
            if let Some(entry) = &mut self.entry {
                entry.sent += piece.len() as u64;
            }
            if let Some(web) = output.context.web {
                web.ledger.response_body(piece.len());
            }
            match more {
                Pull::End if matches!(self.framing, Framing::Length(1..)) => {
                    return Err(io::Error::other("a pulled body is shorter than was said"));
                }
                Pull::End => return send_end(output, self.framing).map(|()| Pulling::Done),
                Pull::Later(time) => return Ok(Pulling::Waits(time)),
                Pull::More if piece.is_empty() || output.is_turn_over() => return Ok(Pulling::Rest),
                Pull::More => {}
            }
        }
    }
}

/// Sends a piece of a body.
fn send_piece(output: &mut Output<'_>, framing: Framing, piece: &[u8]) -> io::Result<()> {
    if framing != Framing::Chunked || piece.is_empty() {
        return output.send(piece);
    }
    output.send(chunk_head(piece.len()).as_ref())?;
    output.send(piece)?;
    output.send(b"\r\n")
}

/// Sends what ends a body.
fn send_end(output: &mut Output<'_>, framing: Framing) -> io::Result<()> {
    if framing == Framing::Chunked { output.send(LAST_CHUNK) } else { Ok(()) }
}

impl std::fmt::Debug for Pulled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulled").field("framing", &self.framing).finish_non_exhaustive()
    }
}
