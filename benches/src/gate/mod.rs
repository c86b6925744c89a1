//! The gate: what it costs to have something in front of a service, and what it is worth.

mod command;
pub(crate) mod front;
mod gunicorn;
mod outline;
mod promises;
mod report;
mod scenes;
mod trouble;
mod works;

use crate::measure::{Bench, Comparison};
use crate::scene::{self, Played};
use crate::server::Spec;
use anyhow::Result;
use clap::ValueEnum;
pub(crate) use command::{GateArgs, command};
pub(crate) use gunicorn::set_gunicorn;
pub(crate) use promises::goals;
pub(crate) use report::{pictures, report};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use trouble::Trouble;
pub(crate) use works::Kind;
use works::{Download, WORKS};

/// All that was measured of the gate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Gates {
    /// By the key of the work.
    pub(crate) works: BTreeMap<String, Comparison>,
    pub(crate) downloads: BTreeMap<String, Vec<Download>>,
    /// Peak memory with quiet pairs, in bytes.
    pub(crate) quiet: BTreeMap<String, Vec<u64>>,
    pub(crate) scenes: BTreeMap<String, Played>,
    /// Fronts that could not be measured, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

/// Measures what fronts and servers of these kinds cost. `note` says what comes next.
pub(crate) fn works(
    gates: &mut Gates,
    kinds: &[Kind],
    bench: &Bench,
    (rounds, duration): (usize, Duration),
    note: impl Fn(&str),
) -> Result<()> {
    for work in WORKS.iter().filter(|work| kinds.contains(&work.kind)) {
        note(&format!("gate {}", work.key));
        let (comparison, missing) = work.compare(&specs(work.kind), rounds, duration, bench)?;
        gates.works.insert(work.key.to_owned(), comparison);
        gates.missing.extend(missing);
    }
    Ok(())
}

/// Measures downloads, and the memory of quiet pairs. `note` says what comes next.
pub(crate) fn downloads_and_quiet(gates: &mut Gates, bench: &Bench, rounds: usize, note: impl Fn(&str)) {
    let specs = specs(Kind::Bytes);
    note("gate downloads");
    let downloads = works::downloads(&specs, rounds, bench);
    gates.downloads = downloads.values;
    gates.missing.extend(downloads.missing);
    note("gate, quiet pairs");
    let quiet = works::quiet(&specs, rounds.min(2), bench);
    gates.quiet = quiet.values;
    gates.missing.extend(quiet.missing);
}

fn specs(kind: Kind) -> Vec<Spec> {
    kind.servers().split_whitespace().map(Spec::new).collect()
}

/// Plays the scenes, with a backend that speaks HTTP or with the others. `note` says what comes next.
pub(crate) fn scenes(gates: &mut Gates, http: bool, rounds: usize, note: impl Fn(&str)) -> Result<()> {
    for &trouble in Trouble::value_variants().iter().filter(|trouble| trouble.is_http() == http) {
        let capacity = trouble.capacity()?;
        let scene = trouble.scene(capacity);
        note(scene.key);
        let specs: Vec<Spec> = trouble.fronts().split_whitespace().map(Spec::new).collect();
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        let start = |at: usize, bench: &Bench| trouble.stand(&specs[at], bench);
        let played = scene::play(&scene, Some(capacity), &names, rounds.div_ceil(3), start, |_| {})?;
        gates.scenes.insert(scene.key.to_owned(), played);
    }
    Ok(())
}
