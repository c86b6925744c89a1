//! tidegate as a library: a service for lines that does its work for each line. It ends in good order when it reads `end
//! MILLISECONDS` from standard input, and says how that went.

use super::announce::announce;
use super::work::Mode;
use anyhow::{Context, Result};
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;
use tidegate::{Server, lines};

pub(super) fn serve(listen: SocketAddr, mode: Mode) -> Result<()> {
    let service = lines("lines", move |line, reply| {
        mode.work();
        reply.send(line)?;
        reply.send(b"\n")
    });
    let server = Server::builder().listen(listen, service)?.bind()?;
    announce(
        "tcp",
        server.addresses().first().and_then(|at| at.ip()).context("a bound server has an address")?,
    )?;
    let handle = server.serve()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if let Some(grace) = line.strip_prefix("end ").and_then(|millis| millis.parse().ok()) {
            let report = handle.shutdown(Duration::from_millis(grace));
            let mut out = std::io::stdout().lock();
            writeln!(out, "ended: {report}")?;
            return Ok(out.flush()?);
        }
    }
    // Whoever started this server has gone.
    Ok(())
}
