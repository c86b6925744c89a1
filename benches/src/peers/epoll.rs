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

struct Connection {
    stream: TcpStream,
    /// What the kernel did not take yet, and how much of it has gone since.
    pending: Vec<u8>,
    written: usize,
}

pub(super) fn serve(listener: TcpListener, mode: Mode) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
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
            if !turn(connection, mode, ended, &mut buffer) {
                // Closing takes it out of the epoll.
                *slot = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &OwnedFd, connections: &mut Vec<Option<Connection>>) -> Result<()> {
    // Whatever the reason that none comes (none waits, it was aborted, no descriptors): the next event tells.
    while let Ok(fd) = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        let at = fd.as_raw_fd() as usize;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &fd, EventData::new_u64(at as u64), flags)?;
        if at >= connections.len() {
            connections.resize_with(at + 1, || None);
        }
        connections[at] = Some(Connection { stream: TcpStream::from(fd), pending: Vec::new(), written: 0 });
    }
    Ok(())
}

/// Does what can be done now; false when the connection is over. `ended`: the client has sent its last byte.
fn turn(connection: &mut Connection, mode: Mode, ended: bool, buffer: &mut [u8]) -> bool {
    loop {
        if !flush(connection) {
            return false;
        }
        if !connection.pending.is_empty() {
            return true;
        }
        match connection.stream.read(buffer) {
            Ok(0) => return false,
            Ok(n) => {
                mode.work();
                if !send(connection, &buffer[..n]) {
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

fn send(connection: &mut Connection, bytes: &[u8]) -> bool {
    match connection.stream.write(bytes) {
        Ok(n) if n == bytes.len() => true,
        Ok(n) => {
            connection.pending.extend_from_slice(&bytes[n..]);
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            connection.pending.extend_from_slice(bytes);
            true
        }
        Err(_) => false,
    }
}

fn flush(connection: &mut Connection) -> bool {
    while connection.written < connection.pending.len() {
        match connection.stream.write(&connection.pending[connection.written..]) {
            Ok(n) => connection.written += n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
    connection.pending.clear();
    connection.written = 0;
    true
}
