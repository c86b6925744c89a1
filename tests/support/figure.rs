//! What a test has seen, kept for docs/reliability.md.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;

/// Where the figures of the last run are: a file for each test.
pub(crate) const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/figures");

/// The tests of this process that have told something: what an earlier run told is dropped.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Tells what the test that calls this has seen, and keeps it.
pub(crate) fn figure(seen: impl std::fmt::Display) {
    println!("{seen}");
    let test = std::thread::current().name().unwrap_or("main").replace("::", ".");
    let first = TOLD.lock().unwrap().insert(test.clone());
    std::fs::create_dir_all(FIGURES).expect("a folder of the build's own");
    let mut options = std::fs::File::options();
    let file =
        options.create(true).write(true).append(!first).truncate(first).open(format!("{FIGURES}/{test}"));
    writeln!(file.expect("a file of the build's own"), "{seen}").expect("a figure can be kept");
}
