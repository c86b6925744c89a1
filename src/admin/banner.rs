//! The banner of the status page: the state of the server in one word, and the reason in one sentence.

mod gates;
mod lately;

use super::show;
use crate::metrics::snapshot::{Phase, Snapshot};
use crate::reason::{DatagramDrop, DropReason, TurnShed};
use std::time::Duration;

pub(super) use lately::Lately;

/// The banner's states, each with a colour of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
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

impl Condition {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Condition::Serving => "serving",
            Condition::Warning => "warning",
            Condition::Shedding => "shedding",
            Condition::Draining => "draining",
            Condition::Down => "down",
        }
    }
}

/// The banner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Banner {
    pub(super) state: Condition,
    pub(super) title: &'static str,
    pub(super) why: String,
    /// What a person can do about it; nothing where there is nothing to do.
    pub(super) advice: &'static str,
}

impl Banner {
    pub(super) fn new(seen: &Snapshot, lately: &Lately) -> Self {
        let open: u64 = seen.listeners.iter().map(|l| l.open()).sum();
        let say = |state, title, why| Self { state, title, why, advice: "" };
        let ask = |state, title, (why, advice)| Self { state, title, why, advice };
        match seen.phase {
            Phase::Starting => {
                return say(Condition::Down, "Starting", "It is bound and does not serve yet.".to_owned());
            }
            Phase::Stopped => return say(Condition::Down, "Stopped", "It has ended.".to_owned()),
            Phase::Leaving => {
                let why = "It was told to end. It still accepts, and /readyz answers 503 so that no more traffic is sent to it.";
                return say(Condition::Draining, "Leaving", why.to_owned());
            }
            Phase::Draining => {
                let why = format!(
                    "It was told to end and accepts no more; {} left to finish.",
                    show::some(open, "connection")
                );
                return say(Condition::Draining, "Draining", why);
            }
            Phase::Serving => {}
        }
        if let Some(said) = gates::without_backend(seen, lately) {
            return ask(Condition::Shedding, "Without a backend", said);
        }
        if let Some(reason) = shedding(seen, lately) {
            let standing =
                seen.standing.map_or(String::new(), |time| format!(" {}", why_standing(seen, time)));
            let (why, advice) = gates::turns_away(reason, seen, lately)
                .unwrap_or_else(|| (why_shedding(reason, seen, lately), advice_shedding(reason)));
            let said = (why + &how_many(reason, lately) + &standing, advice);
            return ask(Condition::Shedding, "Shedding load", said);
        }
        if let Some(said) = shedding_requests(seen, lately) {
            return ask(Condition::Shedding, "Shedding load", said);
        }
        if let Some(said) = dropping_datagrams(lately) {
            return ask(Condition::Shedding, "Dropping datagrams", said);
        }
        if let Some(standing) = seen.standing {
            let title =
                if seen.in_order { "Serving, but requests wait" } else { "Serving the freshest first" };
            return ask(Condition::Warning, title, (why_standing(seen, standing), ADVICE_BUSY));
        }
        if let Some(said) = warning(seen, lately) {
            return ask(Condition::Warning, "Serving, under strain", said);
        }
        say(Condition::Serving, "Serving", why_well(seen))
    }
}

/// Why newcomers are turned away now, if they are: what was said most often.
fn shedding(seen: &Snapshot, lately: &Lately) -> Option<DropReason> {
    let count = |reason| lately.refused(reason);
    // A client that leaves by itself, or that a service denies, says nothing of the load.
    let of_load = |reason: &DropReason| {
        !matches!(reason, DropReason::ClientGone | DropReason::Denied | DropReason::ProxyHeader)
    };
    let most = DropReason::ALL.iter().copied().filter(of_load).max_by_key(|&r| count(r));
    most.filter(|&reason| count(reason) > 0).or(seen.shedding.filter(of_load))
}

fn why_shedding(reason: DropReason, seen: &Snapshot, lately: &Lately) -> String {
    let n = show::number;
    match reason {
        DropReason::QueueFull => why_queue_full(seen),
        DropReason::MaxConnections => {
            format!("As many connections are open as max_connections allows ({}).", n(seen.connections_limit))
        }
        DropReason::PerSource => match &lately.source {
            Some(source) => format!("{source} has as many connections as max_per_source allows."),
            None => "A source has as many connections as max_per_source allows.".to_owned(),
        },
        DropReason::Rate => match &lately.source {
            Some(source) => format!("{source} connects faster than source_rate allows."),
            None => "A source connects faster than source_rate allows.".to_owned(),
        },
        DropReason::QueueTimeout => format!(
            "Connections wait for a worker longer than queue_timeout; {} of {} workers are busy.",
            n(seen.workers_busy),
            n(seen.workers_limit)
        ),
        DropReason::FdReserve => "The process is out of file descriptors.".to_owned(),
        DropReason::Draining => "The server is draining.".to_owned(),
        DropReason::NoBackend => "No backend of the gate can be reached.".to_owned(),
        DropReason::ClientGone | DropReason::Denied | DropReason::ProxyHeader => {
            "Newcomers are turned away.".to_owned()
        }
    }
}

