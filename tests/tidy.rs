//! The house is kept: a function fits on a screen, a file says what it is, a folder needs only what is below it, a type
//! has a name of its own, and the prose has none of the phrases that strangers stumble over.
//!
//! What was wrong when a check was written is in its list of known exceptions. A list may only shrink: mend the
//! exception, then delete its entry.

#[path = "support/tidy/imports.rs"]
mod imports;
#[path = "support/tidy/paths.rs"]
mod paths;
#[path = "support/tidy/shape.rs"]
mod shape;
#[path = "support/tidy/source.rs"]
mod source;

use imports::Graph;
use source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// How many lines a function may have, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that are longer.
const LONG: &[&str] = &[
    "a_hostile_head_is_refused_with_its_reason", // tests/http_wire.rs
    "all",                                       // benches/src/goals.rs
    "survival_picture",                          // benches/src/plots.rs
];

/// Types of one package that share a name.
const TWICE: &[&str] = &[
    "Client",
    "Command",
    "Connection",
    "Cost",
    "Datagrams",
    "Event",
    "Fault",
    "Framing",
    "Handle",
    "Kept",
    "Kind",
    "Limits",
    "Node",
    "Offer",
    "Output",
    "Place",
    "Progress",
    "Refusal",
    "Seat",
    "Side",
    "Stage",
    "Step",
    "Turned",
    "Version",
];

/// The folders (or files) of `src/`, the highest first. Each may need what is below it, and nothing else.
const STOREYS: &[&[&str]] = &[
    &["main"],
    &["lib"],
    &["cli"],
    &["admin", "stress"],
    &["server"],
    &["service"],
    &["admit"],
    &["transport"],
    &["metrics"],
    &["limits"],
    &["sys"],
    &["reason", "phase", "clock", "contain"],
    &["units", "url"],
];

/// The folders of `src/server/`, the highest first. Its other files are parts and the stages' hall, which stand where
/// the ring check lets them.
const STAGES: &[&[&str]] =
    &[&["keep"], &["turn"], &["accept"], &["datagram"], &["close"], &["poll"], &["queue"]];

/// Arrows that go up.
const UPWARD: &[(&str, &str)] = &[("limits", "server")];

/// How many files of each folder may be in rings: files that need each other, directly or through others.
const IN_RINGS_MAX: &[(&str, usize)] = &[("benches/src", 10), ("src/limits", 2)];

/// Phrases that a stranger stumbles over, and how often each may still be there, in comments, texts and documents.
/// `^` is the beginning of a sentence.
const PHRASES: &[(&str, usize, &str)] = &[
    ("so long", 12, "say how long: name the limit"),
    ("so many", 5, "say how many: name the limit"),
    ("so much", 5, "say how much: name the limit"),
    ("look on", 0, "the field says `spin`"),
    ("looks on", 3, "the field says `spins`"),
    ("looking on", 0, "the field says `spinning`"),
    ("line that all", 0, "the field says `cache line`"),
    ("who is refused", 0, "a refused client"),
    ("^Who ", 16, "begin with the subject: the thread, the connection, the client"),
    ("^Whose ", 3, "begin with the subject: the thread, the connection, the client"),
];

