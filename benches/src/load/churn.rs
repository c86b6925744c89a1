//! Closed loop over connections that do not stay: connect, send, receive, close, and again; or connect, be refused, and
//! again.

use super::plan::{PATIENCE, Plan, Shape, Window, request};
use super::sources::Sources;
use super::tally::Tally;
use anyhow::{Context, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::time::Instant;

/// A place for one connection at a time.
struct Slot {
    stream: TcpStream,
    sent: usize,
    received: usize,
    started: Instant,
}

/// How far a connection has come.
#[derive(PartialEq)]
pub(super) enum Progress {
    /// More is to come.
    Waiting,
    /// The whole reply is here.
    Replied,
    /// Reset, or never connected.
    Reset,
    /// Ended before the whole reply.
    Eof,
}

struct ChurnClient<'a> {
    plan: &'a Plan,
    request: Vec<u8>,
    buffer: Vec<u8>,
    epoll: OwnedFd,
    sources: Sources,
    window: Window,
    tally: Tally,
}

pub(super) fn run(plan: &Plan, index: usize, barrier: &Barrier) -> Result<Tally> {
    barrier.wait();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut client = ChurnClient {
        plan,
        request: request(plan.size),
        buffer: vec![0; plan.size.max(4096)],
        epoll,
        sources: Sources::new(plan.target, index),
        window: Window::of(plan),
        tally: Tally::new()?,
    };
    let mut slots = Vec::with_capacity(plan.connections);
    for index in 0..plan.connections {
        slots.push(client.connect(index)?);
    }
    let mut events = Vec::with_capacity(1024);
    let patience = PATIENCE.try_into().context("patience fits a timespec")?;
    while Instant::now() < client.window.end {
        events.clear();
        match epoll::wait(&client.epoll, spare_capacity(&mut events), Some(&patience)) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        ensure!(!events.is_empty(), "nothing happened for {PATIENCE:?}");
        for event in &events {
            let index = event.data.u64() as usize;
            client.event(index, &mut slots[index])?;
        }
    }
    client.tally.measured = plan.duration;
    Ok(client.tally)
}

impl ChurnClient<'_> {
    fn connect(&mut self, index: usize) -> Result<Slot> {
        let started = Instant::now();
        let stream = TcpStream::from(self.sources.connect(self.plan.target)?);
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), flags)?;
        let mut slot = Slot { stream, sent: 0, received: 0, started };
        // On loopback the handshake is over by now, so the request can go at once.
        if self.plan.shape == Shape::Churn {
            slot.sent = slot.stream.write(&self.request).unwrap_or(0);
        }
        Ok(slot)
    }

    fn event(&mut self, index: usize, slot: &mut Slot) -> Result<()> {
        let progress = match self.plan.shape {
            Shape::Refuse => refused(slot, &mut self.buffer),
            _ => exchange(slot, &self.request, &mut self.buffer),
        };
        if progress == Progress::Waiting {
            return Ok(());
        }
        let now = Instant::now();
        if self.window.contains(now) {
            self.tally.requests += 1;
            match progress {
                Progress::Replied => self.tally.reply(now - slot.started),
                Progress::Reset => self.tally.errors.reset += 1,
                _ => self.tally.errors.eof += 1,
            }
        }
        // The old connection closes as it is replaced.
        *slot = self.connect(index)?;
        Ok(())
    }
}

fn exchange(slot: &mut Slot, request: &[u8], buffer: &mut [u8]) -> Progress {
    let Slot { stream, sent, received, .. } = slot;
    progress(stream, sent, received, request, buffer)
}

/// Sends what is left of the request and receives what there is of the reply.
pub(super) fn progress(
    stream: &mut TcpStream,
    sent: &mut usize,
    received: &mut usize,
    request: &[u8],
    buffer: &mut [u8],
) -> Progress {
    while *sent < request.len() {
        match stream.write(&request[*sent..]) {
            Ok(n) => *sent += n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(_) => return Progress::Reset,
        }
    }
    while *received < request.len() {
        match stream.read(&mut buffer[..request.len() - *received]) {
            Ok(0) => return Progress::Eof,
            Ok(n) => *received += n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                return Progress::Waiting;
            }
            Err(_) => return Progress::Reset,
        }
    }
    Progress::Replied
}

/// A refusal is an end, with or without words before it.
fn refused(slot: &mut Slot, buffer: &mut [u8]) -> Progress {
    loop {
        match slot.stream.read(buffer) {
            Ok(0) => return Progress::Replied,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                return Progress::Waiting;
            }
            Err(_) => return Progress::Replied,
        }
    }
}
