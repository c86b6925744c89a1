//! Everything that is measured, in one run.

use crate::clients::{self, Clients};
use crate::gate::Kind;
use crate::goals::{CLIENT_CONNECTIONS, NO_WRK};
use crate::load::Shape;
use crate::machine::Machine;
use crate::measure::{Bench, Load, compare, start_to_first_reply};
use crate::peers::Mode;
use crate::pin::Cpus;
use crate::results::{Results, SHARED, Survival, SurvivalPoint};
use crate::scene::Stand;
use crate::server::{self, Server, Spec};
use crate::{gate, plots, report, scene, stats};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// As tidegate is started unless a work says otherwise: its defaults, but without the admin endpoint's fixed port.
const TIDEGATE: &str = "--workers 32 --queue 128 --admin off";
/// Everything that can be switched off is off, and timeouts are as long as they can be.
const TIDEGATE_OFF: &str =
    "--admin off --read-timeout 30d --write-timeout 30d --idle-timeout 30d --queue-timeout 30d";
/// Everything that can be switched on is on.
const TIDEGATE_ON: &str = "--admin 127.0.0.1:0 --read-timeout 10s --write-timeout 10s --idle-timeout 60s \
                           --queue-timeout 5s --max-per-source 20000 --refusal-rate 500/s";
/// One place, which somebody holds; everybody else is refused, as fast as it goes.
const TIDEGATE_FULL: &str = "--admin off --max-connections 1 --queue 1 --refusal-rate 1000000/s";
/// Offered load over capacity.
const FACTORS: [f64; 6] = [0.5, 1.0, 1.5, 2.0, 4.0, 10.0];
/// The same with the small backlog.
const FACTORS_SMALL: [f64; 3] = [1.0, 4.0, 10.0];
/// The backlog the standard library of Rust listens with.
const BACKLOG_SMALL: &str = "--backlog 128";
/// The work of a request in the picture of survival.
const SURVIVAL_WORK: Mode = Mode::Cpu(Duration::from_millis(1));

/// Datagrams: the end of the work's name, sockets, and requests under way on each.
const UDP_WORKS: [(&str, usize, usize); 4] =
    [("1", 1, 1), ("1x32", 1, 32), ("32", 32, 1), ("1000", 1_000, 1)];

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Section {
    /// Echo over connections that stay, and memory.
    Echo,
    /// Connect, echo, close.
    Churn,
    /// Refusals.
    Refuse,
    /// Useful work under overload.
    Survival,
    /// Scenes of overload on connections that stay, and of crowds.
    Scenes,
    /// What it costs to have something in front of a service.
    Gate,
    /// The same for HTTP, and what an HTTP server costs.
    Http,
    /// What stands in front of a service that has trouble: what it is worth.
    GateScenes,
    /// The same with gunicorn, over HTTP.
    Gunicorn,
    /// Start to first reply.
    Start,
    /// Metrics, limits and timeouts on and off.
    Features,
    /// Datagrams.
    Udp,
    /// The load clients.
    Stress,
}

/// Options of the whole run.
#[derive(Debug, clap::Args)]
pub(crate) struct AllArgs {
    /// Only these sections; what an earlier run kept of the others stays.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Section>,
    /// How often each server is measured under each work.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured time of each run.
    #[arg(short, long, default_value = "1s", value_parser = crate::load::seconds)]
    duration: Duration,
    /// The tidegate binary; without it, `cargo build --release` makes one.
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// The gunicorn of the scene that is named after it; default: the one of the tests (tests/setup.sh), or the installed.
    #[arg(long)]
    gunicorn: Option<PathBuf>,
    /// Leave Python's servers out.
    #[arg(long)]
    no_python: bool,
    /// The folder of the report.
    #[arg(long, default_value = "docs")]
    out: PathBuf,
}

/// Options of making the report again.
#[derive(Debug, clap::Args)]
pub(crate) struct RenderArgs {
    /// The folder of the report.
    #[arg(long, default_value = "docs")]
    out: PathBuf,
}

struct Suite {
    /// Servers on one core, clients on the others.
    bench: Bench,
    /// All on all.
    shared: Bench,
    rounds: usize,
    duration: Duration,
    python: bool,
    results: Results,
    started: Instant,
}

