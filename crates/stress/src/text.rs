//! The report as text that fits on one screen.

use super::outcome::Outcome;
use super::report::{HttpAnswers, Latency, Measured, ProbePlan, Report};
use super::timeline::WorstSecond;
use std::fmt::Write;
use tidegate_units::visible;

/// The seconds of a longer run do not fit on a screen.
const SECONDS_SHOWN: usize = 60;
const SECONDS_A_LINE: usize = 15;

impl Report {
    /// The report for people: one screen.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // A terminal shows it, and is to obey nothing in it. Writing to a string does not fail.
        let _ = write_report(&mut text, &self.map_texts(|text| visible(text).into_owned()));
        text
    }
}

fn write_report(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "stress: {}", report.plan.headline)?;
    if report.interrupted {
        writeln!(out, "Interrupted: this is what was measured until then")?;
    }
    write_measured(out, &report.measured)?;
    if let Some(probe) = &report.probe {
        writeln!(out, "{}", probe_line(report))?;
        write_measured(out, probe)?;
    }
    write_generator(out, report)?;
    if let Some(search) = &report.find_max {
        write_search(out, search)?;
    }
    write_thresholds(out, report)
}

/// The line above the probe's numbers.
pub(crate) fn probe_line(report: &Report) -> String {
    let Some(ProbePlan { rate, connections, standing, source_ip }) = &report.plan.probe else {
        return "Probe: a polite client beside the load".to_owned();
    };
    let from = source_ip.as_ref().map_or(String::new(), |from| format!(" from {from}"));
    match (standing, connections) {
        (true, 1) => format!("Probe: {rate}/s beside the load, on 1 standing connection{from}"),
        (true, n) => format!("Probe: {rate}/s beside the load, on {n} standing connections{from}"),
        (false, _) => format!("Probe: {rate}/s beside the load, each request on a new connection{from}"),
    }
}

fn write_measured(out: &mut String, measured: &Measured) -> std::fmt::Result {
    let Measured { elapsed, offered, sent, done, rate, .. } = measured;
    let offered_rate = if *elapsed > 0.0 { *offered as f64 / elapsed } else { 0.0 };
    let late = 100.0 * measured.sent_late as f64 / (*sent).max(1) as f64;
    writeln!(
        out,
        "Offered {offered} ({offered_rate:.1}/s)  Sent {sent}  Done {done} ({rate:.1}/s)  Late>1ms {late:.1}%  \
         Unsent {}",
        measured.unsent
    )?;
    let latency = &measured.latency;
    writeln!(
        out,
        "{:<8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
        "Latency", "min", "p50", "p90", "p95", "p99", "p99.9", "p99.99", "max"
    )?;
    let censored = latency.response.as_ref().map_or(0, |l| l.censored);
    let response = match censored {
        0 => "  from the intended instant".to_owned(),
        n => format!("  from the intended instant; {n} are \"at least\""),
    };
    write_latency(out, "response", latency.response.as_ref(), &response)?;
    write_latency(out, "service", latency.service.as_ref(), "  from sending")?;
    write_latency(out, "connect", latency.connect.as_ref(), "")?;
    if latency.handshake.is_some() {
        write_latency(out, "handshake", latency.handshake.as_ref(), "  of TLS, within connect")?;
    }
    write!(out, "Outcomes  ")?;
    let mut any = false;
    for outcome in Outcome::ALL {
        let n = measured.count(*outcome);
        if n > 0 {
            write!(out, " {} {n} ", outcome.as_str())?;
            any = true;
        }
    }
    if !any {
        write!(out, " none")?;
    }
    out.truncate(out.trim_end().len());
    writeln!(out)?;
    if let Some(http) = &measured.http {
        write_answers(out, http)?;
    }
    let connections = &measured.connections;
    write!(
        out,
        "Traffic    {} connections opened  {} sent  {} received",
        connections.opened,
        bytes(connections.bytes_sent),
        bytes(connections.bytes_received)
    )?;
    if connections.open_failed > 0 {
        write!(out, "  {} failed to open", connections.open_failed)?;
    }
    if connections.closed_idle > 0 {
        write!(out, "  {} closed by the server while idle", connections.closed_idle)?;
    }
    writeln!(out)?;
    write_seconds(out, measured)
}

