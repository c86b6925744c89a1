//! Resolves the names of backends, at the start and again later. A resolver may take minutes or hang, so each lookup runs
//! on a thread of its own and has a deadline. A name has at most one lookup under way, so no more threads than names can
//! hang.

use super::address::{BackendAddress, BackendName};
use crate::clock::Nanos;
use crate::transport::tls::ToBackends;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lookup may take before it counts as failed.
pub(super) const LOOKUP_WITHIN: Duration = Duration::from_secs(10);

/// The most backends that a gate may have. A name that would lead to more counts as one that cannot be resolved.
pub(super) const BACKENDS_MAX: usize = 256;

type Answer = io::Result<Vec<BackendAddress>>;

/// The function that asks the system's resolver; tests put another in its place.
type Ask = Arc<dyn Fn(&BackendName) -> Answer + Send + Sync>;

/// The names of a gate's backends, with their addresses.
pub(super) struct Lookups {
    names: Vec<Lookup>,
    ask: Ask,
}

/// One name.
struct Lookup {
    name: BackendName,
    /// Its addresses, as last resolved.
    addresses: Vec<BackendAddress>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    answer: Receiver<Answer>,
    deadline: Nanos,
    /// The lookup was reported as failed because it passed its deadline. A later answer is still taken.
    late: bool,
}

/// What the answers that have come have changed.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// At least one name has other addresses than before.
    pub(super) changed: bool,
    /// For each name that could not be resolved: the error, and the addresses that stay in use.
    pub(super) failed: Vec<(io::Error, Vec<BackendAddress>)>,
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names.iter().map(|lookup| &lookup.name)).finish()
    }
}

impl Lookups {
    /// Resolves all names at the same time, within [`LOOKUP_WITHIN`]. With `tls`, the backends speak TLS. If a name has no address, the error says which.
    pub(super) fn resolve(names: Vec<BackendName>, tls: Option<Arc<ToBackends>>) -> io::Result<Self> {
        let ask: Ask = match tls {
            None => Arc::new(BackendName::resolve),
            Some(setup) => Arc::new(move |name| name.resolve_tls(&setup)),
        };
        Self::resolve_with(names, ask, LOOKUP_WITHIN)
    }

    fn resolve_with(names: Vec<BackendName>, ask: Ask, within: Duration) -> io::Result<Self> {
        let new = |name| Lookup { name, addresses: Vec::new(), under_way: None };
        let mut all = Self { names: names.into_iter().map(new).collect(), ask };
        let deadline = Instant::now() + within;
        // Start all lookups before waiting for the first, so that their times do not add up.
        all.names.iter_mut().for_each(|lookup| lookup.begin(&all.ask, Nanos::MAX));
        for lookup in &mut all.names {
            lookup.addresses = lookup.wait_until(deadline, within)?;
        }
        all.check_number()?;
        Ok(all)
    }

    /// Whether any address can change, so that lookups must be repeated.
    pub(super) fn can_change(&self) -> bool {
        self.names_that_change() > 0
    }

    /// How many names are looked up again and again. Each lookup has a thread.
    pub(super) fn names_that_change(&self) -> usize {
        self.names.iter().filter(|lookup| lookup.name.is_resolved_again()).count()
    }