/// How many were refused lately for this reason, and whether they are connections or requests.
fn how_many(reason: DropReason, lately: &Lately) -> String {
    let count = lately.refused(reason);
    let what = match lately.dropped.requests[reason as usize] {
        0 => "",
        requests if requests == count => " requests",
        _ => " requests and connections",
    };
    match count {
        0 => String::new(),
        _ => format!(" {}{what} refused in the last {:.0} s.", show::number(count), lately.seconds.max(1.0)),
    }
}

/// Why requests of open connections get no turn now, if any do, and what to do.
fn shedding_requests(seen: &Snapshot, lately: &Lately) -> Option<(String, &'static str)> {
    // A client that left while it waited says the same of the load as one that waited too long, but it may leave for
    // reasons of its own.
    let shed = lately.dropped.turns[TurnShed::QueueTimeout as usize];
    let standing = seen.standing.map_or(String::new(), |time| format!(" {}", why_standing(seen, time)));
    (shed > 0).then(|| {
        let seconds = lately.seconds.max(1.0);
        let why = format!(
            "Requests wait for a worker longer than queue_timeout: {} of open connections were shed in the last \
             {seconds:.0} s.{standing}",
            show::number(shed)
        );
        (why, ADVICE_BUSY)
    })
}

fn why_standing(seen: &Snapshot, standing: Duration) -> String {
    let oldest = match seen.shelf_length {
        0 => String::new(),
        n => format!(
            " {} are set aside, the oldest for {}.",
            show::number(n),
            show::latency(Some(seen.shelf_oldest.as_secs_f64()))
        ),
    };
    let since = show::age(standing);
    if seen.in_order {
        return format!(
            "Requests come faster than they are served; since {since} they wait, and are served in the order in which \
             they came.{oldest}"
        );
    }
    format!(
        "More requests come than the workers can serve; since {since} the freshest are served first.{oldest}"
    )
}

fn advice_shedding(reason: DropReason) -> &'static str {
    match reason {
        DropReason::QueueFull | DropReason::QueueTimeout => ADVICE_BUSY,
        DropReason::MaxConnections => {
            "Look for clients that keep connections they do not use, or raise --max-connections."
        }
        DropReason::PerSource | DropReason::Rate => {
            "Look at the most refused sources below: one client that misbehaves, or many behind one address?"
        }
        DropReason::FdReserve => {
            "Raise the limit of open files (ulimit -n, LimitNOFILE=), or lower --max-connections."
        }
        DropReason::NoBackend => "Check that the backends run, and listen where the gate expects them.",
        DropReason::ClientGone | DropReason::Draining | DropReason::Denied | DropReason::ProxyHeader => "",
    }
}

const ADVICE_BUSY: &str = "If processors are idle, turns wait for something: raise --workers. If none is, add an instance or make turns cheaper.";

/// The refusals are of the last seconds and the queue is as it is now: where it has room again, that is said too.
fn why_queue_full(seen: &Snapshot) -> String {
    let n = show::number;
    let newcomers: u64 = seen.listeners.iter().map(|l| l.newcomers).sum();
    let limit = seen.queue_limit;
    let workers = format!("{} of {} workers are busy", n(seen.workers_busy), n(seen.workers_limit));
    if newcomers < limit {
        return format!(
            "Bursts overflow the queue: {} of {} places are taken at this moment, {workers}.",
            n(newcomers),
            n(limit)
        );
    }
    let queued: u64 = seen.listeners.iter().map(|l| l.queued).sum();
    let turns = show::some(queued.saturating_sub(newcomers), "request");
    format!(
        "The queue is full: {} newcomers wait (limit {}), beside {turns} of open connections; {workers}.",
        n(newcomers),
        n(limit)
    )
}

