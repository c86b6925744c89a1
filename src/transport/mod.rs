//! What carries the bytes: addresses, sockets, and what is said about a connection before its first byte.

pub(crate) mod address;
pub(crate) mod listen;
pub(crate) mod proxy_header;
pub(crate) mod socket;
pub(crate) mod socket_file;
pub(crate) mod tls;
