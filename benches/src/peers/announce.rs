//! The line that a starter waits for.

use anyhow::Result;
use std::io::Write;
use std::net::SocketAddr;

/// Says where a server listens.
pub(super) fn announce(scheme: &str, addr: SocketAddr) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {scheme}://{addr}")?;
    Ok(out.flush()?)
}
