//! A table of the run, one row a second.

use super::clock::{Nanos, seconds};
use super::outcome::{Outcome, Outcomes};
use super::recorder::{Interval, Part};
use std::io::{self, Write};

/// Writes the table as the run goes on.
#[derive(Debug)]
pub(crate) struct Csv<W> {
    out: W,
    /// Where time counts from: the beginning of the schedule, and of the run until that is known.
    begin: Option<Nanos>,
    in_schedule: bool,
}

impl<W: Write> Csv<W> {
    /// A table that begins with the names of its columns.
    pub(crate) fn new(mut out: W) -> io::Result<Self> {
        write!(out, "at_seconds,length_seconds,phase,offered,sent")?;
        for outcome in Outcome::ALL {
            write!(out, ",{}", outcome.as_str())?;
        }
        writeln!(
            out,
            ",response_p50_seconds,response_p99_seconds,response_max_seconds,service_p50_seconds,\
             service_p99_seconds,connections_opened,bytes_sent,bytes_received,useful"
        )?;
        Ok(Self { out, begin: None, in_schedule: false })
    }

    /// One second's row. A second of which only a part is measured counts all of it. A late datagram is in `lost`
    /// in the second in which it was given up, and in `late` in the one in which it came.
    pub(crate) fn write(&mut self, interval: &Interval) -> io::Result<()> {
        if !self.in_schedule && interval.part != Part::Opening {
            self.begin = Some(interval.begin);
            self.in_schedule = true;
        }
        let begin = *self.begin.get_or_insert(interval.begin);
        let phase = interval.part.as_str();
        let mut outcomes: Outcomes = interval.tally.outcomes.clone();
        outcomes += &interval.warm.outcomes;
        let out = &mut self.out;
        write!(
            out,
            "{:.3},{:.3},{phase},{},{}",
            seconds(interval.begin.saturating_sub(begin)),
            seconds(interval.end.saturating_sub(interval.begin)),
            interval.offered(),
            outcomes.ended(),
        )?;
        for outcome in Outcome::ALL {
            write!(out, ",{}", outcomes[*outcome])?;
        }
        for (histogram, quantile) in [
            (&interval.response.histogram, 0.5),
            (&interval.response.histogram, 0.99),
            (&interval.response.histogram, 1.0),
            (&interval.service.histogram, 0.5),
            (&interval.service.histogram, 0.99),
        ] {
            // Nothing measured is an empty field, not a 0.
            match histogram.is_empty() {
                true => write!(out, ",")?,
                false => {
                    let value = histogram.value_at_quantile(quantile).min(histogram.max());
                    write!(out, ",{:.9}", seconds(value))?;
                }
            }
        }
        let connections = &interval.connections;
        write!(out, ",{},{},{}", connections.opened, connections.bytes_sent, connections.bytes_received)?;
        writeln!(out, ",{}", interval.tally.useful() + interval.warm.useful())?;
        out.flush()
    }
}
