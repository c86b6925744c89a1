//! What a PROXY header says, whichever version it is of, and why bytes are none.

use std::net::SocketAddr;

/// The longest header that is read, in bytes: 16, the 216 of two Unix addresses, and 304 for fields.
pub(crate) const MAX_BYTES: usize = 536;

/// Where a connection comes from, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The header names nobody: the connection's own addresses count.
    Connection,
    /// A client that connected to the balancer.
    Client {
        /// The client's address.
        source: SocketAddr,
        /// The address it connected to.
        destination: SocketAddr,
    },
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What it says.
    pub(crate) origin: Origin,
    /// Its bytes; what follows them is the client's.
    pub(crate) len: usize,
}

/// Why bytes are not a header, as the end of a sentence about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HeaderError {
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("it ended within its PROXY header")]
    Cut,
    #[error("its PROXY line is longer than 107 bytes")]
    LineTooLong,
    #[error("its PROXY line is not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT`")]
    Line,
    #[error("its PROXY line has an address that is none of its family")]
    LineAddress,
    #[error("its PROXY line has a port that is not a number from 0 to 65535")]
    LinePort,
    #[error("its PROXY header is of version {0}, which nobody has defined")]
    Version(u8),
    #[error("its PROXY header has the command {0}, which nobody has defined")]
    Command(u8),
    #[error("its PROXY header has the address family {0:#04x}, which nobody has defined")]
    Family(u8),
    #[error("its PROXY header has {0} bytes, more than 536")]
    TooLong(usize),
    #[error("its PROXY header is too short for the addresses it announces")]
    Addresses,
    #[error("its PROXY header has a field that does not end with the header")]
    Field,
    #[error("its PROXY header has a checksum that does not fit")]
    Checksum,
}

/// Whether `bytes` and `greeting` agree as far as both go.
pub(super) fn begins(bytes: &[u8], greeting: &[u8]) -> bool {
    let both = bytes.len().min(greeting.len());
    bytes[..both] == greeting[..both]
}
