//! The programs that the checks start, each built once.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::backend::Broker;
use crate::{cargo, paths};

/// How they are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// With crash points and planted bugs, in `target/chaos`: the one extra build of the project. And with a broker's
    /// driver, where one is needed.
    Chaos(Option<Broker>),
    /// As users build it, optimised: where a number is measured.
    Release,
    /// The same, with a broker's driver, and only these: linking all of them takes minutes.
    ReleaseOf(&'static [&'static str], Option<Broker>),
}

/// Where they are.
#[derive(Debug, Clone)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds all of them.
    pub fn build(how: Build) -> Result<Self> {
        let mut command = cargo::command();
        command.args(["build", "--package", "sagabus-tests", "--message-format", "json-render-diagnostics"]);
        match how {
            Build::ReleaseOf(names, _) => command.args(names.iter().flat_map(|name| ["--bin", name])),
            _ => command.arg("--bins"),
        };
        match how {
            Build::Chaos(_) => {
                command.args(["--package", "sagabus", "--example", "order"]);
                command.args(["--features", HIDDEN]).arg("--target-dir").arg(chaos_target());
            }
            Build::Release | Build::ReleaseOf(..) => {
                command.arg("--release");
            }
        }
        if let Build::Chaos(Some(broker)) | Build::ReleaseOf(_, Some(broker)) = how {
            command.args(["--features", &format!("sagabus-tests/{}", broker.word())]);
        }
        let messages = run(command)?;
        let found = messages
            .iter()
            .filter(|message| matches!(message["target"]["kind"][0].as_str(), Some("bin" | "example")))
            .filter_map(|message| {
                let name = message["target"]["name"].as_str()?.to_owned();
                Some((name, PathBuf::from(message["executable"].as_str()?)))
            })
            .collect();
        Ok(Self(found))
    }

    /// The path of one.
    pub fn path(&self, name: &str) -> Result<&Path> {
        match self.0.get(name) {
            Some(path) => Ok(path),
            None => bail!("there is no program {name}; cargo built {:?}", self.0.keys()),
        }
    }
}

/// The features of the chaos build.
pub const HIDDEN: &str = "sagabus/__crash,sagabus/__sabotage,sagabus-tests/__crash,sagabus-tests/__sabotage";

/// Where the chaos build lies: with other features every crate of ours is compiled again, and sharing `target` would
/// have the two builds throw out each other's work.
pub fn chaos_target() -> PathBuf {
    paths::target().join("chaos")
}

/// Runs cargo and returns its messages.
pub fn run(mut command: std::process::Command) -> Result<Vec<Value>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start cargo")?;
    let mut text = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut text).context("read cargo's messages")?;
    }
    let status = child.wait().context("wait for cargo")?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
