//! The project's own Rust files, read as text: their code without comments and strings, and their prose without code.

use std::path::{Path, PathBuf};

/// The folders of a package that hold Rust files.
const FOLDERS: [&str; 5] = ["src", "tests", "examples", "benches", "model"];

/// One file.
pub(crate) struct Source {
    /// Its path from the root of the project, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with every comment and the inside of every literal blanked: lines and columns stay what they are.
    pub(crate) code: String,
    /// The same without the modules that only tests have.
    pub(crate) shipped: String,
    /// Comments and the insides of strings, each with the line that it begins in.
    pub(crate) prose: Vec<(usize, String)>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, prose) = Lexer::new(text).split();
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let shipped = if is_test { String::new() } else { without_tests(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped, prose }
    }

    /// The package that the file belongs to, as the folder that holds its Cargo.toml; empty for the root.
    pub(crate) fn package(&self) -> &str {
        let mut parts = self.path.match_indices('/').map(|(at, _)| &self.path[..at]);
        match self.path.split('/').next() {
            Some("crates") => parts.nth(1).unwrap_or_default(),
            Some("benches" | "model" | "fuzz") => parts.next().unwrap_or_default(),
            _ => "",
        }
    }

    /// The line number of an offset into the code.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }
}

/// Every Rust file of the project.
pub(crate) fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in FOLDERS {
        collect(&root.join(folder), &mut files);
    }
    collect(&root.join("crates"), &mut files);
    collect(&root.join("fuzz"), &mut files);
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        Source::new(&relative, &text)
    };
    files.into_iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Blanks every `#[cfg(test)] mod name { .. }`. (A file of that kind is known by its name, `tests.rs`.)
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    let mut from = 0;
    while let Some(at) = out[from..].find("cfg(") {
        let at = from + at;
        from = at + 4;
        let condition = &out[at..out[at..].find(']').map_or(out.len(), |end| at + end)];
        let tests_only = condition.starts_with("cfg(test)") || condition.starts_with("cfg(all(test");
        let Some(open) = out[at..].find(['{', ';']).map(|open| at + open) else { break };
        if tests_only && out.as_bytes()[open] == b'{' {
            let end = closing(&out, open);
            let blank: String = out[at..=end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
            out.replace_range(at..=end, &blank);
        }
    }
    out
}

/// Where the bracket that opens at `open` closes; the end of the text if it does not.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at;
        }
    }
    code.len() - 1
}

/// Takes Rust apart into code and prose.
struct Lexer<'a> {
    text: &'a str,
    at: usize,
    code: String,
    prose: Vec<(usize, String)>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, code: String::with_capacity(text.len()), prose: Vec::new() }
    }

    fn split(mut self) -> (String, Vec<(usize, String)>) {
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            if rest.starts_with("//") {
                self.prose(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                self.prose(block_comment_len(rest));
            } else if let Some(len) = raw_string_len(rest).filter(|_| !self.in_a_word()) {
                self.prose(len);
            } else if rest.starts_with('"') {
                self.prose(string_len(rest));
            } else if let Some(len) = char_len(rest) {
                self.blank(len);
            } else {
                let len = rest.chars().next().map_or(1, char::len_utf8);
                self.code.push_str(&rest[..len]);
                self.at += len;
            }
        }
        (self.code, self.prose)
    }

    fn in_a_word(&self) -> bool {
        self.code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
    }

    fn prose(&mut self, len: usize) {
        let line = self.code.matches('\n').count() + 1;
        self.prose.push((line, self.text[self.at..self.at + len].to_owned()));
        self.blank(len);
    }

    /// Keeps bytes and lines where they are.
    fn blank(&mut self, len: usize) {
        let blanked = self.text[self.at..self.at + len].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' });
        self.code.extend(blanked);
        self.at += len;
    }
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// `r"..."`, `r#"..."#`, and those of bytes.
fn raw_string_len(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.bytes().take_while(|&b| b == b'#').count();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - body.len();
    Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character's literal; nothing for a lifetime.
fn char_len(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    let mut chars = body.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (_, _) = chars.next()?;
        return chars.find(|&(_, c)| c == '\'').map(|(at, _)| at + 2);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 2)
}
