//! Which file of a crate needs which, and the circles among them.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{ItemPath, SourceFile};

/// The files of a crate and the arrows between them.
#[derive(Debug)]
pub(super) struct Graph {
    names: Vec<String>,
    /// By the using file: the used ones, each with the paths.
    arrows: Vec<BTreeMap<usize, BTreeSet<String>>>,
}

impl Graph {
    /// The graph of a crate's files.
    pub(super) fn of(files: &BTreeMap<ItemPath, SourceFile>) -> Self {
        let modules: Vec<&ItemPath> = files.keys().collect();
        let number = |module: &ItemPath| modules.binary_search(&module).ok();
        let mut arrows = vec![BTreeMap::<usize, BTreeSet<String>>::new(); files.len()];
        for (from, (module, file)) in files.iter().enumerate() {
            for path in &file.paths {
                let owner = owner(files, path, 0);
                // children use their parent, and that is what a parent is for
                if let Some(to) = number(&owner).filter(|to| *to != from && !module.starts_with(&owner)) {
                    arrows[from].entry(to).or_default().insert(path.join("::"));
                }
            }
        }
        Self { names: files.values().map(|file| file.name.clone()).collect(), arrows }
    }

    /// How many files there are.
    pub(super) fn files(&self) -> usize {
        self.names.len()
    }

    /// How many pairs of a using and a used file there are.
    pub(super) fn arrows(&self) -> usize {
        self.arrows.iter().map(BTreeMap::len).sum()
    }

    /// The sets of files that reach each other, each in order.
    pub(super) fn circles(&self) -> Vec<Vec<&str>> {
        let reach: Vec<BTreeSet<usize>> = (0..self.files()).map(|from| self.reached_from(from)).collect();
        let mut circles = BTreeSet::new();
        for (from, reached) in reach.iter().enumerate() {
            let circle: Vec<usize> = reached.iter().copied().filter(|to| reach[*to].contains(&from)).collect();
            circles.insert(circle);
        }
        let name = |at: usize| self.names[at].as_str();
        circles
            .into_iter()
            .filter(|circle| circle.len() > 1)
            .map(|circle| {
                let mut names: Vec<&str> = circle.into_iter().map(name).collect();
                names.sort_unstable();
                names
            })
            .collect()
    }

    fn reached_from(&self, from: usize) -> BTreeSet<usize> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            open.extend(self.arrows[at].keys().filter(|to| reached.insert(**to)));
        }
        reached
    }

    /// The arrows within a circle, for people.
    pub(super) fn ties(&self, circle: &[&str]) -> Vec<String> {
        let mut ties = Vec::new();
        for (from, arrows) in self.arrows.iter().enumerate() {
            for (to, paths) in arrows {
                if circle.contains(&self.names[from].as_str()) && circle.contains(&self.names[*to].as_str()) {
                    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                    ties.push(format!("{} -> {}: {}", self.names[from], self.names[*to], paths.join(", ")));
                }
            }
        }
        ties
    }
}

/// The module whose file declares what this path names. A module that only passes a name on is looked through.
fn owner(files: &BTreeMap<ItemPath, SourceFile>, path: &[String], depth: usize) -> ItemPath {
    let mut length = path.len();
    while !files.contains_key(&path[..length]) && length > 0 {
        length -= 1;
    }
    let (module, rest) = path.split_at(length);
    let (Some(file), Some(item)) = (files.get(module), rest.first()) else { return module.to_vec() };
    if file.items.contains(item) || depth > 8 {
        return module.to_vec();
    }
    if let Some(import) = file.imports.get(item) {
        return owner(files, &[import, &rest[1..]].concat(), depth + 1);
    }
    let globs = file.imports.iter().filter(|(name, _)| name.starts_with('*'));
    for (_, import) in globs {
        let found = owner(files, &[&import[..], rest].concat(), depth + 1);
        if files.get(&found).is_some_and(|file| file.items.contains(item)) {
            return found;
        }
    }
    module.to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::source::read_file;
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        let read = |(module, text): &(&str, &str)| {
            let module: ItemPath = module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            (module.clone(), read_file(format!("{}.rs", module.join("/")), &module, text))
        };
        Graph::of(&files.iter().map(read).collect())
    }

    #[test]
    fn a_circle_is_found_through_what_a_parent_passes_on() {
        let graph = graph(&[
            ("", "mod a; mod b; mod c; pub use a::A; pub use c::*;"),
            ("a", "use crate::b::B; pub struct A;"),
            ("b", "use super::A; use super::C; pub struct B;"),
            ("c", "pub struct C;"),
        ]);
        assert_eq!(graph.circles(), [["a.rs", "b.rs"]]);
        assert_eq!(graph.ties(&["a.rs", "b.rs"]), ["a.rs -> b.rs: b::B", "b.rs -> a.rs: A"]);
    }

    #[test]
    fn children_may_use_their_parent_but_not_another_one() {
        let own = [("", "mod p;"), ("p", "mod c; use c::C; pub struct P;"), ("p::c", "use super::P; pub struct C;")];
        assert_eq!(graph(&own).circles(), Vec::<Vec<&str>>::new());
        let other = [
            ("", "mod p; mod q;"),
            ("p", "pub mod c; use crate::q::Q; pub struct P;"),
            ("q", "use crate::p::P; pub struct Q;"),
        ];
        assert_eq!(graph(&other).circles(), [["p.rs", "q.rs"]]);
    }
}
