//! What a PROXY header says, whichever version it is of, and why bytes are none.

use std::net::SocketAddr;

/// The longest header that is read, in bytes: 16, the 216 of two Unix addresses, and 304 for fields.
pub const MAX_BYTES: usize = 536;

/// Where a connection comes from, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
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
#[non_exhaustive]
pub struct Header {
    /// What it says.
    pub origin: Origin,
    /// Its bytes; what follows them is the client's.
    pub len: usize,
}

/// Why bytes are not a header, as the end of a sentence about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first bytes are those of neither version.
    #[error("it does not begin with a PROXY header")]
    Missing,
    /// The connection ended within the header.
    #[error("it ended within its PROXY header")]
    Cut,
    /// Version 1: the line has no end where it must have one.
    #[error("its PROXY line is longer than 107 bytes")]
    LineTooLong,
    /// Version 1: the line has other words than it may have.
    #[error("its PROXY line is not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT`")]
    Line,
    /// Version 1: an address is none of the family that the line names.
    #[error("its PROXY line has an address that is none of its family")]
    LineAddress,
    /// Version 1: a port is no number from 0 to 65535, or begins with a zero.
    #[error("its PROXY line has a port that is not a number from 0 to 65535")]
    LinePort,
    /// Version 2: another version is announced.
    #[error("its PROXY header is of version {0}, which nobody has defined")]
    Version(u8),
    /// Version 2: a command that is not defined.
    #[error("its PROXY header has the command {0}, which nobody has defined")]
    Command(u8),
    /// Version 2: a family that is not defined.
    #[error("its PROXY header has the address family {0:#04x}, which nobody has defined")]
    Family(u8),
    /// Version 2: the header is longer than [`MAX_BYTES`].
    #[error("its PROXY header has {0} bytes, more than 536")]
    TooLong(usize),
    /// Version 2: the header ends within its addresses.
    #[error("its PROXY header is too short for the addresses it announces")]
    Addresses,
    /// Version 2: a field ends behind the header.
    #[error("its PROXY header has a field that does not end with the header")]
    Field,
    /// Version 2: the checksum is wrong, or is none.
    #[error("its PROXY header has a checksum that does not fit")]
    Checksum,
}

/// Whether `bytes` and `greeting` agree as far as both go.
pub(super) fn begins(bytes: &[u8], greeting: &[u8]) -> bool {
    let both = bytes.len().min(greeting.len());
    bytes[..both] == greeting[..both]
}
