//! What a front is worth when the service behind it has trouble: more load than it can do, slowness, an end.

use super::front::{self, Front, Wanted};
use crate::load::Shape;
use crate::measure::{Bench, Load, compare};
use crate::peers::Mode;
use crate::scene::{Act, Party, Scene, Script, Stage, Stand, Wire};
use crate::server::{Server, Service, Spec};
use crate::stats::median;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;

/// What a client of the Python server asks for.
const CPU: Mode = Mode::Cpu(Duration::from_millis(1));
/// What a client of the other backends asks for; each has four workers, so it does 800 a second.
const WAIT: Mode = Mode::Sleep(Duration::from_millis(5));
const BACKEND_RATE: f64 = 800.0;
/// How much longer a slow backend takes, and what it does a second then.
const SLOW: &str = "slow 10";
pub(super) const SLOW_RATE: f64 = BACKEND_RATE / 10.0;
/// Connections at once that a front with a limit gives to each backend.
const PLACES_PYTHON: usize = 8;
const PLACES: usize = 4;
/// More than the Python server can do.
const FLOOD_RATE: f64 = 4_500.0;
/// The front that is none.
pub(crate) const NOTHING: &str = "nothing";

/// Which scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Trouble {
    /// A Python ThreadingTCPServer, 1 ms of CPU for each request, is asked 4,500 times a second.
    Survive,
    /// The only backend takes ten times as long for ten seconds.
    Slow,
    /// One of three backends takes ten times as long all the time.
    Three,
    /// One of three backends is killed, and is back after five seconds.
    Killed,
}

