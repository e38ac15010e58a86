//! Rust source files, read without a compiler: which there are, and their identifiers with lines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// An identifier or a punctuation character. Comments, literals and lifetimes are no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// The identifier, or one character.
    pub text: &'a str,
    /// Counted from 1.
    pub line: usize,
}

impl Token<'_> {
    /// Whether it is an identifier or a keyword.
    pub fn is_identifier(&self) -> bool {
        self.text.starts_with(begins_identifier)
    }
}

/// All `.rs` files under a directory, in order.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn begins_identifier(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn continues_identifier(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Splits a file into tokens.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut reader = Reader { text, at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(c) = reader.rest().chars().next() {
        let (start, line) = (reader.at, reader.line);
        if reader.rest().starts_with("//") {
            reader.skip_while(|c| c != '\n');
        } else if reader.rest().starts_with("/*") {
            reader.skip_block_comment();
        } else if let Some(hashes) = reader.raw_string() {
            reader.skip_raw_string(hashes);
        } else if c == '"' {
            reader.skip_quoted('"');
        } else if c == '\'' {
            reader.skip_char_or_lifetime();
        } else if c.is_ascii_digit() {
            reader.skip_while(continues_identifier);
        } else if begins_identifier(c) {
            reader.skip_while(continues_identifier);
            let prefix = &text[start..reader.at];
            match reader.rest().chars().next() {
                // a byte or C string; its prefix is no identifier
                Some('"' | '\'') if matches!(prefix, "b" | "c") => {}
                // a raw identifier
                Some('#') if prefix == "r" => reader.skip(1),
                _ => tokens.push(Token { text: prefix, line }),
            }
        } else {
            reader.skip(c.len_utf8());
            if !c.is_whitespace() {
                tokens.push(Token { text: &text[start..reader.at], line });
            }
        }
    }
    tokens
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self, bytes: usize) {
        let end = (self.at + bytes).min(self.text.len());
        self.line += self.text[self.at..end].matches('\n').count();
        self.at = end;
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        let rest = self.rest();
        self.skip(rest.find(|c| !wanted(c)).unwrap_or(rest.len()));
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
            } else {
                self.skip(rest.chars().next().map_or(0, char::len_utf8));
            }
            if depth == 0 || self.rest().is_empty() {
                return;
            }
        }
    }

    /// How many `#` a raw string begins with here, if one begins.
    fn raw_string(&self) -> Option<usize> {
        let rest = self.rest();
        let after = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
        let hashes = after.len() - after.trim_start_matches('#').len();
        after[hashes..].starts_with('"').then_some(hashes)
    }

    fn skip_raw_string(&mut self, hashes: usize) {
        let end = format!("\"{}", "#".repeat(hashes));
        let rest = self.rest();
        let open = rest.find('"').unwrap_or(0) + 1;
        self.skip(rest[open..].find(&end).map_or(rest.len(), |at| open + at + end.len()));
    }

    fn skip_quoted(&mut self, quote: char) {
        let mut escaped = true; // the opening quote is not the end
        let end = self.rest().char_indices().find(|(_, c)| {
            let ends = *c == quote && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        self.skip(end.map_or(usize::MAX - self.at, |(at, _)| at + 1));
    }

    fn skip_char_or_lifetime(&mut self) {
        let mut after = self.rest().chars().skip(1);
        match (after.next(), after.next()) {
            (Some(first), second) if begins_identifier(first) && second != Some('\'') => {
                self.skip(1);
                self.skip_while(continues_identifier);
            }
            _ => self.skip_quoted('\''),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn identifiers(text: &str) -> Vec<(usize, &str)> {
        let found = tokens(text).into_iter().filter(|token| token.is_identifier());
        found.map(|token| (token.line, token.text)).collect()
    }

    #[test]
    fn comments_and_literals_are_left_out() {
        let text = r####"// Desk
/* Desk /* Desk */ Desk */ fn one() { "Desk \" Desk"; r#"Desk " Desk"#; b"Desk"; br"Desk"; 'D'; '\''; b'D' }
fn two<'desk>(a: &'desk str) -> u8 { 0x1Desk; r#type }"####;
        let words: Vec<_> = identifiers(text).into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, ["fn", "one", "fn", "two", "a", "str", "u8", "type"]);
    }

    #[test]
    fn lines_are_counted_through_literals_and_comments() {
        let found = identifiers("\"a\nb\" x /*\n*/ y\nr\"\n\" 'z' é");
        assert_eq!(found, [(2, "x"), (3, "y"), (5, "é")]);
    }
}
