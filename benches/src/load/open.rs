//! Open loop: request n is due at n / rate, whatever became of the others, on a connection of its own. Latency counts
//! from the instant it was due. A client waits one second for its reply and then leaves.

use super::churn::{Progress, progress};
use super::plan::{Plan, Window, request};
use super::sources::Sources;
use super::tally::Tally;
use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// How long a client waits for its reply, from the instant its request was due.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(1);
/// Connections at once, in all threads; what is due beyond them is counted as unsent.
const CONNECTIONS_MAX: usize = 18_000;

/// One request on its way.
struct Request {
    stream: TcpStream,
    sent: usize,
    received: usize,
    due: Instant,
}

struct OpenClient<'a> {
    plan: &'a Plan,
    request: Vec<u8>,
    buffer: Vec<u8>,
    epoll: OwnedFd,
    sources: Sources,
    window: Window,
    tally: Tally,
    /// Request n is at n - `first`; those that ended are empty. They become due in order, so they leave in order.
    open: VecDeque<Option<Request>>,
    first: u64,
    living: usize,
    living_max: usize,
}

pub(super) fn run(plan: &Plan, index: usize, barrier: &Barrier) -> Result<Tally> {
    barrier.wait();
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let start = Instant::now();
    let mut client = OpenClient {
        plan,
        request: request(plan.size),
        buffer: vec![0; plan.size],
        epoll,
        sources: Sources::new(plan.target, index),
        window: Window::of(plan),
        tally: Tally::new()?,
        open: VecDeque::new(),
        first: 0,
        living: 0,
        living_max: CONNECTIONS_MAX / plan.threads.max(1),
    };
    let due = |n: u64| start + Duration::from_secs_f64(n as f64 / plan.rate);
    let last = (plan.rate * (plan.warmup + plan.duration).as_secs_f64()) as u64;
    let mut events = Vec::with_capacity(1024);
    let mut next = 0;
    loop {
        let now = Instant::now();
        while next < last && due(next) <= now {
            client.begin(next, due(next))?;
            next += 1;
        }
        client.expire(now);
        if next == last && client.open.is_empty() {
            break;
        }
        events.clear();
        // A millisecond is as exact as some kernels wait; a client alone on its processor can look more often.
        let wait = match next < last {
            true => due(next).saturating_duration_since(Instant::now()).min(Duration::from_micros(200)),
            false => Duration::from_millis(1),
        };
        match epoll::wait(&client.epoll, spare_capacity(&mut events), Some(&wait.try_into()?)) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            client.event(event.data.u64());
        }
    }
    client.tally.measured = plan.duration;
    Ok(client.tally)
}

impl OpenClient<'_> {
    fn begin(&mut self, n: u64, due: Instant) -> Result<()> {
        let counts = self.window.contains(due);
        self.tally.requests += u64::from(counts);
        if counts {
            self.tally.begun(due.elapsed());
        }
        let stream = match self.living < self.living_max {
            true => self.sources.connect(self.plan.target).ok().map(TcpStream::from),
            false => None,
        };
        let Some(mut stream) = stream else {
            self.tally.errors.unsent += u64::from(counts);
            self.open.push_back(None);
            return Ok(());
        };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(n), flags)?;
        let sent = stream.write(&self.request).unwrap_or(0);
        self.living += 1;
        self.open.push_back(Some(Request { stream, sent, received: 0, due }));
        Ok(())
    }

    fn event(&mut self, n: u64) {
        let Some(slot) = n.checked_sub(self.first).and_then(|at| self.open.get_mut(at as usize)) else {
            return;
        };
        let Some(Request { stream, sent, received, due }) = slot else {
            return;
        };
        let due = *due;
        let result = progress(stream, sent, received, &self.request, &mut self.buffer);
        if result == Progress::Waiting {
            return;
        }
        *slot = None;
        self.living -= 1;
        if !self.window.contains(due) {
            return;
        }
        let latency = due.elapsed();
        match result {
            Progress::Replied if latency <= CLIENT_PATIENCE => self.tally.reply(latency),
            Progress::Replied => self.tally.errors.timeout += 1,
            Progress::Reset => self.tally.errors.reset += 1,
            _ => self.tally.errors.eof += 1,
        }
    }

    /// Those whose client has left; what has ended is taken off the front with them.
    fn expire(&mut self, now: Instant) {
        while let Some(front) = self.open.front() {
            if let Some(request) = front {
                if now < request.due + CLIENT_PATIENCE {
                    return;
                }
                self.tally.errors.timeout += u64::from(self.window.contains(request.due));
                self.living -= 1;
            }
            self.open.pop_front();
            self.first += 1;
        }
    }
}
