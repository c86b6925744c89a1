//! The clients of a scene: one thread, one epoll, one heap of timers.

use super::client::{Advance, Client, Socket, State, request, stands};
use super::plan::{Asks, From, Party, Script, Wire};
use super::tally::{Ending, GroupFigures, Ledger};
use crate::load::sources::{Sources, begin};
use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Clients that join at once.
const JOINING_MAX: usize = 32;
/// How long a client that joins waits for its first reply, and how long after a failure it tries again.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);
const JOIN_PAUSE: Duration = Duration::from_millis(100);
/// When nobody has joined for this long, the scene begins with those who have.
const JOIN_SILENCE: Duration = Duration::from_secs(6);
/// The longest that joining takes.
const JOIN_TIME: Duration = Duration::from_secs(90);
/// Sockets at once; a newcomer beyond them is counted as unsent.
const SOCKETS_MAX: usize = 18_000;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The stage begins.
    Stage(usize),
    /// Newcomer `n` of this stage comes to the group.
    Arrive { stage: usize, group: usize, n: u64 },
    /// A standing client asks.
    Ask { client: usize, ticket: u32 },
    /// The second half of a request is sent.
    Half { client: usize, ticket: u32 },
    /// A client's patience is over.
    Expire { client: usize, ticket: u32 },
    /// A client that failed comes back.
    Return { client: usize, ticket: u32 },
}

/// The clients of a scene.
struct Engine<'a> {
    plan: &'a Script,
    target: SocketAddr,
    epoll: OwnedFd,
    clients: Vec<Client>,
    free: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    groups: Vec<Crowd>,
    buffer: Vec<u8>,
    /// When the first stage began; none while clients join.
    start: Option<Instant>,
    stage: usize,
    waiting: usize,
    sockets: usize,
    /// For each group its addresses; none where it has those of another.
    sources: Vec<Vec<Sources>>,
    /// Clients that have still to join, and those that are about to.
    to_join: Vec<usize>,
    joining: usize,
    joined_last: Instant,
}

/// What belongs to a group.
struct Crowd {
    request: Vec<u8>,
    /// Which of the engine's sources are its own.
    sources: usize,
    tally: Ledger,
}

/// What the clients of a scene saw, and what they took.
#[derive(Debug)]
pub(crate) struct SceneOutcome {
    pub(crate) groups: Vec<GroupFigures>,
    /// CPU seconds that the clients took in each second.
    pub(crate) client_cpu: Vec<f64>,
}

/// The CPU time of this thread at the end of each second.
struct OwnTime {
    start: Instant,
    begun: f64,
    seconds: Vec<f64>,
}

impl OwnTime {
    fn new(start: Instant) -> Self {
        Self { start, begun: Self::now(), seconds: Vec::new() }
    }

    fn now() -> f64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// Closes the seconds that are over.
    fn look(&mut self, now: Instant) {
        let over = (now - self.start).as_secs() as usize;
        if over > self.seconds.len() {
            let total = Self::now();
            let used = total - std::mem::replace(&mut self.begun, total);
            let new = over - self.seconds.len();
            self.seconds.extend(std::iter::repeat_n(used / new as f64, new));
        }
    }
}

/// Plays a scene against a server. `probe` is called at the start of each stage and at the end.
pub(super) fn run(plan: &Script, target: SocketAddr, mut probe: impl FnMut(usize)) -> Result<SceneOutcome> {
    for group in &plan.groups {
        ensure!(group.rates.len() == plan.stages.len(), "{}: a rate for each stage", group.name);
        ensure!(group.size >= 2, "{}: a request has at least two bytes", group.name);
    }
    let mut engine = Engine::new(plan, target)?;
    engine.join()?;
    let start = Instant::now();
    engine.start = Some(start);
    for stage in 0..=plan.stages.len() {
        engine.timer(start + plan.begin(stage), Timer::Stage(stage));
    }
    let longest = plan.groups.iter().map(|group| group.patience).max().unwrap_or_default();
    let last = start + plan.time() + longest + Duration::from_secs(1);
    let mut seen = usize::MAX;
    let mut own = OwnTime::new(start);
    loop {
        let now = Instant::now();
        own.look(now);
        engine.fire(now)?;
        if engine.stage != seen {
            seen = engine.stage;
            probe(seen);
        }
        if now >= last || (engine.over() && engine.waiting == 0) {
            break;
        }
        engine.poll(last)?;
    }
    let figures = engine.groups.into_iter().zip(&plan.groups);
    let groups = figures.map(|(crowd, group)| crowd.tally.figures(group.name)).collect();
    Ok(SceneOutcome { groups, client_cpu: own.seconds })
}

