//! The cost of one request in instructions (callgrind) and system calls (strace). These do not depend on how busy the
//! machine is, so they can be checked where a time cannot.
//!
//! A fixed script runs twice, with few and with many requests; the difference over the difference is what one request
//! costs, without start and end.

use crate::peers::Mode;
use crate::pin::Cpus;
use crate::server::{self, Place, Server, Service, Spec};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Requests of the short and of the long run.
const FEW: u32 = 500;
const MANY: u32 = 2_500;
/// Runs of each kind, of which the least counts.
const TRIES: usize = 3;
/// Newcomers that come together to be refused: fewer than a kernel's backlog holds for a server with the smallest queue.
const CROWD: u32 = 16;
/// Longest wait for a reply; under callgrind a server is some fifty times slower.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a server to end and its tracer to write what it counted.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Calls by which threads wait for, look at and wake each other: how many there are depends on how they meet, which a
/// tracer changes, so they are shown and not judged. What a request itself needs is judged.
const MEETING: [&str; 8] =
    ["futex", "getrusage", "epoll_wait", "epoll_pwait", "epoll_pwait2", "ppoll", "write", "madvise"];

/// System calls that may be more without a failure: a wait that ended once more than usual, among all the requests.
const CALLS_SLACK: f64 = 0.25;

/// Options of the check.
#[derive(Debug, clap::Args)]
pub(crate) struct CostArgs {
    /// Fail when a request costs more than is stored.
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Store what is measured.
    #[arg(long)]
    update: bool,
    /// Where the figures are stored.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/cost.json"))]
    file: PathBuf,
    /// The tidegate binary; default: the one beside this program.
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Only these works: echo, connect, refuse, udp, http, gate, http-gate, wake.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Longest time for everything.
    #[arg(long, default_value = "300s", value_parser = crate::load::seconds)]
    deadline: Duration,
}

/// What is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// How much more than stored is too much: 0.1 is a tenth.
    tolerance: f64,
    works: BTreeMap<String, RequestCost>,
}

/// What one request costs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct RequestCost {
    instructions: f64,
    /// All system calls.
    calls: f64,
    /// The same by name; shown, not checked. Those of less than one request in a hundred are left out.
    by_name: BTreeMap<String, f64>,
}

/// A fixed script and the server it talks to.
struct Work {
    name: &'static str,
    serves: Serves,
    args: &'static str,
    script: fn(SocketAddr, u32) -> Result<()>,
}

/// What a server serves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Serves {
    Echo,
    Datagrams,
    Http,
    /// A pair to a backend that echoes, which is not counted.
    Gate,
    /// The same for requests, to a backend that answers them.
    HttpGate,
    /// Sessions that another thread wakes: the library in this program, since no service of the program wakes at will.
    Wakes,
}

const WORKS: [Work; 8] = [
    Work { name: "echo", serves: Serves::Echo, args: "", script: echo },
    Work { name: "connect", serves: Serves::Echo, args: "", script: connect },
    Work {
        name: "refuse",
        serves: Serves::Echo,
        args: "--max-connections 1 --queue 1 --refusal-rate 1000000/s",
        script: refuse,
    },
    Work { name: "udp", serves: Serves::Datagrams, args: "", script: datagrams },
    Work { name: "http", serves: Serves::Http, args: "", script: requests },
    Work { name: "gate", serves: Serves::Gate, args: "", script: echo },
    Work { name: "http-gate", serves: Serves::HttpGate, args: "", script: requests },
    Work { name: "wake", serves: Serves::Wakes, args: "", script: wakes },
];

/// Measures, and checks or stores.
pub(crate) fn run(args: CostArgs) -> Result<()> {
    if let Some(path) = &args.tidegate {
        server::set_tidegate(path.clone());
    }
    // Server and script take turns on one processor: the same way every time.
    let (cpus, _) = Cpus::all()?.apart();
    cpus.pin_this_thread()?;
    let deadline = Instant::now() + args.deadline;
    let mut out = std::io::stdout().lock();
    let mut measured = BTreeMap::new();
    for work in
        WORKS.iter().filter(|work| args.only.is_empty() || args.only.iter().any(|name| name == work.name))
    {
        ensure!(Instant::now() < deadline, "it takes longer than {:?}", args.deadline);
        let cost = work.cost(&cpus).with_context(|| format!("the cost of {}", work.name))?;
        let names: Vec<String> =
            cost.by_name.iter().map(|(name, calls)| format!("{name} {calls:.2}")).collect();
        writeln!(
            out,
            "{:9} {:>8.0} instructions, {:>6.2} system calls ({})",
            work.name,
            cost.instructions,
            cost.calls,
            names.join(", ")
        )?;
        measured.insert(work.name.to_owned(), cost);
    }
    match (args.update, args.check) {
        (true, _) => store(&args.file, measured),
        (_, true) => check(&args.file, &measured, &mut out),
        _ => Ok(()),
    }
}

