//! Sends a large file to each client that asks, with `sendfile`, and closes: what a relay of bulk data is measured with.

use anyhow::Result;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create, sendfile};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of the file.
pub(crate) const DOWNLOAD_BYTES: u64 = 200_000_000;
/// The most that one call is asked to send.
const PIECE: usize = 1 << 20;

pub(super) fn serve(listener: TcpListener) -> Result<()> {
    let file = memfd_create("download", MemfdFlags::CLOEXEC)?;
    // A hole reads as zeros, from one page of the kernel's.
    ftruncate(&file, DOWNLOAD_BYTES)?;
    std::thread::scope(|scope| {
        loop {
            let Ok((stream, _)) = listener.accept() else { continue };
            let file = file.as_fd();
            scope.spawn(move || send(stream, file));
        }
    })
}

fn send(mut stream: TcpStream, file: BorrowedFd<'_>) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    let mut offset = 0;
    while offset < DOWNLOAD_BYTES {
        let left = usize::try_from(DOWNLOAD_BYTES - offset).unwrap_or(PIECE);
        sendfile(&stream, file, Some(&mut offset), left.min(PIECE))?;
    }
    Ok(())
}
