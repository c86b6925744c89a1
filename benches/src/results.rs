//! All that a run of everything measured, as it is kept beside the report, so that the report and its pictures can be
//! made again without measuring again.

use crate::gate::Gates;
use crate::machine::Machine;
use crate::measure::Comparison;
use crate::scene::Played;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What the name of a work ends with when servers and clients share all cores.
pub(crate) const SHARED: &str = "-shared";

/// Everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// Sections that were measured again after the whole run, and where.
    #[serde(default)]
    pub(crate) later: BTreeMap<String, Machine>,
    /// By the name of the work: `echo-64-32`, `churn`, `udp-time-1000`, ...
    pub(crate) work: BTreeMap<String, Comparison>,
    /// Seconds from the start of the process to the first reply, by server.
    pub(crate) starts: BTreeMap<String, Vec<f64>>,
    pub(crate) survival: Option<Survival>,
    /// Scenes of overload, by their names.
    #[serde(default)]
    pub(crate) scenes: BTreeMap<String, Played>,
    /// What stands in front of a service.
    #[serde(default)]
    pub(crate) gate: Option<Gates>,
    /// Echo: rates of `tidegate stress` and the bare client, by connections.
    pub(crate) clients: BTreeMap<usize, ClientRates>,
    /// Connect, echo, close: the same two.
    #[serde(default)]
    pub(crate) clients_churn: Option<ClientRates>,
    /// HTTP: rates of `tidegate stress` and wrk, by connections.
    #[serde(default)]
    pub(crate) clients_http: BTreeMap<usize, ClientRates>,
    /// Whether wrk was there to be measured.
    #[serde(default = "yes")]
    pub(crate) wrk: bool,
}

/// Useful work while more is offered than can be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Survival {
    /// Requests a second that one core can do, measured with the one-thread loop before the rest.
    pub(crate) capacity: f64,
    /// With what the peers listen with in the picture, and with the small backlog, in order of `factor`.
    pub(crate) points: Vec<SurvivalPoint>,
    pub(crate) points_small: Vec<SurvivalPoint>,
}

/// All servers under one offered load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SurvivalPoint {
    /// Offered load over capacity.
    pub(crate) factor: f64,
    pub(crate) comparison: Comparison,
}

fn yes() -> bool {
    true
}

/// Rates of `tidegate stress` and of another client, round by round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ClientRates {
    pub(crate) stress: Vec<f64>,
    #[serde(alias = "bare")]
    pub(crate) other: Vec<f64>,
}

impl ClientRates {
    /// One over the other, round by round.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.stress.iter().zip(&self.other).map(|(stress, other)| stress / other).collect()
    }
}

impl Results {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            later: BTreeMap::new(),
            work: BTreeMap::new(),
            starts: BTreeMap::new(),
            survival: None,
            scenes: BTreeMap::new(),
            gate: None,
            clients: BTreeMap::new(),
            clients_churn: None,
            clients_http: BTreeMap::new(),
            wrk: true,
        }
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}: measure first, with `all`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not of this version", path.display()))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

impl SurvivalPoint {
    /// One server's figure, median over the rounds; none when it was not measured.
    pub(crate) fn of(&self, server: &str, figure: impl Fn(&crate::measure::Sample) -> f64) -> Option<f64> {
        let at = self.comparison.servers.iter().position(|name| name == server)?;
        Some(crate::stats::median(&self.comparison.values(at, figure)))
    }
}
