//! `tidegate-bench gate`: one work or one scene through some fronts, printed.

use super::trouble::Trouble;
use super::works::{self, Kind, Measured, WORKS};
use super::{gunicorn, promises, report};
use crate::goals;
use crate::measure::Bench;
use crate::quick;
use crate::scene;
use crate::server::{self, Spec};
use crate::stats::{median, spread};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Options of a comparison of fronts, or of HTTP servers.
#[derive(Debug, clap::Args)]
pub(crate) struct GateArgs {
    /// What is done. Bytes pass: echo-1, echo-32, echo-1000, churn, bulk, download, quiet. HTTP passes: http-gate-1,
    /// http-gate-32, http-gate-1000. An HTTP server alone: http-1, http-32, http-1000. A scene: survive, slow, three,
    /// killed, gunicorn.
    what: String,
    /// Which fronts: tidegate, tidegate@PATH, haproxy, haproxy-splice, haproxy-limits, nginx, tokio-relay, relay, nothing;
    /// or which HTTP servers: tidegate, nginx, hyper, http (a one-thread loop).
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// Measured time of each run; scenes have their own.
    #[arg(short, long, default_value = "2s", value_parser = crate::load::seconds)]
    duration: Duration,
    /// How often each front is measured; default: 3, and 1 for a scene.
    #[arg(long)]
    repeat: Option<usize>,
    /// The tidegate binary; default: the one beside this program.
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// The gunicorn of the scene that is named after it; default: the one of the tests (tests/setup.sh), or the installed.
    #[arg(long)]
    gunicorn: Option<PathBuf>,
    /// Arguments of every tidegate, separated by blanks.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    tidegate_args: String,
    /// Further arguments of one front by its label: `big="--workers 64"` for `tidegate:big`.
    #[arg(long, allow_hyphen_values = true)]
    args_for: Vec<String>,
    /// Draw a scene, second by second, into this SVG file.
    #[arg(long)]
    picture: Option<PathBuf>,
    /// Print the figures as JSON, not a table.
    #[arg(long)]
    json: bool,
}

/// Measures it.
pub(crate) fn command(args: GateArgs) -> Result<()> {
    let repeat = args.repeat.unwrap_or(3);
    ensure!(repeat > 0, "there is nothing to measure");
    if let Some(path) = &args.tidegate {
        server::set_tidegate(path.clone());
    }
    if let Some(path) = &args.gunicorn {
        gunicorn::set_gunicorn(path.clone());
    }
    if let Ok(trouble) = Trouble::from_str(&args.what, true) {
        return play(&args, trouble);
    }
    let bench = Bench::new(true)?;
    let work = WORKS.iter().find(|work| work.key == args.what);
    let specs = specs(&args, work.map_or(Kind::Bytes, |work| work.kind).servers());
    let mut out = std::io::stdout().lock();
    match args.what.as_str() {
        "download" => {
            let measured = works::downloads(&specs, repeat, &bench);
            figures(&mut out, &measured, &[("MB/s", |d| d.rate / 1e6), ("CPU s/GB", |d| d.cpu)])?;
            Ok(goals::print(&mut out, &[promises::of_downloads(Some(&measured.values))])?)
        }
        "quiet" => {
            let measured = works::quiet(&specs, repeat, &bench);
            figures(&mut out, &measured, &[("peak MiB", |&bytes| bytes as f64 / f64::from(1 << 20))])?;
            Ok(goals::print(&mut out, &[promises::of_quiet(Some(&measured.values))])?)
        }
        what => {
            let Some(work) = work else { bail!("`{what}` is not a work: see --help") };
            let (comparison, missing) = work.compare(&specs, repeat, args.duration, &bench)?;
            if args.json {
                serde_json::to_writer(&mut out, &comparison)?;
                return Ok(writeln!(out)?);
            }
            quick::table(&mut out, &work.load(args.duration), &comparison)?;
            not_measured(&mut out, &missing)?;
            Ok(goals::print(&mut out, &promises::of_work(work, Some(&comparison)))?)
        }
    }
}

fn specs(args: &GateArgs, fronts: &str) -> Vec<Spec> {
    let names: Vec<String> = match args.servers.as_slice() {
        [] => fronts.split_whitespace().map(str::to_owned).collect(),
        some => some.to_vec(),
    };
    names.iter().map(|name| Spec::labelled(name, &args.tidegate_args, &args.args_for)).collect()
}

fn play(args: &GateArgs, trouble: Trouble) -> Result<()> {
    let capacity = trouble.capacity()?;
    let scene = trouble.scene(capacity);
    let specs = specs(args, trouble.fronts());
    let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    let repeat = args.repeat.unwrap_or(1);
    let start = |at: usize, bench: &Bench| trouble.stand(&specs[at], bench);
    let played = scene::show(&scene, Some(capacity), &names, repeat, args.json, start)?;
    if let Some(path) = &args.picture {
        std::fs::write(path, report::picture(trouble, &played))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    match args.json {
        true => Ok(()),
        false => {
            Ok(goals::print(&mut std::io::stdout().lock(), &promises::of_scene(trouble, Some(&played)))?)
        }
    }
}

/// A column: its head and its figure.
type Column<T> = (&'static str, fn(&T) -> f64);

fn figures<T>(out: &mut impl Write, measured: &Measured<T>, columns: &[Column<T>]) -> Result<()> {
    for (name, values) in &measured.values {
        write!(out, "{name:20}")?;
        for (head, figure) in columns {
            let values: Vec<f64> = values.iter().map(figure).collect();
            let (least, most) = spread(&values);
            write!(out, "  {:.2} {head} [{least:.2}..{most:.2}]", median(&values))?;
        }
        writeln!(out)?;
    }
    not_measured(out, &measured.missing)
}

fn not_measured(out: &mut impl Write, missing: &BTreeMap<String, String>) -> Result<()> {
    for (name, reason) in missing {
        writeln!(out, "{name}: not measured: {reason}")?;
    }
    Ok(())
}
