//! The real program as a child process.

use super::{PATIENCE, eventually, within};
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use std::ffi::OsStr;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) const fn path() -> &'static str {
    env!("CARGO_BIN_EXE_tidegate")
}

/// The program without what the environment of the tests may say to it.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program to its end; it is killed when that does not come.
#[track_caller]
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    finish(command(path()).args(args))
}

/// Runs a command to its end, with its output.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running::of(child);
    // An installer or a compiler may take a while.
    let status = running.exit_within(4 * PATIENCE);
    let (stdout, stderr) = (running.stdout.take(), running.stderr.take());
    Output { status, stdout, stderr }
}

/// How to start a server: port 0, no admin endpoint unless asked for.
pub(crate) struct Program {
    args: Vec<String>,
    /// What a shell does before it becomes the program.
    prelude: Option<String>,
    listen: bool,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self { args: vec!["--admin".into(), "off".into()], prelude: None, listen: true }
    }

    pub(crate) fn arg(mut self, name: &str, value: impl ToString) -> Self {
        self.args.extend([name.to_owned(), value.to_string()]);
        self
    }

    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.args.push(name.to_owned());
        self
    }

    /// Adds a listener of a service, instead of the echo.
    pub(crate) fn service(mut self, name: &str) -> Self {
        self.listen = false;
        self.arg("--listen", format!("{name}=tcp://127.0.0.1:0"))
    }

    /// With the listeners that a configuration file names, or with those that `--listen` adds.
    pub(crate) fn without_echo(mut self) -> Self {
        self.listen = false;
        self
    }

    /// With an admin endpoint that was given as an argument, instead of none.
    pub(crate) fn drop_first_admin(mut self) -> Self {
        self.args.drain(..2);
        self
    }

    /// With the admin endpoint, on a port of its own.
    pub(crate) fn admin(mut self) -> Self {
        self.args[1] = "127.0.0.1:0".into();
        self
    }

    /// The limit of open files it is started with.
    pub(crate) fn open_files(self, limit: u64) -> Self {
        self.prelude(&format!("ulimit -n {limit}"))
    }

    /// What a shell does before it becomes the program.
    pub(crate) fn prelude(mut self, line: &str) -> Self {
        self.prelude = Some(line.to_owned());
        self
    }

    /// Starts it, and waits until it says that it serves.
    #[track_caller]
    pub(crate) fn start(mut self) -> Running {
        if self.listen {
            self = self.service("echo");
        }
        let mut command = match self.prelude {
            None => command(path()),
            Some(line) => {
                let mut shell = command("/bin/sh");
                shell.args(["-c", &format!("{line} && exec \"$0\" \"$@\""), path()]);
                shell
            }
        };
        let child = command
            .args(&self.args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut running = Running::of(child);
        eventually("the program says that it serves", || {
            let ended = running.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", running.stderr.text());
            {
                let said = running.stdout.text();
                (said.contains("limits:") || said.contains("\"limits\"")).then_some(())
            }
        });
        running
    }
}

/// A child that is killed when the test is over.
pub(crate) struct Running {
    child: Child,
    stdout: Heard,
    stderr: Heard,
}

impl Running {
    pub(crate) fn of(mut child: Child) -> Self {
        let stdout = Heard::listen(child.stdout.take().expect("piped"));
        let stderr = Heard::listen(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// The addresses it said it listens on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let text = self.stdout.text();
        text.lines().filter_map(|line| line.split_once("tcp://")?.1.parse().ok()).collect()
    }

    /// Where it said that it has this listener: `echo on ws` is one.
    #[track_caller]
    pub(crate) fn listening(&self, listener: &str) -> SocketAddr {
        let text = self.stdout.text();
        let line =
            text.lines().find_map(|line| line.strip_prefix(listener)?.strip_prefix("://")?.parse().ok());
        line.unwrap_or_else(|| panic!("`{listener}` is not in {text}"))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// Where it said its admin endpoint is.
    pub(crate) fn admin(&self) -> SocketAddr {
        let text = self.stdout.text();
        let found = text
            .lines()
            .find_map(|line| line.split_once("metrics on http://")?.1.split('/').next()?.parse().ok());
        found.expect("it was started with one")
    }

    pub(crate) fn client(&self) -> super::Client {
        super::Client::connect(self.address())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn rustix_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.rustix_pid(), signal).expect("it runs");
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    }

    /// A number of `/proc/PID/status`.
    #[track_caller]
    pub(crate) fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line =
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("a known key");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Its threads, once none starts or ends any more: some start what they need only after the program has said that it
    /// serves, and the one that said so ends.
    #[track_caller]
    pub(crate) fn threads(&self) -> u64 {
        let (mut last, mut since) = (0, Instant::now());
        eventually("its threads are there", || {
            let now = self.status("Threads");
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_millis(200)).then_some(now)
        })
    }

