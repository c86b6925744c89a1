//! One thread, one epoll, a few places at the server behind it: the limit of a gate. Every newcomer is accepted at once and
//! waits without being watched. A free place goes to the newest, and when too many wait the oldest is reset.

use super::relay::{Pair, connect, ends, turn};
use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags};
use socket2::SockRef;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The listener's mark among the events.
const LISTENER: u64 = u64::MAX;
/// Newcomers that may wait.
const WAITING_MAX: usize = 64;

struct Gate {
    to: SocketAddr,
    epoll: OwnedFd,
    /// A pair for each place that is taken.
    pairs: Vec<Option<Pair>>,
    waiting: VecDeque<TcpStream>,
}

/// Serves with this number of places.
pub(super) fn serve(listener: TcpListener, to: SocketAddr, places: usize) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let pairs = (0..places).map(|_| None).collect();
    let mut gate = Gate { to, epoll, pairs, waiting: VecDeque::new() };
    let mut events = Vec::with_capacity(1024);
    let mut buffer = vec![0; 64 << 10];
    loop {
        events.clear();
        match epoll::wait(&gate.epoll, spare_capacity(&mut events), None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            match event.data.u64() {
                LISTENER => gate.accept(&listener),
                at => gate.turn(at as usize, &mut buffer),
            }
        }
        gate.fill()?;
    }
}

impl Gate {
    fn accept(&mut self, listener: &TcpListener) {
        while let Ok(fd) = net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            self.waiting.push_back(fd.into());
            if self.waiting.len() > WAITING_MAX
                && let Some(oldest) = self.waiting.pop_front()
            {
                // A close without lingering is a reset.
                let _ = SockRef::from(&oldest).set_linger(Some(Duration::ZERO));
            }
        }
    }

    fn turn(&mut self, at: usize, buffer: &mut [u8]) {
        if let Some(pair) = &mut self.pairs[at]
            && !turn(pair, buffer)
        {
            // Closing takes both ends out of the epoll.
            self.pairs[at] = None;
        }
    }

    /// Gives the free places to the newest.
    fn fill(&mut self) -> Result<()> {
        for (at, place) in self.pairs.iter_mut().enumerate().filter(|(_, place)| place.is_none()) {
            let Some(client) = self.waiting.pop_back() else { break };
            // A backend that cannot be reached costs this client, not the gate.
            let Ok(backend) = connect(self.to) else { continue };
            *place = Some(ends(&self.epoll, client, backend, at as u64)?);
        }
        Ok(())
    }
}
