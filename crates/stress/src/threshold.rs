//! Thresholds: conditions on measurements, such as `p99<50ms`, `error_rate<0.1%`, `probe.p95<=20ms` or `reset<1`.

use super::outcome::Outcome;
use super::report::{Latency, Measured, Report, ThresholdReport};
use super::text;
use std::str::FromStr;
use tidegate_units as units;

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    text: String,
    /// Of the probe, and not of the load.
    probe: bool,
    metric: Metric,
    comparison: Comparison,
    limit: f64,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Metric {
    Latency(Kind, Statistic),
    /// Requests sent that were not answered well, of those sent.
    ErrorRate,
    /// Requests answered well a second.
    Rate,
    /// The same of those that were answered in time.
    UsefulRate,
    /// Good replies that came too late: a count, or with `%` a share of the requests sent.
    TooLate(bool),
    /// Useful replies in the measured second that had the fewest.
    WorstSecond,
    SilentSeconds,
    Done,
    Unsent,
    /// A count, or with `%` a share of those sent.
    Outcome(Outcome, bool),
    /// Replies over HTTP of this class: a count.
    Status(u8),
    LagP99,
    Cpu,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Response,
    Service,
    Connect,
    Handshake,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Statistic {
    Min,
    Mean,
    Max,
    Quantile(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Comparison::Less => value < limit,
            Comparison::LessOrEqual => value <= limit,
            Comparison::Greater => value > limit,
            Comparison::GreaterOrEqual => value >= limit,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a threshold: write a measure, < <= > or >=, and a limit, like p99<50ms, \
                 service.p50<=2ms, handshake.p99<50ms, error_rate<0.1%, rate>1000, worst_second.rate>900, \
                 too_late<1%, reset<1 or probe.p99<20ms"
            )
        };
        let at = text.find(['<', '>']).ok_or_else(wrong)?;
        let (name, rest) = text.split_at(at);
        let (comparison, limit) = match rest.as_bytes() {
            [b'<', b'=', ..] => (Comparison::LessOrEqual, &rest[2..]),
            [b'<', ..] => (Comparison::Less, &rest[1..]),
            [b'>', b'=', ..] => (Comparison::GreaterOrEqual, &rest[2..]),
            _ => (Comparison::Greater, &rest[1..]),
        };
        let (name, limit) = (name.trim(), limit.trim());
        let (probe, name) = match name.strip_prefix("probe.") {
            Some(name) => (true, name),
            None => (false, name),
        };
        let metric = metric(name, limit).ok_or_else(wrong)?;
        Ok(Self {
            text: text.to_owned(),
            probe,
            metric,
            comparison,
            limit: limit_of(metric, limit).ok_or_else(wrong)?,
        })
    }
}

fn metric(name: &str, limit: &str) -> Option<Metric> {
    let plain = match name {
        "error_rate" => Some(Metric::ErrorRate),
        "rate" => Some(Metric::Rate),
        "useful_rate" => Some(Metric::UsefulRate),
        "too_late" => Some(Metric::TooLate(limit.ends_with('%'))),
        "worst_second.rate" => Some(Metric::WorstSecond),
        "silent_seconds" => Some(Metric::SilentSeconds),
        "done" => Some(Metric::Done),
        "unsent" => Some(Metric::Unsent),
        "lag_p99" => Some(Metric::LagP99),
        "cpu" => Some(Metric::Cpu),
        _ => None,
    };
    let outcome = || Outcome::ALL.iter().find(|outcome| outcome.as_str() == name);
    if plain.is_some() {
        return plain;
    }
    if let Some(outcome) = outcome() {
        return Some(Metric::Outcome(*outcome, limit.ends_with('%')));
    }
    if let [class @ b'1'..=b'5', b'x', b'x'] = name.as_bytes() {
        return Some(Metric::Status(class - b'0'));
    }
    let (kind, name) = match name.split_once('.') {
        Some(("response", name)) => (Kind::Response, name),
        Some(("service", name)) => (Kind::Service, name),
        Some(("connect", name)) => (Kind::Connect, name),
        Some(("handshake", name)) => (Kind::Handshake, name),
        _ => (Kind::Response, name),
    };
    let statistic = match name {
        "min" => Statistic::Min,
        "mean" => Statistic::Mean,
        "max" => Statistic::Max,
        _ => {
            let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
            (0.0..=100.0).contains(&percent).then_some(Statistic::Quantile(percent / 100.0))?
        }
    };
    Some(Metric::Latency(kind, statistic))
}

fn limit_of(metric: Metric, text: &str) -> Option<f64> {
    match metric {
        Metric::Latency(..) | Metric::LagP99 => units::duration(text).ok().map(|t| t.as_secs_f64()),
        Metric::Rate | Metric::UsefulRate | Metric::WorstSecond => units::rate(text).ok(),
        Metric::ErrorRate | Metric::Cpu | Metric::Outcome(_, true) | Metric::TooLate(true) => share(text),
        Metric::TooLate(false)
        | Metric::Done
        | Metric::Unsent
        | Metric::SilentSeconds
        | Metric::Outcome(_, false)
        | Metric::Status(_) => units::count(text).ok().map(|count| count as f64),
    }
}

/// `0.1%`, or the same as a number: `0.001`.
pub fn share(text: &str) -> Option<f64> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().ok()? * unit;
    (share.is_finite() && share >= 0.0).then_some(share)
}

impl Threshold {
    /// Whether it is about the probe.
    pub(crate) fn is_of_probe(&self) -> bool {
        self.probe
    }

