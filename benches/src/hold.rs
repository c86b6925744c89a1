//! Connections that were used once and are quiet from then on: what they cost in memory.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a connection or its reply.
const TIMEOUT: Duration = Duration::from_secs(5);
/// After the last reply, so that the server has nothing left to do.
const REST: Duration = Duration::from_millis(300);

/// Opens `count` connections one after the other, each with one request and its reply.
pub(crate) fn open(target: SocketAddr, count: usize, request: &[u8]) -> Result<Vec<TcpStream>> {
    let mut buffer = [0; 4096];
    let mut held = Vec::with_capacity(count);
    for index in 0..count {
        let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)
            .with_context(|| format!("cannot open connection {index} of {count}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(request)?;
        let n = stream.read(&mut buffer).with_context(|| format!("connection {index} has no reply"))?;
        ensure!(n > 0, "connection {index} of {count} was closed");
        held.push(stream);
    }
    std::thread::sleep(REST);
    Ok(held)
}
