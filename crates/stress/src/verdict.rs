//! The verdict: whether the server or the generator was the limit, and so whether the numbers speak of the server.

use super::outcome::{Outcome, Outcomes};
use tidegate_units::counted;

/// From this share of its threads' time on, the generator has no room left.
const BUSY: f64 = 0.9;
/// A generator lag under this is never the limit, in seconds.
const LAG: f64 = 0.001;
/// Of the response time's 99th percentile, the generator's own lag may be no more than this share.
const LAG_SHARE: f64 = 0.2;
/// The longest that a load thread may be away from its clients, in seconds; longer, and its seconds cannot be believed.
const PAUSE: f64 = 0.5;
/// Too short a run says nothing of how busy its generator was, in seconds.
const SHORT: f64 = 0.5;
/// An open loop that answers this share of what was offered kept up.
const KEPT_UP: f64 = 0.99;

/// The verdict of a run that says nothing of its server.
pub(crate) const GENERATOR_LIMITED: &str = "generator-limited";

/// What limited the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The name in reports: `server-limited`, `kept-up`, `generator-limited`, `nothing-done` or `interrupted`.
    pub(crate) name: &'static str,
    /// Whether the numbers speak of the server.
    pub(crate) valid: bool,
    /// Why, where it is not plain.
    pub(crate) reason: String,
}

/// What the verdict looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    /// Whether the server's speed leaves alone what it is asked: an open loop, or connections that stay.
    pub(crate) open: bool,
    /// Length of the measured part, in seconds.
    pub(crate) elapsed: f64,
    pub(crate) offered: u64,
    pub(crate) outcomes: &'a Outcomes,
    /// Good replies that came too late to be of use.
    pub(crate) too_late: u64,
    /// Of the busiest thread: on a processor.
    pub(crate) cpu: f64,
    /// Of the busiest thread: on a processor or waiting for one.
    pub(crate) busy: f64,
    /// Seconds; none in a closed loop.
    pub(crate) lag_p99: Option<f64>,
    /// Seconds.
    pub(crate) response_p99: Option<f64>,
    /// Seconds: the longest that a load thread was away from its clients.
    pub(crate) pause_max: f64,
    /// Measured seconds without a useful reply.
    pub(crate) silent_seconds: u64,
    /// The run was ended before its time.
    pub(crate) interrupted: bool,
    /// Time to think is time not spent at the server.
    pub(crate) thinks: bool,
}

/// Judges a run.
pub(crate) fn judge(evidence: Evidence<'_>) -> Verdict {
    let verdict = |name, valid, reason: String| Verdict { name, valid, reason };
    let outcomes = evidence.outcomes;
    if evidence.interrupted {
        let reason = "it was ended before its time, and covers what ran until then";
        return verdict("interrupted", false, reason.to_owned());
    }
    if outcomes[Outcome::Ok] == 0 {
        return verdict("nothing-done", false, "no request was answered well".to_owned());
    }
    if let Some(reason) = generator_limit(&evidence) {
        return verdict(GENERATOR_LIMITED, false, reason);
    }
    let enough = |replies: u64| replies as f64 >= KEPT_UP * evidence.offered as f64;
    let (ok, late) = (outcomes[Outcome::Ok], evidence.too_late);
    let reason = match evidence.silent_seconds {
        0 if enough(ok) && !enough(ok.saturating_sub(late)) => format!("{late} replies came too late"),
        0 => String::new(),
        1 => "there was no useful reply in one of its seconds".to_owned(),
        n => format!("there was no useful reply in {n} of its seconds"),
    };
    match evidence.open || evidence.thinks {
        true if enough(ok) && reason.is_empty() => verdict("kept-up", true, String::new()),
        _ => verdict("server-limited", true, reason),
    }
}

fn generator_limit(evidence: &Evidence<'_>) -> Option<String> {
    let outcomes = evidence.outcomes;
    if outcomes[Outcome::AddressUnavailable] > 0 {
        return Some(format!(
            "{} found no free port: use --reuse, --close rst or --source-ip",
            counted(outcomes[Outcome::AddressUnavailable], "connection")
        ));
    }
    if outcomes[Outcome::DescriptorLimit] > 0 {
        return Some(format!(
            "{} found no free descriptor: use fewer connections",
            counted(outcomes[Outcome::DescriptorLimit], "connection")
        ));
    }
    if outcomes[Outcome::Skipped] * 1000 > evidence.offered {
        return Some(format!("{} requests were noticed too late to be sent", outcomes[Outcome::Skipped]));
    }
    if outcomes[Outcome::GeneratorLate] * 1000 > evidence.offered {
        let cut = outcomes[Outcome::GeneratorLate];
        return Some(format!(
            "{cut} half-sent requests were ended by the server while a load thread was away"
        ));
    }
    if let (Some(lag), Some(response)) = (evidence.lag_p99, evidence.response_p99)
        && lag > LAG
        && lag > LAG_SHARE * response
    {
        let share = (100.0 * lag / response).min(100.0);
        return Some(format!("its lag is {share:.0}% of the response time (p99)"));
    }
    if let Some(reason) = no_rest(evidence) {
        return Some(reason);
    }
    if evidence.pause_max > PAUSE {
        return Some(format!(
            "a load thread was away from its clients for {:.1} s: it could not keep its seconds",
            evidence.pause_max
        ));
    }
    None
}

