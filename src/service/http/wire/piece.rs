//! A piece of a body.

/// What comes next of a body. No other case will be added, so a `match` needs no wildcard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// Some of its bytes, at least one.
    Data(&'b [u8]),
    /// All of the input is used, and the body is not complete.
    More,
    /// The body is complete. Input that was not used belongs to the next message.
    End,
}
