//! Starting a server, finding its address, reading what it costs, and ending it.

use crate::peers::Mode;
use crate::pin::Cpus;
use crate::scene::plan::Wire;
use anyhow::{Context, Result, anyhow, bail, ensure};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use std::time::{Duration, Instant};

/// Longest wait for a server to say where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Between two looks whether a server listens that does not say so.
const LISTEN_PAUSE: Duration = Duration::from_millis(20);
/// What the kernel counts a process's time in; 100 a second on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a server does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Service {
    /// What its clients speak.
    pub(crate) wire: Wire,
    pub(crate) mode: Mode,
}

impl Service {
    /// Bytes over TCP.
    pub(crate) const fn stream(mode: Mode) -> Self {
        Self { wire: Wire::Stream, mode }
    }

    /// What an address is called on which it listens.
    fn scheme(self, server: &str) -> &'static str {
        match self.wire {
            Wire::Datagrams => "udp://",
            Wire::Http if server.starts_with("tidegate") => "http://",
            _ => "tcp://",
        }
    }
}

/// A server by the name it has on the command line and in the tables: `tidegate`, `tidegate@PATH` (another build of it,
/// to compare with), `python`, `asyncio`, or a peer: `thread`, `tokio`, `tokio-4k`, `pool`, `epoll`, `http`, `reset`, `udp`.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// As given.
    pub(crate) name: String,
    /// More arguments, for this server.
    pub(crate) args: Vec<String>,
}

impl Spec {
    /// A server without more arguments.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), args: Vec::new() }
    }

    /// The same with these arguments (text split at blanks).
    pub(crate) fn with(name: impl Into<String>, args: &str) -> Self {
        Self { name: name.into(), args: args.split_whitespace().map(str::to_owned).collect() }
    }

    /// A server as a command line names it: every tidegate has the arguments `of_tidegate`, and `NAME:LABEL` those of
    /// `LABEL=ARGUMENTS` too.
    pub(crate) fn labelled(name: &str, of_tidegate: &str, of_labels: &[String]) -> Self {
        let mut words = String::new();
        if name.starts_with("tidegate") {
            words += of_tidegate;
        }
        for (label, more) in of_labels.iter().filter_map(|text| text.split_once('=')) {
            if name.split(':').nth(1) == Some(label) {
                words.push(' ');
                words += more;
            }
        }
        Self::with(name, &words)
    }

    fn command(&self, service: Service) -> Result<Command> {
        let (base, path) = match self.name.split_once('@') {
            Some((base, path)) => (base, Some(PathBuf::from(path))),
            None => (self.name.as_str(), None),
        };
        // A label after a colon tells two configurations of one server apart.
        let base = base.split(':').next().unwrap_or(base);
        let mut command = match base {
            // No service of the program works on whole lines, so the library is served by a peer.
            "tidegate" if service.wire == Wire::Lines => {
                ensure!(
                    path.is_none(),
                    "the service for lines is the library that this program was built with"
                );
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["peer", "lines", "--mode", &show_mode(service.mode)]);
                return Ok(command);
            }
            "tidegate" => tidegate(path.unwrap_or_else(default_tidegate), service)?,
            "python" if service.wire == Wire::Datagrams => script("threading_udp.py", service)?,
            "python" => script("threading_tcp.py", service)?,
            "asyncio" => script("asyncio_tcp.py", service)?,
            peer => {
                let mut command = Command::new(std::env::current_exe()?);
                let (name, buffer) = match peer.split_once('-') {
                    Some((name, "4k")) => (name, "4096"),
                    _ => (peer, "65536"),
                };
                command.args(["peer", name, "--buffer", buffer, "--mode", &show_mode(service.mode)]);
                command
            }
        };
        command.args(&self.args);
        Ok(command)
    }
}

/// One of the servers in Python.
fn script(name: &str, service: Service) -> Result<Command> {
    let mut command = Command::new(python()?);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/").to_owned() + name);
    command.args(["--listen", "127.0.0.1:0", "--mode", &show_mode(service.mode)]);
    Ok(command)
}