#[test]
fn a_function_fits_on_a_screen() {
    let mut long = Vec::new();
    for source in source::all() {
        for function in shape::functions(&source).iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            if !LONG.contains(&function.name.as_str()) {
                long.push(format!(
                    "{}:{} {} has {}",
                    source.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    assert!(long.is_empty(), "functions of more than {FUNCTION_LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn a_file_says_first_what_it_is() {
    let silent = source::all().into_iter().filter(|source| !source.text.starts_with("//!"));
    let silent: Vec<_> = silent.map(|source| source.path).collect();
    assert!(silent.is_empty(), "files that do not begin with //!: {silent:?}");
}

#[test]
fn a_type_has_a_name_of_its_own() {
    let all = source::all();
    for package in packages(&all) {
        let mut homes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let shipped = all.iter().filter(|source| source.package() == package && source.path.contains("src/"));
        for source in shipped {
            for name in shape::types(source) {
                homes.entry(name).or_default().push(&source.path);
            }
        }
        homes.retain(|name, homes| homes.len() > 1 && !TWICE.contains(&name.as_str()));
        assert!(homes.is_empty(), "types that share a name: {homes:#?}");
    }
}

#[test]
fn a_folder_needs_only_what_is_below_it() {
    let all = source::all();
    let graph = Graph::of(&all, "");
    let mut upward = BTreeSet::new();
    for (file, needed) in graph.arrows() {
        for (below, storeys) in [("src/", STOREYS), ("src/server/", STAGES)] {
            let (Some(from), Some(to)) = (room(file, below), room(needed, below)) else { continue };
            let heights = (height(from, storeys), height(to, storeys));
            if below == "src/" {
                assert!(
                    heights.0.is_some() && heights.1.is_some(),
                    "say in STOREYS where {from} and {to} stand"
                );
            }
            let is_up = matches!(heights, (Some(from), Some(to)) if from <= to);
            if from != to && is_up && !UPWARD.contains(&(from, to)) {
                upward.insert(format!("{file} -> {needed}"));
            }
        }
    }
    assert!(upward.is_empty(), "arrows that do not go down: {upward:#?}");
}

#[test]
fn files_form_no_ring() {
    let all = source::all();
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages(&all) {
        let graph = Graph::of(&all, package);
        for file in graph.rings().into_iter().flatten() {
            let parts = if file.starts_with("crates/") { 3 } else { 2 };
            let end = file.match_indices(['/', '.']).map(|(at, _)| at).nth(parts - 1).unwrap_or(file.len());
            let folder = &file[..end];
            found.entry(folder).or_default().push(file);
        }
    }
    let most = |folder: &str| IN_RINGS_MAX.iter().find(|known| known.0 == folder).map_or(0, |known| known.1);
    found.retain(|folder, files| files.len() > most(folder));
    assert!(found.is_empty(), "files that need each other: {found:#?}");
}

#[test]
fn the_prose_has_none_of_the_phrases_that_strangers_stumble_over() {
    let mut texts: Vec<(String, String)> = documents();
    for source in source::all().iter().filter(|source| !source.path.contains("tests")) {
        let comments =
            source.prose.iter().map(|(line, text)| (format!("{}:{line}", source.path), text.clone()));
        texts.extend(comments);
    }
    for (phrase, most, instead) in PHRASES {
        let places: Vec<_> =
            texts.iter().filter(|(_, text)| has(text, phrase)).map(|(place, _)| place).collect();
        assert!(
            places.len() <= *most,
            "{phrase:?} is in {} places, {most} are known; {instead}: {places:#?}",
            places.len()
        );
    }
}

#[test]
fn the_check_reads_rust() {
    let text = "//! A head.\nuse super::a::{self, B as C, d::{E, F}};\npub use crate::g::H;\n\
                fn f<'a>(x: &'a str) -> char {\n  let s = \"fn no() { // }\"; let c = '{'; let r = r#\"}\"#;\n  \
                crate::limits::X; c\n}\n#[cfg(test)]\nmod tests { struct OnlyHere; }\nmod inner { use super::K; }\n";
    let source = Source::new("src/x.rs", text);
    let functions = shape::functions(&source);
    assert_eq!((functions[0].name.as_str(), functions[0].line, functions[0].lines), ("f", 4, 4));
    assert!(shape::types(&source).is_empty());
    let paths: Vec<_> = paths::all(&source.shipped)
        .into_iter()
        .map(|path| format!("{} {} {}", path.within.join("::"), path.names.join("::"), path.passed_on))
        .collect();
    let expected = [
        " super::a false",
        " super::a::B false",
        " super::a::d::E false",
        " super::a::d::F false",
        " crate::g::H true",
        "inner super::K false",
        " crate::limits::X false",
    ];
    assert_eq!(paths, expected);
    assert_eq!(source.prose.len(), 3);
    assert!(
        has("// A thread. Who asks", "^Who ")
            && !has("// the one who asks", "^Who ")
            && !has("// Who?", "^Who ")
    );
}

fn packages(all: &[Source]) -> BTreeSet<&str> {
    all.iter().map(Source::package).collect()
}

/// The folder under `below` that a file is in, or the file itself where it is in none.
fn room<'a>(file: &'a str, below: &str) -> Option<&'a str> {
    let rest = file.strip_prefix(below)?;
    rest.split('/').next().map(|name| name.trim_end_matches(".rs"))
}

/// How high a room stands; nothing where the list does not have it.
fn height(room: &str, storeys: &[&[&str]]) -> Option<usize> {
    storeys.iter().rev().position(|storey| storey.contains(&room))
}

/// The documents that people read, a text for each line.
fn documents() -> Vec<(String, String)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    files.extend(
        ["CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)).into_iter().filter(|f| f.exists()),
    );
    for folder in ["docs", "dashboards", "benches"] {
        let found = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(found.filter(|path| path.extension().is_some_and(|e| e == "md" || e == "yml")));
    }
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().display().to_string();
        lines.extend(
            text.lines().enumerate().map(|(at, line)| (format!("{name}:{}", at + 1), line.to_owned())),
        );
    }
    lines
}

/// Whether a phrase is in a text, apart from other words; with `^`, at the beginning of a sentence.
fn has(text: &str, phrase: &str) -> bool {
    let begins = phrase.strip_prefix('^');
    let wanted = begins.unwrap_or(phrase);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(wanted).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + wanted.len()..]);
        let joined = before.ends_with(is_word) || wanted.ends_with(is_word) && after.starts_with(is_word);
        let first = before.trim_end().ends_with(['/', '!', '.', '"', '|', '(']) || before.trim().is_empty();
        !joined && (begins.is_none() || first)
    })
}
