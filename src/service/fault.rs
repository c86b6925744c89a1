//! Failures of a turn that end a connection for a reason of their own.

use crate::reason::DropReason;
use std::io;

/// Failures that end a connection for a reason of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The client does not read, and its replies outgrew `output_per_connection` or
    /// `output_total`.
    #[error("the client does not take its replies, and there are more than may be kept")]
    OutputLimit,
    /// There is no room for more of the line that the client has begun: `input_total` is in use.
    #[error("the half-read lines of all clients are more than may be kept")]
    InputLimit,
    /// The client did not send in time.
    #[error("the client did not send its request in time")]
    ReadTimeout,
    /// The client did not take its replies in time.
    #[error("the client did not take its replies in time")]
    WriteTimeout,
    /// The server is ending.
    #[error("the server is ending")]
    Shutdown,
    /// Nothing was said for longer than the service waits.
    #[error("nothing was said for too long")]
    Idle,
    /// The client is turned away, as it could have been before its first turn: it is told the busy reply.
    #[error("the client is turned away: {0}")]
    Refused(DropReason),
    /// A TLS client's connection ended without the `close_notify` that says that this was all.
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