/// As the peers take it.
fn show_mode(mode: Mode) -> String {
    match mode {
        Mode::Echo => "echo".to_owned(),
        Mode::Time => "time".to_owned(),
        Mode::Cpu(amount) => format!("work-cpu:{}ms", amount.as_secs_f64() * 1e3),
        Mode::Sleep(amount) => format!("work-sleep:{}ms", amount.as_secs_f64() * 1e3),
    }
}

fn tidegate(path: PathBuf, service: Service) -> Result<Command> {
    ensure!(
        path.is_file(),
        "{} is not there: build it with `cargo build --release`, or say where it is with --tidegate",
        path.display()
    );
    let (name, work) = match service.mode {
        Mode::Echo => ("echo", None),
        Mode::Time => ("time", None),
        Mode::Cpu(amount) => ("work", Some(format!("cpu:{}us", amount.as_micros()))),
        Mode::Sleep(amount) => ("work", Some(format!("sleep:{}us", amount.as_micros()))),
    };
    let mut command = Command::new(path);
    // A load generator is one source.
    command.env("TIDEGATE_DATAGRAM_SOURCE_RATE", "off");
    command.arg("--listen").arg(format!("{name}={}127.0.0.1:0", service.scheme("tidegate")));
    if let Some(work) = work {
        command.arg("--work").arg(work);
    }
    Ok(command)
}

static TIDEGATE: OnceLock<PathBuf> = OnceLock::new();

/// Says where the binary under measurement is; the first word counts.
pub(crate) fn set_tidegate(path: PathBuf) {
    let _ = TIDEGATE.set(path);
}

/// The binary under measurement: `--tidegate`, or the one built beside this program.
pub(crate) fn default_tidegate() -> PathBuf {
    TIDEGATE.get().cloned().unwrap_or_else(|| {
        let beside = std::env::current_exe().map(|path| path.with_file_name("tidegate"));
        beside.unwrap_or_else(|_| PathBuf::from("target/release/tidegate"))
    })
}

/// The interpreter itself: what is called `python3` may be a script that looks for it.
fn python() -> Result<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let output =
            Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    });
    found.clone().context("python3 is not installed; leave `python` out of --servers, or install it")
}

/// A running server; dropping it ends it.
pub(crate) struct Server {
    child: Child,
    /// Lines that it said after its address, as far as they were kept.
    said: Receiver<String>,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

/// Where a server that is started will listen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// It says so, after this scheme.
    Said(&'static str),
    /// It was told so, and says nothing.
    Told(SocketAddr),
}

/// What a server has cost so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// CPU seconds.
    pub(crate) cpu: f64,
    /// The most memory it had at once, in bytes.
    pub(crate) peak_rss: u64,
    /// Threads now.
    pub(crate) threads: u64,
}

impl Cost {
    /// What a process has cost so far. The kernel may take long to say it: it waits for locks of a process whose
    /// thousands of threads have one processor.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        // The command's name is in parentheses and may hold anything; user and system time are fields 14 and 15.
        let after = stat.rsplit_once(')').context("a stat line has a name")?.1;
        let ticks: Vec<f64> =
            after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_whitespace().nth(1)).and_then(|word| word.parse::<u64>().ok())
        };
        Ok(Self {
            cpu: ticks.iter().sum::<f64>() / TICKS_PER_SECOND,
            peak_rss: number("VmHWM:").context("a process has a peak")? << 10,
            threads: number("Threads:").context("a process has threads")?,
        })
    }
}

impl Server {
    /// Starts it on these processors.
    pub(crate) fn start(spec: &Spec, service: Service, cpus: &Cpus) -> Result<Self> {
        let command = spec.command(service).with_context(|| format!("cannot start {}", spec.name))?;
        Self::launch(command, Place::Said(service.scheme(&spec.name)), cpus)
            .with_context(|| format!("{} did not start", spec.name))
    }