/// Measures everything and writes the report.
pub(crate) fn run(args: AllArgs) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds is at least 1");
    match &args.tidegate {
        Some(path) => server::set_tidegate(path.clone()),
        None => build()?,
    }
    if let Some(path) = &args.gunicorn {
        gate::set_gunicorn(path.clone());
    }
    let cpus = Cpus::all()?;
    let machine = Machine::of(cpus.count(), true);
    let file = args.out.join("benchmarks.json");
    let mut results = match args.only.is_empty() {
        true => Results::new(machine.clone()),
        false => Results::load(&file)?,
    };
    for section in args.only.iter().filter_map(ValueEnum::to_possible_value) {
        results.later.insert(section.get_name().to_owned(), machine.clone());
    }
    let mut suite = Suite {
        bench: Bench::new(true)?,
        shared: Bench::new(false)?,
        rounds: args.rounds,
        duration: args.duration,
        python: !args.no_python,
        results,
        started: Instant::now(),
    };
    let sections: &[Section] = match args.only.as_slice() {
        [] => Section::value_variants(),
        some => some,
    };
    for &section in sections {
        suite.measure(section).with_context(|| format!("section {section:?}"))?;
        // Kept after each section, so that a failure late in the run costs only what follows.
        std::fs::create_dir_all(&args.out)?;
        suite.results.save(&file)?;
    }
    suite.note("done");
    write_report(&suite.results, &args.out)
}

/// Makes the report again from what was kept.
pub(crate) fn render(args: RenderArgs) -> Result<()> {
    write_report(&Results::load(&args.out.join("benchmarks.json"))?, &args.out)
}

fn write_report(results: &Results, out: &std::path::Path) -> Result<()> {
    let pictures = out.join("img");
    std::fs::create_dir_all(&pictures)?;
    let gates = results.gate.iter().flat_map(gate::pictures);
    let others = scene::pictures(&results.scenes).into_iter().chain(gates);
    for (name, picture) in plots::all(results).into_iter().chain(others) {
        std::fs::write(pictures.join(name), picture)?;
    }
    std::fs::write(out.join("benchmarks.md"), report::markdown(results))?;
    Ok(())
}

fn build() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "tidegate"])
        .status()
        .context("cannot run cargo; say where tidegate is with --tidegate")?;
    ensure!(status.success(), "tidegate does not build");
    Ok(())
}

impl Suite {
    /// A line of progress, on stderr.
    fn note(&self, what: &str) {
        let _ = writeln!(std::io::stderr(), "[{:4.0} s] {what}", self.started.elapsed().as_secs_f64());
    }

    fn measure(&mut self, section: Section) -> Result<()> {
        match section {
            Section::Echo => self.echo(),
            Section::Churn => self.churn(),
            Section::Refuse => self.refuse(),
            Section::Survival => self.survival(),
            Section::Scenes => self.scenes(),
            Section::Gate => self.gate(),
            Section::Http => self.http(),
            Section::GateScenes => self.gate_scenes(false),
            Section::Gunicorn => self.gate_scenes(true),
            Section::Start => self.starts(),
            Section::Features => self.features(),
            Section::Udp => self.datagrams(),
            Section::Stress => self.clients(),
        }
    }

    /// Servers by name, tidegate with its usual arguments; Python at the end where it can do the work.
    fn peers(&self, names: &str, python: bool) -> Vec<Spec> {
        let mut specs: Vec<Spec> = names
            .split_whitespace()
            .map(|name| match name {
                "tidegate" => Spec::with(name, TIDEGATE),
                _ => Spec::new(name),
            })
            .collect();
        if python && self.python {
            specs.push(Spec::new("python"));
        }
        specs
    }

    /// A closed loop.
    fn load(&self, shape: Shape, mode: Mode, connections: usize, size: usize) -> Load {
        // So many connections take turns that are longer than a short run.
        let duration = if connections >= 10_000 { self.duration * 2 } else { self.duration };
        Load { shape, mode, connections, in_flight: 1, size, rate: 0.0, duration }
    }

