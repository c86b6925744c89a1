//! What stands behind a gate: a few workers that each accept a connection and serve it to its end, as a pre-forked server
//! does. It reads `slow FACTOR` from standard input, and from then on its work takes that many times as long.

use super::Mode;
use anyhow::Result;
use std::io::{self, BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Workers, so that a request of 5 ms makes 800 a second.
const WORKERS: usize = 4;

pub(super) fn serve(listener: TcpListener, mode: Mode) -> Result<()> {
    let factor = Arc::new(AtomicU32::new(1));
    for _ in 0..WORKERS {
        let (listener, factor) = (listener.try_clone()?, factor.clone());
        std::thread::Builder::new().spawn(move || {
            loop {
                let Ok((stream, _)) = listener.accept() else { continue };
                // A client that left costs its worker nothing more than this.
                let _ = converse(stream, mode, &factor);
            }
        })?;
    }
    for line in io::stdin().lock().lines() {
        if let Some(times) = line?.strip_prefix("slow ").and_then(|times| times.parse().ok()) {
            factor.store(times, Relaxed);
        }
    }
    // The program that started this server has gone.
    Ok(())
}

fn converse(mut stream: TcpStream, mode: Mode, factor: &AtomicU32) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        for _ in 0..factor.load(Relaxed) {
            mode.work();
        }
        stream.write_all(&buffer[..n])?;
    }
}