impl<'a> Engine<'a> {
    fn new(plan: &'a Script, target: SocketAddr) -> Result<Self> {
        let now = Instant::now();
        let (mut clients, mut groups, mut to_join) = (Vec::new(), Vec::new(), Vec::new());
        let mut all_sources = Vec::new();
        for (at, group) in plan.groups.iter().enumerate() {
            if group.joins() || group.asks == Asks::Flood {
                for index in 0..group.clients {
                    if group.joins() {
                        to_join.push(clients.len());
                    }
                    let mut client = Client::new(at, index, now);
                    client.state = State::Idle;
                    clients.push(client);
                }
            }
            groups.push(Crowd {
                request: request(plan.wire, group.size, group.asks == Asks::Flood, group.joins()),
                sources: if let From::Like { group } = group.from { group } else { at },
                tally: Ledger::new(plan)?,
            });
            all_sources.push(sources(group, target, at)?);
        }
        to_join.reverse();
        Ok(Self {
            plan,
            target,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            clients,
            free: Vec::new(),
            timers: BinaryHeap::new(),
            groups,
            buffer: vec![0; 64 << 10],
            start: None,
            stage: 0,
            waiting: 0,
            sockets: 0,
            sources: all_sources,
            to_join,
            joining: 0,
            joined_last: now,
        })
    }

    fn timer(&mut self, at: Instant, timer: Timer) {
        self.timers.push(Reverse((at, timer)));
    }

    fn over(&self) -> bool {
        self.stage == self.plan.stages.len()
    }