fn store(file: &Path, measured: BTreeMap<String, RequestCost>) -> Result<()> {
    let mut stored = load(file).unwrap_or(Stored { tolerance: 0.2, works: BTreeMap::new() });
    stored.works.extend(measured);
    let text = serde_json::to_string_pretty(&stored)?;
    std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
}

fn load(file: &Path) -> Result<Stored> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {}: store figures with --update", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what --update writes", file.display()))
}

fn check(file: &Path, measured: &BTreeMap<String, RequestCost>, out: &mut impl Write) -> Result<()> {
    let stored = load(file)?;
    let (mut passed, mut failed) = (0, 0);
    for (name, cost) in measured {
        let Some(expected) = stored.works.get(name) else {
            bail!("{} has no figures for {name}", file.display())
        };
        let figures = [
            // How often threads look for work depends on how they meet, and costs instructions too.
            ("instructions", cost.instructions, expected.instructions, stored.tolerance, 0.0),
            ("system calls", cost.calls, expected.calls, 0.0, CALLS_SLACK),
        ];
        for (figure, now, then, tolerance, slack) in figures {
            match judge(now, then, tolerance, slack) {
                Verdict::Worse => {
                    failed += 1;
                    writeln!(out, "FAILED {name}: {now:.2} {figure} a request, {then:.2} are stored")?;
                }
                verdict => {
                    passed += 1;
                    if verdict == Verdict::Better {
                        writeln!(
                            out,
                            "{name}: {now:.2} {figure}, better than {then:.2}; store it with --update"
                        )?;
                    }
                }
            }
        }
    }
    writeln!(out, "cost: {passed} passed, {failed} failed")?;
    ensure!(
        failed == 0,
        "a request costs more than is stored; find out why, or store the new figures with --update"
    );
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Better,
    Same,
    Worse,
}

fn judge(now: f64, then: f64, tolerance: f64, slack: f64) -> Verdict {
    let room = then * tolerance + slack;
    match now - then {
        more if more > room => Verdict::Worse,
        less if less < -room => Verdict::Better,
        _ => Verdict::Same,
    }
}

impl Work {
    /// What may come on top of a run's cost is threads that met by chance, so the least of a few runs counts.
    fn cost(&self, cpus: &Cpus) -> Result<RequestCost> {
        let per_request = |few: f64, many: f64| (many - few) / f64::from(MANY - FEW);
        let least = |requests| -> Result<f64> {
            (0..TRIES).try_fold(f64::MAX, |least, _| Ok(least.min(self.instructions(requests, cpus)?)))
        };
        let instructions = per_request(least(FEW)?, least(MANY)?);
        let sum = |calls: &BTreeMap<String, f64>| {
            calls.iter().filter(|(name, _)| !MEETING.contains(&name.as_str())).map(|(_, n)| n).sum::<f64>()
        };
        let fewest = |requests| -> Result<BTreeMap<String, f64>> {
            (1..TRIES).try_fold(self.calls(requests, cpus)?, |fewest, _| {
                let next = self.calls(requests, cpus)?;
                Ok(if sum(&next) < sum(&fewest) { next } else { fewest })
            })
        };
        let (few, many) = (fewest(FEW)?, fewest(MANY)?);
        let by_name = many
            .iter()
            .map(|(name, calls)| (name.clone(), per_request(few.get(name).copied().unwrap_or(0.0), *calls)))
            .filter(|(_, calls)| *calls >= 0.01)
            .collect();
        let calls = per_request(sum(&few), sum(&many));
        ensure!(instructions > 0.0 && calls > 0.0, "nothing was counted");
        Ok(RequestCost { instructions, calls, by_name })
    }

