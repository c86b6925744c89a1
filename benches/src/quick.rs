//! A quick comparison, for the engineer at work.

use crate::load::{LATE, Shape, seconds};
use crate::measure::{Bench, Comparison, Load, Sample, compare};
use crate::peers::Mode;
use crate::server::{self, Spec};
use crate::stats::{median, spread};
use anyhow::{Result, ensure};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Options of a quick comparison.
#[derive(Debug, clap::Args)]
pub(crate) struct QuickArgs {
    /// What the clients do.
    shape: Shape,
    /// Connections at once; several, separated by commas, are measured one after the other.
    #[arg(short, long, value_delimiter = ',', default_value = "32")]
    connections: Vec<usize>,
    /// Requests under way on each socket (udp).
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Bytes of a request.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Measured time of each run.
    #[arg(short, long, default_value = "2s", value_parser = seconds)]
    duration: Duration,
    /// Requests a second (open).
    #[arg(short, long, default_value_t = 1000.0)]
    rate: f64,
    /// How often each server is measured.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Which servers; the first is divided by each of the others. `tidegate@PATH` is another build of tidegate,
    /// `tidegate:LABEL` the same one with the arguments of --args-for LABEL=...
    #[arg(long, value_delimiter = ',', default_value = "tidegate,tokio,epoll")]
    servers: Vec<String>,
    /// What the servers do with a request: echo, time, work-cpu:1ms, work-sleep:20ms.
    #[arg(long, default_value = "echo")]
    mode: Mode,
    /// The tidegate binary; default: the one beside this program.
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Arguments of every tidegate, separated by blanks.
    #[arg(long, default_value = "--admin off", allow_hyphen_values = true)]
    tidegate_args: String,
    /// Further arguments of one server by its label: `big="--workers 64"` for `tidegate:big`.
    #[arg(long, allow_hyphen_values = true)]
    args_for: Vec<String>,
    /// Let servers and clients share all processors.
    #[arg(long)]
    unpinned: bool,
    /// Print the samples as JSON, not a table.
    #[arg(long)]
    json: bool,
}

/// Runs it.
pub(crate) fn run(args: QuickArgs) -> Result<()> {
    ensure!(args.repeat > 0 && !args.servers.is_empty(), "there is nothing to measure");
    if let Some(path) = &args.tidegate {
        server::set_tidegate(path.clone());
    }
    let bench = Bench::new(!args.unpinned)?;
    let specs: Vec<Spec> =
        args.servers.iter().map(|name| Spec::labelled(name, &args.tidegate_args, &args.args_for)).collect();
    let mut out = std::io::stdout().lock();
    for &connections in &args.connections {
        let load = Load {
            shape: args.shape,
            mode: args.mode,
            connections,
            in_flight: args.in_flight,
            size: args.size,
            rate: args.rate,
            duration: args.duration,
        };
        let comparison = compare(&load, &specs, args.repeat, &bench)?;
        if args.json {
            serde_json::to_writer(&mut out, &comparison)?;
            writeln!(out)?;
        } else {
            table(&mut out, &load, &comparison)?;
        }
    }
    Ok(())
}

pub(crate) fn table(out: &mut impl Write, load: &Load, comparison: &Comparison) -> Result<()> {
    let Load { shape, connections, size, rate, .. } = load;
    match shape {
        Shape::Open => writeln!(out, "{shape:?}, {rate} a second, {size} B")?,
        _ => writeln!(out, "{shape:?}, {connections} connections, {size} B")?,
    }
    writeln!(
        out,
        "{:20} {:>9} {:>19} {:>9} {:>9} {:>8} {:>6} {:>8} {:>7}  first over it: rate, p50, cpu/req",
        "server", "replies/s", "[least..most]", "p50 us", "p99 us", "cpu/req", "cpu", "peak MB", "errors"
    )?;
    for (at, name) in comparison.servers.iter().enumerate() {
        let value = |figure: fn(&Sample) -> f64| median(&comparison.values(at, figure));
        let (least, most) = spread(&comparison.values(at, |sample| sample.outcome.rate));
        let ratio = |figure: fn(&Sample) -> f64| median(&comparison.ratios(0, at, figure));
        writeln!(
            out,
            "{:20} {:>9.0} {:>19} {:>9.1} {:>9.1} {:>6.2}us {:>5.0}% {:>8.1} {:>7.0}  {:.3}, {:.3}, {:.3}",
            name.rsplit_once('/').map_or(name.as_str(), |(_, file)| file),
            value(|sample| sample.outcome.rate),
            format!("[{least:.0}..{most:.0}]"),
            value(|sample| sample.outcome.p50 * 1e6),
            value(|sample| sample.outcome.p99 * 1e6),
            value(|sample| sample.cpu_per_request * 1e6),
            value(|sample| sample.server_cpu * 100.0),
            value(|sample| sample.peak_rss as f64 / 1e6),
            value(|sample| sample.outcome.errors.sum() as f64),
            ratio(|sample| sample.outcome.rate),
            ratio(|sample| sample.outcome.p50),
            ratio(|sample| sample.cpu_per_request),
        )?;
    }
    for (at, name) in comparison.servers.iter().enumerate() {
        let late = median(&comparison.values(at, |sample| sample.outcome.late_p99));
        if late > LATE.as_secs_f64() {
            writeln!(out, "{name}: the client itself was late, by {:.0} ms or more for 1 %", late * 1e3)?;
        }
    }
    writeln!(out)?;
    Ok(())
}
