//! Closed loop over datagrams: each socket has one under way (more if the plan says so), and sends the next for
//! each answer.

use super::plan::{PATIENCE, Plan, Window, request};
use super::tally::Tally;
use anyhow::{Context, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// A socket that has heard nothing for this long takes all it has under way for lost, and sends as many again.
const RESEND: Duration = Duration::from_millis(200);

struct DatagramClient {
    socket: UdpSocket,
    /// When each request under way was sent. An answer is taken for that to the oldest, since not every service's says
    /// which it answers; where a server changes the order the latencies are exact in their mean only.
    started: VecDeque<Instant>,
    /// When it began to wait in silence.
    heard: Instant,
}

pub(super) fn run(plan: &Plan, barrier: &Barrier) -> Result<Tally> {
    let request = request(plan.size);
    let mut buffer = vec![0; 64 << 10];
    let sockets = sockets(plan);
    barrier.wait();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut clients = sockets?;
    let mut tally = Tally::new()?;
    let window = Window::of(plan);
    for (index, client) in clients.iter_mut().enumerate() {
        let data = EventData::new_u64(index as u64);
        epoll::add(&epoll, &client.socket, data, EventFlags::IN | EventFlags::ET)?;
        fill(client, &request, plan.in_flight);
    }
    let mut events = Vec::with_capacity(1024);
    let pause = (RESEND / 4).try_into().context("a pause fits a timespec")?;
    let (mut swept, mut heard) = (Instant::now(), Instant::now());
    loop {
        let now = Instant::now();
        if now >= window.end {
            break;
        }
        if now - swept > RESEND / 4 {
            swept = now;
            ensure!(now - heard < PATIENCE, "no answer for {PATIENCE:?}");
            for client in clients.iter_mut().filter(|client| now - client.heard > RESEND) {
                tally.errors.lost += u64::from(window.contains(now)) * client.started.len() as u64;
                client.started.clear();
                fill(client, &request, plan.in_flight);
            }
        }
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), Some(&pause)) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            let client = &mut clients[event.data.u64() as usize];
            loop {
                match client.socket.recv(&mut buffer) {
                    Ok(n) => ensure!(n > 0, "an empty answer"),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("the server has gone"),
                }
                let now = Instant::now();
                heard = now;
                if let Some(started) = client.started.pop_front()
                    && window.contains(now)
                {
                    tally.reply(now - started);
                }
                send(client, &request);
            }
        }
    }
    tally.requests = tally.latency.len() + tally.errors.lost;
    tally.measured = plan.duration;
    Ok(tally)
}

fn sockets(plan: &Plan) -> Result<Vec<DatagramClient>> {
    (0..plan.connections)
        .map(|_| {
            let socket = UdpSocket::bind(SocketAddr::new(any(plan.target), 0))?;
            socket.connect(plan.target)?;
            socket.set_nonblocking(true)?;
            let started = VecDeque::with_capacity(plan.in_flight);
            Ok(DatagramClient { socket, started, heard: Instant::now() })
        })
        .collect()
}

/// The address of the same family that means this machine, or all of them.
fn any(target: SocketAddr) -> std::net::IpAddr {
    match target.ip() {
        ip if ip.is_loopback() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Sends all that a socket may have under way.
fn fill(client: &mut DatagramClient, request: &[u8], in_flight: usize) {
    for _ in 0..in_flight {
        send(client, request);
    }
}

/// One that cannot be sent now is taken for lost, and sent again like it.
fn send(client: &mut DatagramClient, request: &[u8]) {
    client.heard = Instant::now();
    client.started.push_back(client.heard);
    let _ = client.socket.send(request);
}
