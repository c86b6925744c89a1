//! Promises that need processors: whether other programs have taken them while a test measured.

use std::collections::HashMap;
use std::io::Write;

/// More than this part of all processors, taken by programs that are not of the test, makes another measurement of it.
const OTHERS_MOST: f64 = 0.1;

/// How often it is measured while others have the processors.
const TRIES: usize = 3;

/// Measures until what is promised holds. A measurement that misses it, `Err`, fails the test where the processors were
/// the test's own; where other programs had more than a tenth of them meanwhile, it is taken again. `None`: others had
/// the processors each time, which is said, and named at the end of all tests (tests/run.sh). So what holds on any machine
/// is asserted in the measurement itself.
#[track_caller]
pub(crate) fn with_processors<T>(mut measure: impl FnMut() -> Result<T, String>) -> Option<T> {
    for _ in 0..TRIES {
        let before = Spent::now();
        let missed = match measure() {
            Ok(seen) => return Some(seen),
            Err(missed) => missed,
        };
        let others = Spent::now().others_since(&before);
        let missed = format!("other programs had {:.0} % of the processors: {missed}", others * 100.0);
        assert!(others >= OTHERS_MOST, "{missed}");
        println!("{missed}");
    }
    super::figure("not decided: other programs had the processors");
    say_undecided();
    None
}

/// A test that could not decide must not pass for one that did: it is named where flaky tests are.
fn say_undecided() {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("NOT DECIDED: {name}: other programs had the processors each time");
    eprintln!("{line}");
    let Some(file) = std::env::var_os("TIDEGATE_FLAKY") else { return };
    let mut file =
        std::fs::OpenOptions::new().append(true).create(true).open(file).expect("tests/run.sh made it");
    writeln!(file, "{line}").expect("it can be written");
}

/// What processors have done, in ticks.
struct Spent {
    /// For all programs.
    all: u64,
    /// For this test and the processes that it started.
    own: u64,
    /// In all, rest included.
    passed: u64,
}

impl Spent {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").expect("Linux tells");
        let line = stat.lines().next().expect("the first line sums all processors");
        let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).map(|n| n.parse().unwrap()).collect();
        // User, nice, system, idle, waiting for disks, interrupts (two kinds), and what other machines on the same host took.
        // Interrupts are those of the test's own packets.
        Self { all: ticks[0] + ticks[1] + ticks[2] + ticks[7], own: own(), passed: ticks.iter().sum() }
    }

    /// The part of the processors that programs of others had since then.
    fn others_since(&self, before: &Self) -> f64 {
        let others = (self.all - before.all).saturating_sub(self.own.saturating_sub(before.own));
        others as f64 / (self.passed - before.passed).max(1) as f64
    }
}

/// Processor time of this process and of all that descend from it, those that have ended included.
fn own() -> u64 {
    let processes: HashMap<u32, (u32, u64)> = std::fs::read_dir("/proc")
        .expect("Linux tells")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| Some((id, parent_and_ticks(id)?)))
        .collect();
    let this = std::process::id();
    let is_own = |mut id: u32| {
        // A process may have ended while the list was made: then its parent is not in it.
        while id != this && id > 1 {
            id = processes.get(&id).map_or(0, |(parent, _)| *parent);
        }
        id == this
    };
    processes.iter().filter(|(id, _)| is_own(**id)).map(|(_, (_, ticks))| ticks).sum()
}

/// The parent of a process, and the ticks that it and its ended children have used.
fn parent_and_ticks(id: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the name in parentheses; the parent is the fourth, and the times are the 14th to the 17th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Some((fields.get(1)?.parse().ok()?, ticks))
}
