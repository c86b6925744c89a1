//! The house is kept: a function fits on a screen, a file says what it is, a folder needs only what is below it, a type
//! has a name of its own, the documents name what exists, and the prose has none of the phrases that strangers stumble over.
//!
//! What was wrong when a check was written is in its list of known exceptions. A list may only shrink: mend the
//! exception, then delete its entry.

#[path = "support/tidy/documents.rs"]
mod documents;
#[path = "support/tidy/imports.rs"]
mod imports;
#[path = "support/tidy/paths.rs"]
mod paths;
#[path = "support/tidy/shape.rs"]
mod shape;
#[path = "support/tidy/source.rs"]
mod source;

use documents::Document;
use imports::Graph;
use source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// How many lines a function may have, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

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
    &["reason", "phase", "clock", "contain", "current"],
    &["protocols"],
    &["units", "url"],
];

/// The folders of `src/server/`, the highest first. Its other files are parts and the stages' hall, which stand where
/// the ring check lets them.
const STAGES: &[&[&str]] =
    &[&["keep"], &["turn"], &["accept"], &["datagram"], &["close"], &["poll"], &["queue"]];

/// Phrases that a stranger stumbles over, and how often each may still be there, in comments, texts and documents.
/// `^` is the beginning of a sentence.
const PHRASES: &[(&str, usize, &str)] = &[
    ("so long", 0, "say how long: name the limit"),
    ("so many", 0, "say how many: name the limit"),
    ("so much", 0, "say how much: name the limit"),
    ("look on", 0, "the field says `spin`"),
    ("looks on", 0, "the field says `spins`"),
    ("looking on", 0, "the field says `spinning`"),
    ("line that all", 0, "the field says `cache line`"),
    ("who is refused", 0, "a refused client"),
    ("^Who ", 0, "begin with the subject: the thread, the connection, the client"),
    ("^Whose ", 0, "begin with the subject: the thread, the connection, the client"),
];

