//! A piece of a body.

/// What comes next of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// Some of its bytes, never none.
    Data(&'b [u8]),
    /// More must come; all that was given is used.
    More,
    /// It is whole. What was not used belongs to the next message.
    End,
}
