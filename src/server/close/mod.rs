//! How connections end: FIN, reset, or a close that waits for the client.

pub(crate) mod closing;
