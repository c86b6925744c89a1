//! A client's socket as TLS reads and writes it.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, Read, Write};

/// The kernel's side of a connection.
pub(crate) struct Kernel<'a>(pub(crate) &'a OwnedFd);

impl Read for Kernel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = rustix::io::retry_on_intr(|| rustix::net::recv(self.0, &mut *buffer, RecvFlags::empty()));
        Ok(got?.0)
    }
}

impl Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The same error as a system call would say it.
pub(crate) fn errno(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::WouldBlock => Errno::AGAIN,
        // An end that TLS has not announced: somebody may have cut the connection.
        io::ErrorKind::UnexpectedEof => Errno::CONNRESET,
        _ => Errno::from_io_error(error).unwrap_or(Errno::PROTO),
    }
}
