//! What a file declares: its functions with their lengths, and its types.

use super::source::{Source, closing};

/// A function, and how many lines it has from its `fn` to its closing brace.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

pub(crate) fn functions(source: &Source) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, name) in declared(&source.code, "fn") {
        let Some(open) = body(&source.code, at) else { continue };
        let (line, end) = (source.line(at), source.line(closing(&source.code, open)));
        found.push(Function { name, line, lines: end - line + 1 });
    }
    found
}

/// Where the body of the function that is declared at `at` opens; nothing where it has none.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut next = at;
    loop {
        next += code[next..].find(['{', ';', '(', '['])?;
        match code.as_bytes()[next] {
            b'{' => return Some(next),
            b';' => return None,
            _ => next = closing(code, next) + 1,
        }
    }
}

/// The names of the structs, enums and traits that the shipped part of a file declares.
pub(crate) fn types(source: &Source) -> Vec<String> {
    let all = ["struct", "enum", "trait", "union"].into_iter();
    let mut names: Vec<_> =
        all.flat_map(|keyword| declared(&source.shipped, keyword)).map(|(_, name)| name).collect();
    names.sort();
    // The same type for another system is the same type.
    names.dedup();
    names
}

/// The public enums, and structs with public fields, to which nothing can be added without breaking who uses them: their
/// lines and names. That is so where they are not `#[non_exhaustive]`, and their docs do not say that it is meant.
pub(crate) fn closed(source: &Source) -> Vec<(usize, String)> {
    let code = &source.shipped;
    let mut found = Vec::new();
    for keyword in ["enum", "struct"] {
        for (at, name) in declared(code, keyword) {
            let line = source.line(at);
            let has_public_field =
                || body(code, at).is_some_and(|open| code[open..closing(code, open)].contains("\n    pub "));
            let is_public = code[..at].ends_with("\npub ") && (keyword == "enum" || has_public_field());
            if is_public && !is_open(&source.text, line) {
                found.push((line, name));
            }
        }
    }
    found
}

/// Whether the attributes and docs before this line let something be added, or promise that nothing will be.
fn is_open(text: &str, line: usize) -> bool {
    let above: Vec<_> = text.lines().take(line - 1).collect();
    let ours = above.iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let words: Vec<_> = ours.map(|line| line.trim_start_matches('/').trim()).collect();
    let words: Vec<_> = words.into_iter().rev().collect();
    let words = words.join(" ");
    words.contains("#[non_exhaustive]") || words.contains("No other case will be added")
}

/// Where `keyword name` stands, and the name.
pub(crate) fn declared(code: &str, keyword: &str) -> Vec<(usize, String)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices(keyword) {
        let before = code[..at].chars().next_back();
        let rest = &code[at + keyword.len()..];
        let name: String = rest.trim_start().chars().take_while(|&c| is_word(c)).collect();
        let apart = rest.starts_with(char::is_whitespace) && !before.is_some_and(is_word);
        if apart && name.chars().next().is_some_and(|c| !c.is_ascii_digit()) {
            found.push((at, name));
        }
    }
    found
}
