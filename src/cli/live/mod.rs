//! Orders to a program that serves, and its reports to a supervisor. One thread waits for SIGHUP (read the
//! configuration again) and SIGUSR2 (hand over to a new program), and tells the supervisor at intervals that the server
//! is alive.

pub(super) mod handed;
pub(super) mod notify;
mod pairs;
pub(super) mod relisten;
pub(super) mod reload;
pub(super) mod upgrade;

use self::notify::Supervisor;
use self::reload::{Configured, in_words};
use self::upgrade::{Estate, StartedFrom};
use super::beside::BesideHandles;
use crate::contain::contain;
use crate::metrics::configuration;
use crate::metrics::snapshot::{ListenerSnapshot, Snapshot};
use crate::server::{Handle, PulseWatch};
use rustix::process::Signal;
use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU8};
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
    pub(super) beside: Mutex<BesideHandles>,
    pub(super) configured: Mutex<Configured>,
    /// Reloads that were ordered and have not ended: one at work, and one that reads what is written meanwhile.
    pub(super) reloads: AtomicU8,
    pub(super) replacement: Replacement,
}

/// How far this program is in being replaced.
#[derive(Debug, Default)]
pub(super) struct Replacement {
    is_under_way: AtomicBool,
    /// Another program serves.
    is_done: AtomicBool,
    /// Held while a new program starts.
    starting: Mutex<()>,
}

impl Replacement {
    fn start(&self) -> MutexGuard<'_, ()> {
        self.starting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no new program starts: one that this program has not ended would serve on after it.
    pub(super) fn give_up(&self) {
        drop(self.start());
    }
}

impl Live {
    fn texts(&self) -> Vec<String> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn beside(&self) -> MutexGuard<'_, BesideHandles> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The admin endpoint and the agent, which end when they are dropped.
    pub(super) fn take_beside(&self) -> BesideHandles {
        std::mem::replace(&mut *self.beside(), BesideHandles { admin: None, agent: None })
    }

    /// Starts the thread, which ends with the process.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        let live = self.clone();
        std::thread::Builder::new().name("tidegate-live".to_owned()).spawn(move || live.run()).map(drop)
    }

    fn run(self: &Arc<Self>) {
        let told = self.supervisor.is_there();
        let every = self.supervisor.watchdog().unwrap_or(STATUS_EVERY).min(STATUS_EVERY);
        self.supervisor.ready();
        let mut pulse = PulseWatch::default();
        loop {
            match crate::sys::wait_for(&ORDERS, if told { every } else { WAIT }) {
                Some(Signal::HUP) => self.order_reload(),
                Some(Signal::USR2) => self.order_upgrade(),
                _ => {}
            }
            if told {
                self.tell(&mut pulse);
            }
        }
    }

    /// Has the configuration read again by a thread of its own: a name may be looked up for seconds, and the supervisor's
    /// watchdog does not wait. While one reads, one more order is kept, since the file may have changed meanwhile.
    fn order_reload(self: &Arc<Self>) {
        let ordered = self.reloads.fetch_update(Relaxed, Relaxed, |count| (count < 2).then_some(count + 1));
        if ordered != Ok(0) {
            return;
        }
        let live = self.clone();
        let work = move || {
            loop {
                // A panic would be a bug of ours; the next order is heard all the same.
                let _ = contain(|| live.reload());
                live.supervisor.ready();
                if live.reloads.fetch_sub(1, Relaxed) == 1 {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("tidegate-reload".to_owned()).spawn(work) {
            self.reloads.store(0, Relaxed);
            configuration::not_taken_over("the system gives no thread for it");
            tracing::error!(%error, "the configuration is not read again: the system gives no thread for it");
        }
    }

    fn reload(&self) {
        self.supervisor.reloading();
        let mut configured = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        if self.replacement.is_done.load(SeqCst) {
            return tracing::error!(
                "the configuration is not read again: another program has taken this one's place"
            );
        }
        match configured.reload(&self.handle) {
            Ok(changes) => {
                *self.texts.lock().unwrap_or_else(PoisonError::into_inner) = configured.texts();
                configuration::taken_over(configured.args.sources());
                tracing::info!("the configuration was read again: {}", in_words(&changes));
            }
            Err(why) => {
                configuration::not_taken_over(&why);
                tracing::error!("the configuration was read again, and nothing has changed: {why}");
            }
        }
    }

    /// Has the program replaced, by a thread of its own: a new program may take seconds to start, and the supervisor's watchdog
    /// does not wait. What is ordered meanwhile is the same order.
    fn order_upgrade(self: &Arc<Self>) {
        if self.replacement.is_under_way.swap(true, SeqCst) {
            return;
        }
        let live = self.clone();
        let work = move || {
            let _ = contain(|| live.upgrade());
            live.replacement.is_under_way.store(false, SeqCst);
        };
        if let Err(error) = std::thread::Builder::new().name("tidegate-upgrade".to_owned()).spawn(work) {
            self.replacement.is_under_way.store(false, SeqCst);
            tracing::error!(%error, "this program goes on: the system gives no thread to replace it");
        }
    }

    fn upgrade(&self) {
        // No listener opens or closes meanwhile.
        let _alone = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        let _starting = self.replacement.start();
        // The sockets may still be here for a moment after they were handed over.
        if self.replacement.is_done.load(SeqCst) {
            return tracing::error!("another program has taken this one's place already");
        }
        let estate = Estate {
            started: &self.origin,
            handle: &self.handle,
            supervisor: &self.supervisor,
            texts: &self.texts(),
            beside: self.beside().sockets(),
            end_beside: &|| drop(self.take_beside()),
        };
        match upgrade::upgrade(estate) {
            Ok(pid) => {
                self.replacement.is_done.store(true, SeqCst);
                tracing::info!(pid, "the new program serves; this one ends when its clients have left")
            }
            Err(_) if !self.handle.takes_newcomers() => {
                tracing::error!("this program is not replaced, since it has been told to end");
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
