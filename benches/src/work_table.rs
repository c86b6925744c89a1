//! The table of one work: what each server came to, beside the first of them.

use crate::measure::{Comparison, Sample};
use crate::plots::{thousands, title_of};
use crate::stats::{median, spread};
use std::fmt::Write;

/// Adds the table to a page.
pub(crate) fn work_table(page: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let first = &comparison.servers[0];
    writeln!(
        page,
        "\n| server | replies/s | p50 µs | p99 µs | CPU µs | peak MB | lost | {} over it |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|",
        title_of(first)
    )?;
    for (at, name) in comparison.servers.iter().enumerate() {
        let value = |figure: fn(&Sample) -> f64| median(&comparison.values(at, figure));
        let ratios = comparison.ratios(0, at, |sample| sample.outcome.rate);
        let (least, most) = spread(&ratios);
        let ratio = match at {
            0 => String::new(),
            _ => format!("{:.2} ({least:.2} to {most:.2})", median(&ratios)),
        };
        writeln!(
            page,
            "| {} | {} | {} | {} | {:.2} | {:.1} | {} | {ratio} |",
            title_of(name),
            thousands(value(|sample| sample.outcome.rate)),
            thousands(value(|sample| sample.outcome.p50 * 1e6)),
            thousands(value(|sample| sample.outcome.p99 * 1e6)),
            value(|sample| sample.cpu_per_request * 1e6),
            value(|sample| sample.peak_rss as f64 / 1e6),
            thousands(value(|sample| sample.outcome.errors.sum() as f64)),
        )?;
    }
    Ok(())
}
