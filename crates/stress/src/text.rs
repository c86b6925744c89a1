//! The report as text that fits on one screen.

use super::outcome::Outcome;
use super::report::{HttpAnswers, Latency, Measured, PlanReport, ProbePlan, Report};
use super::timeline::{Point, WorstSecond};
use std::fmt::Write;
use std::time::Duration;
use tidegate_units::{counted, show_time, visible};

/// What a search says where it did not come to the limit of the server.
pub(crate) const GENERATOR_WAS: &str =
    "the load generator was the limit, not the server (try --threads, or more machines)";

/// The seconds of a longer run do not fit on a screen.
const SECONDS_SHOWN: usize = 60;
/// Ten, so that a line's beginning and a column are easily added.
const SECONDS_A_LINE: usize = 10;

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
    write_measured(out, &report.measured, &report.plan)?;
    if let Some(probe) = &report.probe {
        writeln!(out, "{}", probe_line(report))?;
        write_measured(out, probe, &report.plan)?;
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
        (true, n) => {
            let standing = counted(*n as u64, "standing connection");
            format!("Probe: {rate}/s beside the load, on {standing}{from}")
        }
        (false, _) => format!("Probe: {rate}/s beside the load, each request on a new connection{from}"),
    }
}

fn write_measured(out: &mut String, measured: &Measured, plan: &PlanReport) -> std::fmt::Result {
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
    write_outcomes(out, measured)?;
    write_useful(out, measured, plan)?;
    if let Some(http) = &measured.http {
        write_answers(out, http)?;
    }
    write_traffic(out, measured)?;
    write_seconds(out, measured)
}

/// What became of the requests.
fn write_outcomes(out: &mut String, measured: &Measured) -> std::fmt::Result {
    write!(out, "Outcomes  ")?;
    let counts = Outcome::ALL.iter().map(|outcome| (outcome.as_str(), measured.count(*outcome)));
    let seen: Vec<_> = counts.filter(|(_, n)| *n > 0).map(|(name, n)| format!(" {name} {n}")).collect();
    writeln!(out, "{}", if seen.is_empty() { " none".to_owned() } else { seen.join(" ") })
}

/// The good replies that came in time, where some did not. A request that was sent when it was due is timed out before its
/// reply could be too late, so only those that waited for a connection are here.
fn write_useful(out: &mut String, measured: &Measured, plan: &PlanReport) -> std::fmt::Result {
    let Measured { useful: Some(useful), too_late: Some(late @ 1..), useful_rate, done, .. } = measured
    else {
        return Ok(());
    };
    write!(
        out,
        "Useful     {useful} of {done} ok ({:.1}/s); {late} came over {} (-t) after they were due: they waited for a \
         connection",
        useful_rate.unwrap_or(0.0),
        show_time(Duration::try_from_secs_f64(plan.timeout).unwrap_or_default())
    )?;
    // Each request holds its connection for no longer than both timeouts. A piece of a second tells no rate.
    let seconds = measured.timeline.iter().filter(|point| point.seconds > 0.5);
    let rates = seconds.map(|point| point.offered as f64 / point.seconds);
    let enough = (rates.fold(0.0, f64::max) * (plan.timeout + plan.connect_timeout)).ceil();
    match enough.is_finite() && enough > 0.0 {
        true => writeln!(out, " ({enough:.0} would do)"),
        false => writeln!(out),
    }
}

