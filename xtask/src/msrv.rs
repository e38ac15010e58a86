//! `cargo xtask msrv`: whether `rust-version` is true, as far as this machine can tell.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

use crate::command::Check;
use crate::verdict::{Outcome, Timer, Verdict};
use crate::{cargo, proc};

/// Compares `rust-version` with what the dependencies ask for, and compiles with that toolchain where it is installed
/// (counts: packages, above, compiled)
#[derive(Debug, Args)]
pub struct Msrv {}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    rust_version: Option<String>,
    source: Option<String>,
}

impl Check for Msrv {
    const NAME: &'static str = "msrv";

    fn run(self) -> Result<Verdict> {
        let mut timer = Timer::start(Self::NAME);
        let text =
            proc::output(cargo::command().args(["metadata", "--format-version=1", "--all-features", "--locked"]))?;
        let metadata: Metadata = serde_json::from_str(&text).context("read cargo's metadata")?;
        let ours = metadata.packages.iter().find(|package| package.source.is_none() && package.name == "sagabus");
        let ours = ours.and_then(|package| package.rust_version.as_deref()).context("find sagabus's rust-version")?;

        let theirs: Vec<_> = metadata.packages.iter().filter(|package| package.source.is_some()).collect();
        let above: Vec<_> = theirs.iter().filter(|package| floor(package) > version(ours)).collect();
        for package in &above {
            println!("{} {} asks for rust {:?}", package.name, package.version, package.rust_version);
        }
        print_floor(&theirs, ours);
        let compiled = compile(ours)?;
        timer.count("packages", theirs.len()).count("above", above.len()).count("compiled", compiled == Some(true));
        let good = above.is_empty() && compiled != Some(false);
        Ok(timer.finish(if good { Outcome::Pass } else { Outcome::Fail }))
    }
}

/// Says who needs `ours`; without anybody, it could be lower.
fn print_floor(theirs: &[&Package], ours: &str) {
    let mut by_version: BTreeMap<(u32, u32), Vec<String>> = BTreeMap::new();
    for package in theirs {
        by_version.entry(floor(package)).or_default().push(format!("{} {}", package.name, package.version));
    }
    match by_version.last_key_value() {
        Some((highest, names)) => {
            println!(
                "rust-version is {ours}; the highest asked for is {}.{}, by {}",
                highest.0,
                highest.1,
                names.join(", ")
            );
        }
        None => println!("rust-version is {ours}; there are no dependencies"),
    }
    if !theirs.iter().any(|package| package.name == "sqlx") {
        println!("sqlx, which is to set the floor, is not in the tree yet");
    }
}

/// Some(whether it compiles) with exactly this toolchain, None if it is not installed: that cannot be made up for here.
fn compile(ours: &str) -> Result<Option<bool>> {
    let installed = proc::output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let Some(toolchain) = installed.split_whitespace().find(|name| is_toolchain(name, ours)) else {
        println!(
            "not compiled with {ours}: no such toolchain is installed here, so only the declarations were compared"
        );
        return Ok(None);
    };
    let mut check = Command::new("cargo");
    cargo::forget_outer_package(&mut check);
    check.current_dir(crate::paths::root()).env_remove("CARGO").env("RUSTUP_TOOLCHAIN", toolchain);
    check.args(["check", "--workspace", "--locked", "--target-dir"]).arg(crate::paths::target().join("msrv"));
    let status = check.status().context("run cargo check with the oldest toolchain")?;
    println!("compiled with {toolchain}: {status}");
    Ok(Some(status.success()))
}

fn is_toolchain(name: &str, version: &str) -> bool {
    name.strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
}

fn floor(package: &Package) -> (u32, u32) {
    package.rust_version.as_deref().map_or((0, 0), version)
}

/// Major and minor; a patch level changes nothing a crate can ask for.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{is_toolchain, version};

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("1.100") > version("1.94.0"));
        assert_eq!(version("1.94"), version("1.94.1"));
    }

    #[test]
    fn a_toolchain_is_matched_by_its_whole_version() {
        assert!(is_toolchain("1.94.0-x86_64-unknown-linux-gnu", "1.94"));
        assert!(is_toolchain("1.94-x86_64-unknown-linux-gnu", "1.94"));
        assert!(!is_toolchain("1.945.0-x86_64", "1.94"));
        assert!(!is_toolchain("stable-x86_64", "1.94"));
    }
}
