//! Which processors a server and its clients run on.

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::process::{Command, Output};

/// A set of processors.
#[derive(Clone)]
pub(crate) struct Cpus {
    set: CpuSet,
}

impl Cpus {
    /// All that this process may use.
    pub(crate) fn all() -> Result<Self> {
        let set = sched_getaffinity(None).context("cannot read the processors this process may use")?;
        Ok(Self { set })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.set.count() as usize
    }

    /// One for the servers and the others for the clients; the same one for both where there is but one.
    pub(crate) fn apart(&self) -> (Self, Self) {
        let numbers: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| self.set.is_set(cpu)).collect();
        let (servers, clients) = match numbers.split_at(1.min(numbers.len())) {
            (servers, []) => (servers, servers),
            (servers, clients) => (servers, clients),
        };
        (Self::of(servers), Self::of(clients))
    }

    fn of(numbers: &[usize]) -> Self {
        let mut set = CpuSet::new();
        for &cpu in numbers {
            set.set(cpu);
        }
        Self { set }
    }

    /// This thread, and what it starts from now on, runs on these only.
    pub(crate) fn pin_this_thread(&self) -> Result<()> {
        sched_setaffinity(None, &self.set).context("cannot choose the processors of a thread")
    }

    /// Runs something on these, on a thread of its own.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let cpus = self.clone();
        let run = move || -> Result<T> {
            cpus.pin_this_thread()?;
            Ok(work())
        };
        std::thread::spawn(run).join().map_err(|_| anyhow!("the thread panicked"))?
    }

    /// Runs a program on these, to its end.
    pub(crate) fn output(&self, mut command: Command) -> Result<Output> {
        self.run(move || command.output().with_context(|| format!("cannot run {:?}", command.get_program())))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_clients_share_a_processor_only_where_there_is_but_one() {
        let (servers, clients) = Cpus::of(&[1, 3, 4]).apart();
        assert_eq!((servers.count(), clients.count()), (1, 2));
        assert!(servers.set.is_set(1) && clients.set.is_set(3) && clients.set.is_set(4));
        let (servers, clients) = Cpus::of(&[2]).apart();
        assert!(servers.set.is_set(2) && clients.set.is_set(2));
    }
}