    /// All known addresses, each once.
    pub(super) fn addresses(&self) -> Vec<BackendAddress> {
        let mut all = Vec::new();
        for address in self.names.iter().flat_map(|lookup| &lookup.addresses) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    fn check_number(&self) -> io::Result<()> {
        match self.addresses().len() {
            0..=BACKENDS_MAX => Ok(()),
            many => {
                Err(io::Error::other(format!("{many} backends are too many: a gate can have {BACKENDS_MAX}")))
            }
        }
    }

    /// Starts a lookup of each name, except where the last one is still under way.
    pub(super) fn begin(&mut self, deadline: Nanos) {
        for lookup in self.names.iter_mut().filter(|lookup| lookup.name.is_resolved_again()) {
            if lookup.under_way.is_none() {
                lookup.begin(&self.ask, deadline);
            }
        }
    }

    /// Whether a lookup is under way.
    pub(super) fn are_under_way(&self) -> bool {
        self.names.iter().any(|lookup| lookup.under_way.is_some())
    }

    /// Takes the answers that have come. A name that cannot be resolved now keeps the addresses it had.
    pub(super) fn take_answers(&mut self, now: Nanos) -> Resolved {
        let mut resolved = Resolved::default();
        for index in 0..self.names.len() {
            let lookup = &mut self.names[index];
            let before = lookup.addresses.clone();
            let error = match lookup.take_answer(now) {
                None => continue,
                Some(Ok(addresses)) => {
                    lookup.addresses = addresses;
                    match self.check_number() {
                        Ok(()) => {
                            resolved.changed |= self.names[index].addresses != before;
                            continue;
                        }
                        Err(error) => error,
                    }
                }
                Some(Err(error)) => error,
            };
            self.names[index].addresses.clone_from(&before);
            resolved.failed.push((error, before));
        }
        resolved
    }
}

impl Lookup {
    fn begin(&mut self, ask: &Ask, deadline: Nanos) {
        let (answered, answer) = bounded(1);
        let (ask, name, failed) = (ask.clone(), self.name.clone(), answered.clone());
        let look = move || drop(answered.send(ask(&name)));
        if self.name.is_resolved_again() {
            let spawned = std::thread::Builder::new().name("resolver".to_owned()).spawn(look);
            if let Err(error) = spawned {
                let _ = failed.try_send(Err(error));
            }
        } else {
            // This is an address already, so nothing blocks.
            look();
        }
        self.under_way = Some(UnderWay { answer, deadline, late: false });
    }

    fn wait_until(&mut self, deadline: Instant, within: Duration) -> Answer {
        let Some(under_way) = self.under_way.take() else { return Ok(self.addresses.clone()) };
        match under_way.answer.recv_deadline(deadline) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(self.no_answer(within)),
            Err(RecvTimeoutError::Disconnected) => Err(self.no_answer(Duration::ZERO)),
        }
    }

    /// The answer, or the error that there was none in time; each is returned once. `None` while there is neither.
    fn take_answer(&mut self, now: Nanos) -> Option<Answer> {
        let under_way = self.under_way.as_mut()?;
        match under_way.answer.try_recv() {
            Ok(answer) => {
                self.under_way = None;
                Some(answer)
            }
            Err(crossbeam_channel::TryRecvError::Disconnected) => {
                self.under_way = None;
                Some(Err(self.no_answer(Duration::ZERO)))
            }
            Err(crossbeam_channel::TryRecvError::Empty) if now >= under_way.deadline && !under_way.late => {
                under_way.late = true;
                Some(Err(self.no_answer(LOOKUP_WITHIN)))
            }
            Err(crossbeam_channel::TryRecvError::Empty) => None,
        }
    }

