//! How the server is, in a word, and why, in a sentence: the status page's banner.

use super::history::Dropped;
use super::show;
use crate::metrics::snapshot::{Phase, Snapshot};
use crate::reason::{DatagramDrop, DropReason};

/// The banner's states, each with a colour of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// All is well.
    Serving,
    /// It serves, and a person should look.
    Warning,
    /// It turns newcomers away.
    Shedding,
    /// It was told to end.
    Draining,
    /// It is not serving yet, or no more.
    Down,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            State::Serving => "serving",
            State::Warning => "warning",
            State::Shedding => "shedding",
            State::Draining => "draining",
            State::Down => "down",
        }
    }
}

/// What happened lately, beside the snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lately {
    /// What was turned away in the last seconds.
    pub(super) dropped: Dropped,
    /// How many seconds those are.
    pub(super) seconds: f64,
    /// The share of the workers' time spent in turns, in the last ten seconds.
    pub(super) utilisation: f64,
    /// Panics in the last minute.
    pub(super) panics: u64,
}

/// The banner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) state: State,
    pub(super) title: &'static str,
    pub(super) why: String,
}

impl Verdict {
    pub(super) fn new(seen: &Snapshot, lately: &Lately) -> Self {
        let open: u64 = seen.listeners.iter().map(|l| l.open()).sum();
        let say = |state, title, why| Self { state, title, why };
        match seen.phase {
            Phase::Starting => {
                return say(State::Down, "Starting", "It is bound and does not serve yet.".to_owned());
            }
            Phase::Stopped => return say(State::Down, "Stopped", "It has ended.".to_owned()),
            Phase::Leaving => {
                let why = "It was told to end. It still accepts, and /readyz asks for no more traffic.";
                return say(State::Draining, "Leaving", why.to_owned());
            }
            Phase::Draining => {
                let why = format!(
                    "It was told to end and accepts no more; {} left to finish.",
                    show::some(open, "connection")
                );
                return say(State::Draining, "Draining", why);
            }
            Phase::Serving => {}
        }
        if let Some(reason) = shedding(seen, lately) {
            return say(State::Shedding, "Shedding load", why_shedding(reason, seen, lately));
        }
        if let Some(why) = dropping_datagrams(lately) {
            return say(State::Shedding, "Dropping datagrams", why);
        }
        if let Some(why) = warning(seen, lately) {
            return say(State::Warning, "Serving, under strain", why);
        }
        say(State::Serving, "Serving", why_well(seen))
    }
}

/// Why newcomers are turned away now, if they are: what was said most often.
fn shedding(seen: &Snapshot, lately: &Lately) -> Option<DropReason> {
    let count = |reason: DropReason| lately.dropped.connections[reason as usize];
    // A client that leaves by itself, or that a service denies, says nothing of the load.
    let of_load = |reason: &DropReason| !matches!(reason, DropReason::ClientGone | DropReason::Denied);
    let most = DropReason::ALL.iter().copied().filter(of_load).max_by_key(|&r| count(r));
    most.filter(|&reason| count(reason) > 0).or(seen.shedding.filter(of_load))
}

fn why_shedding(reason: DropReason, seen: &Snapshot, lately: &Lately) -> String {
    let n = show::number;
    let why = match reason {
        DropReason::QueueFull => format!(
            "The queue is full: {} wait for a worker, newcomers get in below {}; {} of {} workers are busy.",
            n(seen.queue_length),
            n(seen.queue_limit),
            n(seen.workers_busy),
            n(seen.workers_limit)
        ),
        DropReason::MaxConnections => {
            format!("As many connections are open as max_connections allows ({}).", n(seen.connections_limit))
        }
        DropReason::PerSource => "A source has as many connections as max_per_source allows.".to_owned(),
        DropReason::Rate => "A source connects faster than its rate allows.".to_owned(),
        DropReason::QueueTimeout => format!(
            "Connections wait for a worker longer than queue_timeout; {} of {} workers are busy.",
            n(seen.workers_busy),
            n(seen.workers_limit)
        ),
        DropReason::FdReserve => "The process is out of file descriptors.".to_owned(),
        DropReason::Draining => "The server is draining.".to_owned(),
        DropReason::NoBackend => "No backend can be reached.".to_owned(),
        DropReason::ClientGone | DropReason::Denied => "Newcomers are turned away.".to_owned(),
    };
    let dropped = lately.dropped.connections[reason as usize];
    match dropped {
        0 => why,
        _ => format!("{why} {} refused in the last {:.0} s.", n(dropped), lately.seconds.max(1.0)),
    }
}

/// Why datagrams are dropped now, if they are.
fn dropping_datagrams(lately: &Lately) -> Option<String> {
    let count = |reason: DatagramDrop| lately.dropped.datagrams[reason as usize];
    // Who sends what is not meant for a service says nothing of the load.
    let full = count(DatagramDrop::QueueFull) + count(DatagramDrop::QueueTimeout);
    let kernel = count(DatagramDrop::KernelBuffer);
    let why = match (full, kernel) {
        (0, 0) => return None,
        (full, kernel) if kernel > full => {
            "They come faster than they are read: the kernel's buffer is full."
        }
        _ => "The workers do not keep up with the queue.",
    };
    let seconds = lately.seconds.max(1.0);
    Some(format!("{why} {} dropped in the last {seconds:.0} s.", show::number(full + kernel)))
}