    fn group(&self, client: usize) -> &'a Party {
        &self.plan.groups[self.clients[client].group]
    }

    /// The rate of a group now; none before the first stage and after the last.
    fn rate(&self, group: usize) -> Option<f64> {
        let rate = *self.plan.groups[group].rates.get(self.stage)?;
        (self.start.is_some() && rate > 0.0).then_some(rate)
    }

    /// Opens the connections of those who stay: few at once, each with its first reply, since a bounded server may
    /// refuse a crowd of strangers and that is not what is measured.
    fn join(&mut self) -> Result<()> {
        let deadline = Instant::now() + JOIN_TIME;
        self.joined_last = Instant::now();
        loop {
            let now = Instant::now();
            self.fire(now)?;
            while self.joining < JOINING_MAX
                && let Some(client) = self.to_join.pop()
            {
                self.joining += 1;
                self.ask(client, now);
            }
            let silent = now - self.joined_last > JOIN_SILENCE;
            if (self.joining == 0 && self.to_join.is_empty()) || silent || now > deadline {
                break;
            }
            self.poll(now + JOIN_SILENCE / 4)?;
        }
        let joined: usize = self.groups.iter().map(|crowd| crowd.tally.joined).sum();
        let wanted = self.plan.groups.iter().filter(|group| group.joins());
        if joined == 0 && wanted.map(|group| group.clients).sum::<usize>() > 0 {
            bail!("no client had a first reply within {JOIN_SILENCE:?}");
        }
        // Those who could not join try again when it is their turn.
        let late: Vec<usize> =
            (0..self.clients.len()).filter(|&at| self.clients[at].state != State::Idle).collect();
        for client in late {
            self.hang_up(client);
            self.clients[client].enter(State::Idle);
        }
        (self.waiting, self.joining) = (0, 0);
        self.to_join.clear();
        Ok(())
    }

    /// Does what is due.
    fn fire(&mut self, now: Instant) -> Result<()> {
        while let Some(&Reverse((at, timer))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            match timer {
                Timer::Stage(stage) => self.begin(stage, at),
                Timer::Arrive { stage, group, n } if stage == self.stage => self.arrive(group, n, at),
                Timer::Ask { client, ticket } if self.clients[client].ticket == ticket => {
                    self.ask(client, at)
                }
                Timer::Half { client, ticket } if self.clients[client].ticket == ticket => {
                    self.clients[client].released = self.groups[self.clients[client].group].request.len();
                    self.progress(client);
                }
                Timer::Expire { client, ticket } if self.clients[client].ticket == ticket => {
                    self.end(client, Ending::Timeout);
                }
                Timer::Return { client, ticket } if self.clients[client].ticket == ticket => {
                    self.come_back(client, at);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits for events, until the next timer or this instant, and does what they ask for.
    fn poll(&mut self, until: Instant) -> Result<()> {
        let next = self.timers.peek().map_or(until, |Reverse((at, _))| until.min(*at));
        let wait = next.saturating_duration_since(Instant::now());
        let mut events = Vec::with_capacity(1024);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait.try_into()?)) {
            Err(Errno::INTR) => return Ok(()),
            other => other.context("cannot wait for events")?,
        };
        for event in &events {
            let client = event.data.u64() as usize;
            match self.clients[client].state {
                State::Waiting => self.progress(client),
                State::Idle => self.look(client),
                State::Away | State::Free => {}
            }
        }
        Ok(())
    }

    /// The stage begins: every standing client has a new clock, and newcomers come at another rate.
    fn begin(&mut self, stage: usize, at: Instant) {
        self.stage = stage;
        for group in 0..self.plan.groups.len() {
            if self.rate(group).is_some()
                && matches!(self.plan.groups[group].asks, Asks::OneShot | Asks::Burst { .. })
            {
                self.timer(at, Timer::Arrive { stage, group, n: 0 });
            }
        }
        for client in 0..self.clients.len() {
            let Client { group, index, .. } = self.clients[client];
            let plan = &self.plan.groups[group];
            if !(plan.joins() || plan.asks == Asks::Flood) {
                continue;
            }
            let rate = self.rate(group);
            let phase = match (plan.asks, rate) {
                (Asks::Standing, Some(rate)) => Duration::from_secs_f64(index as f64 / rate),
                _ => Duration::ZERO,
            };
            self.clients[client].next = at + phase;
            if self.clients[client].state == State::Idle {
                self.clients[client].enter(State::Idle);
                self.schedule(client);
            }
        }
    }

    /// An idle client asks when its clock says so, if it asks at all in this stage.
    fn schedule(&mut self, client: usize) {
        let Client { group, ticket, next, .. } = self.clients[client];
        if self.rate(group).is_some() {
            self.timer(next.max(Instant::now()), Timer::Ask { client, ticket });
        }
    }

    /// A newcomer, or a crowd of them.
    fn arrive(&mut self, group: usize, n: u64, at: Instant) {
        let (plan, stage) = (&self.plan.groups[group], self.stage);
        let next = match (plan.asks, self.rate(group)) {
            (Asks::Burst { pause }, _) => {
                self.crowd(group, plan.clients, at);
                at + pause
            }
            (_, Some(rate)) => {
                let client = self.newcomer(group, at);
                self.ask(client, at);
                let start = self.start.unwrap_or(at) + self.plan.begin(stage);
                start + Duration::from_secs_f64((n + 1) as f64 / rate)
            }
            _ => return,
        };
        self.timer(next, Timer::Arrive { stage, group, n: n + 1 });
    }

    fn newcomer(&mut self, group: usize, at: Instant) -> usize {
        let client = self.free.pop().unwrap_or_else(|| {
            self.clients.push(Client::new(group, 0, at));
            self.clients.len() - 1
        });
        self.clients[client].group = group;
        client
    }

    /// Newcomers who all connect before any of them asks: one after the other as fast as this processor can, which is
    /// why their sockets are made ready before.
    fn crowd(&mut self, group: usize, size: usize, at: Instant) {
        let size = size.min(SOCKETS_MAX - self.sockets);
        let prepared: Vec<Option<socket2::Socket>> = (0..size)
            .map(|_| match self.plan.wire {
                Wire::Datagrams => None,
                _ => self.sources[self.groups[group].sources][0].prepare(self.target).ok(),
            })
            .collect();
        let due = Instant::now();
        let begun: Vec<_> = prepared
            .into_iter()
            .map(|socket| socket.filter(|socket| begin(socket, self.target).is_ok()))
            .collect();
        for socket in begun {
            let client = self.newcomer(group, at);
            if let Some(socket) = socket {
                // One that cannot be watched gives up when its time is over.
                let _ = self.adopt(client, Socket::Stream(socket.into()));
            }
            self.ask(client, due);
        }
    }

    /// A client that failed is back. It asks at once, as one does who still wants the answer.
    /// A client whose request failed is there again. It asks for the same once more, unless the stage in which it wanted that is
    /// over: then it keeps to its new clock, or a surge would not end before the last of its clients is served.
    fn come_back(&mut self, client: usize, at: Instant) {
        if self.start.is_none() {
            self.ask(client, at);
        } else if self.clients[client].stage < self.stage {
            self.clients[client].enter(State::Idle);
            self.schedule(client);
        } else if self.rate(self.clients[client].group).is_some() {
            self.clients[client].next = at;
            self.ask(client, at);
        } else {
            self.clients[client].enter(State::Idle);
        }
    }

    /// A client asks, at the instant at which it is due.
    fn ask(&mut self, client: usize, due: Instant) {
        let group = self.group(client);
        let now = Instant::now();
        if let Some(start) = self.start {
            let stage = self.stage;
            let at = now.saturating_duration_since(start);
            let late = now.saturating_duration_since(due);
            self.groups[self.clients[client].group].tally.asked(stage, at, late);
            if let (Asks::Standing, Some(rate)) = (group.asks, self.rate(self.clients[client].group)) {
                self.clients[client].next = due + Duration::from_secs_f64(group.clients as f64 / rate);
            }
        }
        let whole = self.groups[self.clients[client].group].request.len();
        let half = group.halves.filter(|(every, _)| self.clients[client].index.is_multiple_of(*every));
        let asked = due + half.map(|(_, pause)| pause).unwrap_or_default();
        let stage = self.stage;
        let this = &mut self.clients[client];
        this.begin(asked, stage, if half.is_some() { whole / 2 } else { whole });
        let ticket = this.ticket;
        self.waiting += 1;
        if self.clients[client].socket.is_none() && self.connect(client).is_err() {
            return self.end(client, Ending::Unsent);
        }
        if half.is_some() {
            self.timer(asked, Timer::Half { client, ticket });
        }
        if group.asks != Asks::Flood {
            let patience = if self.start.is_some() { group.patience } else { JOIN_PATIENCE };
            self.timer(asked + patience, Timer::Expire { client, ticket });
        }
        self.progress(client);
    }

    fn connect(&mut self, client: usize) -> Result<()> {
        ensure!(self.sockets < SOCKETS_MAX, "too many sockets");
        let Client { group, index, .. } = self.clients[client];
        let sources = &mut self.sources[self.groups[group].sources];
        let at = index % sources.len();
        let socket = match self.plan.wire {
            Wire::Stream | Wire::Lines | Wire::Http => {
                Socket::Stream(sources[at].connect(self.target)?.into())
            }
            Wire::Datagrams => Socket::Datagrams(datagrams(&self.plan.groups[group], index, self.target)?),
        };
        self.adopt(client, socket)
    }

    /// Gives a client its socket, and watches it.
    fn adopt(&mut self, client: usize, socket: Socket) -> Result<()> {
        let data = EventData::new_u64(client as u64);
        match &socket {
            Socket::Stream(stream) => {
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                epoll::add(&self.epoll, stream, data, flags)?;
            }
            Socket::Datagrams(socket) => {
                epoll::add(&self.epoll, socket, data, EventFlags::IN | EventFlags::ET)?
            }
        }
        self.clients[client].socket = Some(socket);
        self.sockets += 1;
        Ok(())
    }

    fn hang_up(&mut self, client: usize) {
        if self.clients[client].socket.take().is_some() {
            self.sockets -= 1;
        }
    }

    fn progress(&mut self, client: usize) {
        let this = &mut self.clients[client];
        match this.progress(self.plan.wire, &self.groups[this.group].request, &mut self.buffer) {
            Advance::Waiting => {}
            Advance::Replied => self.end(client, Ending::Replied),
            Advance::Reset => self.end(client, Ending::Reset),
            Advance::Closed => self.end(client, Ending::Closed),
            Advance::Refused(answer) => self.end(client, Ending::Answered(answer)),
        }
    }

    /// Something has happened to the connection of a client that asks nothing.
    fn look(&mut self, client: usize) {
        let this = &mut self.clients[client];
        let Some(socket) = &mut this.socket else { return };
        if !stands(socket, &mut self.buffer) {
            let group = this.group;
            self.hang_up(client);
            self.groups[group].tally.dropped_idle += u64::from(self.start.is_some());
        }
    }

    /// A request has ended; what its client does next.
    fn end(&mut self, client: usize, ending: Ending) {
        let now = Instant::now();
        self.waiting -= 1;
        let Client { group, stage, asked, .. } = self.clients[client];
        let plan = &self.plan.groups[group];
        let Some(start) = self.start else {
            return self.end_of_joining(client, ending, now);
        };
        let at = now.saturating_duration_since(start);
        let stage = stage.min(self.plan.stages.len() - 1);
        self.groups[group].tally.ended(stage, at, now.saturating_duration_since(asked), ending);
        let datagrams = self.plan.wire == Wire::Datagrams;
        let stands = match ending {
            Ending::Replied => true,
            Ending::Answered(answer) => answer.stays,
            _ => false,
        };
        let kept = datagrams || (stands && plan.joins());
        if !kept {
            self.hang_up(client);
        }
        match (plan.asks, ending) {
            (Asks::OneShot | Asks::Burst { .. }, _) => {
                self.hang_up(client);
                self.clients[client].enter(State::Free);
                self.free.push(client);
            }
            (Asks::Flood, _) => self.clients[client].enter(State::Free),
            (_, Ending::Replied) => {
                self.clients[client].enter(State::Idle);
                self.schedule(client);
            }
            _ => self.go_away(client, now + plan.pause),
        }
    }

    fn go_away(&mut self, client: usize, until: Instant) {
        self.clients[client].enter(State::Away);
        let ticket = self.clients[client].ticket;
        self.timer(until, Timer::Return { client, ticket });
    }

    /// A client has joined, or will try again.
    fn end_of_joining(&mut self, client: usize, ending: Ending, now: Instant) {
        let group = self.clients[client].group;
        if ending == Ending::Replied {
            self.joining -= 1;
            self.joined_last = now;
            self.groups[group].tally.joined += 1;
            self.clients[client].enter(State::Idle);
        } else {
            self.hang_up(client);
            self.go_away(client, now + JOIN_PAUSE);
        }
    }
}

fn sources(group: &Party, target: SocketAddr, index: usize) -> Result<Vec<Sources>> {
    Ok(match group.from {
        From::Spread => vec![Sources::new(target, index)],
        From::Like { group: other } => {
            ensure!(other < index, "{}: group {other} does not come before it", group.name);
            Vec::new()
        }
        From::Addresses { first, count } => {
            ensure!(target.ip().is_loopback() && count > 0, "{}: addresses of the loopback net", group.name);
            (0..count).map(|at| Sources::at(nth(first, at))).collect()
        }
    })
}

fn nth(first: Ipv4Addr, at: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + at as u32)
}