#[test]
fn a_function_fits_on_a_screen() {
    let mut long = Vec::new();
    for source in source::all() {
        for function in shape::functions(&source).iter().filter(|f| f.lines > FUNCTION_LINES_MAX) {
            long.push(format!("{}:{} {} has {}", source.path, function.line, function.name, function.lines));
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
fn every_file_is_part_of_a_crate() {
    let all = source::all();
    let declares = |file: &str, module: &str| {
        let file = all.iter().find(|source| source.path == file);
        file.is_some_and(|source| shape::declared(&source.code, "mod").iter().any(|(_, name)| name == module))
    };
    let is_part = |path: &str| {
        let name = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let Some((folder, module)) = name.rsplit_once('/') else { return false };
        matches!(module, "lib" | "main")
            || [".rs", "/mod.rs", "/lib.rs", "/main.rs"]
                .iter()
                .any(|end| declares(&format!("{folder}{end}"), module))
    };
    let of_crates = all.iter().map(|source| source.path.as_str()).filter(|path| path.contains("src/"));
    let dead: Vec<_> = of_crates.filter(|path| !is_part(path)).collect();
    assert!(dead.is_empty(), "files that no `mod` names: {dead:?}");
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
        homes.retain(|_, homes| homes.len() > 1);
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
            if from != to && is_up {
                upward.insert(format!("{file} -> {needed}"));
            }
        }
    }
    assert!(upward.is_empty(), "arrows that do not go down: {upward:#?}");
}

#[test]
fn files_form_no_ring() {
    let all = source::all();
    let rings: Vec<_> =
        packages(&all).into_iter().flat_map(|package| Graph::of(&all, package).rings()).collect();
    assert!(rings.is_empty(), "files that need each other: {rings:#?}");
}

#[test]
fn the_load_generator_knows_neither_the_server_nor_the_command_line() {
    for package in ["stress", "protocols", "units"] {
        let manifest = documents::read(format!("crates/{package}/Cargo.toml")).text;
        // `[dependencies]`, `[target.'cfg(..)'.dependencies]` and `[dependencies.clap]`.
        let sections = manifest.split("\n[").filter(|section| section.contains("dependencies"));
        let lines = sections.flat_map(str::lines).flat_map(|line| line.split(['=', '.', ']']).take(2));
        let names: Vec<_> = lines.map(str::trim).filter(|name| !name.is_empty()).collect();
        assert!(names.iter().any(|name| *name == "thiserror" || *name == "httparse"), "{names:?}");
        let above = names.iter().find(|name| **name == "tidegate" || name.starts_with("clap"));
        assert_eq!(above, None, "crates/{package}/Cargo.toml");
    }
}

#[test]
fn every_file_that_a_document_names_exists() {
    let missing: Vec<_> = documents::all().iter().flat_map(Document::missing).collect();
    assert!(missing.is_empty(), "named and not there: {missing:#?}");
}

#[test]
fn the_library_and_the_architecture_show_the_same_true_drawing() {
    let page = documents::read("docs/architecture.md");
    let mut library = documents::read("src/lib.rs");
    let head = library.text.lines().map_while(|line| line.strip_prefix("//!"));
    library.text = head.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    assert_eq!(page.drawing(), library.drawing(), "docs/architecture.md and src/lib.rs");
    // The program and the library stand above all folders, and `url` is a part of `units`.
    let storeys: Vec<Vec<&str>> = STOREYS[2..].iter().map(|storey| storey.to_vec()).collect();
    let storeys: Vec<Vec<&str>> = storeys
        .into_iter()
        .map(|storey| storey.into_iter().filter(|name| *name != "url").collect())
        .collect();
    assert_eq!(page.storeys(), storeys, "the folders that are drawn, and STOREYS");
    assert_eq!(page.stages(), STAGES.concat(), "the stages that are drawn, and STAGES");
}

#[test]
fn the_way_of_one_connection_names_functions_that_exist() {
    let steps = documents::read("docs/architecture.md").steps();
    assert!(steps.len() > 10, "the way has its steps");
    let lost: Vec<_> = steps
        .iter()
        .filter(|step| {
            let source = std::fs::read_to_string(step.file.as_str()).unwrap_or_default();
            !source.contains(&format!("fn {}(", step.function))
                && !source.contains(&format!("fn {}<", step.function))
        })
        .map(|step| format!("{} in {}", step.function, step.file))
        .collect();
    assert!(lost.is_empty(), "functions of the way that are not there: {lost:#?}");
}

#[test]
fn the_prose_has_none_of_the_phrases_that_strangers_stumble_over() {
    let mut texts: Vec<(String, String)> = lines_of_documents();
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
fn something_can_be_added_to_each_public_type_of_the_library() {
    let library = source::all().into_iter().filter(|source| source.path.starts_with("src/"));
    let closed = library.flat_map(|source| {
        let all = shape::closed(&source);
        all.into_iter().map(move |(line, name)| format!("{}:{line} {name}", source.path)).collect::<Vec<_>>()
    });
    let closed: Vec<_> = closed.collect();
    assert!(
        closed.is_empty(),
        "write #[non_exhaustive], or say that no other case will be added: {closed:#?}"
    );
}

#[test]
fn the_check_reads_rust() {
    let text = "//! A head.\nuse super::a::{self, B as C, d::{E, F}};\npub use crate::g::H;\n\
                fn f<'a>(x: &'a str) -> char {\n  let s = \"fn no() { // }\"; let c = '{'; let r = r#\"}\"#;\n  \
                crate::limits::X; c\n}\n#[cfg(test)]\nmod tests { struct OnlyHere; }\nmod inner { use super::K; }\n";
    let source = Source::new("src/x.rs", text);
    let types = "\n/// No other case\n/// will be added.\npub enum Said {}\n#[non_exhaustive]\npub enum Open {}\npub enum Closed {}\n\
                 pub struct Opaque {\n    a: u8,\n}\npub struct Plain {\n    pub a: u8,\n}\npub(crate) enum Own {}\n";
    let closed = shape::closed(&Source::new("src/x.rs", types));
    assert_eq!(closed, [(7, "Closed".to_owned()), (11, "Plain".to_owned())]);
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
fn lines_of_documents() -> Vec<(String, String)> {
    let all = documents::all().into_iter();
    all.flat_map(|Document { name, text }| {
        let line = |(at, line): (usize, &str)| (format!("{name}:{}", at + 1), line.to_owned());
        text.lines().enumerate().map(line).collect::<Vec<_>>()
    })
    .collect()
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