/// What a person should look at though nobody is turned away.
fn warning(seen: &Snapshot, lately: &Lately) -> Option<String> {
    let n = show::number;
    if seen.workers_stuck > 0 {
        return Some(format!(
            "{} of {} workers have been in one turn for longer than stuck_threshold.",
            n(seen.workers_stuck),
            n(seen.workers_limit)
        ));
    }
    let full = seen.listeners.iter().filter_map(|l| l.backlog.map(|b| (l, b)));
    for (listener, backlog) in full {
        if backlog.limit > 0 && backlog.connections * 5 > backlog.limit * 4 {
            return Some(format!(
                "{} of {} places of the kernel's accept queue are taken at {}.",
                n(backlog.connections),
                n(backlog.limit),
                listener.listener
            ));
        }
    }
    if lately.panics > 0 {
        return Some(format!(
            "{} in the last minute: see the log.",
            show::some(lately.panics, "handler panic")
        ));
    }
    (lately.utilisation > 0.9).then(|| {
        format!(
            "The workers were busy {:.0} % of the last ten seconds; {} wait for one (limit {}).",
            lately.utilisation * 100.0,
            n(seen.queue_length),
            n(seen.queue_limit)
        )
    })
}

fn why_well(seen: &Snapshot) -> String {
    let n = show::number;
    let queue = match seen.queue_length {
        0 => "nobody waits".to_owned(),
        waiting => format!("{} waiting (limit {})", n(waiting), n(seen.queue_limit)),
    };
    format!(
        "{} of {} workers busy, {queue}, nobody turned away.",
        n(seen.workers_busy),
        n(seen.workers_limit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::snapshot::{Backlog, ListenerSnapshot};

    fn serving() -> Snapshot {
        Snapshot {
            phase: Phase::Serving,
            workers_limit: 32,
            workers_busy: 32,
            queue_limit: 128,
            queue_length: 128,
            connections_limit: 10_000,
            listeners: vec![ListenerSnapshot { idle: 3, ..ListenerSnapshot::default() }],
            ..Snapshot::default()
        }
    }

    fn dropped(reason: DropReason, count: u64) -> Lately {
        let mut lately = Lately { seconds: 3.0, ..Lately::default() };
        lately.dropped.connections[reason as usize] = count;
        lately
    }

    #[test]
    fn the_banner_says_how_it_is_and_why() {
        let well = Snapshot { workers_busy: 2, queue_length: 0, ..serving() };
        let stuck = Snapshot { workers_stuck: 3, ..well.clone() };
        let mut backlog = well.clone();
        backlog.listeners[0].backlog = Some(Backlog { connections: 9, limit: 10, drops: 0 });
        let at = |phase| Snapshot { phase, ..serving() };
        let shedding = Snapshot { shedding: Some(DropReason::QueueFull), ..serving() };
        let calm = Lately::default();
        let mut kernel = Lately { seconds: 3.0, ..calm };
        kernel.dropped.datagrams[DatagramDrop::KernelBuffer as usize] = 70;
        let mut reflected = calm;
        reflected.dropped.datagrams[DatagramDrop::RefusedSource as usize] = 70;
        for (seen, lately, state, words) in [
            (&well, calm, State::Serving, "2 of 32 workers busy, nobody waits, nobody turned away."),
            (&stuck, calm, State::Warning, "3 of 32 workers have been in one turn"),
            (&backlog, calm, State::Warning, "9 of 10 places of the kernel's accept queue"),
            (&well, Lately { panics: 1, ..calm }, State::Warning, "1 handler panic in the last minute"),
            (&well, Lately { utilisation: 0.97, ..calm }, State::Warning, "busy 97 %"),
            (
                &serving(),
                dropped(DropReason::QueueFull, 1204),
                State::Shedding,
                "The queue is full: 128 wait",
            ),
            (
                &serving(),
                dropped(DropReason::QueueFull, 1204),
                State::Shedding,
                "1,204 refused in the last 3 s",
            ),
            (&shedding, calm, State::Shedding, "The queue is full"),
            (&well, dropped(DropReason::FdReserve, 1), State::Shedding, "out of file descriptors"),
            (&well, dropped(DropReason::ClientGone, 9), State::Serving, "nobody turned away"),
            (&well, kernel, State::Shedding, "the kernel's buffer is full. 70 dropped in the last 3 s."),
            (&well, reflected, State::Serving, "nobody turned away"),
            (&at(Phase::Starting), calm, State::Down, "does not serve yet"),
            (&at(Phase::Leaving), calm, State::Draining, "still accepts"),
            (&at(Phase::Draining), calm, State::Draining, "3 connections left"),
            (&at(Phase::Stopped), calm, State::Down, "ended"),
        ] {
            let verdict = Verdict::new(seen, &lately);
            assert_eq!(verdict.state, state, "{verdict:?}");
            assert!(verdict.why.contains(words), "{verdict:?} lacks {words:?}");
        }
    }

    #[test]
    fn every_reason_has_words() {
        for &reason in DropReason::ALL {
            assert!(!why_shedding(reason, &serving(), &dropped(reason, 5)).is_empty());
        }
    }
}
