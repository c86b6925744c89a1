//! The gate in the report.

use super::outline::Outline;
use super::works::{Kind, QUIET, WORKS};
use super::{Gates, trouble::Trouble};
use crate::plots::{thousands, title_of};
use crate::scene::{Played, over_time, report_table};
use crate::stats::{median, spread};
use crate::work_table::work_table;
use clap::ValueEnum;
use std::fmt::{Result, Write};

/// Every picture that there are results for: a file name and its content.
pub(crate) fn pictures(gates: &Gates) -> Vec<(&'static str, String)> {
    let survive = gates.scenes.get(Trouble::Survive.key());
    survive.map(|played| ("gate.svg", picture(Trouble::Survive, played))).into_iter().collect()
}

/// A scene, second by second.
pub(super) fn picture(trouble: Trouble, played: &Played) -> String {
    let (mut from, count) = played.judged_seconds();
    let to = from + count;
    if matches!(trouble, Trouble::Survive | Trouble::Gunicorn) {
        // The flood begins a second before it is judged.
        from -= 1;
    }
    let outline = Outline::of(trouble, 1.0);
    over_time(played, (from, to), outline.heading, outline.caption)
}

/// Adds the section.
pub(crate) fn report(page: &mut String, gates: &Gates) -> Result {
    writeln!(
        page,
        "\n## The gate\n\n![Useful replies in each second of a flood](img/gate.svg)\n\n\
         What stands in front of a service has one core, with one thread where that can be chosen; the clients and the \
         service behind it have the other cores, except for the Python server, which shares the core of its front. *CPU* \
         is that of the front alone. The peers: HAProxy and nginx as \
         Debian packages them, tokio's `copy_bidirectional` with a task for each pair, and a relay of one thread that \
         does nothing but copy. The *one-thread gate* is as little as a gate can be: it resets the oldest of 64 clients that wait and serves the \
         newest. *HAProxy with limits* has as many places as tidegate, `maxqueue 64` and `timeout queue \
         500ms`. *Refused* are requests whose connection was reset or closed, *told within* is the time in which 99 of 100 of \
         them were, *gave up* are those whose client left after a second. One scene is repeated with `tidegate-bench \
         gate survive` (or `slow`, `three`, `killed`), one load with `tidegate-bench gate churn` (see `--help`)."
    )?;
    for trouble in Trouble::value_variants() {
        if let Some(played) = gates.scenes.get(trouble.key()) {
            report_table(page, played)?;
        }
    }
    work_tables(page, gates, Kind::Bytes)?;
    downloads(page, gates)?;
    quiet(page, gates)?;
    writeln!(
        page,
        "\n### The gate for HTTP\n\nBehind each is nginx on the clients' core, which answers by itself. tidegate has 8 places and keeps \
         as many connections to it (`--queue 2000 --queue-order fifo`, so that all requests are served, in order); HAProxy has \
         `http-reuse always`, nginx `keepalive 64`."
    )?;
    work_tables(page, gates, Kind::HttpGate)?;
    writeln!(
        page,
        "\n### HTTP servers\n\nEach answers a small text by itself: tidegate's `hello=http://`, nginx's `return 200`, hyper on tokio, and \
         a one-thread loop that only counts the ends of heads."
    )?;
    work_tables(page, gates, Kind::HttpServer)?;
    for (name, reason) in &gates.missing {
        writeln!(page, "\n{} was not measured: {reason}", title_of(name))?;
    }
    Ok(())
}

fn work_tables(page: &mut String, gates: &Gates, kind: Kind) -> Result {
    for work in WORKS.iter().filter(|work| work.kind == kind) {
        match gates.works.get(work.key) {
            Some(comparison) if !comparison.servers.is_empty() => {
                writeln!(page, "\n#### {}", work.title)?;
                work_table(page, comparison)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn downloads(page: &mut String, gates: &Gates) -> Result {
    if gates.downloads.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\n#### Through the gate: a download of 200 MB\n\n| server | MB/s | CPU s for a GB | least to most |\n\
         |---|---:|---:|---:|"
    )?;
    for (name, downloads) in &gates.downloads {
        let rates: Vec<f64> = downloads.iter().map(|download| download.rate / 1e6).collect();
        let cpu: Vec<f64> = downloads.iter().map(|download| download.cpu).collect();
        let (least, most) = spread(&cpu);
        let (rate, middle) = (thousands(median(&rates)), median(&cpu));
        writeln!(page, "| {} | {rate} | {middle:.2} | {least:.2} to {most:.2} |", title_of(name))?;
    }
    Ok(())
}

fn quiet(page: &mut String, gates: &Gates) -> Result {
    if gates.quiet.is_empty() {
        return Ok(());
    }
    let pairs = thousands(QUIET as f64);
    writeln!(
        page,
        "\n#### Through the gate: {pairs} quiet pairs\n\nEach was used once.\n\n| server | peak MiB |\n|---|---:|"
    )?;
    for (name, peaks) in &gates.quiet {
        let peaks: Vec<f64> = peaks.iter().map(|&bytes| bytes as f64 / f64::from(1 << 20)).collect();
        writeln!(page, "| {} | {:.1} |", title_of(name), median(&peaks))?;
    }
    Ok(())
}
