//! Small servers with known faults, and a runner of `tidegate stress`, for the tests of the stress client.
#![allow(dead_code)]

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a test server does with its connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Behaviour {
    /// Sends back what comes.
    Echo,
    /// Echoes, but does nothing at all for the second duration at the start of each first one.
    Stall(Duration, Duration),
    /// Echoes, and does so for one client at a time, each time after this long.
    Slow(Duration),
    /// Answers each line with `hello ` and the line.
    Hello,
    /// Says this and closes, whatever comes.
    Busy(&'static str),
    /// Says this to who connects, and closes.
    BusyAtOnce(&'static str),
    /// Answers with other bytes than came.
    Garbage,
    /// Closes after reading, without an answer.
    CloseEarly,
    /// Resets after reading.
    Reset,
    /// Resets without a look.
    ResetAtOnce,
    /// Reads and never answers.
    Silent,
    /// Answers each request (which ends with an empty line) with this HTTP response.
    Http(&'static str),
    /// Echoes this many times on each connection, then closes it in order, 50 ms later.
    EchoThenClose(usize),
    /// Closes a connection this long after it came.
    Evict(Duration),
}

/// A server on a port of its own; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    pub(crate) accepted: Arc<AtomicU64>,
    pub(crate) bytes: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);

struct Connection {
    stream: TcpStream,
    since: Instant,
    held: Vec<u8>,
    echoes: usize,
    ends: Option<Instant>,
}

impl Server {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        Self::serve(bound_socket(), behaviour)
    }

    fn serve(socket: socket2::Socket, behaviour: Behaviour) -> Self {
        raise_descriptor_limit();
        socket.listen(4096).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(socket.into());
        let address = listener.local_addr().unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let (accepted, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut serving = Serving {
            poll,
            listener,
            behaviour,
            connections: HashMap::new(),
            next: 2,
            began: Instant::now(),
            accepted: accepted.clone(),
            bytes: bytes.clone(),
        };
        let until = stop.clone();
        let thread = std::thread::spawn(move || serving.run(&until));
        Self { address, stop, waker, accepted, bytes, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("tcp://{}", self.address)
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.waker.wake().unwrap();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn bound_socket() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

/// A server whose backlog is full: who connects waits, until it opens and the kernel asks again.
pub(crate) struct Full {
    socket: socket2::Socket,
    first: std::net::TcpStream,
}

impl Full {
    pub(crate) fn start() -> Self {
        let socket = bound_socket();
        socket.listen(0).unwrap();
        let first = std::net::TcpStream::connect(socket.local_addr().unwrap().as_socket().unwrap()).unwrap();
        Self { socket, first }
    }

    pub(crate) fn url(&self) -> String {
        format!("tcp://{}", self.first.peer_addr().unwrap())
    }

    pub(crate) fn open(self, behaviour: Behaviour) -> Server {
        drop(self.first);
        Server::serve(self.socket, behaviour)
    }
}

struct Serving {
    poll: Poll,
    listener: TcpListener,
    behaviour: Behaviour,
    connections: HashMap<usize, Connection>,
    next: usize,
    began: Instant,
    accepted: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Serving {
    fn run(&mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(1024);
        let registry = self.poll.registry();
        registry.register(&mut self.listener, LISTENER, Interest::READABLE).unwrap();
        while !stop.load(Ordering::SeqCst) {
            let _ = self.poll.poll(&mut events, Some(Duration::from_millis(20)));
            self.stall();
            let tokens: Vec<_> = events.iter().map(|event| event.token()).collect();
            for token in tokens {
                match token {
                    LISTENER => self.accept(),
                    WAKER => {}
                    Token(n) => self.turn(n),
                }
            }
            if let Behaviour::Evict(after) = self.behaviour {
                self.connections.retain(|_, c| c.since.elapsed() < after);
            }
            if let Behaviour::EchoThenClose(_) = self.behaviour {
                self.connections.retain(|_, c| c.ends.is_none_or(|end| Instant::now() < end));
            }
        }
    }

    fn stall(&self) {
        if let Behaviour::Stall(every, stall) = self.behaviour {
            let phase = Duration::from_nanos((self.began.elapsed().as_nanos() % every.as_nanos()) as u64);
            if phase < stall {
                std::thread::sleep(stall - phase);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            self.accepted.fetch_add(1, Ordering::SeqCst);
            if self.behaviour == Behaviour::ResetAtOnce {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                continue;
            }
            if let Behaviour::BusyAtOnce(text) = self.behaviour {
                write_all(&mut stream, text.as_bytes());
                continue;
            }
            let token = Token(self.next);
            self.poll.registry().register(&mut stream, token, Interest::READABLE).unwrap();
            let connection =
                Connection { stream, since: Instant::now(), held: Vec::new(), echoes: 0, ends: None };
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
    }

    fn turn(&mut self, n: usize) {
        let mut buffer = [0; 65536];
        let Some(connection) = self.connections.get_mut(&n) else {
            return;
        };
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => {
                    self.bytes.fetch_add(got as u64, Ordering::SeqCst);
                    if !connection.answer(self.behaviour, &buffer[..got]) {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.connections.remove(&n);
    }
}

impl Connection {
    /// False ends the connection.
    fn answer(&mut self, behaviour: Behaviour, got: &[u8]) -> bool {
        let stream = &mut self.stream;
        match behaviour {
            Behaviour::Echo | Behaviour::Stall(..) => write_all(stream, got),
            Behaviour::Slow(work) => {
                std::thread::sleep(work);
                write_all(stream, got)
            }
            Behaviour::EchoThenClose(times) => {
                self.echoes += 1;
                if self.echoes == times {
                    // The client has read the echo by then, so that it meets the end while it is idle.
                    self.ends = Some(Instant::now() + Duration::from_millis(50));
                }
                write_all(stream, got)
            }
            Behaviour::Hello => {
                self.held.extend_from_slice(got);
                let mut good = true;
                while let Some(end) = self.held.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = self.held.drain(..=end).collect();
                    good &= write_all(stream, &[b"hello ", &line[..]].concat());
                }
                good
            }
            Behaviour::Busy(text) | Behaviour::BusyAtOnce(text) => {
                write_all(stream, text.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                false
            }
            Behaviour::Garbage => write_all(stream, &vec![b'#'; got.len()]),
            Behaviour::CloseEarly => false,
            Behaviour::Reset | Behaviour::ResetAtOnce => {
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
                false
            }
            Behaviour::Silent | Behaviour::Evict(_) => true,
            Behaviour::Http(response) => {
                self.held.extend_from_slice(got);
                let mut good = true;
                while let Some(end) = self.held.windows(4).position(|w| w == b"\r\n\r\n") {
                    self.held.drain(..end + 4);
                    good &= write_all(stream, response.as_bytes());
                }
                good && !response.contains("Connection: close")
            }
        }
    }
}

/// Writes everything, waiting for room at most a second.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> bool {
    let end = Instant::now() + Duration::from_secs(1);
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::yield_now();
            }
            Err(_) => return false,
        }
    }
    true
}

/// What a datagram server does with datagram number `n`, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answer,
    Drop,
    Twice,
    /// Answers this much later.
    Delay(Duration),
}

/// A datagram server; it counts what it did.
pub(crate) struct Datagrams {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<HashMap<&'static str, u64>>>,
}

impl Datagrams {
    pub(crate) fn start(fate: fn(u64) -> Fate) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut counts = HashMap::new();
            let mut later: Vec<(Instant, SocketAddr, Vec<u8>)> = Vec::new();
            let mut buffer = [0; 65536];
            let mut n = 0;
            while !until.load(Ordering::SeqCst) || !later.is_empty() {
                let now = Instant::now();
                later.retain(|(at, to, bytes)| {
                    if *at <= now {
                        socket.send_to(bytes, to).unwrap();
                    }
                    *at > now
                });
                let Ok((got, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let reply = &buffer[..got];
                let name = match fate(n) {
                    Fate::Answer => {
                        socket.send_to(reply, from).unwrap();
                        "answered"
                    }
                    Fate::Drop => "dropped",
                    Fate::Twice => {
                        socket.send_to(reply, from).unwrap();
                        socket.send_to(reply, from).unwrap();
                        "twice"
                    }
                    Fate::Delay(time) => {
                        later.push((Instant::now() + time, from, reply.to_vec()));
                        "delayed"
                    }
                };
                *counts.entry(name).or_insert(0) += 1;
                n += 1;
            }
            counts
        });
        Self { address, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("udp://{}", self.address)
    }

    /// Ends it, and says what it did.
    pub(crate) fn counts(mut self) -> HashMap<&'static str, u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Raises the soft limit of descriptors of this process to its hard limit.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
}

/// What a run of `tidegate stress` said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The program, about to run `stress`.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("stress").args(args);
    command
}

/// Runs `tidegate stress` with these arguments.
pub(crate) fn stress(args: &[&str]) -> Run {
    Run::of(command(args).output().unwrap())
}

/// Starts it; its stdout is read at its end.
pub(crate) fn spawn(args: &[&str]) -> std::process::Child {
    use std::process::Stdio;
    command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a program's end; one that goes on past the limit is killed, and the test fails.
pub(crate) fn wait_within(mut child: std::process::Child, limit: Duration) -> Run {
    let end = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("it goes on after {limit:?}: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Run::of(child.wait_with_output().unwrap())
}

/// Runs it with JSON output, and checks what must hold in every report.
pub(crate) fn report(args: &[&str]) -> (i32, serde_json::Value) {
    let run = stress(&[args, &["-o", "json"]].concat());
    let report = run.json();
    check_sums(&report);
    (run.code, report)
}

/// Every request ends as exactly one outcome.
pub(crate) fn check_sums(report: &serde_json::Value) {
    let outcomes = report["outcomes"].as_object().unwrap();
    let not_sent = ["unsent_at_end", "skipped", "duplicate"];
    let sent: u64 = outcomes
        .iter()
        .filter(|(name, _)| !not_sent.contains(&name.as_str()))
        .map(|(_, n)| n.as_u64().unwrap())
        .sum();
    assert_eq!(report["sent"], sent, "{report:#}");
    let unsent = count(report, "unsent_at_end") + count(report, "skipped");
    assert_eq!(report["unsent"], unsent, "{report:#}");
    assert_eq!(report["offered"], sent + unsent, "{report:#}");
    assert_eq!(report["done"], count(report, "ok"), "{report:#}");
}

/// How many requests ended so.
pub(crate) fn count(report: &serde_json::Value, outcome: &str) -> u64 {
    report["outcomes"][outcome].as_u64().unwrap_or_else(|| panic!("no outcome {outcome} in {report:#}"))
}
