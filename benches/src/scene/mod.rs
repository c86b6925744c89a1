//! Scenes of overload: clients that keep their connections or come new, each second of what they saw, and what the server
//! cost meanwhile.

mod answer;
mod client;
mod engine;
mod picture;
pub(crate) mod plan;
mod promises;
mod report;
mod scenes;
mod table;
mod tally;

use crate::load::Shape;
use crate::measure::{Bench, Load, compare, finite};
use crate::peers::Mode;
use crate::scratch::Scratch;
use crate::server::{Cost, Server, Spec};
use crate::stats::median;
use anyhow::Result;
use crossbeam_channel::{Receiver, Sender, bounded};
pub(crate) use picture::over_time;
pub(crate) use picture::pictures;
pub(crate) use plan::{Party, Script, Stage, Wire};
pub(crate) use promises::goals;
pub(crate) use report::{report, table as report_table};
pub(crate) use scenes::{Capacity, Name, Scene};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
pub(crate) use table::{SceneArgs, command, show};
pub(crate) use tally::{GroupFigures, StageFigures};

/// How long a server that was told to end may take, and how long it is waited for.
const GRACE: Duration = Duration::from_secs(2);
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last readings of a server's cost are waited for.
const METER_TIMEOUT: Duration = Duration::from_secs(2);
/// More readings than any scene has stages.
const READINGS_MAX: usize = 64;
/// How long the capacity is measured.
const CAPACITY_TIME: Duration = Duration::from_secs(1);

/// What one server came to in one scene.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) groups: Vec<GroupFigures>,
    /// The server's CPU seconds for each second of the judged stage.
    pub(crate) server_cpu: f64,
    /// CPU seconds that the clients took in each second of the scene.
    #[serde(default)]
    pub(crate) client_cpu: Vec<f64>,
    pub(crate) peak_rss: u64,
    pub(crate) threads: u64,
    /// How the server ended that was told to.
    pub(crate) ended: Option<String>,
}

/// A server's runs, or why there are none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Runs {
    pub(crate) server: String,
    pub(crate) runs: Vec<Run>,
    /// Why the server could not be measured.
    #[serde(default)]
    pub(crate) missing: Option<String>,
}

/// All servers in one scene.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Played {
    pub(crate) title: String,
    pub(crate) what: String,
    /// What a server without any loss would do a second; none where little is asked for.
    pub(crate) capacity: Option<f64>,
    /// The processors that the server shares with the clients; none where it has its own.
    #[serde(default)]
    pub(crate) shared: Option<f64>,
    pub(crate) stages: Vec<(String, f64)>,
    pub(crate) judged: usize,
    pub(crate) servers: Vec<Runs>,
}

impl Run {
    /// A group's figures in one stage.
    pub(crate) fn stage(&self, group: usize, stage: usize) -> Option<&StageFigures> {
        self.groups.get(group)?.stages.get(stage)
    }

    /// Useful replies of all groups in each second from `from` on, in `count` seconds.
    pub(crate) fn useful(&self, from: usize, count: usize) -> Vec<f64> {
        let second = |at: usize| {
            let useful = self.groups.iter().filter_map(|group| group.seconds.get(at));
            useful.map(|second| f64::from(second.useful)).sum()
        };
        (from..from + count).map(second).collect()
    }
}

impl Played {
    /// The first of the judged seconds, and how many there are.
    pub(crate) fn judged_seconds(&self) -> (usize, usize) {
        let before: f64 = self.stages[..self.judged].iter().map(|(_, time)| time).sum();
        (before.round() as usize, self.stages[self.judged].1.round() as usize)
    }

    /// What could be done in each of the judged seconds of a run: the capacity, of which clients that share the
    /// server's processors leave only a part.
    pub(crate) fn possible(&self, run: &Run) -> Option<Vec<f64>> {
        let (capacity, (from, count)) = (self.capacity?, self.judged_seconds());
        let left = |at: usize| match (self.shared, run.client_cpu.get(at)) {
            (None, _) => Some(1.0),
            (Some(cores), Some(taken)) => Some(1.0 - taken / cores),
            (Some(_), None) => None,
        };
        (from..from + count).map(|at| Some(capacity * left(at)?)).collect()
    }

    /// Useful replies of a server in each of the judged seconds, for each run.
    pub(crate) fn judged(&self, server: &str) -> Vec<Vec<f64>> {
        let (from, count) = self.judged_seconds();
        self.of(server).iter().map(|run| run.useful(from, count)).collect()
    }

    /// The runs of a server.
    pub(crate) fn of(&self, server: &str) -> &[Run] {
        let runs = self.servers.iter().find(|runs| runs.server == server);
        runs.map(|runs| runs.runs.as_slice()).unwrap_or_default()
    }
}

/// The processors of this machine.
fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// What a scene's server could do a second, if nothing were lost.
pub(crate) fn capacity(of: Capacity, mode: Mode) -> Result<Option<f64>> {
    let load = Load {
        shape: Shape::Echo,
        mode,
        connections: 4,
        in_flight: 1,
        size: 64,
        rate: 0.0,
        duration: CAPACITY_TIME,
    };
    Ok(match of {
        Capacity::Ample => None,
        Capacity::Known(rate) => Some(rate),
        Capacity::Core | Capacity::CoreOfNewcomers | Capacity::Cores => {
            let shape = if of == Capacity::CoreOfNewcomers { Shape::Churn } else { Shape::Echo };
            let load = Load { shape, ..load };
            let rounds = compare(&load, &[Spec::new("epoll")], 3, &Bench::new(true)?)?;
            // What a request takes of a processor, not what the loop had of one: other work on the machine does not
            // change that much.
            let cores = if of == Capacity::Cores { cores() } else { 1.0 };
            Some(cores / median(&rounds.values(0, |sample| sample.cpu_per_request)))
        }
    })
}

