//! Closed loop over connections that stay: a request, its reply, the next request. The reply is an echo, or the answer to
//! an HTTP request.

use super::http::{self, is_ok};
use super::plan::{PATIENCE, Plan, Shape, Window, request};
use super::tally::Tally;
use anyhow::{Context, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Instant;

struct ClosedLoop {
    stream: TcpStream,
    sent: usize,
    received: usize,
    started: Instant,
}

/// Connections that are made at once.
const BATCH: usize = 32;

/// What goes there and back, each time.
struct Exchange {
    request: Vec<u8>,
    /// Bytes of a reply; those of HTTP are learned from the first one.
    reply: usize,
    http: bool,
}

/// What a connection can end with.
enum Ended {
    Reset,
    Eof,
}

pub(super) fn run(plan: &Plan, barrier: &Barrier) -> Result<Tally> {
    let http = plan.shape == Shape::Http;
    let request = if http { http::request(plan.target) } else { request(plan.size) };
    let mut exchange = Exchange { request, reply: plan.size, http };
    let connected = connect(plan, &mut exchange);
    barrier.wait();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut connections = connected?;
    let mut buffer = vec![0; exchange.reply];
    let mut tally = Tally::new()?;
    let window = Window::of(plan);
    for (index, slot) in connections.iter_mut().enumerate() {
        let Some(connection) = slot else { continue };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&epoll, &connection.stream, EventData::new_u64(index as u64), flags)?;
        connection.started = Instant::now();
        turn(connection, &exchange, &mut buffer, &window, &mut tally)?;
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
            match turn(connection, &exchange, &mut buffer, &window, &mut tally)? {
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

/// Connects in small batches, each of which has its first reply before the next begins: a bounded server may refuse a
/// crowd that comes at once, and that is not what is measured here. This is also where the echo is compared with what was
/// sent, byte by byte; afterwards its length is.
fn connect(plan: &Plan, exchange: &mut Exchange) -> Result<Vec<Option<ClosedLoop>>> {
    let mut connections = Vec::with_capacity(plan.connections);
    let mut reply = vec![0; exchange.reply];
    while connections.len() < plan.connections {
        let mut batch = Vec::with_capacity(BATCH);
        for index in connections.len()..plan.connections.min(connections.len() + BATCH) {
            let mut stream = TcpStream::connect_timeout(&plan.target, PATIENCE)
                .with_context(|| format!("cannot open connection {index} of {}", plan.connections))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream
                .write_all(&exchange.request)
                .with_context(|| format!("connection {index} takes no request"))?;
            batch.push(stream);
        }
        for mut stream in batch {
            let index = connections.len();
            let first = || format!("connection {index} has no first reply");
            if exchange.http {
                exchange.reply = http::first_answer(&mut stream).with_context(first)?;
            } else {
                stream.read_exact(&mut reply).with_context(first)?;
                ensure!(reply == exchange.request, "the echo is not what was sent");
            }
            stream.set_nonblocking(true)?;
            connections.push(Some(ClosedLoop { stream, sent: 0, received: 0, started: Instant::now() }));
        }
    }
    Ok(connections)
}

/// Sends and receives what can be now.
fn turn(
    connection: &mut ClosedLoop,
    exchange: &Exchange,
    buffer: &mut [u8],
    window: &Window,
    tally: &mut Tally,
) -> Result<Option<Ended>> {
    let request = &exchange.request;
    loop {
        while connection.sent < request.len() {
            match connection.stream.write(&request[connection.sent..]) {
                Ok(n) => connection.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Ok(Some(Ended::Reset)),
            }
        }
        let wanted = exchange.reply - connection.received;
        match connection.stream.read(&mut buffer[..wanted]) {
            Ok(0) => return Ok(Some(Ended::Eof)),
            // Another answer has another length, so nothing can be counted on this connection any more.
            Ok(n) if exchange.http && connection.received == 0 && !is_ok(&buffer[..n]) => {
                return Ok(Some(Ended::Eof));
            }
            Ok(n) => {
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
        connection.sent = 0;
        connection.received = 0;
        connection.started = now;
        if send_next(connection, request) {
            return Ok(None);
        }
    }
}

/// Sends the next request; true when all of it went, so that there is nothing to do before its echo comes.
fn send_next(connection: &mut ClosedLoop, request: &[u8]) -> bool {
    if let Ok(n) = connection.stream.write(request) {
        connection.sent = n;
    }
    connection.sent == request.len()
}