fn datagrams(group: &Party, index: usize, target: SocketAddr) -> Result<UdpSocket> {
    let ip = match group.from {
        From::Addresses { first, count } => nth(first, index % count).into(),
        _ => target.ip(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(ip, 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Stage;
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn plan(groups: Vec<Party>) -> Script {
        let stages = ["first", "second"].map(|name| Stage { name, time: Duration::from_secs(1) });
        Script { wire: Wire::Stream, stages: stages.to_vec(), groups }
    }

    /// A server that answers the first `answers` requests of each connection, and then does what `then` does.
    fn server(answers: usize, then: fn(TcpStream)) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(|stream| stream.ok()) {
                std::thread::spawn(move || {
                    let (mut stream, mut buffer) = (stream, [0; 64]);
                    for _ in 0..answers {
                        if stream.read_exact(&mut buffer).is_err() || stream.write_all(&buffer).is_err() {
                            return;
                        }
                    }
                    then(stream);
                });
            }
        });
        address
    }

    #[test]
    fn standing_clients_ask_at_the_rate_of_the_stage() {
        let groups = vec![Party::standing("all", 20, &[40.0, 100.0]), Party::newcomers("new", &[0.0, 30.0])];
        let mut stages = Vec::new();
        let figures = run(&plan(groups), server(1_000, drop), |stage| stages.push(stage)).unwrap().groups;
        assert_eq!(stages, [0, 1, 2]);
        let [all, new] = &figures[..] else { panic!("two groups") };
        assert_eq!((all.joined, new.joined, all.dropped_idle), (20, 0, 0));
        assert_eq!((all.stages[0].asked, all.stages[1].asked), (40, 100));
        assert_eq!((new.stages[0].asked, new.stages[1].asked), (0, 30));
        for stage in all.stages.iter().chain(&new.stages) {
            assert_eq!(stage.asked, stage.useful, "{figures:?}");
        }
        assert_eq!(all.seconds.iter().map(|second| second.useful).sum::<u32>(), 140);
    }

    #[test]
    fn a_client_without_a_reply_gives_up_and_comes_back() {
        // A connection is answered once, which is how a client joins; a new one may be answered once more.
        let silent = |mut stream: TcpStream| {
            let _ = stream.read_to_end(&mut Vec::new());
        };
        let group = Party {
            patience: Duration::from_millis(200),
            pause: Duration::from_millis(100),
            ..Party::standing("all", 4, &[4.0, 0.0])
        };
        let figures = run(&plan(vec![group]), server(1, silent), |_| {}).unwrap().groups;
        let stage = figures[0].stages[0];
        // Each asks, gives up after 200 ms, comes back after 100 ms, is answered, and so on.
        assert!(stage.timeout >= 4 && stage.useful >= 3, "{stage:?}");
        assert_eq!(stage.asked, stage.useful + stage.timeout, "{stage:?}");
    }

    #[test]
    fn a_reset_is_a_refusal_and_told_at_once() {
        let reset = |stream: TcpStream| {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        };
        let figures =
            run(&plan(vec![Party::newcomers("new", &[50.0, 0.0])]), server(0, reset), |_| {}).unwrap();
        let stage = figures.groups[0].stages[0];
        assert_eq!((stage.asked, stage.useful, stage.timeout), (50, 0, 0), "{stage:?}");
        assert_eq!(stage.reset + stage.closed, 50, "{stage:?}");
        assert!(stage.told_p99 < 0.5, "{stage:?}");
    }

    #[test]
    fn a_scene_does_not_begin_when_nobody_can_join() {
        let groups = vec![Party::standing("all", 1, &[1.0, 1.0])];
        let error = run(&plan(groups), server(0, drop), |_| {}).unwrap_err();
        assert!(error.to_string().contains("no client had a first reply"), "{error}");
    }
}