    /// Runs the script against tidegate under a tool, to the end of both; what the tool counted is in `report`.
    fn traced(&self, requests: u32, tool: &[&str], report: &Path, cpus: &Cpus) -> Result<String> {
        let backend = self.serves.backend(cpus)?;
        let [program, words @ ..] = tool else { bail!("nothing counts") };
        let mut command = Command::new(program);
        command.args(words);
        if self.serves == Serves::Wakes {
            command.arg(std::env::current_exe()?).args(["peer", "wake"]);
        } else {
            command.arg(server::default_tidegate());
            command.args(["--admin", "off", "--listen", &self.serves.listen(backend.as_ref())]);
            command.args(self.args.split_whitespace());
        }
        // A script is one source.
        command.env("TIDEGATE_DATAGRAM_SOURCE_RATE", "off");
        let server = Server::launch(command, Place::Said(self.serves.said()), cpus)?;
        (self.script)(server.addr, requests)?;
        server.end(END_TIMEOUT)?;
        // strace ends a little after what it traced.
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            match std::fs::read_to_string(report) {
                Ok(text) if text.contains("total") || text.contains("Collected") => return Ok(text),
                _ if Instant::now() > deadline => bail!("{} wrote no {}", tool[0], report.display()),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn instructions(&self, requests: u32, cpus: &Cpus) -> Result<f64> {
        let report = Report::new("callgrind");
        let log = format!("--log-file={}", report.path.display());
        let tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", &log];
        let text = self.traced(requests, &tool, &report.path, cpus)?;
        let line =
            text.lines().find(|line| line.contains("Collected")).context("callgrind counted nothing")?;
        let number = line.split_whitespace().last().and_then(|word| word.parse().ok());
        number.with_context(|| format!("`{line}` has no count"))
    }

    fn calls(&self, requests: u32, cpus: &Cpus) -> Result<BTreeMap<String, f64>> {
        let report = Report::new("strace");
        let path = report.path.to_string_lossy().into_owned();
        // -D: the server is our child and strace its observer, so that a signal reaches the server.
        let text = self.traced(requests, &["strace", "-D", "-f", "-c", "-o", &path], &report.path, cpus)?;
        Ok(calls_in(&text))
    }
}

impl Serves {
    /// What stands behind a gate.
    fn backend(self, cpus: &Cpus) -> Result<Option<Server>> {
        match self {
            Serves::Gate => {
                let service = Service::stream(Mode::Echo);
                Server::start(&Spec::new("epoll"), service, cpus).map(Some)
            }
            Serves::HttpGate => {
                let mut command = Command::new(server::default_tidegate());
                command.args(["--admin", "off", "--listen", "hello=http://127.0.0.1:0"]);
                Server::launch(command, Place::Said("http://"), cpus).map(Some)
            }
            Serves::Echo | Serves::Datagrams | Serves::Http | Serves::Wakes => Ok(None),
        }
    }

    /// As `--listen` takes it.
    fn listen(self, backend: Option<&Server>) -> String {
        let backend = backend.map_or_else(String::new, |backend| backend.addr.to_string());
        match self {
            Serves::Echo | Serves::Wakes => "echo=tcp://127.0.0.1:0".to_owned(),
            Serves::Datagrams => "echo=udp://127.0.0.1:0".to_owned(),
            Serves::Http => "hello=http://127.0.0.1:0".to_owned(),
            Serves::Gate => format!("proxy:{backend}=tcp://127.0.0.1:0"),
            Serves::HttpGate => format!("proxy:http://{backend}=http://127.0.0.1:0"),
        }
    }

    /// What the server says before the address where it listens; it may name a backend before.
    fn said(self) -> &'static str {
        match self {
            Serves::Echo | Serves::Gate | Serves::Wakes => "on tcp://",
            Serves::Datagrams => "on udp://",
            Serves::Http | Serves::HttpGate => "on http://",
        }
    }
}

/// `% time  seconds  usecs/call  calls  [errors]  syscall`, one a line.
fn calls_in(text: &str) -> BTreeMap<String, f64> {
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, count, .., name] = words.as_slice() else {
            continue;
        };
        match count.parse::<f64>() {
            Ok(count) if *name != "total" => calls.insert((*name).to_owned(), count),
            _ => None,
        };
    }
    calls
}

/// A file that goes when it is no longer needed.
struct Report {
    path: PathBuf,
}

