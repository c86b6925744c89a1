//! The report as one HTML page. It loads nothing from elsewhere, has no script, and follows the reader's choice of light
//! or dark.

use super::chart::{Axis, Scale, Series, draw};
use super::outcome::Outcome;
use super::report::{Latency, Measured, Report};
use super::text;
use super::timeline::Point;
use std::fmt::Write;
use tidegate_units::{counted, visible};

const STYLE: &str = "
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1d2329;--soft:#66707b;--edge:#e2e5e8;
--ok:#2f8f5b;--busy:#d9962b;--bad:#c9423f;--late:#9cb84a;--unsent:#8a6fc4;--one:#2c6fbb;--two:#c9423f;--three:#8b8f94}
@media(prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e4e8ec;--soft:#98a3ae;
--edge:#30363c;--ok:#4fb47e;--busy:#e0a94a;--bad:#e5706b;--late:#b3cc66;--unsent:#a890e0;--one:#68a5e8;--two:#e5706b;
--three:#9aa0a6}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1240px;padding:24px 16px;background:var(--bg);
color:var(--ink);font:15px/1.45 system-ui,sans-serif}
h1{font-size:20px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 8px}p{margin:4px 0;color:var(--soft)}
.verdict{display:inline-block;padding:2px 10px;border-radius:12px;font-weight:600;color:#fff}
.good{background:#2b7d50}.poor{background:#b3372f}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin:16px 0}
.tiles div,figure,table{background:var(--card);border:1px solid var(--edge);border-radius:8px}
.tiles div{padding:10px 12px}.tiles b{display:block;font-size:20px;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:13px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(560px,100%),1fr));gap:14px}
figure{margin:0;padding:12px}figcaption{font-weight:600;display:flex;flex-wrap:wrap;gap:4px 16px;
justify-content:space-between}.legend{font-weight:400;font-size:13px;color:var(--soft);display:flex;
flex-wrap:wrap;gap:2px 12px}.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;
margin-right:5px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
.x{text-anchor:middle}.y{text-anchor:end}.grid{stroke:var(--edge);fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.area{opacity:.85}
.scroll{overflow-x:auto}table{border-collapse:separate;border-spacing:0;width:100%}
th,td{padding:6px 12px;text-align:right;font-variant-numeric:tabular-nums;border-bottom:1px solid var(--edge);
white-space:nowrap}tr:last-child td,tr:last-child th{border-bottom:0}
th{color:var(--soft);font-weight:500}th:first-child,td:first-child{text-align:left}
.failed{color:var(--bad);font-weight:600}
";

impl Report {
    /// The report as one page with plots, which loads nothing from elsewhere.
    pub fn to_html(&self) -> String {
        let mut page = String::new();
        // No text of a report gets into the page as it is. Writing to a string does not fail.
        let _ = write_page(&mut page, &self.map_texts(|text| escape(&visible(text))));
        page
    }
}

fn write_page(out: &mut String, report: &Report) -> std::fmt::Result {
    let title = &report.plan.headline;
    write!(
        out,
        "<!doctype html>\n<html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n"
    )?;
    let class = if report.valid { "good" } else { "poor" };
    let valid = if report.valid { "valid" } else { "not valid" };
    let reason = &report.verdict_reason;
    writeln!(out, "<p><span class=\"verdict {class}\">{}: {valid}</span> {reason}</p>", report.verdict)?;
    if report.interrupted {
        writeln!(out, "<p>Interrupted: this is what was measured until then.</p>")?;
    }
    write_tiles(out, report)?;
    writeln!(out, "<div class=grid2>")?;
    if !report.measured.timeline.is_empty() {
        out.push_str(&throughput(&report.measured.timeline));
        out.push_str(&latency_over_time(&report.measured.timeline));
    }
    out.push_str(&percentiles(&report.measured));
    if let Some(probe) = &report.probe {
        out.push_str(&percentiles_titled("Probe: percentiles", probe));
    }
    writeln!(out, "</div>")?;
    write_measured(out, &report.measured, "Load")?;
    if let Some(probe) = &report.probe {
        write_measured(out, probe, &text::probe_line(report))?;
    }
    write_thresholds(out, report)?;
    write_search(out, report)?;
    write_plan(out, report)
}

fn write_tiles(out: &mut String, report: &Report) -> std::fmt::Result {
    let measured = &report.measured;
    let errors = measured.sent - measured.done.min(measured.sent);
    let share = 100.0 * errors as f64 / measured.sent.max(1) as f64;
    let p = |part: fn(&Latency) -> f64| {
        let latency = measured.latency.response.as_ref();
        latency.map_or("-".to_owned(), |l| text::time(part(l)))
    };
    let lag = report.generator.lag_p99.map_or("-".to_owned(), text::time);
    let useful = measured.useful_rate.map_or("-".to_owned(), |rate| format!("{rate:.1}/s"));
    let worst = measured.worst_second.as_ref().map_or("-".to_owned(), |worst| format!("{:.0}/s", worst.rate));
    write!(out, "<div class=tiles>")?;
    for (value, name) in [
        (format!("{:.1}/s", measured.rate), "answered well"),
        (p(|l| l.p50), "response p50"),
        (p(|l| l.p99), "response p99"),
        (p(|l| l.max), "response max"),
        (format!("{share:.2}%"), "of requests failed"),
        (useful, "useful: in time"),
        (worst, "useful in the worst second"),
        (measured.unsent.to_string(), "due but not sent"),
        (format!("{:.0}%", 100.0 * report.generator.cpu), "generator CPU"),
        (lag, "generator lag p99"),
    ] {
        write!(out, "<div><b>{value}</b><span>{name}</span></div>")?;
    }
    writeln!(out, "</div>")
}

fn rate_label(rate: f64) -> String {
    match rate {
        r if r >= 1e6 => format!("{}M", r / 1e6),
        r if r >= 1e3 => format!("{}k", r / 1e3),
        r => format!("{r}"),
    }
}

/// Axis labels of seconds: `10s`, without digits that say nothing.
fn seconds_label(seconds: f64) -> String {
    format!("{}s", (seconds * 1000.0).round() / 1000.0)
}

/// A power of ten as a time.
fn time_label(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 0.9e-6 => (s * 1e9, "ns"),
        s if s < 0.9e-3 => (s * 1e6, "us"),
        s if s < 0.9 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{value:.0}{unit}")
}

fn time_axis(timeline: &[Point]) -> Axis {
    let end = timeline.last().map_or(1.0, |point| point.at + point.seconds);
    Axis { to: end, ..Axis::linear(end, "seconds into the run", seconds_label) }.without_ticks_beyond()
}

impl Axis {
    fn without_ticks_beyond(mut self) -> Self {
        let to = self.to;
        self.ticks.retain(|(value, _)| *value <= to);
        self
    }
}

/// Which outcomes a layer counts.
type Chosen<'a> = &'a dyn Fn(&str) -> bool;

/// Stacked: what became of the requests of each second.
fn throughput(timeline: &[Point]) -> String {
    let late = (Outcome::Ok.as_str(), "too late");
    let count = |point: &Point, of: &dyn Fn(&str) -> bool| {
        // Of the good replies, those that came too late are a layer of their own.
        let split = |(name, n): (&String, &u64)| match name == late.0 {
            true => n.saturating_sub(point.too_late),
            false => *n,
        };
        let counts = point.outcomes.iter().filter(|(name, _)| of(name)).map(split);
        let late = if of(late.1) { point.too_late } else { 0 };
        counts.chain([late]).sum::<u64>() as f64 / point.seconds.max(1e-9)
    };
    let unsent = [Outcome::UnsentAtEnd, Outcome::Skipped].map(Outcome::as_str);
    let ok = |name: &str| name == Outcome::Ok.as_str();
    let busy = |name: &str| name == Outcome::Busy.as_str();
    // A late reply was given up before, and is counted there.
    let no_request = |name: &str| [Outcome::Duplicate, Outcome::Late].map(Outcome::as_str).contains(&name);
    let too_late = |name: &str| name == late.1;
    let failed = |name: &str| {
        !ok(name) && !too_late(name) && !busy(name) && !unsent.contains(&name) && !no_request(name)
    };
    let not_sent = |name: &str| unsent.contains(&name);
    let layers: [(&'static str, &'static str, Chosen<'_>); 5] = [
        ("ok, in time", "ok", &ok),
        ("ok, too late", "late", &too_late),
        ("busy", "busy", &busy),
        ("failed", "bad", &failed),
        ("not sent", "unsent", &not_sent),
    ];
    let mut base = vec![0.0; timeline.len()];
    let mut series = Vec::new();
    for (name, colour, of) in layers {
        let mut points = Vec::with_capacity(timeline.len() * 2);
        for (point, base) in timeline.iter().zip(&mut base) {
            *base += count(point, of);
            points.push((point.at, *base));
            points.push((point.at + point.seconds, *base));
        }
        series.push(Series { name, colour, area: true, points });
    }
    let top = base.iter().copied().fold(0.0, f64::max);
    let y = Axis::linear(top, "requests a second", rate_label);
    draw("Throughput and outcomes", &time_axis(timeline), &y, &series)
}

fn latency_over_time(timeline: &[Point]) -> String {
    let line = |name, colour, part: fn(&Point) -> Option<f64>| {
        let at = |point: &Point| part(point).map(|value| (point.at + point.seconds / 2.0, value));
        let points: Vec<_> = timeline.iter().filter_map(at).collect();
        Series { name, colour, area: false, points }
    };
    let series =
        [line("max", "three", |p| p.max), line("p99", "two", |p| p.p99), line("p50", "one", |p| p.p50)];
    let values = || series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let y = Axis::logarithmic(low.min(high), high, "response time", time_label);
    draw("Response time", &time_axis(timeline), &y, &series)
}

fn percentiles(measured: &Measured) -> String {
    percentiles_titled("Percentiles", measured)
}

/// Latency against 1/(1 - quantile): each decade is another nine.
fn percentiles_titled(title: &str, measured: &Measured) -> String {
    let curve = |latency: &Option<Latency>| -> Vec<(f64, f64)> {
        let Some(histogram) = latency.as_ref().and_then(|l| l.times().ok()).map(|t| t.histogram) else {
            return Vec::new();
        };
        let last = (histogram.len() as f64).clamp(10.0, 1e6);
        let steps = 160;
        let at = |n: i32| {
            let x = last.powf(f64::from(n) / f64::from(steps));
            let value = histogram.value_at_quantile(1.0 - 1.0 / x).min(histogram.max());
            (x, value as f64 / 1e9)
        };
        (0..=steps).map(at).collect()
    };
    let latency = &measured.latency;
    let mut series = Vec::new();
    for (name, colour, latency) in [
        ("connect", "three", &latency.connect),
        ("service", "one", &latency.service),
        ("response", "two", &latency.response),
    ] {
        let points = curve(latency);
        if !points.is_empty() {
            series.push(Series { name, colour, area: false, points });
        }
    }
    let values = || series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let end = series.iter().flat_map(|s| s.points.last()).map(|p| p.0).fold(10.0, f64::max);
    let nines = [
        (1.0, "0"),
        (2.0, "50%"),
        (10.0, "90%"),
        (100.0, "99%"),
        (1e3, "99.9%"),
        (1e4, "99.99%"),
        (1e5, "99.999%"),
        (1e6, "99.9999%"),
    ];
    let x = Axis {
        scale: Scale::Logarithmic,
        from: 1.0,
        to: end,
        ticks: nines
            .iter()
            .filter(|(at, _)| *at <= end * 1.001)
            .map(|(at, label)| (*at, (*label).to_owned()))
            .collect(),
        label: "share of requests that took no longer",
    };
    let y = Axis::logarithmic(low.min(high), high, "time", time_label);
    draw(title, &x, &y, &series)
}

fn write_measured(out: &mut String, measured: &Measured, title: &str) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>{title}</h2><p>Offered {}, sent {}, done {} ({:.1}/s) in {:.3}s.</p>\
         <div class=scroll><table><tr><th>Latency<th>min<th>mean<th>p50<th>p90<th>p95<th>p99<th>p99.9\
         <th>p99.99<th>max<th>count<th>at least",
        measured.offered, measured.sent, measured.done, measured.rate, measured.elapsed
    )?;
    let latency = &measured.latency;
    for (name, latency) in [
        ("response", &latency.response),
        ("service", &latency.service),
        ("connect", &latency.connect),
        ("handshake", &latency.handshake),
    ] {
        let Some(l) = latency else { continue };
        write!(out, "<tr><td>{name}")?;
        for value in [l.min, l.mean, l.p50, l.p90, l.p95, l.p99, l.p999, l.p9999, l.max] {
            write!(out, "<td>{}", text::time(value))?;
        }
        writeln!(out, "<td>{}<td>{}", l.count, l.censored)?;
    }
    write!(out, "</table></div><h2>Outcomes</h2><div class=scroll><table><tr>")?;
    let seen: Vec<_> = Outcome::ALL.iter().filter(|o| measured.count(**o) > 0).collect();
    for outcome in &seen {
        write!(out, "<th>{}", outcome.as_str())?;
    }
    write!(out, "<tr>")?;
    for outcome in &seen {
        write!(out, "<td>{}", measured.count(**outcome))?;
    }
    writeln!(out, "</table></div>")
}

