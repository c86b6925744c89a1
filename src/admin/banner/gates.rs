//! What the banner says of gates: their places are taken, or their backends cannot be reached.

use super::super::show;
use super::lately::Lately;
use crate::metrics::backends::{BackendSnapshot, BackendsSnapshot};
use crate::metrics::snapshot::{ListenerSnapshot, Snapshot};
use crate::reason::{BackendFailure, DropReason};

/// How many gates are named in one sentence.
const NAMED_MAX: usize = 3;

const ADVICE_PLACES: &str = "If a backend has processors to spare, raise --backend-connections. If none has, add a backend or make its requests cheaper.";

/// A listener that is a gate, and what is known of its backends.
type Gate<'s> = (&'s ListenerSnapshot, &'s BackendsSnapshot);

/// The listeners that are gates and are not closed.
pub(super) fn gates(seen: &Snapshot) -> impl Iterator<Item = Gate<'_>> {
    seen.listeners.iter().filter(|l| !l.is_closed).filter_map(|l| Some((l, l.backends.as_ref()?)))
}

/// The gate that turned clients away for this reason, if gates did so for most of them; and why, and what to do. At a gate,
/// clients do not wait for workers but for places at backends.
pub(super) fn turns_away(
    reason: DropReason,
    seen: &Snapshot,
    lately: &Lately,
) -> Option<(String, &'static str)> {
    if !matches!(reason, DropReason::QueueFull | DropReason::QueueTimeout) {
        return None;
    }
    let all = lately.refused(reason);
    let by_gates: u64 = lately.gates.iter().map(|gate| gate.of(reason)).sum();
    let gate = match all {
        // It is known from another source than the history.
        0 => gates(seen).find(|(_, gate)| is_full(gate)),
        _ if by_gates * 2 < all => None,
        _ => {
            let most = lately.gates.iter().max_by_key(|gate| gate.of(reason))?;
            let listener = seen.listeners.get(most.at)?;
            listener.backends.as_ref().map(|gate| (listener, gate))
        }
    };
    gate.map(|gate| (why_places(gate), ADVICE_PLACES))
}

fn is_full(gate: &BackendsSnapshot) -> bool {
    gate.in_use >= gate.limit && gate.limit > 0
}

/// The refusals are of the last seconds and the places are as they are now: where one is free again, that is said too.
fn why_places((listener, gate): Gate<'_>) -> String {
    let n = show::number;
    let (name, places, waiting) = (&listener.listener, n(gate.limit), n(gate.waiting));
    let most = n(gate.waiting_limit);
    if is_full(gate) {
        return format!(
            "All {places} places at the backends of {name} are taken: {waiting} wait for one, limit {most}."
        );
    }
    let in_use = n(gate.in_use);
    format!(
        "Bursts overflow the places at the backends of {name}: {in_use} of {places} are taken at this moment, \
         {waiting} wait for one, limit {most}."
    )
}

/// Why nobody can be served at some gates, and what to do, if no backend of theirs is up.
pub(super) fn without_backend(seen: &Snapshot, lately: &Lately) -> Option<(String, &'static str)> {
    let lost: Vec<_> = gates(seen).filter(|(_, gate)| !gate.is_any_up()).collect();
    let names = named(lost.iter().map(|(listener, _)| listener.listener.clone()))?;
    let ailment = Ailment::of(lost.iter().map(|(_, gate)| *gate));
    let why = match ailment {
        Ailment::Unreachable => format!("No backend of {names} can be reached."),
        Ailment::Unwell => format!("No backend of {names} answers its checks as it should."),
    };
    let refused = match lately.refused(DropReason::NoBackend) {
        0 => String::new(),
        count => format!(" {} refused in the last {:.0} s.", show::number(count), lately.seconds.max(1.0)),
    };
    Some((why + &refused, ailment.advice()))
}

