//! Numbers as people read them.

use crate::metrics::snapshot::Snapshot;
use std::time::Duration;

/// A count with its thousands apart: `1,204`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count and its noun: `1 connection`, `2 connections`.
pub(super) fn some(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// What waits in the queue, by what it is. Its limit is for newcomers alone.
pub(super) fn waiting(seen: &Snapshot, newcomers: u64) -> String {
    let queued: u64 = seen.listeners.iter().map(|l| l.queued).sum();
    let (turns, others) = (queued.saturating_sub(newcomers), seen.queue_length.saturating_sub(queued));
    let mut text = format!("{} new, {} of open connections", number(newcomers), number(turns));
    if others > 0 {
        text.push_str(&format!(", {} other", number(others)));
    }
    text
}

/// How many a second, with a fraction where there are few.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        r if r < 0.05 => "0/s".to_owned(),
        r if r < 9.95 => format!("{r:.1}/s"),
        r => format!("{}/s", number(r.round() as u64)),
    }
}

/// Processors in use, of those there are.
pub(super) fn processors(used: f64, all: usize) -> String {
    format!("{used:.1} of {}", some(all as u64, "processor"))
}

/// A share as per cent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A latency in seconds with three figures at most: `850 us`, `4.2 ms`, `1.3 s`.
pub(super) fn latency(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "-".to_owned();
    };
    let (value, unit) = match seconds {
        s if s <= 0.0 => return "-".to_owned(),
        s if s < 0.001 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A size in the largest unit that leaves a whole number before the point.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1024.0, next);
    }
    if value < 9.95 && unit != "B" { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A time in its two largest units: `5 m 12 s`.
pub(super) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} m {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {minutes} m"),
        _ => format!("{days} d {hours} h"),
    }
}

/// The time of day, UTC, of milliseconds since the Unix epoch.
pub(super) fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(n), text);
        }
        assert_eq!(
            (rate(0.0).as_str(), rate(1.24).as_str(), rate(12_345.6).as_str()),
            ("0/s", "1.2/s", "12,346/s")
        );
        assert_eq!((some(1, "line"), some(0, "line")), ("1 line".to_owned(), "0 lines".to_owned()));
        for (seconds, text) in [(0.000_05, "50 µs"), (0.004_21, "4.2 ms"), (0.25, "250 ms"), (1.26, "1.3 s")]
        {
            assert_eq!(latency(Some(seconds)), text);
        }
        assert_eq!((latency(None), latency(Some(0.0))), ("-".to_owned(), "-".to_owned()));
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (20 << 20, "20 MiB")] {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [(59, "59 s"), (312, "5 m 12 s"), (7260, "2 h 1 m"), (200_000, "2 d 7 h")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        assert_eq!(time_of_day(1_700_000_000_123), "22:13:20");
        assert_eq!(percent(0.456), "46 %");
    }
}