/// Replies over HTTP by the class of their status.
fn write_answers(out: &mut String, http: &HttpAnswers) -> std::fmt::Result {
    write!(out, "Statuses  ")?;
    let seen = http.statuses.iter().filter(|(_, n)| **n > 0);
    let seen: Vec<_> = seen.map(|(class, n)| format!(" {class} {n}")).collect();
    write!(out, "{}", if seen.is_empty() { " none".to_owned() } else { seen.join(" ") })?;
    if http.retry_after > 0 {
        write!(out, "  {} with Retry-After, {}s at most", http.retry_after, http.retry_after_max)?;
    }
    if http.closed > 0 {
        write!(out, "  {} with the connection's end", http.closed)?;
    }
    writeln!(out)
}

/// The good replies of each second, where there are not too many, and the worst.
fn write_seconds(out: &mut String, measured: &Measured) -> std::fmt::Result {
    let Some(worst) = &measured.worst_second else { return Ok(()) };
    let seconds: Vec<_> = measured.timeline.iter().filter(|point| point.phase == "measured").collect();
    if (2..=SECONDS_SHOWN).contains(&seconds.len()) {
        for (n, line) in seconds.chunks(SECONDS_A_LINE).enumerate() {
            write!(out, "{:<9}", if n == 0 { "Seconds" } else { "" })?;
            line.iter().try_for_each(|point| write!(out, " {:.0}", point.rate))?;
            writeln!(out)?;
        }
    }
    let silent = match measured.silent_seconds {
        0 => String::new(),
        n => format!("  {n} without a good reply"),
    };
    let WorstSecond { at, rate, offered } = worst;
    writeln!(out, "Worst      {rate:.0}/s in the second at {at:.0}s, {offered} due{silent}")
}

fn write_latency(out: &mut String, name: &str, latency: Option<&Latency>, note: &str) -> std::fmt::Result {
    let Some(l) = latency else { return Ok(()) };
    write!(out, "{name:<8}")?;
    for value in [l.min, l.p50, l.p90, l.p95, l.p99, l.p999, l.p9999, l.max] {
        write!(out, "{:>8}", time(value))?;
    }
    writeln!(out, "{note}")
}

fn write_generator(out: &mut String, report: &Report) -> std::fmt::Result {
    let generator = &report.generator;
    write!(out, "Generator  cpu {:.0}%", 100.0 * generator.cpu)?;
    if let Some(lag) = generator.lag_p99 {
        write!(out, "  lag p99 {}", time(lag))?;
    }
    let valid = if report.valid { "valid" } else { "not valid" };
    write!(out, "   {}: {valid}", report.verdict)?;
    if !report.verdict_reason.is_empty() {
        write!(out, ": {}", report.verdict_reason)?;
    }
    writeln!(out)
}

fn write_search(out: &mut String, search: &super::report::FindMax) -> std::fmt::Result {
    for trial in &search.trials {
        let passed = if trial.passed { "ok" } else { "no" };
        writeln!(
            out,
            "Trial      {:>10.1}/s  done {:>10.1}/s  {:<10} {passed}  {}",
            trial.rate,
            trial.done_rate,
            trial.value.as_deref().unwrap_or("-"),
            trial.verdict
        )?;
    }
    match search.rate {
        Some(rate) => writeln!(out, "Maximum    {rate:.1}/s with {}", search.condition),
        None => writeln!(out, "Maximum    no rate was found with {}", search.condition),
    }
}

fn write_thresholds(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.thresholds.is_empty() {
        return Ok(());
    }
    write!(out, "Thresholds")?;
    for threshold in &report.thresholds {
        let verdict = if threshold.passed { "ok" } else { "FAILED" };
        let value = threshold.value.as_deref().unwrap_or("not measured");
        write!(out, " {verdict} {} ({value})  ", threshold.expression)?;
    }
    out.truncate(out.trim_end().len());
    writeln!(out)
}

/// A time in seconds, short: two or three digits and a unit.
pub(crate) fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 999.5e-6 => (s * 1e6, "us"),
        s if s < 999.5e-3 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    match value {
        v if v < 9.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

/// A count of bytes, short.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "B" => format!("{count}B"),
                unit => format!("{value:.1}{unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1}TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (seconds, text) in [
            (82e-6, "82us"),
            (4.1e-3, "4.1ms"),
            (12.2e-3, "12ms"),
            (0.9999, "1.0s"),
            (0.00099999, "1.0ms"),
            (3e-7, "300ns"),
            (61.0, "61s"),
        ] {
            assert_eq!(time(seconds), text);
        }
        assert_eq!([bytes(900), bytes(2048), bytes(5 << 40)], ["900B", "2.0KiB", "5.0TiB"]);
    }
}