    /// Processor time it has used, in seconds.
    #[track_caller]
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // The second field is the name in parentheses; user and system time are the 14th and 15th.
        let fields: Vec<&str> = text.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// Waits for a load generator that reports in JSON: it has succeeded, with more than 1,000 good replies, and whatever it has
    /// sent was answered. (On a busy machine some is due and not sent, when all its clients are under way.)
    #[track_caller]
    pub(crate) fn ended_well(&mut self) {
        let exit = self.exit();
        let said = self.stdout();
        let report: serde_json::Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let counts = &report["outcomes"];
        assert!(exit.success(), "{counts}\n{}", self.stderr());
        assert!(counts["ok"].as_u64().unwrap_or(0) > 1000, "{counts}");
        let well = |outcome: &str| ["ok", "skipped", "unsent_at_end"].contains(&outcome);
        for (outcome, count) in counts.as_object().unwrap().iter().filter(|(outcome, _)| !well(outcome)) {
            assert_eq!(count.as_u64().unwrap_or(0), 0, "{outcome} in {counts}");
        }
    }

    /// Waits for its end; for ever is not an option.
    #[track_caller]
    pub(crate) fn exit(&mut self) -> std::process::ExitStatus {
        self.exit_within(PATIENCE)
    }

    #[track_caller]
    fn exit_within(&mut self, patience: Duration) -> std::process::ExitStatus {
        let status = within(patience, "the program ends", || self.child.try_wait().unwrap());
        self.stdout.close();
        self.stderr.close();
        status
    }

    /// Waits for its end and gives its exit code and what it said on stderr.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        (self.exit().code(), self.stderr.text())
    }
}

impl Drop for Running {
    /// A test that fails shows how its program was and what it said.
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.stderr.close();
            eprintln!("the program before it was killed: {ended:?}; on stderr:\n{}", self.stderr.text());
        }
    }
}

/// A child that is killed when the test is over, and its own children with it where it leads a group of processes.
pub(crate) struct Ending(pub(crate) Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let child = Pid::from_child(&self.0);
        if getpgid(Some(child)) == Ok(child) {
            let _ = kill_process_group(child, Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child says, read as it comes so that it never waits for us.
struct Heard {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Heard {
    /// More than this is not kept.
    const MOST: usize = 1 << 20;

    /// When nothing has come for this time from a pipe that stays open, all was read.
    const ALL_SAID: Duration = Duration::from_secs(1);

    fn listen(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let kept = text.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let mut kept = kept.lock().unwrap();
                let room = Self::MOST.saturating_sub(kept.len()).min(n);
                kept.extend_from_slice(&buffer[..room]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// After the child's end: everything that it said is there when this returns. A program that has replaced it holds the
    /// other end of the pipe too. Then there is no end to read, but what is in the pipe is read at once: all is there when nothing
    /// has come for a while.
    fn close(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        let began = Instant::now();
        let (mut length, mut since) = (0, began);
        while !reader.is_finished() && began.elapsed() < PATIENCE {
            let now = self.text.lock().unwrap().len();
            if now != length {
                (length, since) = (now, Instant::now());
            }
            if since.elapsed() > Self::ALL_SAID {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.text.lock().unwrap())
    }
}
