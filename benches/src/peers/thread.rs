//! A thread for each connection, as the standard library's documentation shows it.

use super::Mode;
use anyhow::Result;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

pub(super) fn serve(listener: TcpListener, mode: Mode, buffer: usize) -> Result<()> {
    loop {
        // An accept error (out of descriptors) and a thread that cannot be had cost that connection, not the server.
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        let _ = std::thread::Builder::new().spawn(move || converse(stream, mode, buffer));
    }
}

/// Serves one connection until the client has ended it.
pub(super) fn converse(mut stream: TcpStream, mode: Mode, buffer: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        mode.work();
        stream.write_all(&buffer[..n])?;
    }
}
