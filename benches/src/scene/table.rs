//! `tidegate-bench scene`: one scene against some servers, printed second by second.

use super::report::saw;
use super::{Name, Played, Run, Runs, Scene, Stand, capacity, play};
use crate::load::LATE;
use crate::measure::Bench;
use crate::server::{self, Server, Spec};
use anyhow::{Result, ensure};
use std::io::Write;
use std::path::PathBuf;

/// Options of a scene.
#[derive(Debug, clap::Args)]
pub(crate) struct SceneArgs {
    /// Which scene.
    name: Name,
    /// Which servers; default: those of the scene. `tidegate@PATH` is another build of tidegate, `NAME:LABEL` a server
    /// with the arguments of --args-for LABEL=...
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// How often each server is measured.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// The tidegate binary; default: the one beside this program.
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Arguments of every tidegate, separated by blanks.
    #[arg(long, default_value = "--admin off", allow_hyphen_values = true)]
    tidegate_args: String,
    /// Further arguments of one server by its label: `big="--workers 64"` for `tidegate:big`.
    #[arg(long, allow_hyphen_values = true)]
    args_for: Vec<String>,
    /// Requests a second that the server can do; default: measured before the scene.
    #[arg(long)]
    capacity: Option<f64>,
    /// Print the figures as JSON, not a table.
    #[arg(long)]
    json: bool,
}

/// Plays it.
pub(crate) fn command(args: SceneArgs) -> Result<()> {
    ensure!(args.repeat > 0, "there is nothing to measure");
    if let Some(path) = &args.tidegate {
        server::set_tidegate(path.clone());
    }
    let rate = match args.capacity {
        Some(rate) => Some(rate),
        None => capacity(args.name.capacity(), args.name.work())?,
    };
    let scene = args.name.scene(rate.unwrap_or(1.0));
    let servers = match args.servers.as_slice() {
        [] => scene.peers.split_whitespace().map(str::to_owned).collect(),
        some => some.to_vec(),
    };
    let specs: Vec<Spec> =
        servers.iter().map(|name| Spec::labelled(name, &args.tidegate_args, &args.args_for)).collect();
    let start = |at: usize, bench: &Bench| {
        Ok(Stand::alone(Server::start(&specs[at], scene.service, &bench.server_cpus)?))
    };
    show(&scene, rate, &servers, args.repeat, args.json, start)?;
    Ok(())
}

/// Plays a scene and prints it, each server as soon as its last run is over.
pub(crate) fn show(
    scene: &Scene,
    rate: Option<f64>,
    names: &[String],
    repeat: usize,
    json: bool,
    start: impl Fn(usize, &Bench) -> Result<Stand>,
) -> Result<Played> {
    let mut out = std::io::stdout().lock();
    if !json {
        writeln!(out, "{}\n{}", scene.title, scene.what)?;
        let stages = scene.script.stages.iter();
        let stages: Vec<String> =
            stages.map(|stage| format!("{} {} s", stage.name, stage.time.as_secs())).collect();
        write!(out, "Useful replies in each second: {}.", stages.join(" | "))?;
        match rate {
            Some(rate) => writeln!(out, " Capacity: {rate:.0} a second.")?,
            None => writeln!(out)?,
        }
    }
    let times: Vec<usize> = scene.script.stages.iter().map(|stage| stage.time.as_secs() as usize).collect();
    let mut printed = Ok(());
    let played = play(scene, rate, names, repeat, start, |runs| {
        if !json && printed.is_ok() {
            printed = server_lines(&mut out, runs, &times, scene.judged, rate);
        }
    })?;
    printed?;
    if json {
        serde_json::to_writer(&mut out, &played)?;
        writeln!(out)?;
    }
    Ok(played)
}

/// A server's runs: each group second by second, and its figures in the judged stage.
fn server_lines(
    out: &mut impl Write,
    runs: &Runs,
    stages: &[usize],
    judged: usize,
    capacity: Option<f64>,
) -> Result<()> {
    let name = runs.server.rsplit_once('/').map_or(runs.server.as_str(), |(_, file)| file);
    writeln!(out, "\n{name}")?;
    if let Some(reason) = &runs.missing {
        writeln!(out, "  not measured: {reason}")?;
    }
    for run in &runs.runs {
        for group in &run.groups {
            write!(out, "  {:20}", group.name)?;
            let mut seconds = group.seconds.iter();
            for &count in stages {
                write!(out, " |")?;
                for second in seconds.by_ref().take(count) {
                    write!(out, " {}", second.useful)?;
                }
            }
            writeln!(out)?;
            let figures = &group.stages[judged];
            let percent = |share: Option<f64>| share.map_or(f64::NAN, |share| share * 100.0);
            writeln!(
                out,
                "  {:20} {} joined; {} asked, {} useful ({:.1} %), {:.1} % within 250 ms; p50 {:.0} p90 {:.0} p99 {:.0} \
                 max {:.0} ms; {} reset, {} closed (told within {:.0} ms), {} timed out, {} unsent; {} dropped idle",
                "",
                group.joined,
                figures.asked,
                figures.useful,
                percent(figures.share()),
                percent(figures.prompt_share()),
                figures.p50 * 1e3,
                figures.p90 * 1e3,
                figures.p99 * 1e3,
                figures.max * 1e3,
                figures.reset,
                figures.closed,
                figures.told_p99 * 1e3,
                figures.timeout,
                figures.unsent,
                group.dropped_idle,
            )?;
            if let Some(saw) = saw(figures) {
                writeln!(out, "  {:20} the refused: {saw}", "")?;
            }
            if figures.late_p99 > LATE.as_secs_f64() {
                let late = figures.late_p99 * 1e3;
                writeln!(out, "  {:20} the client itself was late, by {late:.0} ms or more for 1 %", "")?;
            }
        }
        let (from, count) = (stages[..judged].iter().sum(), stages[judged]);
        let useful = run.useful(from, count);
        let worst = useful.iter().copied().fold(f64::INFINITY, f64::min);
        let all = useful.iter().sum::<f64>() / count as f64;
        write!(out, "  in all {all:.0} a second, the worst second {worst:.0}")?;
        if let Some(capacity) = capacity {
            write!(out, " ({:.2} and {:.2} of the capacity)", all / capacity, worst / capacity)?;
        }
        let (cpu, rss) = (run.server_cpu * 100.0, run.peak_rss as f64 / 1e6);
        writeln!(out, "; server: {cpu:.0} % of a core, peak {rss:.0} MB, {} threads", run.threads)?;
        last_lines(out, run, (from, count))?;
    }
    Ok(out.flush()?)
}

/// What a run's clients took of the processors in the judged seconds, and how the server ended that was told to.
fn last_lines(out: &mut impl Write, run: &Run, (from, count): (usize, usize)) -> Result<()> {
    if !run.client_cpu.is_empty() {
        let taken = run.client_cpu.iter().skip(from).take(count).sum::<f64>() / count as f64;
        writeln!(out, "  the clients took {:.0} % of a core", taken * 100.0)?;
    }
    if let Some(ended) = &run.ended {
        writeln!(out, "  told to end: {ended}")?;
    }
    Ok(())
}
