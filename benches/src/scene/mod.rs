//! Scenes of overload: clients that keep their connections or come new, each second of what they saw, and what the server
//! cost meanwhile.

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
use crate::server::{Cost, Server, Spec};
use crate::stats::median;
use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, unbounded};
pub(crate) use picture::pictures;
pub(crate) use plan::Script;
pub(crate) use promises::goals;
pub(crate) use report::report;
pub(crate) use scenes::{Capacity, Name, Scene};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
pub(crate) use table::{SceneArgs, command};
pub(crate) use tally::{GroupFigures, StageFigures};

/// How long a server that was told to end may take, and how long it is waited for.
const GRACE: Duration = Duration::from_secs(2);
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last readings of a server's cost are waited for.
const METER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the capacity is measured.
const CAPACITY_TIME: Duration = Duration::from_secs(1);

/// What one server came to in one scene.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) groups: Vec<GroupFigures>,
    /// The server's CPU seconds for each second of the judged stage.
    pub(crate) server_cpu: f64,
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
        Capacity::Core => {
            let rounds = compare(&load, &[Spec::new("epoll")], 3, &Bench::new(true)?)?;
            // What a request takes of a processor, not what the loop had of one: other work on the machine does not
            // change that much.
            Some(1.0 / median(&rounds.values(0, |sample| sample.cpu_per_request)))
        }
        Capacity::Cores => {
            let load = Load { connections: 64, ..load };
            let rounds = compare(&load, &[Spec::with("tidegate", "--admin off")], 3, &Bench::new(false)?)?;
            Some(median(&rounds.values(0, |sample| sample.outcome.rate)))
        }
    })
}

/// Plays a scene against each server, `rounds` times, in turn. A server that cannot be measured is reported as missing.
pub(crate) fn play(
    scene: &Scene,
    capacity: Option<f64>,
    specs: &[Spec],
    rounds: usize,
    mut done: impl FnMut(&Runs),
) -> Result<Played> {
    let bench = Bench::new(scene.apart)?;
    let mut servers: Vec<Runs> = specs
        .iter()
        .map(|spec| Runs { server: spec.name.clone(), runs: Vec::new(), missing: None })
        .collect();
    for round in 0..rounds {
        for turn in 0..specs.len() {
            let at = (round + turn) % specs.len();
            match once(scene, &specs[at], &bench) {
                Ok(run) => servers[at].runs.push(run),
                Err(error) => servers[at].missing = Some(format!("{error:#}")),
            }
            if round + 1 == rounds {
                done(&servers[at]);
            }
        }
    }
    let stages = scene.plan.stages.iter().map(|stage| (stage.name.to_owned(), stage.time.as_secs_f64()));
    Ok(Played {
        title: scene.title.to_owned(),
        what: scene.what.to_owned(),
        capacity,
        stages: stages.collect(),
        judged: scene.judged,
        servers,
    })
}

/// Plays a scene once against a fresh server.
fn once(scene: &Scene, spec: &Spec, bench: &Bench) -> Result<Run> {
    let mut server = Server::start(spec, scene.service, &bench.server_cpus)?;
    let meter = Meter::start(server.pid())?;
    let groups = clients(&scene.plan, server.addr, bench, |_| meter.read())
        .with_context(|| format!("measuring {}", spec.name))?;
    let costs = meter.costs(scene.plan.stages.len() + 1);
    let share = match costs.get(scene.judged..scene.judged + 2) {
        Some(&[(from, first), (to, last)]) => (last.cpu - first.cpu) / (to - from).as_secs_f64(),
        _ => f64::NAN,
    };
    let (peak_rss, threads) = costs.last().map_or((0, 0), |(_, cost)| (cost.peak_rss, cost.threads));
    let ended = match scene.ends {
        true => Some(server.end_in_order(GRACE, END_TIMEOUT)?),
        false => None,
    };
    Ok(Run { groups, server_cpu: finite(share), peak_rss, threads, ended })
}

/// Reads what a server costs, on a thread of its own: the clients must not wait for what the kernel says of a server that
/// is overwhelmed.
pub(crate) struct Meter {
    asks: Sender<()>,
    costs: Receiver<(Instant, Cost)>,
}

impl Meter {
    pub(crate) fn start(pid: u32) -> Result<Self> {
        let (asks, asked) = unbounded();
        let (tell, costs) = unbounded();
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
        let _ = self.asks.send(());
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
) -> Result<Vec<GroupFigures>> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            bench.client_cpus.pin_this_thread()?;
            engine::run(plan, target, probe)
        });
        thread.join().unwrap_or_else(|_| anyhow::bail!("the thread of the clients panicked"))
    })
}