impl Trouble {
    /// Fronts that are measured.
    pub(crate) fn fronts(self) -> &'static str {
        match self {
            Trouble::Survive => "tidegate haproxy-limits haproxy nginx nothing",
            Trouble::Slow | Trouble::Three | Trouble::Killed => "tidegate haproxy-limits haproxy nginx",
        }
    }

    /// What the backends do a second when nothing stands in front of them and nothing is too much.
    pub(crate) fn capacity(self) -> Result<f64> {
        if self != Trouble::Survive {
            return Ok(BACKEND_RATE * self.backends() as f64);
        }
        let load = Load {
            shape: Shape::Churn,
            mode: CPU,
            connections: 4,
            in_flight: 1,
            size: 64,
            rate: 0.0,
            duration: Duration::from_secs(2),
        };
        let rounds = compare(&load, &[Spec::new("python")], 3, &Bench::new(true)?)?;
        Ok(median(&rounds.values(0, |sample| sample.outcome.rate)))
    }

    /// Its name among the results.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Trouble::Survive => "gate-survive",
            Trouble::Slow => "gate-slow",
            Trouble::Three => "gate-three",
            Trouble::Killed => "gate-killed",
        }
    }

    /// Above its picture.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Trouble::Survive => {
                "Useful replies in each second, with 4,500 requests a second between the dashed lines"
            }
            Trouble::Slow => {
                "Useful replies in each second, while the backend is slow between the dashed lines"
            }
            Trouble::Three => "Useful replies in each second, with one of three backends slow",
            Trouble::Killed => {
                "Useful replies in each second, with one of three backends dead between the dashed lines"
            }
        }
    }

    /// Below its picture.
    pub(super) fn caption(self) -> &'static str {
        match self {
            Trouble::Survive => {
                "Behind each is a Python ThreadingTCPServer, 1 ms of work a request; the horizontal line is what it does \
                 alone, at most."
            }
            Trouble::Slow => {
                "The backend is asked 400 times a second. It can do 800, and 80 while it is slow."
            }
            Trouble::Three | Trouble::Killed => {
                "The backends can do 800 requests a second each and are asked 1,200 times together."
            }
        }
    }

    fn backends(self) -> usize {
        match self {
            Trouble::Survive | Trouble::Slow => 1,
            Trouble::Three | Trouble::Killed => 3,
        }
    }

    /// The scene, for backends that can do this rate together.
    pub(crate) fn scene(self, capacity: f64) -> Scene {
        let (title, what, judged, rates, times): (_, _, _, &[f64], &[u64]) = match self {
            Trouble::Survive => (
                "In front of a server that falls over",
                "A Python ThreadingTCPServer takes 1 ms of CPU for each request, and has one core together with what \
                 stands in front of it. Newcomers ask at 0.8 of what it can do, and then 4,500 times a second. They \
                 give up after a second. The table is of the flood after its first second, in which clients wait up to \
                 100 ms until it is clear that the load stays.",
                ("flood", 2),
                &[0.8 * capacity, FLOOD_RATE, FLOOD_RATE, 0.8 * capacity, 0.8 * capacity],
                &[3, 1, 6, 1, 3],
            ),
            Trouble::Slow => (
                "A backend that slows down and recovers",
                "The backend can do 800 requests a second, and is asked 400 times. For ten seconds each request takes \
                 ten times as long, so that it can do 80.",
                ("slow", 1),
                &[400.0; 4],
                &[3, 10, 1, 4],
            ),
            Trouble::Three => (
                "Three backends, one of them slow",
                "Two backends can do 800 requests a second each, and the third takes ten times as long for each. They \
                 are asked 1,200 times a second.",
                ("one is slow", 1),
                &[1_200.0; 2],
                &[1, 8],
            ),
            Trouble::Killed => (
                "Three backends, one of which is killed",
                "Three backends can do 800 requests a second each, and are asked 1,200 times. One is killed, and is \
                 back five seconds later.",
                ("killed", 1),
                &[1_200.0; 4],
                &[3, 5, 2, 4],
            ),
        };
        let names = ["before", judged.0, "just after", "after", "after"];
        let mut stages: Vec<Stage> = times
            .iter()
            .zip(names)
            .map(|(&time, name)| Stage { name, time: Duration::from_secs(time) })
            .collect();
        if self == Trouble::Survive {
            for (stage, name) in
                stages.iter_mut().zip(["before", "first second", "flood", "just after", "after"])
            {
                stage.name = name;
            }
        }
        let groups = vec![Party::newcomers("newcomers", rates)];
        Scene {
            key: self.key(),
            title,
            what,
            script: Script { wire: Wire::Stream, stages, groups },
            service: Service { udp: false, lines: false, mode: self.work() },
            apart: true,
            peers: self.fronts(),
            judged: judged.1,
            ends: false,
        }
    }

    fn work(self) -> Mode {
        if self == Trouble::Survive { CPU } else { WAIT }
    }

    /// Starts the backends and a front.
    pub(crate) fn stand(self, spec: &Spec, bench: &Bench) -> Result<Stand> {
        let service = Service { udp: false, lines: false, mode: self.work() };
        let (name, cpus, places) = match self {
            Trouble::Survive => ("python", &bench.server_cpus, PLACES_PYTHON),
            _ => ("backend", &bench.client_cpus, PLACES),
        };
        let start = |_| Server::start(&Spec::new(name), service, cpus);
        let mut backends: Vec<Server> = (0..self.backends()).map(start).collect::<Result<_>>()?;
        if self == Trouble::Three {
            backends[0].tell(SLOW)?;
        }
        if spec.name == NOTHING {
            ensure!(
                self == Trouble::Survive,
                "in this scene something is done to what stands behind a front"
            );
            let front = backends.pop().context("there is a backend")?;
            return Ok(Stand { act: None, ..Stand::alone(front) });
        }
        let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.addr).collect();
        let wanted = Wanted { backends: &addresses, places, http: false };
        let Front { server: front, folder } = front::start(spec, wanted, &bench.server_cpus)?;
        Ok(Stand { front, backends, act: self.act(service, bench), folder })
    }

    fn act(self, service: Service, bench: &Bench) -> Option<Act> {
        let cpus = bench.client_cpus.clone();
        match self {
            Trouble::Survive | Trouble::Three => None,
            Trouble::Slow => Some(Box::new(|stage, backends| match stage {
                1 => backends[0].tell(SLOW),
                2 => backends[0].tell("slow 1"),
                _ => Ok(()),
            })),
            Trouble::Killed => Some(Box::new(move |stage, backends| {
                match stage {
                    1 => backends[0].kill(),
                    2 => {
                        let again = format!("--listen {}", backends[0].addr);
                        backends[0] = Server::start(&Spec::with("backend", &again), service, &cpus)?;
                    }
                    _ => {}
                }
                Ok(())
            })),
        }
    }
}
