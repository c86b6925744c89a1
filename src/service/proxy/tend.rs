//! The thread that tends a gate's backends, so that no worker has to: it starts lookups of their names, takes the answers,
//! and checks whether backends can be reached. Lookups run on threads of their own, since a resolver may hang.

use super::backends::Place;
use super::connect::{Arrival, Connecting};
use super::gate::{Gate, Settings};
use super::resolve::LOOKUP_WITHIN;
use crate::clock::{Nanos, nanos};
use crate::service::Pool;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, Timespec, poll};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The longest sleep while a backend may become due for a trial, or while a lookup is under way.
const LOOK: Duration = Duration::from_millis(250);

/// The most bytes that checks keep of TLS handshakes that have come in part.
pub(super) const CHECK_BYTES: usize = 1 << 20;

/// The settings or the backends are other ones: what is due must be looked at again.
pub(super) struct LookAgain;

/// Starts the thread if there is something for it to do. It ends when the returned sender is dropped.
pub(super) fn start(gate: &Arc<Gate>) -> io::Result<Option<Sender<LookAgain>>> {
    if !gate.lookups().can_change() && gate.settings.get().connect_every().is_none() {
        return Ok(None);
    }
    let (alive, told) = bounded(1);
    let tender = Tender { gate: Arc::downgrade(gate), told, next_resolve: 0 };
    std::thread::Builder::new().name("backends".to_owned()).spawn(move || tender.run())?;
    Ok(Some(alive))
}

struct Tender {
    gate: Weak<Gate>,
    told: Receiver<LookAgain>,
    next_resolve: Nanos,
}

impl Tender {
    fn run(mut self) {
        let Some(mut pause) = self.gate.upgrade().map(|gate| self.first_pause(&gate)) else { return };
        loop {
            let told = self.told.recv_timeout(pause);
            let Some(gate) = self.gate.upgrade() else { return };
            pause = match told {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.tend(&gate),
                Ok(LookAgain) => self.first_pause(&gate),
            };
        }
    }

    /// How long to sleep first: the names were resolved just now, and checks begin at once.
    fn first_pause(&mut self, gate: &Gate) -> Duration {
        let settings = gate.settings.get();
        self.next_resolve = gate.clock.now().saturating_add(nanos(settings.resolve_every));
        if settings.connect_every().is_some() { Duration::ZERO } else { settings.resolve_every }
    }

    /// Does what is due, and returns how long to sleep.
    fn tend(&mut self, gate: &Gate) -> Duration {
        let settings = gate.settings.get();
        let mut pause = self.resolve(gate, &settings);
        if let Some(every) = settings.connect_every() {
            check(gate, &settings, nanos(every));
            pause = pause.min(every).min(LOOK);
        }
        pause
    }

    /// Takes the answers that have come, and starts new lookups when they are due.
    fn resolve(&mut self, gate: &Gate, settings: &Settings) -> Duration {
        let (mut lookups, now) = (gate.lookups(), gate.clock.now());
        if !lookups.can_change() {
            return Duration::MAX;
        }
        let resolved = lookups.take_answers(now);
        if resolved.changed {
            gate.backends.set_addresses(&lookups.addresses());
        }
        for (error, addresses) in &resolved.failed {
            tracing::warn!(%error, "a backend's name keeps its last known addresses");
            gate.backends.not_resolved(addresses);
        }
        if now >= self.next_resolve {
            lookups.begin(now.saturating_add(nanos(LOOKUP_WITHIN)));
            self.next_resolve = now.saturating_add(nanos(settings.resolve_every));
        }
        let until = Duration::from_nanos(self.next_resolve.saturating_sub(now));
        if lookups.are_under_way() { until.min(LOOK) } else { until }
    }
}

/// Connects to each backend that is due for a check, all at the same time.
fn check(gate: &Gate, settings: &Settings, every: Nanos) {
    let pool = Arc::new(Pool::default());
    let store = (&pool, CHECK_BYTES);
    let mut under_way = Vec::new();
    // All first: while connections are made, those that were checked could become due again.
    let due: Vec<Place> = std::iter::from_fn(|| gate.backends.take_for_check(every)).collect();
    for place in due {
        let now = gate.clock.now();
        let times = (now, settings.connect_deadline(now));
        match Connecting::start(place.address(), greeting(settings), times, store) {
            Ok((_, Arrival::Made { took, .. })) => place.reached(took),
            Ok((connecting, Arrival::Wait { .. })) => under_way.push((connecting, place)),
            Err(unreached) => place.failed(unreached),
        }
    }
    while !under_way.is_empty() {
        wait(&under_way);
        let now = gate.clock.now();
        under_way.retain_mut(|(connecting, place)| match connecting.poll(now, store) {
            Ok(Arrival::Wait { .. }) => true,
            Ok(Arrival::Made { took, .. }) => {
                place.reached(took);
                false
            }
            Err(unreached) => {
                place.failed(unreached);
                false
            }
        });
    }
}

/// What a check sends first: a header for the backend's log, if the gate sends such headers.
pub(super) fn greeting(settings: &Settings) -> Vec<u8> {
    let mut header = Vec::new();
    if let Some(version) = settings.send_header {
        version.write_local(&mut header);
    }
    header
}

/// Waits until an attempt has an event, for at most 50 ms: an attempt on a Unix socket with a full backlog has none.
fn wait(under_way: &[(Connecting, Place)]) {
    let sockets = under_way.iter().filter_map(|(connecting, _)| connecting.awaits());
    let sockets: Vec<_> = sockets.collect();
    let mut looks: Vec<_> = sockets.iter().map(|(socket, flags)| PollFd::new(socket, *flags)).collect();
    let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    // An error only makes the wait shorter.
    let _ = poll(&mut looks, Some(&moment));
}
