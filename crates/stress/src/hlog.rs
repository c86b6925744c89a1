//! An HdrHistogram log, version 1.3, with a line a second. Readers of this format exist for many languages.

use super::clock::{Nanos, seconds};
use super::recorder::{Interval, Times};
use super::report::encode;
use std::io::{self, Write};
use std::time::SystemTime;

/// Values are nanoseconds; the log's column of maxima is in milliseconds, as its readers expect.
const MAX_DIVISOR: f64 = 1e6;

/// Writes the log as the run goes on. The response time has no tag, service and connect time have theirs.
#[derive(Debug)]
pub(crate) struct HistogramLog<W> {
    out: W,
    begin: Option<Nanos>,
}

impl<W: Write> HistogramLog<W> {
    /// A log that begins with its header lines.
    pub(crate) fn new(mut out: W, headline: &str, started: SystemTime) -> io::Result<Self> {
        let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        writeln!(out, "#[Logged with tidegate {}]", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "#[Histogram log format version 1.3]")?;
        writeln!(out, "#[{}]", headline.replace(['\n', '\r'], " "))?;
        writeln!(
            out,
            "#[StartTime: {:.3} (seconds since epoch), values are nanoseconds]",
            started.as_secs_f64()
        )?;
        writeln!(
            out,
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
        )?;
        Ok(Self { out, begin: None })
    }

    /// One second's lines.
    pub(crate) fn write(&mut self, interval: &Interval) -> io::Result<()> {
        let begin = *self.begin.get_or_insert(interval.begin);
        let at = seconds(interval.begin.saturating_sub(begin));
        let length = seconds(interval.end.saturating_sub(interval.begin));
        for (tag, times) in [
            ("", &interval.response),
            ("Tag=service,", &interval.service),
            ("Tag=connect,", &interval.connect),
            ("Tag=handshake,", &interval.handshake),
        ] {
            self.line(tag, at, length, times)?;
        }
        self.out.flush()
    }

    fn line(&mut self, tag: &str, at: f64, length: f64, times: &Times) -> io::Result<()> {
        let histogram = &times.histogram;
        if histogram.is_empty() {
            return Ok(());
        }
        let max = histogram.max() as f64 / MAX_DIVISOR;
        writeln!(self.out, "{tag}{at:.3},{length:.3},{max:.3},{}", encode(histogram))
    }
}