/// The backends that are set aside, if any are, and what to do.
pub(super) fn set_aside(seen: &Snapshot) -> Option<(String, &'static str)> {
    let some: Vec<_> = gates(seen).filter(|(_, gate)| aside(gate).next().is_some()).collect();
    let names = named(some.iter().map(|(listener, gate)| {
        let all = gate.backends.iter().filter(|backend| !backend.leaving).count() as u64;
        let aside = show::number(aside(gate).count() as u64);
        format!("{aside} of {} of {}", show::some(all, "backend"), listener.listener)
    }))?;
    let one = some.iter().map(|(_, gate)| aside(gate).count()).sum::<usize>() == 1;
    let ailment = Ailment::of(some.iter().map(|(_, gate)| *gate));
    let ails = match (ailment, one) {
        (Ailment::Unreachable, _) => "cannot be reached",
        (Ailment::Unwell, true) => "does not answer its checks as it should",
        (Ailment::Unwell, false) => "do not answer their checks as they should",
    };
    Some((format!("{names} {ails} and {} set aside.", if one { "is" } else { "are" }), ailment.advice()))
}

fn aside(gate: &BackendsSnapshot) -> impl Iterator<Item = &BackendSnapshot> {
    gate.backends.iter().filter(|backend| !backend.leaving && backend.aside_for.is_some())
}

/// The first few of some names, and how many more there are; `None` if there is no name.
fn named(names: impl ExactSizeIterator<Item = String>) -> Option<String> {
    let more = names.len().saturating_sub(NAMED_MAX);
    let first: Vec<_> = names.take(NAMED_MAX).collect();
    match (first.split_last()?, more) {
        ((last, []), _) => Some(last.clone()),
        ((last, others), 0) => Some(format!("{} and {last}", others.join(", "))),
        (_, more) => Some(format!("{} and {more} more", first.join(", "))),
    }
}

/// What is wrong with backends that are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ailment {
    /// Some cannot be reached.
    Unreachable,
    /// All can be reached, and answer their checks with an error, or not in HTTP.
    Unwell,
}