/// Connections and bytes.
fn write_traffic(out: &mut String, measured: &Measured) -> std::fmt::Result {
    let connections = &measured.connections;
    write!(
        out,
        "Traffic    {} opened  {} sent  {} received",
        counted(connections.opened, "connection"),
        bytes(connections.bytes_sent),
        bytes(connections.bytes_received)
    )?;
    if connections.open_failed > 0 {
        write!(out, "  {} failed to open", connections.open_failed)?;
    }
    if connections.closed_idle > 0 {
        write!(out, "  {} closed by the server while idle", connections.closed_idle)?;
    }
    writeln!(out)
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

/// The useful replies of each second, where there are not too many, and the worst.
fn write_seconds(out: &mut String, measured: &Measured) -> std::fmt::Result {
    let Some(worst) = &measured.worst_second else { return Ok(()) };
    let seconds: Vec<_> = measured.timeline.iter().filter(|point| point.phase == "measured").collect();
    if (2..=SECONDS_SHOWN).contains(&seconds.len()) {
        write_table(out, &seconds)?;
    }
    let silent = match measured.silent_seconds {
        0 => String::new(),
        1 => "; it had no useful reply".to_owned(),
        n => format!("; {n} seconds had no useful reply"),
    };
    let WorstSecond { at, rate, offered } = worst;
    writeln!(out, "Worst      {rate:.0}/s in the second at {at:.0}s, {offered} due{silent}")
}

/// A column for each second. Of more than ten, each line says when its seconds begin.
fn write_table(out: &mut String, seconds: &[&Point]) -> std::fmt::Result {
    let at = |point: &&Point| point.at.round().max(0.0) as usize;
    let first = seconds.first().map_or(0, at);
    let cells: Vec<_> =
        seconds.iter().map(|point| (at(point).saturating_sub(first), format!("{:.0}", point.rate))).collect();
    let last = cells.last().map_or(0, |(n, _)| *n);
    let wide = cells.iter().map(|(_, rate)| rate.len() + 1).max().unwrap_or(0).max(6);
    let columns = 0..SECONDS_A_LINE.min(last + 1);
    let one_line = last < SECONDS_A_LINE;
    let head = |n: usize| if one_line { format!("{}s", first + n) } else { format!("+{n}s") };
    write!(out, "{:<8}", "Seconds")?;
    columns.clone().try_for_each(|n| write!(out, "{:>wide$}", head(n)))?;
    writeln!(out, "{}", if one_line { "" } else { "  useful/s" })?;
    for line in cells.chunk_by(|one, two| one.0 / SECONDS_A_LINE == two.0 / SECONDS_A_LINE) {
        let begin = line[0].0 / SECONDS_A_LINE * SECONDS_A_LINE;
        let mut text = match one_line {
            true => "useful/s".to_owned(),
            false => format!("{:<8}", format!("{:>6}s", first + begin)),
        };
        for column in columns.clone() {
            let cell = line.iter().find(|(n, _)| *n == begin + column);
            write!(text, "{:>wide$}", cell.map_or("", |(_, rate)| rate))?;
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
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
    let condition = &search.condition;
    match (search.rate, search.generator_limited) {
        (Some(rate), false) => writeln!(out, "Maximum    {rate:.1}/s with {condition}"),
        (None, false) => writeln!(out, "Maximum    no rate was found with {condition}"),
        (Some(rate), true) => {
            writeln!(out, "Maximum    at least {rate:.1}/s with {condition}; above that {GENERATOR_WAS}")
        }
        (None, true) => writeln!(out, "Maximum    not known with {condition}; {GENERATOR_WAS}"),
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

    fn point(at: f64, rate: f64) -> Point {
        let point = serde_json::json!({
            "at": at, "phase": "measured", "rate": rate, "seconds": 1.0, "offered": 9, "outcomes": {"ok": 9},
            "p50": null, "p99": null, "max": null,
        });
        serde_json::from_value(point).unwrap()
    }

    fn table(first: usize, rates: &[f64]) -> String {
        let points: Vec<_> = (first..).zip(rates).map(|(at, rate)| point(at as f64, *rate)).collect();
        let mut out = String::new();
        write_table(&mut out, &points.iter().collect::<Vec<_>>()).unwrap();
        out
    }

    #[test]
    fn each_second_stands_where_its_time_is_to_be_read() {
        assert_eq!(
            table(8, &[921.0, 232.4, 0.0, 1000.0]),
            "Seconds     8s    9s   10s   11s\n\
             useful/s   921   232     0  1000\n"
        );
        assert_eq!(
            table(3, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 1_234_567.0]),
            "Seconds      +0s     +1s     +2s     +3s     +4s     +5s     +6s     +7s     +8s     +9s  useful/s\n     \
             3s        0       1       2       3       4       5       6       7       8       9\n    \
             13s       10 1234567\n"
        );
        // A second that the generator could not tell apart leaves its place empty.
        let points = [point(20.0, 7.0), point(22.0, 9.0)];
        let mut out = String::new();
        write_table(&mut out, &points.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(out, "Seconds    20s   21s   22s\nuseful/s     7           9\n");
    }

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
