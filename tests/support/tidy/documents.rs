//! The documents that people read, and what they name: files of the project, tests, functions, and the drawing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One document.
pub(crate) struct Document {
    /// Its path from the root of the project.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A step in the table that follows one connection: a file, and a function in it.
pub(crate) struct Step {
    pub(crate) file: String,
    pub(crate) function: String,
}

/// README, the pages of docs/, and what else is written for people.
pub(crate) fn all() -> Vec<Document> {
    let root = root();
    let mut files: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)).into();
    for folder in ["docs", "dashboards", "benches"] {
        let found = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        files.extend(found.filter(|path| path.extension().is_some_and(|e| e == "md" || e == "yml")));
    }
    files.sort();
    files.into_iter().map(|file| read(file.strip_prefix(root).unwrap())).collect()
}

/// The document at this path from the root.
pub(crate) fn read(path: impl AsRef<Path>) -> Document {
    let path = path.as_ref();
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    Document { name: path.display().to_string(), text }
}

impl Document {
    /// What it names that does not exist.
    pub(crate) fn missing(&self) -> Vec<String> {
        let folder = Path::new(&self.name).parent().unwrap_or(Path::new(""));
        let links = self.links().into_iter().map(|link| folder.join(link));
        let paths = self.paths().into_iter().map(PathBuf::from);
        let tests = self.tests().into_iter().map(|test| format!("tests/{test}.rs").into());
        let named: BTreeSet<PathBuf> = links.chain(paths).chain(tests).collect();
        let missing = named.into_iter().filter(|path| !root().join(path).exists());
        missing.map(|path| format!("{}: {}", self.name, path.display())).collect()
    }

    /// The files that its links lead to, as it writes them.
    fn links(&self) -> Vec<String> {
        let targets = self.text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let files = targets.filter(|target| !target.is_empty() && !target.contains("://"));
        files.map(str::to_owned).collect()
    }

    /// The paths between backquotes that begin at the root of the project, and every name of a Rust file.
    fn paths(&self) -> Vec<String> {
        let quoted = self.text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let words = quoted.flat_map(|quoted| quoted.split([' ', ',']));
        words.filter(|word| is_path(word)).map(|word| word.trim_end_matches('/').to_owned()).collect()
    }

    /// The test files in commands: `cargo test --test NAME`.
    fn tests(&self) -> Vec<String> {
        let named = self.text.split("--test ").skip(1);
        let names = named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        names.filter(|name: &String| !name.is_empty() && *name != name.to_uppercase()).collect()
    }

    /// The drawing: the first block of text.
    pub(crate) fn drawing(&self) -> String {
        let block = self.text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
        block.expect("there is a drawing").to_owned()
    }

    /// The rows of the drawing that say which folders there are, the highest first.
    pub(crate) fn storeys(&self) -> Vec<Vec<String>> {
        let drawing = self.drawing();
        let rows = drawing.lines().skip_while(|line| !line.contains("folders of src/")).skip(1);
        let names = rows.map(|row| row.trim_start().split("  ").next().unwrap_or_default());
        names.map(|names| names.split(", ").map(str::to_owned).collect()).collect()
    }

    /// The row of the drawing that says which needs which among the folders of the server.
    pub(crate) fn stages(&self) -> Vec<String> {
        let drawing = self.drawing();
        let row = drawing.lines().find(|line| line.contains(" > ")).expect("the stages are drawn");
        row.split(" > ").filter_map(|part| part.split(' ').next_back()).map(str::to_owned).collect()
    }

    /// The steps of one connection.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let after = self.text.split("## The way of one connection").nth(1).expect("the way is there");
        let rows = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|l| l.starts_with('|'));
        let cells = rows.skip(2).map(|row| row.split('`').skip(1).step_by(2).collect::<Vec<_>>());
        cells
            .map(|cells| {
                let [.., file, function] = cells[..] else { panic!("a step has a file and a function") };
                Step { file: file.to_owned(), function: function.to_owned() }
            })
            .collect()
    }
}

/// Whether a word between backquotes is a path from the root of the project.
fn is_path(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c));
    let first = word.split('/').next().unwrap_or_default();
    let at_root = word.contains('/') && !first.is_empty() && first != ".." && root().join(first).is_dir();
    plain && (at_root && first != "target" || word.ends_with(".rs"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