impl Ailment {
    fn of<'g>(gates: impl Iterator<Item = &'g BackendsSnapshot>) -> Self {
        let mut all = gates.flat_map(aside).peekable();
        let any = all.peek().is_some();
        let unwell = |backend: &BackendSnapshot| backend.last_failure == Some(BackendFailure::Unhealthy);
        if any && all.all(unwell) { Ailment::Unwell } else { Ailment::Unreachable }
    }

    const fn advice(self) -> &'static str {
        match self {
            Ailment::Unreachable => {
                "The table of backends below says which, since when and why: check that they run and listen."
            }
            Ailment::Unwell => {
                "The table of backends below says which, and what they answered: look at their logs, and at --backend-check-path."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, dropped, serving};
    use super::super::{Banner, Condition};
    use super::*;
    use crate::admin::history::{GATE_REASONS, GateRefusals};
    use std::time::Duration;

    /// A server with a gate of two backends beside another listener.
    fn gate() -> Snapshot {
        let mut seen = Snapshot { workers_busy: 1, queue_length: 0, ..serving() };
        let two = vec![BackendSnapshot::default(); 2];
        let gate =
            BackendsSnapshot { backends: two, in_use: 5, limit: 20, waiting_limit: 16, ..Default::default() };
        let listener = ListenerSnapshot {
            listener: "tcp://a:6000".to_owned(),
            backends: Some(gate),
            ..Default::default()
        };
        seen.listeners.push(listener);
        seen
    }

    fn of(seen: &mut Snapshot) -> &mut BackendsSnapshot {
        seen.listeners[1].backends.as_mut().unwrap()
    }

    /// `all` were refused in all, `by_gate` of them by the gate.
    fn refused(reason: DropReason, all: u64, by_gate: u64) -> Lately {
        let refused = GATE_REASONS.map(|it| if it == reason { by_gate } else { 0 });
        Lately { gates: vec![GateRefusals { at: 1, refused }], ..dropped(reason, all) }
    }

    #[test]
    fn clients_of_a_gate_wait_for_places_and_never_for_workers() {
        let (mut seen, calm) = (gate(), Lately::default());
        check(
            &seen,
            &calm,
            Condition::Serving,
            "nobody waits, 5 of 20 places at backends in use, nobody turned",
        );
        (of(&mut seen).in_use, of(&mut seen).waiting) = (20, 3);
        check(&seen, &calm, Condition::Serving, "20 of 20 places at backends in use and 3 waiting for one,");
        let full =
            "All 20 places at the backends of tcp://a:6000 are taken: 3 wait for one, limit 16. 9 refused in";
        let bursts =
            "Bursts overflow the places at the backends of tcp://a:6000: 19 of 20 are taken at this moment";
        for reason in [DropReason::QueueFull, DropReason::QueueTimeout] {
            for (in_use, words) in [(20, full), (19, bursts)] {
                of(&mut seen).in_use = in_use;
                let lately = refused(reason, 9, 9);
                check(&seen, &lately, Condition::Shedding, words);
                let advice = Banner::new(&seen, &lately).advice;
                assert!(
                    advice.contains("--backend-connections") && !advice.contains("--workers"),
                    "{advice}"
                );
            }
            // The other listener refused most.
            let lately = refused(reason, 9, 2);
            assert!(Banner::new(&seen, &lately).advice.contains("--workers"));
        }
    }

    #[test]
    fn requests_that_a_gate_refuses_are_turned_away_like_connections() {
        let mut lately = refused(DropReason::QueueFull, 0, 2400);
        lately.dropped.requests[DropReason::QueueFull as usize] = 2400;
        let mut seen = gate();
        of(&mut seen).in_use = 20;
        check(&seen, &lately, Condition::Shedding, "limit 16. 2,400 requests refused in the last 3 s.");
        lately.dropped.connections[DropReason::QueueFull as usize] = 100;
        check(&seen, &lately, Condition::Shedding, "2,500 requests and connections refused in the last 3 s.");
    }

    #[test]
    fn backends_that_are_set_aside_are_told_of_at_every_gate() {
        let (mut seen, calm) = (gate(), Lately::default());
        let aside = Some(Duration::from_secs(3));
        of(&mut seen).backends[1].aside_for = aside;
        let words = "1 of 2 backends of tcp://a:6000 cannot be reached and is set aside.";
        check(&seen, &calm, Condition::Warning, words);
        of(&mut seen).backends[1].last_failure = Some(BackendFailure::Unhealthy);
        check(
            &seen,
            &calm,
            Condition::Warning,
            "tcp://a:6000 does not answer its checks as it should and is set",
        );
        let mut others = [seen.listeners[1].clone(), seen.listeners[1].clone(), seen.listeners[1].clone()];
        for (other, name) in others.iter_mut().zip(["b", "c", "d"]) {
            other.listener = name.to_owned();
        }
        seen.listeners.extend(others);
        let words =
            "1 of 2 backends of tcp://a:6000, 1 of 2 backends of b, 1 of 2 backends of c and 1 more do not";
        check(&seen, &calm, Condition::Warning, words);
        seen.listeners.truncate(2);
        of(&mut seen).backends[1].leaving = true;
        check(&seen, &calm, Condition::Serving, "nobody turned away");
    }

    #[test]
    fn a_gate_without_a_backend_serves_nobody_and_every_such_gate_is_named() {
        let mut seen = gate();
        for backend in &mut of(&mut seen).backends {
            backend.aside_for = Some(Duration::from_secs(3));
        }
        seen.listeners
            .push(ListenerSnapshot { listener: "https://b".to_owned(), ..seen.listeners[1].clone() });
        check(
            &seen,
            &Lately::default(),
            Condition::Shedding,
            "No backend of tcp://a:6000 and https://b can be reached.",
        );
        seen.listeners[2].is_closed = true;
        check(&seen, &Lately::default(), Condition::Shedding, "No backend of tcp://a:6000 can be reached.");
        seen.listeners[2].is_closed = false;
        let lately = refused(DropReason::NoBackend, 9, 9);
        check(&seen, &lately, Condition::Shedding, "can be reached. 9 refused in the last 3 s.");
        let advice = Banner::new(&seen, &lately).advice;
        assert!(advice.contains("check that they run"), "{advice}");
        for listener in &mut seen.listeners[1..] {
            for backend in &mut listener.backends.as_mut().unwrap().backends {
                backend.last_failure = Some(BackendFailure::Unhealthy);
            }
        }
        check(
            &seen,
            &lately,
            Condition::Shedding,
            "No backend of tcp://a:6000 and https://b answers its checks as",
        );
    }
}