impl Report {
    fn new(tool: &str) -> Self {
        let unique = format!("tidegate-bench-{}-{tool}.txt", std::process::id());
        let path = std::env::temp_dir().join(unique);
        let _ = std::fs::remove_file(&path);
        Self { path }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Server {
    /// Asks it to end, and waits until it has.
    fn end(mut self, within: Duration) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a process has a number")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + within;
        while self.running()? {
            ensure!(Instant::now() < deadline, "it did not end within {within:?} of SIGTERM");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

const REQUEST: [u8; 64] = [b'x'; 64];

fn connected(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    Ok(stream)
}

fn ask(mut stream: &TcpStream) -> Result<()> {
    let mut reply = [0; REQUEST.len()];
    stream.write_all(&REQUEST)?;
    stream.read_exact(&mut reply).context("no reply")?;
    ensure!(reply == REQUEST, "the echo is not what was sent");
    Ok(())
}

fn echo(addr: SocketAddr, requests: u32) -> Result<()> {
    let stream = connected(addr)?;
    (0..requests).try_for_each(|_| ask(&stream))
}

fn connect(addr: SocketAddr, requests: u32) -> Result<()> {
    (0..requests).try_for_each(|_| {
        let stream = connected(addr)?;
        ask(&stream)?;
        // The server has closed too before the next comes, so that the script is the same every time.
        stream.shutdown(Shutdown::Write)?;
        let rest = (&stream).read(&mut [0; 1])?;
        ensure!(rest == 0, "more than was asked for");
        Ok(())
    })
}

/// Newcomers come in crowds, as in a flood: with one at a time most of the cost is how the worker that polls and the acceptor
/// meet, which is another in each run.
fn refuse(addr: SocketAddr, requests: u32) -> Result<()> {
    let holder = connected(addr)?;
    ask(&holder)?;
    for begun in (0..requests).step_by(CROWD as usize) {
        let crowd = (begun..requests.min(begun + CROWD)).map(|_| connected(addr));
        for refused in crowd.collect::<Result<Vec<_>>>()? {
            match (&refused).read(&mut [0; 64]) {
                Ok(0) => {}
                Ok(_) => bail!("a full server answered"),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error).context("neither refused nor answered"),
            }
        }
    }
    Ok(())
}

fn datagrams(addr: SocketAddr, requests: u32) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(addr)?;
    socket.set_read_timeout(Some(REPLY_TIMEOUT))?;
    (0..requests).try_for_each(|_| {
        socket.send(&REQUEST)?;
        let n = socket.recv(&mut [0; 128]).context("no answer")?;
        ensure!(n == REQUEST.len(), "the echo is not what was sent");
        Ok(())
    })
}

/// Requests one after the other on one connection, as a browser's are.
fn requests(addr: SocketAddr, requests: u32) -> Result<()> {
    const GET: &[u8] = b"GET /hello HTTP/1.1\r\nHost: example\r\nUser-Agent: cost\r\nAccept: */*\r\n\r\n";
    let mut stream = connected(addr)?;
    // All answers are alike but for their dates, so the first says how long they are.
    let mut length = 0;
    let mut answer = vec![0; 4096];
    for _ in 0..requests {
        stream.write_all(GET)?;
        let mut read = 0;
        while read == 0 || read < length {
            let n = stream.read(&mut answer[read..]).context("no answer")?;
            ensure!(n > 0, "the connection ended");
            read += n;
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200 ") && (length == 0 || read == length), "another answer");
        length = read;
    }
    Ok(())
}

/// A session is woken this many times, and says so each time: a wake, a turn, and a byte for the client.
fn wakes(addr: SocketAddr, wakes: u32) -> Result<()> {
    let mut stream = connected(addr)?;
    stream.write_all(format!("{wakes}\n").as_bytes())?;
    let mut said = vec![0; wakes as usize];
    stream.read_exact(&mut said).context("a wake brought no turn")?;
    ensure!(said.iter().all(|&byte| byte == b'w'), "something else was said");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_worse_beyond_the_tolerance_only() {
        assert_eq!(judge(110.0, 100.0, 0.1, 0.0), Verdict::Same);
        assert_eq!(judge(111.0, 100.0, 0.1, 0.0), Verdict::Worse);
        assert_eq!(judge(89.0, 100.0, 0.1, 0.0), Verdict::Better);
        assert_eq!(judge(4.6, 4.0, 0.1, 0.25), Verdict::Same);
        assert_eq!(judge(4.7, 4.0, 0.1, 0.25), Verdict::Worse);
    }

    #[test]
    fn what_strace_counted_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    60.00    0.000600           1       600        12 recvfrom\n \
                    40.00    0.000400           1       400           sendto\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.001000           1      1000        12 total\n";
        let calls = calls_in(text);
        assert_eq!(calls.len(), 2);
        assert_eq!((calls["recvfrom"], calls["sendto"]), (600.0, 400.0));
    }
}