/// Why datagrams are dropped now, if they are, and what to do.
fn dropping_datagrams(lately: &Lately) -> Option<(String, &'static str)> {
    let count = |reason: DatagramDrop| lately.dropped.datagrams[reason as usize];
    // A datagram that is not meant for a service says nothing of the load.
    let full = count(DatagramDrop::QueueFull) + count(DatagramDrop::QueueTimeout);
    let kernel = count(DatagramDrop::KernelBuffer);
    let (why, advice) = match (full, kernel) {
        (0, 0) => return None,
        (full, kernel) if kernel > full => (
            "They come faster than they are read: the kernel's buffer is full.",
            "Raise net.core.rmem_max, or give the process more of the processor.",
        ),
        _ => ("The workers do not keep up with the queue.", ADVICE_BUSY),
    };
    let seconds = lately.seconds.max(1.0);
    Some((format!("{why} {} dropped in the last {seconds:.0} s.", show::number(full + kernel)), advice))
}

/// What a person should look at though nobody is turned away, and what to do.
fn warning(seen: &Snapshot, lately: &Lately) -> Option<(String, &'static str)> {
    let n = show::number;
    if seen.workers_stuck > 0 {
        let why = format!(
            "{} of {} workers have been in one turn for longer than stuck_threshold.",
            n(seen.workers_stuck),
            n(seen.workers_limit)
        );
        return Some((
            why,
            "See what they wait for before a restart: gdb -p PID -batch -ex 'thread apply all bt'",
        ));
    }
    if let Some(said) = gates::set_aside(seen) {
        return Some(said);
    }
    if let Some(why) = backlog_fills(seen) {
        return Some((
            why,
            "Look for what takes the processor from the acceptor, and for accept errors in the log.",
        ));
    }
    if lately.panics > 0 {
        let why = format!("{} in the last minute.", show::some(lately.panics, "handler panic"));
        return Some((why, "The log has each panic with its place in the code."));
    }
    (lately.utilisation > 0.9).then(|| {
        let why = format!(
            "The workers were busy {:.0} % of the last ten seconds; {} wait for one (limit {}).",
            lately.utilisation * 100.0,
            n(seen.queue_length),
            n(seen.queue_limit)
        );
        (why, ADVICE_BUSY)
    })
}

/// Whether a listener's queue in the kernel is nearly full.
fn backlog_fills(seen: &Snapshot) -> Option<String> {
    let all = seen.listeners.iter().filter_map(|l| l.backlog.map(|b| (l, b)));
    let mut full = all.filter(|(_, b)| b.limit > 0 && b.connections * 5 > b.limit * 4);
    full.next().map(|(listener, backlog)| {
        format!(
            "{} of {} places of the kernel's accept queue are taken at {}.",
            show::number(backlog.connections),
            show::number(backlog.limit),
            listener.listener
        )
    })
}

