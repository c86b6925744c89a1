//! Where a body ends, and its pieces.

use super::{Chunked, Piece, Refused};

/// Where a body ends. No other case will be added, so a `match` needs no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// After this many bytes; 0 for no body.
    Bytes(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection: only responses.
    UntilClose,
}

impl BodyLength {
    /// Whether there is no body.
    pub fn is_empty(self) -> bool {
        self == BodyLength::Bytes(0)
    }

    /// A reader of such a body.
    pub fn reader(self, limits: BodyLimits) -> BodyReader {
        let state = match self {
            BodyLength::Bytes(left) => BodyEnd::Bytes(left),
            BodyLength::Chunked => BodyEnd::Chunked(Chunked::new(limits.max_overhead)),
            BodyLength::UntilClose => BodyEnd::UntilClose,
        };
        BodyReader { state, room: limits.max_body }
    }
}

/// What a [`BodyReader`] allows. Start from [`BodyLimits::default`] and change what must differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyLimits {
    /// Bytes of the body.
    pub max_body: u64,
    /// Bytes of chunk extensions and trailers, in all.
    pub max_overhead: usize,
}

impl Default for BodyLimits {
    /// No limit on the body, which suits a reader that passes it on and keeps nothing, and 16 KiB of overhead.
    fn default() -> Self {
        Self { max_body: u64::MAX, max_overhead: 16 << 10 }
    }
}

impl BodyLimits {
    /// Sets how many bytes the body may have.
    #[must_use]
    pub const fn max_body(mut self, bytes: u64) -> Self {
        self.max_body = bytes;
        self
    }

    /// Sets how many bytes chunk extensions and trailers may have, all together.
    #[must_use]
    pub const fn max_overhead(mut self, bytes: usize) -> Self {
        self.max_overhead = bytes;
        self
    }
}

/// Reads a body as it comes. It keeps no bytes.
#[derive(Clone, Debug)]
pub struct BodyReader {
    state: BodyEnd,
    /// Bytes that the body may still have.
    room: u64,
}

#[derive(Clone, Debug)]
enum BodyEnd {
    Bytes(u64),
    Chunked(Chunked),
    UntilClose,
}

impl BodyReader {
    /// Takes some of `input`: how many bytes that were, and what they are.
    pub fn next<'b>(&mut self, input: &'b [u8]) -> Result<(usize, Piece<'b>), Refused> {
        let (used, piece) = match &mut self.state {
            BodyEnd::Bytes(0) => (0, Piece::End),
            BodyEnd::Bytes(left) => {
                // Known beforehand, so that it is refused before it is read.
                if *left > self.room {
                    return Err(Refused::BodyTooLong);
                }
                let taken = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                (taken, data(&input[..taken]))
            }
            BodyEnd::Chunked(chunked) => chunked.next(input, self.room)?,
            BodyEnd::UntilClose => (input.len(), data(input)),
        };
        if let Piece::Data(bytes) = piece {
            self.room = self.room.checked_sub(bytes.len() as u64).ok_or(Refused::BodyTooLong)?;
        }
        Ok((used, piece))
    }

    /// How many bytes are left, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            BodyEnd::Bytes(left) => Some(left),
            _ => None,
        }
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, BodyEnd::UntilClose)
    }
}

fn data(bytes: &[u8]) -> Piece<'_> {
    if bytes.is_empty() { Piece::More } else { Piece::Data(bytes) }
}
