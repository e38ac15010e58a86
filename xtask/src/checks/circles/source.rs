//! The modules of a crate, with the paths that each of their files names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::rust_source::{self, Token};

/// A path within the crate: module names, then perhaps an item's.
pub(super) type ItemPath = Vec<String>;

/// One file of a crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// Relative to the crate's directory.
    pub(super) name: String,
    /// The items that are declared in it, at whatever depth.
    pub(super) items: BTreeSet<String>,
    /// What `use` brings into its scope, by the name that it has there. A glob's name is `*` with a number.
    pub(super) imports: BTreeMap<String, ItemPath>,
    /// The paths that it names, imports included. Tests of the file are left out.
    pub(super) paths: BTreeSet<ItemPath>,
}

/// Reads the files of a crate, by their modules' paths. Files of tests are left out.
pub(super) fn read(dir: &Path) -> Result<BTreeMap<ItemPath, SourceFile>> {
    let mut crate_files = BTreeMap::new();
    for path in rust_source::files(dir)? {
        let relative = path.strip_prefix(dir).unwrap_or(&path);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut module: ItemPath =
            relative.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
        let is_tests = module.last().is_some_and(|last| last == "tests" || last.ends_with("_tests"));
        if is_tests || relative.starts_with("bin") || relative == Path::new("main.rs") && dir.join("lib.rs").exists() {
            continue;
        }
        let is_root = module.len() == 1 && (module[0] == "lib" || module[0] == "main");
        if is_root || module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        let name = relative.display().to_string();
        crate_files.insert(module.clone(), read_file(name, &module, &text));
    }
    Ok(crate_files)
}

/// Reads one file, the text of the module at this path.
pub(super) fn read_file(name: String, module: &[String], text: &str) -> SourceFile {
    let mut reader = Reader {
        tokens: without_tests(&rust_source::tokens(text)),
        at: 0,
        module: module.to_vec(),
        children: BTreeSet::new(),
        file: SourceFile { name, ..SourceFile::default() },
    };
    reader.read();
    reader.file
}

/// The tokens without what stands behind `#[cfg(test)]`: a block or a declaration.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let words: Vec<&str> = tokens.iter().map(|token| token.text).collect();
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < words.len() {
        if words[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
            let mut depth = 0;
            while let Some(word) = words.get(at) {
                at += 1;
                match *word {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                if depth == 0 && (*word == "}" || *word == ";") {
                    break;
                }
            }
        } else {
            kept.push(words[at]);
            at += 1;
        }
    }
    kept
}

struct Reader<'a> {
    tokens: Vec<&'a str>,
    at: usize,
    /// The module that is being read; longer within a module that is written out in the file.
    module: ItemPath,
    /// The modules that the file declares.
    children: BTreeSet<&'a str>,
    file: SourceFile,
}

