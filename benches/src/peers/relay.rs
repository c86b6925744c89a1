//! One thread, one edge-triggered epoll, bytes copied both ways: the limit of a relay that copies.

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

/// The listener's mark among the events.
const LISTENER: u64 = u64::MAX;

/// One end of a pair.
pub(super) struct End {
    stream: TcpStream,
    /// What the kernel did not take yet on its way to this end.
    pending: Vec<u8>,
    written: usize,
    /// It has sent its last byte.
    ended: bool,
    /// It has been told that the other end has sent its last byte.
    told: bool,
}

pub(super) type Pair = [End; 2];

/// Accepts, connects to `to`, and copies.
pub(super) fn serve(listener: TcpListener, to: SocketAddr) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let (mut pairs, mut free): (Vec<Option<Pair>>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; 64 << 10];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            if event.data.u64() == LISTENER {
                accept(&listener, to, &epoll, &mut pairs, &mut free)?;
                continue;
            }
            let at = event.data.u64() as usize;
            let Some(pair) = &mut pairs[at] else { continue };
            if !turn(pair, &mut buffer) {
                // Closing takes both ends out of the epoll.
                pairs[at] = None;
                free.push(at);
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    to: SocketAddr,
    epoll: &OwnedFd,
    pairs: &mut Vec<Option<Pair>>,
    free: &mut Vec<usize>,
) -> Result<()> {
    while let Ok(fd) = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
        // A backend that cannot be reached costs this client, not the relay.
        let Ok(backend) = connect(to) else { continue };
        let at = free.pop().unwrap_or_else(|| {
            pairs.push(None);
            pairs.len() - 1
        });
        pairs[at] = Some(ends(epoll, fd.into(), backend, at as u64)?);
    }
    Ok(())
}

/// The ends of a pair, watched with this mark.
pub(super) fn ends(epoll: &OwnedFd, client: TcpStream, backend: TcpStream, mark: u64) -> Result<Pair> {
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    let ends = [client, backend];
    for stream in &ends {
        epoll::add(epoll, stream, EventData::new_u64(mark), flags)?;
    }
    Ok(ends.map(|stream| End { stream, pending: Vec::new(), written: 0, ended: false, told: false }))
}

pub(super) fn connect(to: SocketAddr) -> Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error.into()),
        _ => Ok(socket.into()),
    }
}

/// Copies what can be copied now; false when the pair is over.
pub(super) fn turn(pair: &mut Pair, buffer: &mut [u8]) -> bool {
    let [client, backend] = pair;
    copy(client, backend, buffer).is_ok()
        && copy(backend, client, buffer).is_ok()
        && !(client.told && backend.told)
}

fn copy(from: &mut End, to: &mut End, buffer: &mut [u8]) -> std::io::Result<()> {
    let not_now =
        |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected);
    loop {
        while to.written < to.pending.len() {
            match to.stream.write(&to.pending[to.written..]) {
                Ok(n) => to.written += n,
                Err(error) if not_now(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        to.pending.clear();
        to.written = 0;
        if from.ended {
            if !to.told {
                to.told = true;
                to.stream.shutdown(Shutdown::Write)?;
            }
            return Ok(());
        }
        match from.stream.read(buffer) {
            Ok(0) => from.ended = true,
            Ok(n) => to.pending.extend_from_slice(&buffer[..n]),
            Err(error) if not_now(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
