//! Builds an example once, with hidden features, where it does not disturb the everyday build.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cargo, paths};

/// Builds `cargo build --example NAME --features …` into `target/chaos` and returns the program's path.
///
/// A directory of its own: with other features every crate of ours is compiled again, and sharing `target/` would have
/// the two builds throw out each other's work.
pub fn build(name: &str, features: &[&str]) -> Result<PathBuf> {
    let mut command = cargo::command();
    command.args(["build", "--example", name, "--message-format", "json-render-diagnostics"]);
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    command.arg("--target-dir").arg(paths::target().join("chaos")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start cargo for the example {name}"))?;
    let mut messages = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut messages).context("read cargo's messages")?;
    }
    let status = child.wait().context("wait for cargo")?;
    if !status.success() {
        bail!("build the example {name} with features {features:?}: {status}");
    }
    executable(&messages, name).with_context(|| format!("find the example {name} in cargo's messages"))
}

fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name && message["target"]["kind"][0] == "example")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn the_program_is_the_one_of_the_named_example() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"order","kind":["lib"]},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"hello","kind":["example"]},"executable":"/t/hello"}
{"reason":"compiler-artifact","target":{"name":"order","kind":["example"]},"executable":"/t/order"}"#;
        assert_eq!(executable(messages, "order").unwrap().to_str(), Some("/t/order"));
        assert_eq!(executable(messages, "none"), None);
    }
}
