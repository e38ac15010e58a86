//! `cargo xtask words`: names in product code are the field's own, and constants are nouns.

mod forbidden;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use crate::command::Check;
use crate::paths;
use crate::rust_source::{self, Token};
use crate::verdict::{Outcome, Timer, Verdict};
use forbidden::{ADJECTIVES, ALLOWED, WORDS};

/// Product code.
const DIRECTORIES: [&str; 6] = ["core/src", "sagas/src", "outbox/src", "transports/src", "macros/src", "src"];

/// Looks for words that hide their meaning in identifiers, constants and file names of product code (counts: files,
/// identifiers, found)
#[derive(Debug, Args)]
pub struct Words {
    /// Accepted like everywhere; nothing is drawn here
    #[arg(long)]
    seed: Option<u64>,
}

/// A word that is not to be used, and a term that says more.
#[derive(Debug, PartialEq, Eq)]
struct Finding<'a> {
    line: usize,
    name: &'a str,
    instead: &'static str,
}

impl Check for Words {
    const NAME: &'static str = "words";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME).seed(self.seed.unwrap_or(0));
        let root = paths::root();
        let (mut files, mut identifiers, mut found) = (0, 0, 0);
        for directory in DIRECTORIES {
            for file in rust_source::files(&root.join(directory))? {
                let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
                let shown = file.strip_prefix(&root).unwrap_or(&file);
                let tokens = rust_source::tokens(&text);
                files += 1;
                identifiers += tokens.iter().filter(|token| token.is_identifier()).count();
                for finding in in_path(shown).into_iter().chain(in_tokens(&tokens)) {
                    println!("{}:{}: {}: {}", shown.display(), finding.line, finding.name, finding.instead);
                    found += 1;
                }
            }
        }
        timer.count("files", files).count("identifiers", identifiers).count("found", found);
        Ok(timer.finish(match (found, identifiers) {
            (0, 0) => Outcome::Vacuous,
            (0, _) => Outcome::Pass,
            _ => Outcome::Fail,
        }))
    }
}

/// The findings in the names of a file and of its directories.
fn in_path(path: &Path) -> Vec<Finding<'_>> {
    let names = path.iter().filter_map(|part| Path::new(part).file_stem()?.to_str());
    names.filter_map(|name| Some(Finding { line: 1, name, instead: instead_of(name)? })).collect()
}

/// The findings in a file's text.
fn in_tokens<'a>(tokens: &[Token<'a>]) -> Vec<Finding<'a>> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let declared = at > 0 && matches!(tokens[at - 1].text, "const" | "static");
        let adjective = || {
            (declared && ADJECTIVES.contains(&token.text)).then_some("a noun with its unit or meaning, as in MAX_UNITS")
        };
        if let Some(instead) = instead_of(token.text).or_else(adjective) {
            found.push(Finding { line: token.line, name: token.text, instead });
        }
    }
    found
}

/// What to say instead of a name that has a forbidden word in it.
fn instead_of(name: &str) -> Option<&'static str> {
    if ALLOWED.iter().any(|(allowed, _)| *allowed == name) {
        return None;
    }
    let segments = segments(name);
    segments.iter().enumerate().find_map(|(at, segment)| {
        let singular = segment.strip_suffix('s').unwrap_or(segment);
        let (_, instead) = WORDS.iter().find(|(word, _)| word == segment || *word == singular)?;
        let is_dead_letters = segment == "letters" && at > 0 && segments[at - 1] == "dead";
        (!is_dead_letters).then_some(*instead)
    })
}

/// The words of a name in snake case, camel case or capitals, in lower case.
fn segments(name: &str) -> Vec<String> {
    let mut segments: Vec<String> = Vec::new();
    let mut before = '_';
    for c in name.chars() {
        if c.is_alphabetic() {
            let begins = !before.is_alphabetic() || c.is_uppercase() && before.is_lowercase();
            match segments.last_mut().filter(|_| !begins) {
                Some(segment) => segment.extend(c.to_lowercase()),
                None => segments.push(c.to_lowercase().collect()),
            }
        }
        before = c;
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(usize, String)> {
        let tokens = rust_source::tokens(text);
        in_tokens(&tokens).into_iter().map(|finding| (finding.line, finding.name.to_owned())).collect()
    }

    #[test]
    fn forbidden_words_are_found_as_segments() {
        let text = "struct WriteDesk;\nfn in_turn() {}\nlet bells = homes.len();\nconst TURN: u8 = 1;\nenum E { Bury }\n\
            let letters = old_lives;";
        let found = names(text);
        let wanted = [
            (1, "WriteDesk"),
            (2, "in_turn"),
            (3, "bells"),
            (3, "homes"),
            (4, "TURN"),
            (5, "Bury"),
            (6, "letters"),
            (6, "old_lives"),
        ];
        assert_eq!(found, wanted.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn adjectives_are_found_as_whole_constants() {
        let found = names("const MOST: usize = 1;\npub static SOON: u8 = 2;\nif n > MOST {}");
        assert_eq!(found, [(1, "MOST".to_owned()), (2, "SOON".to_owned())]);
    }

    #[test]
    fn other_names_pass() {
        let text = "struct InFlight; // a Desk\nfn returns() { \"Turn\" }\nlet replaced = dead_letters.lifetime();\n\
            const MAX_LONG_ROWS: usize = 1; fn f<'life>(note: &'life str) {} ptr::drop_in_place(x)";
        assert_eq!(names(text), []);
    }

    #[test]
    fn file_names_count() {
        let found = |path| in_path(Path::new(path)).len();
        assert_eq!((found("outbox/src/sqlite/bells.rs"), found("transports/src/home/mod.rs")), (1, 1));
        assert_eq!(found("outbox/src/sqlite/dead_letters.rs"), 0);
    }

    #[test]
    fn each_allowed_name_would_be_found_and_has_a_reason() {
        for (name, reason) in ALLOWED {
            let known = |segment: &String| WORDS.iter().any(|(word, _)| segment.starts_with(word));
            assert!(segments(name).iter().any(known), "{name} needs no exception");
            assert!(!reason.is_empty(), "{name}");
        }
    }
}
