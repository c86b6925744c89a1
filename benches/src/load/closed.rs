//! Closed loop over connections that stay: a request, its echo, the next request.

use super::{PATIENCE, Plan, Tally, Window, request};
use anyhow::{Context, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Instant;

struct Connection {
    stream: TcpStream,
    sent: usize,
    received: usize,
    started: Instant,
    /// The first reply is compared with the request, byte by byte; later ones by length, to keep the client light.
    checked: bool,
}

/// What a connection can end with.
enum Ended {
    Reset,
    Eof,
}

pub(super) fn run(plan: &Plan, barrier: &Barrier) -> Result<Tally> {
    let request = request(plan.size);
    let mut buffer = vec![0; plan.size];
    let connected = connect(plan);
    barrier.wait();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut connections = connected?;
    let mut tally = Tally::new()?;
    let window = Window::of(plan);
    for (index, slot) in connections.iter_mut().enumerate() {
        let Some(connection) = slot else { continue };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&epoll, &connection.stream, EventData::new_u64(index as u64), flags)?;
        connection.started = Instant::now();
        turn(connection, &request, &mut buffer, &window, &mut tally)?;
    }
    let mut events = Vec::with_capacity(1024);
    let patience = PATIENCE.try_into().context("patience fits a timespec")?;
    while Instant::now() < window.end {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), Some(&patience)) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        ensure!(!events.is_empty(), "no reply for {PATIENCE:?}");
        for event in &events {
            let slot = &mut connections[event.data.u64() as usize];
            let Some(connection) = slot else { continue };
            match turn(connection, &request, &mut buffer, &window, &mut tally)? {
                None => {}
                Some(Ended::Reset) => {
                    tally.errors.reset += 1;
                    *slot = None;
                }
                Some(Ended::Eof) => {
                    tally.errors.eof += 1;
                    *slot = None;
                }
            }
        }
    }
    tally.requests = tally.latency.len();
    tally.measured = plan.duration;
    Ok(tally)
}

fn connect(plan: &Plan) -> Result<Vec<Option<Connection>>> {
    (0..plan.connections)
        .map(|index| {
            let stream = TcpStream::connect_timeout(&plan.target, PATIENCE)
                .with_context(|| format!("cannot open connection {index} of {}", plan.connections))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Some(Connection { stream, sent: 0, received: 0, started: Instant::now(), checked: false }))
        })
        .collect()
}

/// Sends and receives what can be now.
fn turn(
    connection: &mut Connection,
    request: &[u8],
    buffer: &mut [u8],
    window: &Window,
    tally: &mut Tally,
) -> Result<Option<Ended>> {
    loop {
        while connection.sent < request.len() {
            match connection.stream.write(&request[connection.sent..]) {
                Ok(n) => connection.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Ok(Some(Ended::Reset)),
            }
        }
        let wanted = request.len() - connection.received;
        match connection.stream.read(&mut buffer[..wanted]) {
            Ok(0) => return Ok(Some(Ended::Eof)),
            Ok(n) => {
                if !connection.checked {
                    let expected = &request[connection.received..connection.received + n];
                    ensure!(expected == &buffer[..n], "the echo is not what was sent");
                }
                connection.received += n;
                if n < wanted {
                    // Emptied, and the rest is a new edge; but bytes still to be sent may have room now.
                    if connection.sent == request.len() {
                        return Ok(None);
                    }
                    continue;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(_) => return Ok(Some(Ended::Reset)),
        }
        let now = Instant::now();
        if window.contains(now) {
            tally.reply(now - connection.started);
        }
        connection.checked = true;
        connection.sent = 0;
        connection.received = 0;
        connection.started = now;
        if send_next(connection, request) {
            return Ok(None);
        }
    }
}

/// Sends the next request; true when all of it went, so that there is nothing to do before its echo comes.
fn send_next(connection: &mut Connection, request: &[u8]) -> bool {
    if let Ok(n) = connection.stream.write(request) {
        connection.sent = n;
    }
    connection.sent == request.len()
}