    fn work(&mut self, name: &str, load: Load, servers: Vec<Spec>) -> Result<()> {
        self.note(name);
        let bench = if name.ends_with(SHARED) { &self.shared } else { &self.bench };
        // A few percent show only in many pairs.
        let rounds = if name.starts_with("features") { self.rounds * 4 } else { self.rounds };
        let comparison = compare(&load, &servers, rounds, bench)?;
        self.results.work.insert(name.to_owned(), comparison);
        Ok(())
    }

    fn echo(&mut self) -> Result<()> {
        for (connections, size, peers, python, rivals) in [
            (1, 64, "tidegate tokio thread pool epoll", true, "tidegate tokio thread epoll"),
            (32, 64, "tidegate tokio thread pool epoll", true, "tidegate tokio thread epoll"),
            (1_000, 64, "tidegate tokio thread epoll", false, "tidegate tokio epoll"),
            (10_000, 64, "tidegate tokio tokio-4k epoll", false, "tidegate tokio epoll"),
            (32, 65_536, "tidegate tokio thread pool epoll", true, "tidegate tokio epoll"),
        ] {
            let name = format!("echo-{size}-{connections}");
            let peers = self.peers(peers, python);
            let load = self.load(Shape::Echo, Mode::Echo, connections, size);
            self.work(&name, load.clone(), peers)?;
            let rivals = self.peers(rivals, false);
            self.work(&(name + SHARED), load, rivals)?;
        }
        Ok(())
    }

    fn churn(&mut self) -> Result<()> {
        let peers = self.peers("tidegate tokio thread pool epoll", true);
        let load = self.load(Shape::Churn, Mode::Echo, 32, 64);
        self.work("churn", load.clone(), peers)?;
        let rivals = self.peers("tidegate tokio epoll", false);
        self.work("churn-shared", load, rivals)
    }

    fn refuse(&mut self) -> Result<()> {
        for name in ["refuse", "refuse-shared"] {
            let servers = vec![Spec::with("tidegate", TIDEGATE_FULL), Spec::new("reset")];
            self.work(name, self.load(Shape::Refuse, Mode::Echo, 32, 64), servers)?;
        }
        Ok(())
    }

    fn features(&mut self) -> Result<()> {
        for name in ["features", "features-shared"] {
            let servers =
                vec![Spec::with("tidegate:on", TIDEGATE_ON), Spec::with("tidegate:off", TIDEGATE_OFF)];
            self.work(name, self.load(Shape::Echo, Mode::Echo, 32, 64), servers)?;
        }
        Ok(())
    }

    fn datagrams(&mut self) -> Result<()> {
        for (name, mode, size) in [("echo", Mode::Echo, 64), ("time", Mode::Time, 8)] {
            for (key, sockets, in_flight) in UDP_WORKS {
                let load = Load { in_flight, ..self.load(Shape::Udp, mode, sockets, size) };
                let peers = self.peers("tidegate udp", true);
                self.work(&format!("udp-{name}-{key}"), load, peers)?;
            }
        }
        Ok(())
    }

    fn starts(&mut self) -> Result<()> {
        self.note("start to first reply");
        let servers = self.peers("tidegate tokio thread epoll", true);
        self.results.starts.clear();
        for _ in 0..self.rounds.max(5) * 2 {
            for spec in &servers {
                let seconds = start_to_first_reply(spec, &self.bench)?.as_secs_f64();
                self.results.starts.entry(spec.name.clone()).or_default().push(seconds);
            }
        }
        Ok(())
    }

    fn survival(&mut self) -> Result<()> {
        self.note("capacity of one core");
        let load = self.load(Shape::Churn, SURVIVAL_WORK, 4, 64);
        let capacity = compare(&load, &[Spec::new("epoll")], self.rounds.max(3), &self.bench)?;
        // What it takes of a processor, not what it had of one: other work on the machine does not change it much.
        let capacity = 1.0 / stats::median(&capacity.values(0, |sample| sample.cpu_per_request));
        let servers = self.peers("tidegate tokio thread pool epoll", true);
        let points = self.survival_points(capacity, &FACTORS, &servers)?;
        let mut small = self.peers("tokio thread pool epoll", true);
        for spec in &mut small {
            *spec = Spec::with(spec.name.as_str(), BACKLOG_SMALL);
        }
        let points_small = self.survival_points(capacity, &FACTORS_SMALL, &small)?;
        self.results.survival = Some(Survival { capacity, points, points_small });
        Ok(())
    }