    fn no_answer(&self, within: Duration) -> io::Error {
        let name = &self.name;
        let why = match within {
            Duration::ZERO => "the lookup ended without an answer".to_owned(),
            time => format!("no answer within {}", crate::limits::show_time(time)),
        };
        io::Error::new(io::ErrorKind::TimedOut, format!("cannot resolve {name}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    fn names(texts: &[&str]) -> Vec<BackendName> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<BackendAddress> {
        texts.iter().flat_map(|text| text.parse::<BackendName>().unwrap().resolve().unwrap()).collect()
    }

    /// Takes answers until there are none to wait for.
    fn settle(lookups: &mut Lookups, now: Nanos) -> Resolved {
        let mut all = Resolved::default();
        let began = Instant::now();
        while lookups.are_under_way() {
            let Resolved { changed, failed } = lookups.take_answers(now);
            all.changed |= changed;
            all.failed.extend(failed);
            assert!(began.elapsed() < 20 * SECOND, "an answer comes");
            std::thread::yield_now();
        }
        all
    }

    #[test]
    fn a_name_that_changes_its_address_is_followed_and_one_that_fails_keeps_what_it_had() {
        let said = Arc::new(Mutex::new(Ok(vec!["10.0.0.1:80"])));
        let answers = said.clone();
        let ask: Ask = Arc::new(move |name| match (name.to_string().as_str(), &*answers.lock().unwrap()) {
            ("b.example:80", _) => Ok(addresses(&["10.0.9.9:80"])),
            ("a.example:80", Ok(texts)) => Ok(addresses(texts)),
            ("a.example:80", Err(why)) => Err(io::Error::other(*why)),
            _ => name.resolve(),
        });
        let all = names(&["a.example:80", "b.example:80", "127.0.0.1:9", "a.example:80"]);
        let mut lookups = Lookups::resolve_with(all, ask, SECOND).unwrap();
        assert!(lookups.can_change() && !lookups.are_under_way());
        assert_eq!(lookups.addresses(), addresses(&["10.0.0.1:80", "10.0.9.9:80", "127.0.0.1:9"]));
        for (says, changed, failed, now_at) in [
            (Ok(vec!["10.0.0.1:80"]), false, 0, vec!["10.0.0.1:80"]),
            (Ok(vec!["10.0.0.2:80", "10.0.0.3:80"]), true, 0, vec!["10.0.0.2:80", "10.0.0.3:80"]),
            (Err("no such name"), false, 2, vec!["10.0.0.2:80", "10.0.0.3:80"]),
            (Ok(vec!["10.0.0.3:80"]), true, 0, vec!["10.0.0.3:80"]),
        ] {
            *said.lock().unwrap() = says;
            lookups.begin(Nanos::MAX);
            let resolved = settle(&mut lookups, 0);
            assert_eq!((resolved.changed, resolved.failed.len()), (changed, failed));
            let expected = [&now_at[..], &["10.0.9.9:80", "127.0.0.1:9"]].concat();
            assert_eq!(lookups.addresses(), addresses(&expected));
        }
    }

    #[test]
    fn a_resolver_that_hangs_is_waited_for_once_and_holds_one_thread_for_each_name() {
        let (asked, hangs) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
        let (count, gate) = (asked.clone(), hangs.clone());
        let ask: Ask = Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            drop(gate.lock());
            Ok(addresses(&["10.0.0.1:80"]))
        });
        let mut lookups =
            Lookups::resolve_with(names(&["a.example:80", "b.example:80"]), ask, SECOND).unwrap();
        let held = hangs.lock().unwrap();
        let asked_once = asked.load(Ordering::SeqCst) + 2;
        for round in 0..50 {
            lookups.begin(10);
            let failed = lookups.take_answers(if round < 10 { 9 } else { 11 }).failed;
            // It is said once, when its time is over.
            assert_eq!(failed.len(), if round == 10 { 2 } else { 0 }, "round {round}");
            assert!(
                failed.iter().all(|(why, kept)| why.to_string().contains("no answer") && kept.len() == 1)
            );
        }
        assert_eq!(lookups.addresses(), addresses(&["10.0.0.1:80"]));
        drop(held);
        let resolved = settle(&mut lookups, 12);
        assert!(resolved.failed.is_empty() && !resolved.changed, "late, and welcome");
        assert_eq!(asked.load(Ordering::SeqCst), asked_once, "no second thread for a name that hangs");
    }

    #[test]
    fn at_the_start_a_resolver_that_hangs_is_an_error_that_names_the_name() {
        let (_keep, never) = bounded::<()>(0);
        let ask: Ask = Arc::new(move |name| {
            let _ = never.recv();
            name.resolve()
        });
        let began = Instant::now();
        let all = names(&["a.example:80", "b.example:80"]);
        let error = Lookups::resolve_with(all, ask, Duration::from_millis(50)).unwrap_err().to_string();
        assert_eq!(error, "cannot resolve a.example:80: no answer within 50ms");
        assert!(began.elapsed() < 5 * SECOND, "both were waited for together");
    }

    #[test]
    fn a_name_with_too_many_addresses_is_an_error_and_later_no_change() {
        let many = Arc::new(AtomicUsize::new(BACKENDS_MAX));
        let number = many.clone();
        let ask: Ask = Arc::new(move |_| {
            let all = 0..number.load(Ordering::SeqCst) as u32;
            Ok(all.map(|n| BackendAddress::Tcp((std::net::Ipv4Addr::from(n), 80).into())).collect())
        });
        let mut lookups = Lookups::resolve_with(names(&["a.example:80"]), ask.clone(), SECOND).unwrap();
        many.store(BACKENDS_MAX + 1, Ordering::SeqCst);
        lookups.begin(Nanos::MAX);
        let resolved = settle(&mut lookups, 0);
        assert_eq!((resolved.changed, resolved.failed.len()), (false, 1));
        assert_eq!(lookups.addresses().len(), BACKENDS_MAX);
        let error = Lookups::resolve_with(names(&["a.example:80"]), ask, SECOND).unwrap_err().to_string();
        assert!(error.contains("257 backends are too many: a gate can have 256"), "{error}");
    }
}
