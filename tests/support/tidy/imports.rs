//! Which file of a package needs which other one, as its imports and its paths say.
//!
//! A name that a module only passes on (`pub use`) leads to the file that defines it: a table of contents needs
//! nothing. What only tests need does not count.

use super::paths::{self, Path};
use super::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// The files of one package and what each needs: indices into the files.
pub(crate) struct Graph<'a> {
    files: Vec<&'a Source>,
    needs: Vec<BTreeSet<usize>>,
}

/// A module path, `crate` left out.
type Module = Vec<String>;

struct Resolver<'a> {
    files: &'a [&'a Source],
    /// The file that each module is in.
    modules: BTreeMap<Module, usize>,
    /// What each module calls by another's name: the name and where it leads.
    aliases: BTreeMap<Module, Vec<Path>>,
}

impl<'a> Graph<'a> {
    /// The graph of the package whose folder is `package` (empty for the root), its library and its program as one.
    pub(crate) fn of(sources: &'a [Source], package: &str) -> Self {
        let folder = if package.is_empty() { "src/".to_owned() } else { format!("{package}/src/") };
        let files: Vec<_> = sources.iter().filter(|source| source.path.starts_with(&folder)).collect();
        let mut resolver = Resolver { files: &files, modules: BTreeMap::new(), aliases: BTreeMap::new() };
        for (file, source) in files.iter().enumerate() {
            let module = module_of(&source.path[folder.len()..]);
            for inner in paths::inline_modules(&source.shipped) {
                resolver.modules.insert([module.clone(), inner.names].concat(), file);
            }
            resolver.modules.insert(module, file);
        }
        let all: Vec<Vec<Path>> = files.iter().map(|source| paths::all(&source.shipped)).collect();
        for (file, source) in files.iter().enumerate() {
            let module = module_of(&source.path[folder.len()..]);
            for path in all[file].iter().filter(|path| path.alias.is_some()) {
                let at = [module.clone(), path.within.clone()].concat();
                resolver.aliases.entry(at).or_default().push(path.clone());
            }
        }
        let needs = files.iter().enumerate().map(|(file, source)| {
            let module = module_of(&source.path[folder.len()..]);
            let found = all[file].iter().filter(|path| !path.passed_on);
            let found = found.filter_map(|path| resolver.file_of(&module, path, 0));
            found.filter(|&found| found != file).collect()
        });
        let needs = needs.collect();
        Graph { files, needs }
    }

    /// The sets of files that need each other, directly or through others.
    pub(crate) fn rings(&self) -> Vec<Vec<&'a str>> {
        let reach: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|file| self.reachable(file)).collect();
        let mut seen = BTreeSet::new();
        let mut rings = Vec::new();
        for file in 0..self.files.len() {
            if !reach[file].contains(&file) || seen.contains(&file) {
                continue;
            }
            let ring: Vec<_> =
                reach[file].iter().copied().filter(|&other| reach[other].contains(&file)).collect();
            seen.extend(ring.iter().copied());
            rings.push(ring.into_iter().map(|file| self.files[file].path.as_str()).collect());
        }
        rings
    }

    /// Every file with each that it needs.
    pub(crate) fn arrows(&self) -> impl Iterator<Item = (&str, &str)> {
        let path = |file: usize| self.files[file].path.as_str();
        let each = self.needs.iter().enumerate();
        each.flat_map(move |(file, needs)| needs.iter().map(move |&needed| (path(file), path(needed))))
    }

    /// Every file that is needed by `file`, directly or not.
    fn reachable(&self, file: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut next: Vec<usize> = self.needs[file].iter().copied().collect();
        while let Some(file) = next.pop() {
            if found.insert(file) {
                next.extend(&self.needs[file]);
            }
        }
        found
    }
}

impl Resolver<'_> {
    /// The file that defines what `path` names, seen from `module`; nothing for what other crates define.
    fn file_of(&self, module: &Module, path: &Path, depth: usize) -> Option<usize> {
        let mut at = [module.as_slice(), &path.within].concat();
        let mut names = path.names.iter().map(String::as_str).peekable();
        match *names.peek()? {
            "crate" | "tidegate" => at.clear(),
            "self" | "super" => {}
            // A path begins with one of these, with a module or a name of the place where it stands, or elsewhere.
            first => {
                let child = [at.clone(), vec![first.to_owned()]].concat();
                if !self.modules.contains_key(&child) {
                    return None;
                }
            }
        }
        while let Some(name) = names.next_if(|name| ["crate", "tidegate", "self", "super"].contains(name)) {
            if name == "super" {
                at.pop();
            }
        }
        for name in names {
            let child = [at.clone(), vec![name.to_owned()]].concat();
            if self.modules.contains_key(&child) {
                at = child;
            } else {
                return match self.passed_on(&at, name, depth) {
                    Some(elsewhere) => elsewhere,
                    None => self.modules.get(&at).copied(),
                };
            }
        }
        self.modules.get(&at).copied()
    }

    /// Where a name leads that the module at `at` has from elsewhere, which may be another package.
    fn passed_on(&self, at: &Module, name: &str, depth: usize) -> Option<Option<usize>> {
        if depth > 8 || self.modules.get(at).is_none_or(|&file| self.defines(file, name)) {
            return None;
        }
        let aliases = self.aliases.get(at)?;
        let named = aliases.iter().find(|path| path.alias.as_deref() == Some(name));
        // The names of an alias are seen from its file, whose inner modules are in `within` already.
        let module = at[..at.len() - named.map_or(0, |path| path.within.len())].to_vec();
        Some(self.file_of(&module, named?, depth + 1))
    }

    fn defines(&self, file: usize, name: &str) -> bool {
        let code = &self.files[file].shipped;
        ["struct", "enum", "trait", "fn", "const", "static", "type", "mod", "union"]
            .iter()
            .any(|keyword| super::shape::declared(code, keyword).iter().any(|(_, found)| found == name))
    }
}

/// The module of a file, from its path under `src/`. (The program, `main.rs`, is taken for a module that nobody names.)
fn module_of(path: &str) -> Module {
    let stem = path.trim_end_matches(".rs");
    let stem = stem.strip_suffix("mod").map_or(stem, |rest| rest.trim_end_matches('/'));
    match stem {
        "lib" | "" => Vec::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    }
}
