//! The paths that stand in a file's code: those of its `use` items, taken apart, and those in between.

use super::source::closing;

/// A path like `crate::limits::Limits`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Path {
    /// The modules of the file that it stands in, if they have their braces there.
    pub(crate) within: Vec<String>,
    pub(crate) names: Vec<String>,
    /// What a `use` item calls it.
    pub(crate) alias: Option<String>,
    /// It stands in a `pub use`: others have it from here.
    pub(crate) passed_on: bool,
}

/// A module with its braces in the file: its names from the file's own module down, and where it is.
pub(crate) struct Inline {
    pub(crate) names: Vec<String>,
    start: usize,
    end: usize,
}

pub(crate) fn inline_modules(code: &str) -> Vec<Inline> {
    let mut found: Vec<Inline> = Vec::new();
    for (at, name) in super::shape::declared(code, "mod") {
        let Some(open) = code[at..].find(['{', ';']).map(|open| at + open) else { continue };
        if code.as_bytes()[open] == b'{' {
            let outer = found.iter().rfind(|outer| (outer.start..outer.end).contains(&at));
            let names = [outer.map_or(Vec::new(), |outer| outer.names.clone()), vec![name]].concat();
            found.push(Inline { names, start: open, end: closing(code, open) });
        }
    }
    found
}

/// Every path of a file that could lead to another file of its package.
pub(crate) fn all(code: &str) -> Vec<Path> {
    let inline = inline_modules(code);
    let within = |at: usize| {
        let inner = inline.iter().rfind(|module| (module.start..module.end).contains(&at));
        inner.map_or(Vec::new(), |module| module.names.clone())
    };
    let mut found = Vec::new();
    let mut rest = code.to_owned();
    for (at, _) in super::shape::declared(code, "use").into_iter().chain(self_uses(code)) {
        let Some(end) = code[at..].find(';').map(|end| at + end) else { continue };
        let line_start = code[..at].rfind(['\n', ';', '}']).map_or(0, |start| start + 1);
        let passed_on = code[line_start..at].contains("pub");
        for (names, alias) in tree(&code[at + 3..end]) {
            found.push(Path { within: within(at), names, alias: Some(alias), passed_on });
        }
        rest.replace_range(at..end, &" ".repeat(end - at));
    }
    for (at, names) in inline_paths(&rest) {
        found.push(Path { within: within(at), names, alias: None, passed_on: false });
    }
    found
}

/// `use {a, b};` and `use ::a;`, which name nothing right after the word.
fn self_uses(code: &str) -> Vec<(usize, String)> {
    let at = code.match_indices("use {").map(|(at, _)| at);
    at.filter(|&at| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .map(|at| (at, String::new()))
        .collect()
}

/// Takes `a::{b, c as d}` apart: each path with the name that it has from there on.
fn tree(text: &str) -> Vec<(Vec<String>, String)> {
    let text = text.trim();
    let (prefix, branches) = match text.find('{') {
        Some(open) => (&text[..open], Some(&text[open + 1..closing(text, open)])),
        None => (text, None),
    };
    let (prefix, renamed) =
        prefix.split_once(" as ").map_or((prefix, None), |(path, name)| (path, Some(name)));
    let names: Vec<String> =
        prefix.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let Some(branches) = branches else {
        let last = names.last().cloned().unwrap_or_default();
        return vec![(names, renamed.map_or(last, |name| name.trim().to_owned()))];
    };
    let each = split_outside_braces(branches).into_iter().filter(|branch| !branch.trim().is_empty());
    each.flat_map(tree)
        .map(|(inner, alias)| {
            let is_self = inner == ["self"];
            let all = if is_self { names.clone() } else { [names.clone(), inner].concat() };
            let alias =
                if is_self && alias == "self" { all.last().cloned().unwrap_or_default() } else { alias };
            (all, alias)
        })
        .collect()
}

fn split_outside_braces(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Where `name::name` begins in code without its `use` items, and its names.
fn inline_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find("::") {
        let at = from + at;
        let start = code[..at].rfind(|c| !is_word(c)).map_or(0, |before| before + 1);
        let mut names = vec![code[start..at].to_owned()];
        let mut end = at;
        while let Some(rest) = code[end..].strip_prefix("::") {
            let name: String = rest.chars().take_while(|&c| is_word(c)).collect();
            end += 2 + name.len();
            if name.is_empty() {
                break;
            }
            names.push(name);
        }
        from = end.max(at + 2);
        if !names[0].is_empty() && !code[..start].ends_with("::") {
            found.push((start, names));
        }
    }
    found
}
