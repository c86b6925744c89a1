//! A program that is replaced by a new one on SIGUSR2, again and again, as one.

use crate::support::{Running, eventually};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};

/// The program that serves now.
pub(crate) struct Process<'a> {
    pub(crate) first: &'a Running,
    pid: AtomicI32,
    /// Counts up when a replacement is ordered, and once more when the old program has ended. A connection that was made
    /// before the last change may end with its program; and so may one that is made between the two, for the old program
    /// accepts until the new one serves.
    number: AtomicU64,
    most_resident: AtomicU64,
}

impl<'a> Process<'a> {
    pub(crate) fn of(first: &'a Running) -> Self {
        // The later programs become children of this process when the earlier ones end, so that it learns how they end.
        set_child_subreaper(Some(rustix::process::getpid())).expect("it is allowed");
        let pid = first.rustix_pid().as_raw_nonzero().get();
        Self { first, pid: pid.into(), number: AtomicU64::new(0), most_resident: AtomicU64::new(0) }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.pid.load(SeqCst)).expect("it is not zero")
    }

    pub(crate) fn number(&self) -> u64 {
        self.number.load(SeqCst)
    }

    pub(crate) fn is_being_replaced(&self) -> bool {
        !self.number().is_multiple_of(2)
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    pub(crate) fn is_running(&self) -> bool {
        is_running(self.pid())
    }

    /// A number of `/proc/PID/status`.
    #[track_caller]
    pub(crate) fn status(&self, key: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.and_then(|value| value.split_whitespace().next()?.parse().ok()).expect("a known number")
    }

    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// The most memory that any of the programs had, in KiB.
    pub(crate) fn most_resident(&self) -> u64 {
        self.most_resident.fetch_max(self.status("VmHWM"), SeqCst).max(self.status("VmHWM"))
    }

    /// Has the program replaced, and waits until the old one has ended.
    #[track_caller]
    pub(crate) fn replace(&self) {
        let old = self.pid();
        self.most_resident();
        self.number.fetch_add(1, SeqCst);
        self.signal(Signal::USR2);
        let new = eventually("a new program starts", || child_of(old));
        eventually("the old program ends", || (!is_running(old)).then_some(()));
        self.pid.store(new.as_raw_nonzero().get(), SeqCst);
        self.number.fetch_add(1, SeqCst);
        self.ended(old);
    }

    /// Checks that a program has ended well; of the first one, its owner learns how it ended.
    #[track_caller]
    pub(crate) fn ended(&self, pid: Pid) {
        if pid == self.first.rustix_pid() {
            return;
        }
        let status =
            eventually("it ends", || waitpid(Some(pid), WaitOptions::NOHANG).expect("it is a child"));
        // A program that is replaced cuts the pairs that stand when its time is over.
        assert!(matches!(status.1.exit_status(), Some(0 | 3)), "{:?}: {}", status.1, self.first.stderr());
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        // The first program has an owner.
        if self.pid() != self.first.rustix_pid() && self.is_running() {
            let _ = kill_process(self.pid(), Signal::KILL);
        }
    }
}

fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// The child of a process.
fn child_of(pid: Pid) -> Option<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let child = children.iter().find_map(|children| children.split_whitespace().next())?;
    Pid::from_raw(child.parse().ok()?)
}
