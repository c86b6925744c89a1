//! Why a WebSocket connection is failed, and the close code that says so (RFC 6455, 7.4.1).

/// What a peer has done wrong. The text is one line for whoever wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A reserved bit is set, and no extension was agreed on.
    #[error("a reserved bit of a frame is set")]
    ReservedBits,
    /// A kind of frame that there is not.
    #[error("there is no such kind of frame")]
    Opcode,
    /// A client's frame without a mask.
    #[error("a client's frame is not masked")]
    NotMasked,
    /// A server's frame with a mask.
    #[error("a server's frame is masked")]
    Masked,
    /// A length that is not as short as can be, or over 63 bits.
    #[error("the length of a frame is not written as short as can be")]
    Length,
    /// A control frame over 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A control frame in fragments.
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// A continuation without a beginning.
    #[error("a frame continues a message that was not begun")]
    ContinuesNothing,
    /// A message between the fragments of another.
    #[error("a message begins before the one before it has ended")]
    MessageInMessage,
    /// A message longer than `max_message`.
    #[error("the message is longer than allowed")]
    MessageTooLong,
    /// Text that is not UTF-8.
    #[error("the text is not UTF-8")]
    Utf8,
    /// A close frame of one byte, or with a code that may not be sent.
    #[error("the close code is not one that may be sent")]
    CloseCode,
}

impl Violation {
    /// The close code that the peer is told.
    pub fn close_code(self) -> u16 {
        match self {
            Violation::MessageTooLong => 1009,
            Violation::Utf8 => 1007,
            _ => 1002,
        }
    }
}

impl From<Violation> for std::io::Error {
    fn from(violation: Violation) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, violation)
    }
}

/// The code and the reason of a close frame's payload. An empty one has no code.
pub fn close_payload(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok((None, "")) } else { Err(Violation::CloseCode) };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return Err(Violation::CloseCode);
    }
    std::str::from_utf8(reason).map(|reason| (Some(code), reason)).map_err(|_| Violation::Utf8)
}

/// Whether a close code may stand in a frame: 1004 is reserved, and 1005, 1006 and 1015 say that there was none.
pub(super) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