/// Its busiest thread had no room left.
fn no_rest(evidence: &Evidence<'_>) -> Option<String> {
    if evidence.elapsed < SHORT {
        return None;
    }
    if evidence.busy >= BUSY && evidence.cpu < evidence.busy / 2.0 {
        return Some(format!(
            "its busiest thread wanted a processor {:.0}% of the time and had one {:.0}%: this machine is too busy",
            100.0 * evidence.busy,
            100.0 * evidence.cpu
        ));
    }
    if evidence.busy >= BUSY {
        return Some(format!(
            "its busiest thread had no rest ({:.0}% busy): use --threads, fewer connections or a lower rate",
            100.0 * evidence.busy
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_named() {
        let outcomes = |ok, skipped, no_port| {
            let mut outcomes = Outcomes::default();
            outcomes[Outcome::Ok] = ok;
            outcomes[Outcome::Skipped] = skipped;
            outcomes[Outcome::AddressUnavailable] = no_port;
            outcomes
        };
        for (open, ok, skipped, no_port, busy, lag, response, name) in [
            (true, 1000, 0, 0, 0.3, Some(0.0002), Some(0.001), "kept-up"),
            (true, 900, 0, 0, 0.3, Some(0.0002), Some(0.001), "server-limited"),
            (false, 1000, 0, 0, 0.5, None, Some(0.001), "server-limited"),
            (false, 1000, 0, 0, 0.95, None, Some(0.001), "generator-limited"),
            (true, 1000, 0, 0, 0.3, Some(0.004), Some(0.005), "generator-limited"),
            (true, 1000, 0, 0, 0.3, Some(0.004), Some(0.8), "kept-up"),
            (true, 990, 10, 0, 0.3, Some(0.0), Some(0.1), "generator-limited"),
            (true, 999, 0, 1, 0.3, Some(0.0), Some(0.1), "generator-limited"),
            (true, 0, 0, 0, 0.3, None, None, "nothing-done"),
        ] {
            let verdict = judge(Evidence {
                open,
                elapsed: 1.0,
                offered: 1000,
                outcomes: &outcomes(ok, skipped, no_port),
                too_late: 0,
                cpu: busy,
                busy,
                lag_p99: lag,
                response_p99: response,
                pause_max: 0.0,
                silent_seconds: 0,
                interrupted: false,
                thinks: false,
            });
            assert_eq!(verdict.name, name);
            assert_eq!(verdict.valid, !matches!(name, "generator-limited" | "nothing-done"), "{name}");
        }
    }

    #[test]
    fn silent_seconds_and_pauses_and_an_early_end_count() {
        let mut outcomes = Outcomes::default();
        outcomes[Outcome::Ok] = 1000;
        let sound = Evidence {
            open: true,
            elapsed: 10.0,
            offered: 1000,
            outcomes: &outcomes,
            too_late: 0,
            cpu: 0.1,
            busy: 0.1,
            lag_p99: Some(0.0),
            response_p99: Some(0.1),
            pause_max: 0.4,
            silent_seconds: 0,
            interrupted: false,
            thinks: false,
        };
        for (evidence, name, valid, says) in [
            (sound, "kept-up", true, ""),
            (Evidence { silent_seconds: 1, ..sound }, "server-limited", true, "in one of its seconds"),
            (Evidence { too_late: 10, ..sound }, "kept-up", true, ""),
            (Evidence { too_late: 11, ..sound }, "server-limited", true, "11 replies came too late"),
            (
                Evidence { too_late: 900, silent_seconds: 2, ..sound },
                "server-limited",
                true,
                "no useful reply in 2 of",
            ),
            (Evidence { silent_seconds: 3, ..sound }, "server-limited", true, "in 3 of its seconds"),
            (
                Evidence { pause_max: 2.4, ..sound },
                "generator-limited",
                false,
                "away from its clients for 2.4 s",
            ),
            (Evidence { interrupted: true, ..sound }, "interrupted", false, "before its time"),
            (
                Evidence { interrupted: true, pause_max: 2.0, ..sound },
                "interrupted",
                false,
                "before its time",
            ),
        ] {
            let verdict = judge(evidence);
            assert_eq!((verdict.name, verdict.valid), (name, valid), "{verdict:?}");
            assert!(
                verdict.reason.contains(says) && verdict.reason.is_empty() == says.is_empty(),
                "{verdict:?}"
            );
        }
    }
}