impl<'a> Reader<'a> {
    fn token(&self, ahead: usize) -> &'a str {
        self.tokens.get(self.at + ahead).copied().unwrap_or("")
    }

    fn at_path_separator(&self, ahead: usize) -> bool {
        self.token(ahead) == ":" && self.token(ahead + 1) == ":"
    }

    fn read(&mut self) {
        for at in 1..self.tokens.len() {
            if self.tokens[at - 1] == "mod" {
                self.children.insert(self.tokens[at]);
            }
        }
        let mut depth = 0;
        let mut inline: Vec<usize> = Vec::new();
        while self.at < self.tokens.len() {
            match self.token(0) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        self.module.pop();
                    }
                }
                "mod" if self.token(2) == "{" => {
                    self.module.push(self.token(1).to_owned());
                    inline.push(depth);
                    depth += 1;
                    self.at += 2;
                }
                "use" => {
                    self.at += 1;
                    self.read_use(&[]);
                }
                "struct" | "enum" | "trait" | "fn" | "const" | "static" | "type" | "union" | "mod" => {
                    self.file.items.insert(self.token(1).to_owned());
                }
                "crate" | "super" | "self" if self.at_path_separator(1) => self.read_path(),
                child
                    if self.children.contains(child)
                        && self.at_path_separator(1)
                        && (self.at < 2 || self.tokens[self.at - 1] != ":") =>
                {
                    self.read_path();
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Reads the path at the cursor, outside of a `use`, and stops at its last token.
    fn read_path(&mut self) {
        let mut path = vec![self.token(0).to_owned()];
        while self.at_path_separator(1) && self.token(3).starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            self.at += 3;
            path.push(self.token(0).to_owned());
        }
        if let Some(path) = self.absolute(&path) {
            self.file.paths.insert(path);
        }
    }

    /// Reads a tree of a `use` and stops behind it: at `;`, `,` or `}`.
    fn read_use(&mut self, prefix: &[String]) {
        let mut path = prefix.to_vec();
        loop {
            match self.token(0) {
                "{" => {
                    while !matches!(self.token(0), "}" | "") {
                        self.at += 1;
                        self.read_use(&path);
                    }
                    self.at += 1;
                    return;
                }
                ";" | "," | "}" | "" => break,
                "as" => {
                    let name = self.token(1).to_owned();
                    self.at += 2;
                    self.import(name, &path);
                    return;
                }
                ":" => {}
                word => path.push(word.to_owned()),
            }
            self.at += 1;
        }
        if path.len() > prefix.len() {
            let name = path.last().cloned().unwrap_or_default();
            self.import(name, &path);
        }
    }

    fn import(&mut self, name: String, path: &[String]) {
        let is_glob = name == "*";
        let is_self = path.len() > 1 && path.last().is_some_and(|last| last == "self");
        let path = if is_glob || is_self { &path[..path.len() - 1] } else { path };
        let Some(absolute) = self.absolute(path) else { return };
        self.file.paths.insert(absolute.clone());
        let name = match (is_glob, is_self) {
            (true, _) => format!("*{}", self.file.imports.len()),
            (_, true) => path.last().cloned().unwrap_or_default(),
            _ => name,
        };
        self.file.imports.insert(name, absolute);
    }

    /// The path from the crate's root; none if it leads out of the crate.
    fn absolute(&self, path: &[String]) -> Option<ItemPath> {
        let (first, mut rest) = path.split_first()?;
        let mut base = self.module.clone();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop()?;
                while let Some(("super", more)) = rest.split_first().map(|(word, more)| (word.as_str(), more)) {
                    base.pop()?;
                    rest = more;
                }
            }
            child if self.children.contains(child) => base.push(child.to_owned()),
            _ => return None,
        }
        base.extend_from_slice(rest);
        Some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SourceFile {
        read_file("x.rs".into(), &["a".to_owned(), "x".to_owned()], text)
    }

    fn paths(text: &str) -> Vec<String> {
        read(text).paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn paths_are_read_from_uses_and_from_expressions() {
        let text = "mod child; use super::{y::{Y, Z as W}, v}; use crate::b; use std::fmt; pub use child::Item;
            fn f() { crate::c::g(1); self::child::h(); child::i(); std::child::j(); let x: super::super::k::K; }
            mod inline { use super::m; } #[cfg(test)] mod tests { use crate::t; } fn last() { crate::n::o() }";
        let wanted = [
            "a::v",
            "a::x::child::Item",
            "a::x::child::h",
            "a::x::child::i",
            "a::x::m",
            "a::y::Y",
            "a::y::Z",
            "b",
            "c::g",
            "k::K",
            "n::o",
        ];
        assert_eq!(paths(text), wanted);
    }

    #[test]
    fn imports_have_the_names_of_the_scope() {
        let file = read("use super::y::{self, Z as W}; pub use super::z::*; struct S; const C: u8 = 0;");
        let names: Vec<_> = file.imports.keys().cloned().collect();
        assert_eq!(names, ["*2", "W", "y"]);
        assert_eq!(file.items.into_iter().collect::<Vec<_>>(), ["C", "S"]);
    }
}
