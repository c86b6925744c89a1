//! The body of an answer that is pulled, between its pieces.

use super::response::{Framing, NextPiece, Pull, send_end, send_piece};
use crate::service::Output;
use std::io;

/// A body of which the rest is still to be pulled.
pub(super) struct Pulled {
    framing: Framing,
    next: NextPiece,
}

/// How far a turn has come with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulling {
    /// It is whole.
    Done,
    /// The rest is for another turn.
    Rest,
}

impl Pulled {
    pub(super) fn new(framing: Framing, next: NextPiece) -> Self {
        Self { framing, next }
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
            match more {
                Pull::End if matches!(self.framing, Framing::Length(1..)) => {
                    return Err(io::Error::other("a pulled body is shorter than was said"));
                }
                Pull::End => return send_end(output, self.framing).map(|()| Pulling::Done),
                Pull::More if piece.is_empty() || output.is_turn_over() => return Ok(Pulling::Rest),
                Pull::More => {}
            }
        }
    }
}

impl std::fmt::Debug for Pulled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulled").field("framing", &self.framing).finish_non_exhaustive()
    }
}
