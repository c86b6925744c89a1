//! Measures tidegate against its peers. `tidegate-bench --help` says how.

mod chart;
mod clients;
mod cost;
mod gate;
mod goals;
mod hold;
mod idle;
mod load;
mod machine;
mod measure;
mod peers;
mod pin;
mod plots;
mod quick;
mod report;
mod results;
mod scene;
mod scratch;
mod server;
mod stats;
mod suite;
mod svg;
mod work_table;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measures tidegate against its peers.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be one of the peers, until killed.
    Peer(peers::PeerArgs),
    /// Measure everything and write docs/benchmarks.md and its pictures.
    All(suite::AllArgs),
    /// Write the report and its pictures again from what was measured.
    Render(suite::RenderArgs),
    /// Count the instructions and system calls of one request, and check them against what is stored.
    Cost(cost::CostArgs),
    /// Compare some servers under one load and print a table.
    Quick(quick::QuickArgs),
    /// Play a scene of overload against some servers and print each second.
    Scene(scene::SceneArgs),
    /// Compare what can stand in front of a service: its cost under a work, or its worth in a scene.
    Gate(gate::GateArgs),
    /// Measure the memory that idle clients take over HTTP, as WebSockets and over TLS.
    Idle(idle::IdleArgs),
    /// Load a server that runs already, from all processors this process may use, and print JSON.
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "tidegate-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Peer(args) => peers::run(args),
        Command::All(args) => suite::run(args),
        Command::Render(args) => suite::render(args),
        Command::Idle(args) => idle::run(&args),
        Command::Cost(args) => cost::run(args),
        Command::Quick(args) => quick::run(args),
        Command::Scene(args) => scene::command(args),
        Command::Gate(args) => gate::command(args),
        Command::Load(args) => load::command(args),
    }
}