/// A server under load, and what it needs.
pub(crate) struct Stand {
    /// What the clients talk to, and whose cost is read.
    pub(crate) front: Server,
    pub(crate) backends: Vec<Server>,
    /// What is done with the backends when a stage begins.
    pub(crate) act: Option<Act>,
    /// The files of the front's configuration.
    pub(crate) folder: Option<Scratch>,
}

/// Does something with the backends at the start of a stage.
pub(crate) type Act = Box<dyn FnMut(usize, &mut Vec<Server>) -> Result<()> + Send>;

impl Stand {
    /// A server that needs nothing else.
    pub(crate) fn alone(front: Server) -> Self {
        Self { front, backends: Vec::new(), act: None, folder: None }
    }
}

/// Plays a scene against each server, `rounds` times, in turn. `start` starts the n-th of them. A server that cannot be
/// measured is reported as missing.
pub(crate) fn play(
    scene: &Scene,
    capacity: Option<f64>,
    names: &[String],
    rounds: usize,
    start: impl Fn(usize, &Bench) -> Result<Stand>,
    mut done: impl FnMut(&Runs),
) -> Result<Played> {
    let bench = Bench::new(scene.apart)?;
    let new = |name: &String| Runs { server: name.clone(), runs: Vec::new(), missing: None };
    let mut servers: Vec<Runs> = names.iter().map(new).collect();
    for round in 0..rounds {
        for turn in 0..names.len() {
            let at = (round + turn) % names.len();
            match start(at, &bench).and_then(|stand| once(scene, stand, &bench)) {
                Ok(run) => servers[at].runs.push(run),
                Err(error) => servers[at].missing = Some(in_a_line(&error)),
            }
            if round + 1 == rounds {
                done(&servers[at]);
            }
        }
    }
    let stages = scene.script.stages.iter().map(|stage| (stage.name.to_owned(), stage.time.as_secs_f64()));
    Ok(Played {
        title: scene.title.to_owned(),
        what: scene.what.to_owned(),
        capacity,
        shared: (!scene.apart).then(cores),
        stages: stages.collect(),
        judged: scene.judged,
        servers,
    })
}

/// The longest reason that fits into a table.
const REASON_MAX: usize = 160;

/// An error as one line of a table.
pub(crate) fn in_a_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}").replace(['\n', '|'], " ");
    match text.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// Plays a scene once against a fresh server.
fn once(scene: &Scene, mut stand: Stand, bench: &Bench) -> Result<Run> {
    let meter = Meter::start(stand.front.pid())?;
    let _folder = stand.folder.take();
    let (stages, begun) = bounded(scene.script.stages.len() + 1);
    let (mut act, mut backends) = (stand.act.take(), std::mem::take(&mut stand.backends));
    // What is done with the backends must not hold up the clients.
    let actor = std::thread::spawn(move || {
        for stage in begun {
            if let Some(act) = &mut act {
                act(stage, &mut backends)?;
            }
        }
        anyhow::Ok(())
    });
    let seen = clients(&scene.script, stand.front.addr, bench, |stage| {
        meter.read();
        let _ = stages.send(stage);
    })?;
    let costs = meter.costs(scene.script.stages.len() + 1);
    let share = match costs.get(scene.judged..scene.judged + 2) {
        Some(&[(from, first), (to, last)]) => (last.cpu - first.cpu) / (to - from).as_secs_f64(),
        _ => f64::NAN,
    };
    let (peak_rss, threads) = costs.last().map_or((0, 0), |(_, cost)| (cost.peak_rss, cost.threads));
    let ended = match scene.ends {
        true => Some(stand.front.end_in_order(GRACE, END_TIMEOUT)?),
        false => None,
    };
    drop(stages);
    actor.join().unwrap_or_else(|_| anyhow::bail!("the thread of the backends panicked"))?;
    let engine::SceneOutcome { groups, client_cpu } = seen;
    Ok(Run { groups, server_cpu: finite(share), client_cpu, peak_rss, threads, ended })
}

/// Reads what a server costs, on a thread of its own: the clients must not wait for what the kernel says of a server that
/// is overwhelmed.
pub(crate) struct Meter {
    asks: Sender<()>,
    costs: Receiver<(Instant, Cost)>,
}

impl Meter {
    pub(crate) fn start(pid: u32) -> Result<Self> {
        let (asks, asked) = bounded(READINGS_MAX);
        let (tell, costs) = bounded(READINGS_MAX);
        std::thread::Builder::new().name("meter".into()).spawn(move || {
            for () in asked {
                let at = Instant::now();
                let Ok(cost) = Cost::of(pid) else { return };
                if tell.send((at, cost)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { asks, costs })
    }

    /// Asks for a reading, without waiting for it.
    pub(crate) fn read(&self) {
        let _ = self.asks.try_send(());
    }

    /// The first readings, `count` of them; fewer when the kernel does not say them soon.
    pub(crate) fn costs(&self, count: usize) -> Vec<(Instant, Cost)> {
        let deadline = Instant::now() + METER_TIMEOUT;
        (0..count).map_while(|_| self.costs.recv_deadline(deadline).ok()).collect()
    }
}

/// The clients of a plan, on their processors. `probe` is called at the start of each stage and at the end.
pub(crate) fn clients(
    plan: &Script,
    target: SocketAddr,
    bench: &Bench,
    probe: impl FnMut(usize) + Send,
) -> Result<engine::SceneOutcome> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            bench.client_cpus.pin_this_thread()?;
            engine::run(plan, target, probe)
        });
        thread.join().unwrap_or_else(|_| anyhow::bail!("the thread of the clients panicked"))
    })
}
