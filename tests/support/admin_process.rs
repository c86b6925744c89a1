//! The real program as a child process, with free ports, ended when the test ends.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A tidegate that serves.
pub(crate) struct Tidegate {
    child: Child,
    /// Its listeners as URLs, with their real ports.
    pub(crate) listeners: Vec<String>,
    /// Its admin endpoint.
    pub(crate) admin: SocketAddr,
}

impl Tidegate {
    /// Starts it, and waits until it says where it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["--admin", "127.0.0.1:0"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut listeners = Vec::new();
        let mut admin = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix("metrics on http://") {
                admin = rest.split('/').next().and_then(|address| address.parse().ok());
            } else if let Some((_, url)) = line.split_once(" on ") {
                listeners.push(url.to_owned());
            } else if line.starts_with("limits") {
                break;
            }
        }
        Self { child, listeners, admin: admin.expect("it says where the admin endpoint is") }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits until it has ended; its exit code.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it has not ended within {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Loads it with the stress client, in the background.
    pub(crate) fn stress(&self, arguments: &[&str]) -> Background {
        self.stress_at(0, arguments)
    }

    /// The same, at another listener than the first.
    pub(crate) fn stress_at(&self, listener: usize, arguments: &[&str]) -> Background {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("stress").arg(&self.listeners[listener]).args(arguments);
        Background::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }
}

impl Drop for Tidegate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Any other program, ended when the test ends.
pub(crate) struct Background(Child);

impl Background {
    /// Starts it; a program that is not there fails the test and says which.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}; tests/setup.sh installs it")))
    }

    /// Ends it now.
    pub(crate) fn end(self) {}

    /// Waits for its end; whether it was a success.
    pub(crate) fn wait(mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