    fn scenes(&mut self) -> Result<()> {
        let mut known = Vec::new();
        for &name in <scene::Name as clap::ValueEnum>::value_variants() {
            let of = name.capacity();
            let capacity = match known.iter().find(|(what, _)| *what == of) {
                Some((_, capacity)) => *capacity,
                None => {
                    self.note("capacity");
                    let capacity = scene::capacity(of, name.work())?;
                    known.push((of, capacity));
                    capacity
                }
            };
            let scene = name.scene(capacity.unwrap_or(1.0));
            self.note(&format!("scene {}", scene.key));
            let python = self.python;
            let peers = scene.peers.split_whitespace();
            let peers = peers.filter(|name| python || !matches!(*name, "python" | "asyncio"));
            let specs = self.peers(&peers.collect::<Vec<_>>().join(" "), false);
            // Each run has many seconds that are looked at, so fewer rounds do.
            let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
            let start = |at: usize, bench: &Bench| {
                Ok(Stand::alone(Server::start(&specs[at], scene.service, &bench.server_cpus)?))
            };
            let played = scene::play(&scene, capacity, &names, self.rounds.div_ceil(3), start, |_| {})?;
            self.results.scenes.insert(scene.key.to_owned(), played);
        }
        Ok(())
    }

    fn gate(&mut self) -> Result<()> {
        let mut gates = self.results.gate.take().unwrap_or_default();
        let time = (self.rounds, self.duration);
        gate::works(&mut gates, &[Kind::Bytes], &self.bench, time, |what| self.note(what))?;
        gate::downloads_and_quiet(&mut gates, &self.bench, self.rounds, |what| self.note(what));
        self.results.gate = Some(gates);
        Ok(())
    }

    fn http(&mut self) -> Result<()> {
        let mut gates = self.results.gate.take().unwrap_or_default();
        let time = (self.rounds, self.duration);
        let kinds = [Kind::HttpGate, Kind::HttpServer];
        gate::works(&mut gates, &kinds, &self.bench, time, |what| self.note(what))?;
        self.results.gate = Some(gates);
        Ok(())
    }

    fn gate_scenes(&mut self, http: bool) -> Result<()> {
        let mut gates = self.results.gate.take().unwrap_or_default();
        gate::scenes(&mut gates, http, self.rounds, |what| self.note(what))?;
        self.results.gate = Some(gates);
        Ok(())
    }

    fn survival_points(
        &self,
        capacity: f64,
        factors: &[f64],
        servers: &[Spec],
    ) -> Result<Vec<SurvivalPoint>> {
        let mut points = Vec::new();
        for &factor in factors {
            self.note(&format!("survival at {factor} of capacity"));
            let load = Load {
                rate: factor * capacity,
                duration: self.duration * 2,
                ..self.load(Shape::Open, SURVIVAL_WORK, 1, 64)
            };
            // Each point is longer than the other works, so fewer rounds do.
            let comparison = compare(&load, servers, self.rounds.div_ceil(2), &self.bench)?;
            points.push(SurvivalPoint { factor, comparison });
        }
        Ok(points)
    }

    /// `tidegate stress` beside the other load clients.
    fn clients(&mut self) -> Result<()> {
        let clients = Clients::new(&self.bench, self.rounds, self.duration);
        self.results.clients.clear();
        for connections in CLIENT_CONNECTIONS {
            self.note(&format!("load clients at {connections} connections"));
            self.results.clients.insert(connections, clients.echo(connections)?);
        }
        self.note("load clients, connections a second");
        self.results.clients_churn = Some(clients.churn(32)?);
        self.results.clients_http.clear();
        self.results.wrk = clients::wrk_is_installed();
        if !self.results.wrk {
            self.note(NO_WRK);
            return Ok(());
        }
        for connections in CLIENT_CONNECTIONS {
            self.note(&format!("load clients, http at {connections} connections"));
            self.results.clients_http.insert(connections, clients.http(connections)?);
        }
        Ok(())
    }
}
