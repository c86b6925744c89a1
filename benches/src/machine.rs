//! What machine this is, for the report.

use serde::{Deserialize, Serialize};
use std::fs::read_to_string;
use std::process::Command;

/// The machine and the builds that were measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) python: String,
    /// The commit of the work tree, with `+` when it has changes.
    pub(crate) revision: String,
    /// The day, in UTC.
    pub(crate) date: String,
    /// Whether servers and clients ran on processors of their own.
    pub(crate) pinned: bool,
}

impl Machine {
    /// Asks the system; what it does not tell is `unknown`.
    pub(crate) fn of(cores: usize, pinned: bool) -> Self {
        Self {
            processor: after("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores,
            memory_gib: after("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| (kib + (1 << 19)) >> 20),
            kernel: read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |release| numbers(release.trim())),
            rustc: said("rustc", &["--version"]),
            python: said("python3", &["--version"]),
            revision: revision(),
            date: said("date", &["-u", "+%Y-%m-%d"]),
            pinned,
        }
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The kernel's version without a builder's suffix.
fn numbers(release: &str) -> String {
    release.split('-').next().unwrap_or(release).to_owned()
}

fn after(file: &str, key: &str) -> Option<String> {
    let text = read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => unknown(),
    }
}

fn revision() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    // The results themselves may differ; the sources may not.
    let sources = ["status", "--porcelain", "--", "src", "benches/src", "Cargo.toml", "Cargo.lock"];
    match said("git", &sources).as_str() {
        "" | "unknown" => commit,
        _ => commit + "+",
    }
}
