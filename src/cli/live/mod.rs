//! What a serving program can be told while it serves, and what it tells its supervisor: one thread that waits for
//! SIGHUP and SIGUSR2, and says at intervals that the server moves.

pub(super) mod handed;
pub(super) mod notify;
pub(super) mod upgrade;

use self::notify::Supervisor;
use self::upgrade::{Estate, StartedFrom};
use crate::admin::AdminHandle;
use crate::metrics::snapshot::{ListenerSnapshot, Snapshot};
use crate::server::{Handle, PulseWatch};
use rustix::process::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The signals that this thread waits for.
pub(super) const ORDERS: [Signal; 2] = [Signal::HUP, Signal::USR2];

/// How often a supervisor is told the numbers.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// The longest wait for a signal: the deadline of a wait that nothing else ends.
const WAIT: Duration = Duration::from_secs(3600);

/// A serving program.
pub(super) struct Live {
    pub(super) handle: Arc<Handle>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) origin: StartedFrom,
    /// What each listener was configured as, in the order of the server's listeners.
    pub(super) texts: Mutex<Vec<String>>,
    pub(super) admin: Mutex<Option<AdminHandle>>,
}

impl Live {
    fn texts(&self) -> Vec<String> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn admin(&self) -> MutexGuard<'_, Option<AdminHandle>> {
        self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The admin endpoint, which ends when it is dropped.
    pub(super) fn take_admin(&self) -> Option<AdminHandle> {
        self.admin().take()
    }

    fn admin_socket(&self) -> io::Result<Option<OwnedFd>> {
        self.admin().as_ref().and_then(AdminHandle::socket).map(OwnedFd::try_clone).transpose()
    }

    /// Starts the thread, which ends with the process.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let live = self.clone();
        std::thread::Builder::new().name("tidegate-live".to_owned()).spawn(move || live.run()).map(drop)
    }

    fn run(&self) {
        let told = self.supervisor.is_there();
        let every = self.supervisor.watchdog().unwrap_or(STATUS_EVERY).min(STATUS_EVERY);
        self.supervisor.ready();
        let mut pulse = PulseWatch::default();
        loop {
            match crate::sys::wait_for(&ORDERS, if told { every } else { WAIT }) {
                Some(Signal::HUP) => self.reload(),
                Some(Signal::USR2) => self.upgrade(),
                _ => {}
            }
            if told {
                self.tell(&mut pulse);
            }
        }
    }

    fn reload(&self) {
        self.supervisor.reloading();
        tracing::info!(
            "SIGHUP changes nothing yet: SIGUSR2 starts the program anew, with its configuration as it is now"
        );
        self.supervisor.ready();
    }

    fn upgrade(&self) {
        let estate = Estate {
            started: &self.origin,
            handle: &self.handle,
            supervisor: &self.supervisor,
            texts: &self.texts(),
            admin: self.admin_socket(),
            end_admin: &|| drop(self.take_admin()),
        };
        match upgrade::upgrade(estate) {
            Ok(pid) => {
                tracing::info!(pid, "the new program serves; this one ends when its clients have left")
            }
            Err(why) => tracing::error!("this program goes on: {why}"),
        }
    }

    /// Tells the supervisor how it is.
    fn tell(&self, pulse: &mut PulseWatch) {
        self.supervisor.status(&status(&self.handle.stats()));
        if self.supervisor.watchdog().is_some() {
            match self.handle.stands_still(pulse) {
                None => self.supervisor.alive(),
                Some(thread) => tracing::error!(thread, "a thread that serves all clients does not move"),
            }
        }
    }
}

/// The numbers in one line.
fn status(seen: &Snapshot) -> String {
    let total = |count: fn(&ListenerSnapshot) -> u64| seen.listeners.iter().map(count).sum::<u64>();
    format!(
        "{}: {} of {} connections, {} of {} workers busy, {} waiting, {} turned away",
        seen.phase.as_str(),
        total(ListenerSnapshot::open),
        seen.connections_limit,
        seen.workers_busy,
        seen.workers_limit,
        seen.queue_length,
        total(|listener| listener.dropped.iter().sum()),
    )
}
