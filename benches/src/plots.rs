//! The pictures of the report.

use crate::chart::{Field, Group, Line, Scale, groups, legend};
use crate::measure::Sample;
use crate::results::{Results, Survival, SurvivalPoint};
use crate::stats::median;
use crate::svg::{Anchor, Svg};

/// What the servers are called in pictures and tables.
pub(crate) fn title_of(server: &str) -> &str {
    match server {
        "tokio" => "tokio",
        "tokio-4k" => "tokio, 4 KiB buffers",
        "thread" => "thread per connection",
        "pool" => "bare bounded pool",
        "epoll" => "one-thread epoll loop",
        "reset" => "accept and reset",
        "udp" => "one-thread UDP loop",
        "python" => "Python",
        "asyncio" => "Python asyncio",
        "haproxy" => "HAProxy",
        "haproxy-splice" => "HAProxy, splice",
        "haproxy-limits" => "HAProxy with limits",
        "hyper" => "hyper",
        "http" => "one-thread HTTP loop",
        "tokio-relay" => "tokio relay",
        "relay" => "one-thread relay",
        "gate" => "one-thread gate",
        "tidegate:on" => "tidegate, all on",
        "tidegate:off" => "tidegate, all off",
        other => other,
    }
}

/// Every picture that there are results for, those of the scenes and of the gate apart: a file name and its content.
pub(crate) fn all(results: &Results) -> Vec<(&'static str, String)> {
    let mut pictures = Vec::new();
    if let Some(survival) = &results.survival {
        pictures.push(("survival.svg", survival_picture(survival)));
    }
    let echo: Vec<(String, &str)> = [1u32, 32, 1_000, 10_000]
        .into_iter()
        .map(|connections| match connections {
            1 => ("1 connection".to_owned(), connections),
            _ => (format!("{} connections", thousands(f64::from(connections))), connections),
        })
        .filter_map(|(name, connections)| {
            results.work.get_key_value(&format!("echo-64-{connections}")).map(|(key, _)| (name, key.as_str()))
        })
        .collect();
    if !echo.is_empty() {
        pictures.push((
            "echo.svg",
            cpu_picture(results, "Echo of 64 bytes: the server's CPU time for each reply, µs", &echo),
        ));
    }
    if results.work.contains_key("echo-64-10000") {
        pictures.push(("memory.svg", memory_picture(results)));
    }
    pictures
}

pub(crate) const PICTURE_WIDTH: f64 = 880.0;

/// The marks on the axis of the offered load.
const FACTORS: [f64; 6] = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];

fn survival_picture(survival: &Survival) -> String {
    let mut svg = Svg::new(PICTURE_WIDTH, 414.0);
    let Some(first) = survival.points.first() else {
        return svg.finish("nothing was measured", "");
    };
    let servers = &first.comparison.servers;
    let useful = useful_field(survival.capacity);
    useful.mark(&mut svg, survival.capacity);
    useful.draw(&mut svg, &lines(survival, servers, |sample| Some(sample.outcome.rate)));
    note_those_without_replies(&mut svg, &useful, survival, servers);
    let p99 = |sample: &Sample| (sample.outcome.replies > 0).then_some(sample.outcome.p99);
    late_field().draw(&mut svg, &lines(survival, servers, p99));
    let entries: Vec<(&str, &str)> = servers.iter().map(|name| (name.as_str(), title_of(name))).collect();
    legend(&mut svg, (24.0, 30.0), &entries);
    svg.text(
        "small",
        (24.0, 404.0),
        Anchor::Start,
        "One core does 1 ms of work for each request, at most at the dashed rate; a reply is useful within 1 s.",
    );
    svg.finish("Useful replies and their p99 over offered load", &in_words(survival))
}

/// A line for each server: a figure over the offered load.
fn lines<'a>(
    survival: &Survival,
    servers: &'a [String],
    figure: fn(&Sample) -> Option<f64>,
) -> Vec<Line<'a>> {
    let point = |name: &str, point: &SurvivalPoint| {
        let has = point.of(name, |sample| sample.outcome.rate).is_some_and(|rate| rate >= 1.0);
        let value = point.of(name, |sample| figure(sample).unwrap_or(f64::NAN));
        // The useful rate is shown when it is nothing, a latency of nothing is not.
        (point.factor, value.filter(|value| !value.is_nan() && (has || *value == 0.0)))
    };
    let line = |name: &'a String| Line {
        class: name,
        points: survival.points.iter().map(|at| point(name, at)).collect(),
    };
    servers.iter().map(line).collect()
}

fn useful_field(capacity: f64) -> Field<'static> {
    Field {
        title: "Useful replies a second",
        below: "offered load over what one core can do",
        place: (60.0, 92.0, 440.0, 250.0),
        across: 10.2,
        ticks_across: &FACTORS,
        show_across: times,
        scale: Scale::Linear { max: capacity * 1.15 },
        show: |value| format!("{value:.0}"),
    }
}

