//! What the examples share: where to listen, and saying so.

use std::io::{self, Write};
use tidegate::BoundServer;

/// The address given on the command line, or the default.
pub(crate) fn address() -> String {
    std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5000".to_owned())
}

/// Says where the server really listens: with port 0 the system picks a port.
pub(crate) fn say(server: &BoundServer) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for address in server.addresses() {
        writeln!(out, "{address}")?;
    }
    out.flush()
}
