//! Errors of a turn that end a connection for a specific reason.

use crate::reason::DropReason;
use std::io;

/// Errors that end a connection for a specific reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The client does not read, and the replies that wait for it have reached `output_per_connection` or
    /// `output_total`.
    #[error("the client does not take its replies, and there are more than may be kept")]
    OutputLimit,
    /// There is no memory for the rest of a line that the client has begun: `input_total` is in use.
    #[error("the half-read lines of all clients are more than may be kept")]
    InputLimit,
    /// The client did not send its request in time.
    #[error("the client did not send its request in time")]
    ReadTimeout,
    /// The client did not read its replies in time.
    #[error("the client did not take its replies in time")]
    WriteTimeout,
    /// The server is ending.
    #[error("the server is ending")]
    Shutdown,
    /// Neither side sent anything for longer than the service allows.
    #[error("nothing was sent or received for too long")]
    Idle,
    /// The client is refused, as it could have been before its first turn: it is sent the busy reply.
    #[error("the client is turned away: {0}")]
    Refused(DropReason),
    /// The connection of a TLS client ended without the `close_notify` that marks the end of what it sent.
    #[error("the connection ended without TLS's close_notify: what came may not be all")]
    Truncated,
    /// A line is longer than `max_line`.
    #[error("the client sent a line longer than allowed")]
    LineTooLong,
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::InputLimit | Fault::OutputLimit => io::ErrorKind::OutOfMemory,
            Fault::ReadTimeout | Fault::WriteTimeout | Fault::Idle => io::ErrorKind::TimedOut,
            Fault::Refused(_) => io::ErrorKind::ConnectionRefused,
            Fault::Shutdown => io::ErrorKind::ConnectionAborted,
            Fault::LineTooLong => io::ErrorKind::InvalidData,
            Fault::Truncated => io::ErrorKind::UnexpectedEof,
        };
        io::Error::new(kind, fault)
    }
}

impl Fault {
    /// The fault inside an error, if it is one.
    pub fn of(error: &io::Error) -> Option<Fault> {
        error.get_ref()?.downcast_ref::<Fault>().copied()
    }
}
