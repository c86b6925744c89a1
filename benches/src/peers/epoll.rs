//! One thread and one edge-triggered epoll, every connection registered once: what the kernel allows, the limit.

use super::Mode;
use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

/// The listener's mark among the events; connections are marked with their descriptor.
const LISTENER: u64 = u64::MAX;

pub(super) struct Connection<T> {
    /// What the service keeps of it.
    pub(super) state: T,
    stream: TcpStream,
    /// What the kernel did not take yet, and how much of it has gone since.
    pending: Vec<u8>,
    written: usize,
}

pub(super) fn serve(listener: TcpListener, mode: Mode) -> Result<()> {
    run(listener, |connection: &mut Connection<()>, bytes| {
        mode.work();
        connection.send(bytes)
    })
}

/// Serves with what `answer` does with the bytes that have come; false from it ends the connection.
pub(super) fn run<T: Default>(
    listener: TcpListener,
    answer: impl Fn(&mut Connection<T>, &[u8]) -> bool,
) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: Vec<Option<Connection<T>>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; 64 << 10];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            let flags = event.flags;
            let mark = event.data.u64();
            if mark == LISTENER {
                accept(&listener, &epoll, &mut connections)?;
                continue;
            }
            let slot = &mut connections[mark as usize];
            let Some(connection) = slot else { continue };
            let ended = flags.contains(EventFlags::RDHUP);
            if !turn(connection, &answer, ended, &mut buffer) {
                // Closing takes it out of the epoll.
                *slot = None;
            }
        }
    }
}

fn accept<T: Default>(
    listener: &TcpListener,
    epoll: &OwnedFd,
    connections: &mut Vec<Option<Connection<T>>>,
) -> Result<()> {
    // Whatever the reason that none comes (none waits, it was aborted, no descriptors): the next event tells.
    while let Ok(fd) = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        let at = fd.as_raw_fd() as usize;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &fd, EventData::new_u64(at as u64), flags)?;
        if at >= connections.len() {
            connections.resize_with(at + 1, || None);
        }
        let stream = TcpStream::from(fd);
        connections[at] = Some(Connection { state: T::default(), stream, pending: Vec::new(), written: 0 });
    }
    Ok(())
}

/// Does what can be done now; false when the connection is over. `ended`: the client has sent its last byte.
fn turn<T>(
    connection: &mut Connection<T>,
    answer: &impl Fn(&mut Connection<T>, &[u8]) -> bool,
    ended: bool,
    buffer: &mut [u8],
) -> bool {
    loop {
        if !connection.flush() {
            return false;
        }
        if !connection.pending.is_empty() {
            return true;
        }
        match connection.stream.read(buffer) {
            Ok(0) => return false,
            Ok(n) => {
                if !answer(connection, &buffer[..n]) {
                    return false;
                }
                // A short read has emptied the socket: what comes later is a new edge. An end that is already there is
                // none.
                if n < buffer.len() && !ended && connection.pending.is_empty() {
                    return true;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}

impl<T> Connection<T> {
    /// Sends these bytes, or keeps what the kernel does not take; false when the connection is over.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(bytes);
            return true;
        }
        match self.stream.write(bytes) {
            Ok(n) if n == bytes.len() => true,
            Ok(n) => {
                self.pending.extend_from_slice(&bytes[n..]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.pending.extend_from_slice(bytes);
                true
            }
            Err(_) => false,
        }
    }

    fn flush(&mut self) -> bool {
        while self.written < self.pending.len() {
            match self.stream.write(&self.pending[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        self.pending.clear();
        self.written = 0;
        true
    }
}