fn late_field() -> Field<'static> {
    Field {
        title: "p99 of the useful replies",
        below: "offered load over what one core can do",
        place: (580.0, 92.0, 280.0, 250.0),
        across: 10.2,
        ticks_across: &FACTORS,
        show_across: times,
        scale: Scale::Log { min: 0.001, max: 1.0 },
        show: |value| {
            if value >= 1.0 { format!("{value:.0} s") } else { format!("{:.0} ms", value * 1e3) }
        },
    }
}

/// Names the servers that give no useful reply at the highest load.
fn note_those_without_replies(svg: &mut Svg, useful: &Field<'_>, survival: &Survival, servers: &[String]) {
    let Some(last) = survival.points.last() else { return };
    let rate = |name: &str| last.of(name, |sample| sample.outcome.rate);
    let is_gone = |name: &&String| rate(name).is_some_and(|rate| rate < 0.02 * survival.capacity);
    let gone: Vec<&str> = servers.iter().filter(is_gone).map(|name| title_of(name)).collect();
    if gone.len() > 1 {
        let words = if gone.len() + 1 == servers.len() {
            "all others: none".to_owned()
        } else {
            format!("{}: none", gone.join(", "))
        };
        useful.note(svg, "small", (last.factor, 0.0), &words);
    }
}

fn times(factor: f64) -> String {
    format!("{factor}×")
}

/// What the picture shows, for those who do not see it.
fn in_words(survival: &Survival) -> String {
    let Some(last) = survival.points.last() else {
        return String::new();
    };
    let rates: Vec<String> = last
        .comparison
        .servers
        .iter()
        .filter_map(|name| Some((name, last.of(name, |sample| sample.outcome.rate)?)))
        .map(|(name, rate)| format!("{} {rate:.0}", title_of(name)))
        .collect();
    format!("Useful replies a second at {} times the capacity: {}.", last.factor, rates.join(", "))
}

fn cpu_picture(results: &Results, title: &str, works: &[(String, &str)]) -> String {
    let mut svg = Svg::new(PICTURE_WIDTH, 300.0);
    let mut seen: Vec<&str> = Vec::new();
    let bars: Vec<Group<'_>> = works
        .iter()
        .filter_map(|(name, key)| Some((name, results.work.get(*key)?)))
        .map(|(name, comparison)| Group {
            name: name.clone(),
            bars: (0..comparison.servers.len())
                .map(|at| {
                    let server = comparison.servers[at].as_str();
                    if !seen.contains(&server) {
                        seen.push(server);
                    }
                    (server, median(&comparison.values(at, |sample| sample.cpu_per_request * 1e6)))
                })
                .collect(),
        })
        .collect();
    svg.text("title", (24.0, 26.0), Anchor::Start, title);
    let entries: Vec<(&str, &str)> = seen.iter().map(|name| (*name, short_title_of(name))).collect();
    legend(&mut svg, (24.0, 52.0), &entries);
    groups(&mut svg, (24.0, 88.0, PICTURE_WIDTH - 48.0, 170.0), &bars, |micros| format!("{micros:.1}"));
    svg.text("small", (24.0, 292.0), Anchor::Start, "Lower is better. Each group is drawn to its own scale.");
    svg.finish(title, "Lower is better. The figures are in the table.")
}

/// Short enough for seven of them in a row.
pub(crate) fn short_title_of(server: &str) -> &str {
    match server {
        "thread" => "threads",
        "pool" => "bare pool",
        "epoll" => "epoll loop",
        "tokio-4k" => "tokio, 4 KiB",
        other => title_of(other),
    }
}

fn memory_picture(results: &Results) -> String {
    let mut svg = Svg::new(PICTURE_WIDTH, 60.0 + 4.0 * 34.0);
    let title = "Peak memory with 10,000 active connections, MB";
    svg.text("title", (24.0, 26.0), Anchor::Start, title);
    if let Some(comparison) = results.work.get("echo-64-10000") {
        let memory = |at| median(&comparison.values(at, |sample| sample.peak_rss as f64 / 1e6));
        let most = (0..comparison.servers.len()).map(memory).fold(1.0, f64::max);
        for (at, server) in comparison.servers.iter().enumerate() {
            let y = 46.0 + 34.0 * at as f64;
            let width = (PICTURE_WIDTH - 290.0) * memory(at) / most;
            svg.text("", (200.0, y + 16.0), Anchor::End, title_of(server));
            svg.bar(server, (212.0, y), width.max(2.0), 22.0);
            svg.text("", (220.0 + width, y + 16.0), Anchor::Start, &format!("{:.1}", memory(at)));
        }
    }
    svg.finish(title, "Lower is better. The figures are in the table.")
}

/// 10000 as 10,000.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.as_bytes()[at - 1] != b'-' {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(999.6), "1,000");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