    /// Whether it is about handshakes of TLS.
    pub(crate) fn is_of_handshakes(&self) -> bool {
        matches!(self.metric, Metric::Latency(Kind::Handshake, _) | Metric::Outcome(Outcome::TlsFailed, _))
    }

    /// The condition as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Judges a report. What was not measured fails: nothing shows that it is good.
    pub(crate) fn judge(&self, report: &Report) -> ThresholdReport {
        let measured = match self.probe {
            true => report.probe.as_ref(),
            false => Some(&report.measured),
        };
        let value = measured.and_then(|measured| self.value(measured, report));
        ThresholdReport {
            expression: self.text.clone(),
            value: value.map(|value| self.show(value)),
            passed: value.is_some_and(|value| self.comparison.holds(value, self.limit)),
        }
    }

    fn value(&self, measured: &Measured, report: &Report) -> Option<f64> {
        let sent = measured.sent as f64;
        match self.metric {
            Metric::Latency(kind, statistic) => {
                let latency = match kind {
                    Kind::Response => &measured.latency.response,
                    Kind::Service => &measured.latency.service,
                    Kind::Connect => &measured.latency.connect,
                    Kind::Handshake => &measured.latency.handshake,
                };
                statistic_of(latency.as_ref()?, statistic)
            }
            Metric::ErrorRate => (measured.sent > 0).then(|| (sent - measured.done as f64) / sent),
            Metric::Rate => Some(measured.rate),
            Metric::UsefulRate => measured.useful_rate,
            Metric::TooLate(false) => measured.too_late.map(|n| n as f64),
            Metric::TooLate(true) => measured.too_late.filter(|_| measured.sent > 0).map(|n| n as f64 / sent),
            Metric::WorstSecond => measured.worst_second.as_ref().map(|worst| worst.rate),
            // Where no whole second was measured, none was told apart.
            Metric::SilentSeconds => measured.worst_second.as_ref().map(|_| measured.silent_seconds as f64),
            Metric::Done => Some(measured.done as f64),
            Metric::Unsent => Some(measured.unsent as f64),
            Metric::Outcome(outcome, false) => Some(measured.count(outcome) as f64),
            Metric::Outcome(outcome, true) => {
                (measured.sent > 0).then(|| measured.count(outcome) as f64 / sent)
            }
            Metric::Status(class) => {
                let http = measured.http.as_ref()?;
                Some(http.statuses.get(&format!("{class}xx")).copied().unwrap_or(0) as f64)
            }
            Metric::LagP99 => report.generator.lag_p99,
            Metric::Cpu => Some(report.generator.cpu),
        }
    }

    fn show(&self, value: f64) -> String {
        match self.metric {
            Metric::Latency(..) | Metric::LagP99 => text::time(value),
            Metric::ErrorRate | Metric::Cpu | Metric::Outcome(_, true) | Metric::TooLate(true) => {
                format!("{:.2}%", 100.0 * value)
            }
            Metric::Rate | Metric::UsefulRate | Metric::WorstSecond => format!("{value:.1}/s"),
            Metric::TooLate(false)
            | Metric::Done
            | Metric::Unsent
            | Metric::SilentSeconds
            | Metric::Outcome(_, false)
            | Metric::Status(_) => {
                format!("{value}")
            }
        }
    }
}

impl Report {
    /// Judges the report by these conditions, in place of those that it was judged by before.
    pub fn judge(&mut self, thresholds: &[Threshold]) {
        self.thresholds = thresholds.iter().map(|threshold| threshold.judge(self)).collect();
    }
}

fn statistic_of(latency: &Latency, statistic: Statistic) -> Option<f64> {
    Some(match statistic {
        Statistic::Min => latency.min,
        Statistic::Mean => latency.mean,
        Statistic::Max => latency.max,
        Statistic::Quantile(quantile) => {
            let histogram = latency.times().ok()?.histogram;
            histogram.value_at_quantile(quantile).min(histogram.max()) as f64 / 1e9
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        for text in [
            "p99<50ms",
            "p99.9 <= 1s",
            "service.p50<2ms",
            "connect.max<1s",
            "handshake.p99<50ms",
            "probe.handshake.mean <= 5ms",
            "tls_failed<1",
            "error_rate<0.1%",
            "rate>1k",
            "reset<1",
            "busy<5%",
            "probe.p99<20ms",
            "cpu<80%",
            "worst_second.rate>900",
            "probe.worst_second.rate >= 1k",
            "silent_seconds<1",
            "useful_rate>1k",
            "too_late<1",
            "probe.too_late<=0.5%",
        ] {
            assert!(text.parse::<Threshold>().is_ok(), "{text}");
        }
        for text in [
            "",
            "p99",
            "p99<",
            "p99<50",
            "p101<1s",
            "pxx<1s",
            "speed>3",
            "rate>fast",
            "reset<x",
            "p99=1s",
            "error_rate<-1%",
            "<1s",
            "response.<1s",
            "handshake<1s",
            "handshake.p99<5",
            "worst_second>900",
            "too_late<1s",
            "useful_rate>1%",
            "worst_second.p99<1s",
            "worst_second.rate>900ms",
        ] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
        assert_eq!(share("0.1%"), Some(0.001));
        assert!(Comparison::LessOrEqual.holds(1.0, 1.0) && !Comparison::Less.holds(1.0, 1.0));
        assert!(Comparison::GreaterOrEqual.holds(1.0, 1.0) && !Comparison::Greater.holds(1.0, 1.0));
    }
}