fn why_well(seen: &Snapshot) -> String {
    let n = show::number;
    let queue = match seen.queue_length {
        0 => "nobody waits".to_owned(),
        waiting => format!("{} waiting (limit {})", n(waiting), n(seen.queue_limit)),
    };
    let (mut in_use, mut limit, mut waiting) = (0, 0, 0);
    for (_, gate) in gates::gates(seen) {
        in_use += gate.in_use;
        limit += gate.limit;
        waiting += gate.waiting;
    }
    let at_backends = match (limit, waiting) {
        (0, _) => String::new(),
        (_, 0) => format!("{} of {} places at backends in use, ", n(in_use), n(limit)),
        _ => format!(
            "{} of {} places at backends in use and {} waiting for one, ",
            n(in_use),
            n(limit),
            n(waiting)
        ),
    };
    format!(
        "{} of {} workers busy, {queue}, {at_backends}nobody turned away.",
        n(seen.workers_busy),
        n(seen.workers_limit)
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metrics::snapshot::{AcceptQueue, ListenerSnapshot};

    pub(super) fn serving() -> Snapshot {
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

    pub(super) fn dropped(reason: DropReason, count: u64) -> Lately {
        let mut lately = Lately { seconds: 3.0, ..Lately::default() };
        lately.dropped.connections[reason as usize] = count;
        lately
    }

    pub(super) fn check(seen: &Snapshot, lately: &Lately, condition: Condition, words: &str) {
        let banner = Banner::new(seen, lately);
        assert_eq!(banner.state, condition, "{banner:?}");
        assert!(banner.why.contains(words), "{banner:?} lacks {words:?}");
    }

    #[test]
    fn a_server_that_serves_says_how_well() {
        let well = Snapshot { workers_busy: 2, queue_length: 0, ..serving() };
        let stuck = Snapshot { workers_stuck: 3, ..well.clone() };
        let standing = Some(Duration::from_secs(12));
        let shelf_oldest = Duration::from_millis(1200);
        let stands = Snapshot { standing, shelf_length: 4210, shelf_oldest, ..well.clone() };
        let in_order = Snapshot { in_order: true, ..stands.clone() };
        let mut backlog = well.clone();
        backlog.listeners[0].backlog = Some(AcceptQueue { connections: 9, limit: 10, drops: 0 });
        let calm = Lately::default();
        let panics = Lately { panics: 1, ..Lately::default() };
        let busy = Lately { utilisation: 0.97, ..Lately::default() };
        let mut reflected = Lately::default();
        reflected.dropped.datagrams[DatagramDrop::RefusedSource as usize] = 70;
        for (seen, lately, condition, words) in [
            (&well, &calm, Condition::Serving, "2 of 32 workers busy, nobody waits, nobody turned away."),
            (&well, &dropped(DropReason::ClientGone, 9), Condition::Serving, "nobody turned away"),
            (&well, &reflected, Condition::Serving, "nobody turned away"),
            (
                &stands,
                &calm,
                Condition::Warning,
                "since 12 s the freshest are served first. 4,210 are set aside",
            ),
            (&stands, &calm, Condition::Warning, "the oldest for 1.2 s."),
            (
                &in_order,
                &calm,
                Condition::Warning,
                "since 12 s they wait, and are served in the order in which they came. 4,210 are set aside",
            ),
            (&stuck, &calm, Condition::Warning, "3 of 32 workers have been in one turn"),
            (&backlog, &calm, Condition::Warning, "9 of 10 places of the kernel's accept queue"),
            (&well, &panics, Condition::Warning, "1 handler panic in the last minute"),
            (&well, &busy, Condition::Warning, "busy 97 %"),
        ] {
            check(seen, lately, condition, words);
        }
    }

    #[test]
    fn a_server_that_sheds_says_why_and_how_much() {
        let mut full = Snapshot { shedding: Some(DropReason::QueueFull), ..serving() };
        (full.listeners[0].queued, full.listeners[0].newcomers) = (153, 128);
        let stands = Snapshot { standing: Some(Duration::from_secs(12)), ..full.clone() };
        let mut turns = Lately { seconds: 3.0, ..Lately::default() };
        turns.dropped.turns[TurnShed::QueueTimeout as usize] = 70;
        let mut calm = serving();
        calm.listeners[0].queued = 30;
        let mut bursts = serving();
        (bursts.listeners[0].queued, bursts.listeners[0].newcomers) = (3, 3);
        let from = |reason| Lately { source: Some("10.0.0.7".to_owned()), ..dropped(reason, 5) };
        let mut kernel = Lately { seconds: 3.0, ..Lately::default() };
        kernel.dropped.datagrams[DatagramDrop::KernelBuffer as usize] = 70;
        for (seen, lately, words) in [
            (
                &full,
                Lately::default(),
                "The queue is full: 128 newcomers wait (limit 128), beside 25 requests of open",
            ),
            (&stands, Lately::default(), "The queue is full: 128 newcomers"),
            (&stands, Lately::default(), "since 12 s the freshest are served first."),
            (&calm, turns, "longer than queue_timeout: 70 of open connections were shed in the last 3 s."),
            (&full, dropped(DropReason::QueueFull, 1204), "1,204 refused in the last 3 s"),
            (&bursts, dropped(DropReason::QueueFull, 40), "Bursts overflow the queue: 3 of 128 places"),
            (&full, from(DropReason::PerSource), "10.0.0.7 has as many connections as"),
            (&full, from(DropReason::Rate), "10.0.0.7 connects faster than source_rate"),
            (&full, dropped(DropReason::FdReserve, 1), "out of file descriptors"),
            (&calm, kernel, "the kernel's buffer is full. 70 dropped in the last 3 s."),
        ] {
            check(seen, &lately, Condition::Shedding, words);
        }
    }

    #[test]
    fn a_server_that_begins_or_ends_says_so() {
        for (phase, condition, words) in [
            (Phase::Starting, Condition::Down, "does not serve yet"),
            (Phase::Leaving, Condition::Draining, "still accepts"),
            (Phase::Draining, Condition::Draining, "3 connections left"),
            (Phase::Stopped, Condition::Down, "ended"),
        ] {
            check(&Snapshot { phase, ..serving() }, &Lately::default(), condition, words);
        }
    }

    #[test]
    fn every_reason_has_words() {
        for &reason in DropReason::ALL {
            assert!(!why_shedding(reason, &serving(), &dropped(reason, 5)).is_empty());
        }
    }
}
