//! What a front is worth when the service behind it has trouble: more load than it can do, slowness, an end.

use super::front::{self, Front, Wanted};
use super::gunicorn;
use super::outline::Outline;
use super::trouble::Trouble;
use crate::load::Shape;
use crate::measure::{Bench, Load, compare};
use crate::peers::Mode;
use crate::scene::{Act, Party, Scene, Script, Stand, Wire};
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
/// Clients that may wait at a front with limits; that of bytes has tidegate's default.
const WAITING: &str = "--queue 64";
pub(super) const WAITING_MAX: f64 = 64.0;
/// The front that is none.
pub(crate) const NOTHING: &str = "nothing";

impl Trouble {
    /// What the backends do a second when nothing stands in front of them and nothing is too much.
    pub(crate) fn capacity(self) -> Result<f64> {
        match self {
            Trouble::Survive => {}
            Trouble::Gunicorn => return gunicorn::best(&Bench::new(true)?),
            _ => return Ok(BACKEND_RATE * self.backends() as f64),
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
        // What a request takes of a processor: other work on the machine does not change that much, as it does the rate.
        Ok(1.0 / median(&rounds.values(0, |sample| sample.cpu_per_request)))
    }

    /// The scene, for backends that can do this rate together.
    pub(crate) fn scene(self, capacity: f64) -> Scene {
        let outline = Outline::of(self, capacity);
        let groups = vec![Party::newcomers("newcomers", &outline.rates())];
        let wire = if self.is_http() { Wire::Http } else { Wire::Stream };
        Scene {
            key: self.key(),
            title: outline.title,
            what: outline.what,
            script: Script { wire, stages: outline.stages(), groups },
            service: Service::stream(self.work()),
            apart: true,
            peers: self.fronts(),
            judged: outline.judged,
            ends: false,
        }
    }

    fn work(self) -> Mode {
        if self == Trouble::Survive { CPU } else { WAIT }
    }

    /// Starts the backends and a front.
    pub(crate) fn stand(self, spec: &Spec, bench: &Bench) -> Result<Stand> {
        let service = Service::stream(self.work());
        let start = |_| match self {
            Trouble::Survive => Server::start(&Spec::new("python"), service, &bench.server_cpus),
            Trouble::Gunicorn => gunicorn::start(bench),
            _ => Server::start(&Spec::new("backend"), service, &bench.client_cpus),
        };
        let mut backends: Vec<Server> = (0..self.backends()).map(start).collect::<Result<_>>()?;
        if self == Trouble::Three {
            backends[0].tell(SLOW)?;
        }
        if spec.name == NOTHING {
            ensure!(
                matches!(self, Trouble::Survive | Trouble::Gunicorn),
                "in this scene something is done to what stands behind a front"
            );
            let front = backends.pop().context("there is a backend")?;
            return Ok(Stand { act: None, ..Stand::alone(front) });
        }
        let addresses: Vec<SocketAddr> = backends.iter().map(|backend| backend.addr).collect();
        let (places, http, more) = match self {
            Trouble::Survive => (PLACES_PYTHON, false, ""),
            Trouble::Gunicorn => (gunicorn::WORKERS, true, WAITING),
            _ => (PLACES, false, ""),
        };
        let wanted = Wanted { backends: &addresses, places, http, more };
        let Front { server: front, folder } = front::start(spec, wanted, &bench.server_cpus)?;
        Ok(Stand { front, backends, act: self.act(service, bench), folder })
    }

    fn act(self, service: Service, bench: &Bench) -> Option<Act> {
        let cpus = bench.client_cpus.clone();
        match self {
            Trouble::Survive | Trouble::Three | Trouble::Gunicorn => None,
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
