//! The outcome of reading records.

use crate::reason::HandshakeFailure;

/// The most bytes that one record has inside.
pub(crate) const PLAIN_MAX: usize = 16 * 1024;

/// What is known after input was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "there is no engine"))]
pub(crate) enum Advance {
    /// All whole records were taken: more input is needed.
    NeedsInput,
    /// There is no room for the bytes of another record.
    NoRoom,
    /// The handshake is over. Bytes that came with it are not taken yet.
    Opened,
    /// The client has said, by a `close_notify`, that it will say no more.
    Ended,
}

/// The client broke the protocol, or could not be agreed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// What it counts as, if it comes in the handshake.
    pub(crate) failure: HandshakeFailure,
    /// What rustls says.
    pub(crate) why: String,
}