    /// Starts a program that becomes a server.
    pub(crate) fn launch(mut command: Command, place: Place, cpus: &Cpus) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TIDEGATE_") {
                command.env_remove(name);
            }
        }
        let cpus = cpus.clone();
        // A thread of its own has its own processors, and the child has its parent thread's.
        let spawned = std::thread::spawn(move || {
            cpus.pin_this_thread()?;
            let child = command.spawn();
            child.with_context(|| format!("cannot start {:?}", command.get_program()))
        });
        let mut child = spawned.join().map_err(|_| anyhow!("the starting thread panicked"))??;
        match find_address(&mut child, place) {
            Ok((addr, said)) => Ok(Self { child, said, addr }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// What it has cost so far.
    pub(crate) fn cost(&self) -> Result<Cost> {
        Cost::of(self.pid())
    }

    /// Tells a server that reads its standard input something.
    pub(crate) fn tell(&mut self, words: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("stdin is a pipe")?;
        writeln!(stdin, "{words}").context("the server does not listen to its input")
    }

    /// Tells it to end, and what came of that within `limit`.
    pub(crate) fn end_in_order(&mut self, grace: Duration, limit: Duration) -> Result<String> {
        let started = Instant::now();
        self.tell(&format!("end {}", grace.as_millis()))?;
        while let Ok(line) = self.said.recv_timeout(limit.saturating_sub(started.elapsed())) {
            if let Some(report) = line.strip_prefix("ended: ") {
                return Ok(report.to_owned());
            }
        }
        Ok(format!("it did not end within {} s", limit.as_secs()))
    }

    /// Whether it has not ended yet.
    pub(crate) fn running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is asked of it any more, so it need not drain.
        self.kill();
    }
}

fn find_address(child: &mut Child, place: Place) -> Result<(SocketAddr, Receiver<String>)> {
    let (sender, lines) = bounded(64);
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    read_lines(stdout, sender.clone())?;
    read_lines(stderr, sender)?;
    match place {
        Place::Said(scheme) => Ok((wait_for_address(&lines, scheme)?, lines)),
        Place::Told(addr) => {
            wait_for_listener(child, addr, &lines)?;
            Ok((addr, lines))
        }
    }
}

fn wait_for_listener(child: &mut Child, addr: SocketAddr, lines: &Receiver<String>) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(addr).is_err() {
        if let Some(status) = child.try_wait()? {
            let said: Vec<String> = lines.iter().collect();
            bail!("it ended ({status}) and said: {}", said.join(" "));
        }
        ensure!(Instant::now() < deadline, "nobody listens on {addr} after {START_TIMEOUT:?}");
        std::thread::sleep(LISTEN_PAUSE);
    }
    Ok(())
}

/// Reads all a server says, so that it never waits for a reader; only the first lines are handed on.
fn read_lines(from: impl Read + Send + 'static, to: Sender<String>) -> Result<()> {
    std::thread::Builder::new().name("server output".into()).spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = to.try_send(line);
        }
    })?;
    Ok(())
}

fn wait_for_address(lines: &Receiver<String>, scheme: &str) -> Result<SocketAddr> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut said = Vec::new();
    loop {
        match lines.recv_deadline(deadline) {
            Ok(line) => match address_in(&line, scheme) {
                Some(addr) => return Ok(addr),
                None => said.push(line),
            },
            Err(RecvTimeoutError::Timeout) => {
                bail!("no address within {START_TIMEOUT:?}; it said: {}", said.join(" "))
            }
            Err(RecvTimeoutError::Disconnected) => bail!("it ended and said: {}", said.join(" ")),
        }
    }
}

fn address_in(line: &str, scheme: &str) -> Option<SocketAddr> {
    let rest = &line[line.find(scheme)? + scheme.len()..];
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c))).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_what_servers_say() {
        let addr = Some("127.0.0.1:5000".parse().unwrap());
        assert_eq!(address_in("listening on tcp://127.0.0.1:5000", "tcp://"), addr);
        assert_eq!(address_in("echo=tcp://127.0.0.1:5000, 32 workers", "tcp://"), addr);
        assert_eq!(address_in("tcp://[::1]:7", "tcp://"), Some("[::1]:7".parse().unwrap()));
        assert_eq!(address_in("udp://127.0.0.1:5000", "tcp://"), None);
        assert_eq!(address_in("cannot listen on tcp://nowhere", "tcp://"), None);
    }
}