fn write_thresholds(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.thresholds.is_empty() {
        return Ok(());
    }
    write!(out, "<h2>Thresholds</h2><div class=scroll><table><tr><th>condition<th>measured<th>")?;
    for threshold in &report.thresholds {
        let verdict = match threshold.passed {
            true => "<td>ok",
            false => "<td class=failed>failed",
        };
        let value = threshold.value.as_deref().unwrap_or("not measured");
        write!(out, "<tr><td>{}<td>{value}{verdict}", threshold.expression)?;
    }
    writeln!(out, "</table></div>")
}

fn write_search(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(search) = &report.find_max else {
        return Ok(());
    };
    let found = match (search.rate, search.generator_limited) {
        (Some(rate), false) => format!("{rate:.1}/s"),
        (Some(rate), true) => format!("at least {rate:.1}/s; above that {}", text::GENERATOR_WAS),
        (None, false) => "none".to_owned(),
        (None, true) => format!("not known; {}", text::GENERATOR_WAS),
    };
    write!(
        out,
        "<h2>Highest rate with {}: {found}</h2><div class=scroll><table>\
         <tr><th>rate<th>done<th>measured<th>verdict<th>",
        search.condition
    )?;
    for trial in &search.trials {
        write!(
            out,
            "<tr><td>{:.1}/s<td>{:.1}/s<td>{}<td>{}<td>{}",
            trial.rate,
            trial.done_rate,
            trial.value.as_deref().unwrap_or("-"),
            trial.verdict,
            if trial.passed { "ok" } else { "no" }
        )?;
    }
    writeln!(out, "</table></div>")
}

fn write_plan(out: &mut String, report: &Report) -> std::fmt::Result {
    let plan = &report.plan;
    let connections = &report.measured.connections;
    writeln!(
        out,
        "<h2>Plan</h2><p>{}, timeout {}, connect timeout {}, close {}, {} bytes a request, seed {}. \
         {} opened, {} sent, {} received, the warm-up included. tidegate {}.</p></html>",
        counted(plan.threads as u64, "thread"),
        text::time(plan.timeout),
        text::time(plan.connect_timeout),
        plan.close,
        plan.request_bytes,
        plan.seed,
        counted(connections.opened, "connection"),
        text::bytes(connections.bytes_sent),
        text::bytes(connections.bytes_received),
        report.tidegate
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
