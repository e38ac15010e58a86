//! What the compiler says to someone who holds the API wrong: one program per mistake in `ui/`, its error beside it.
//!
//! The texts are part of the API. Read a changed one as a user would, then take it over with
//! `TRYBUILD=overwrite cargo test -p sagabus-tests --test ui`.

use std::{io::Write, process::Command};

#[test]
fn mistakes_are_explained() {
    let pinned = pinned();
    let used = Command::new(env!("CARGO")).args(["--version"]).output();
    let used = used.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if !used.contains(&format!(" {pinned} ")) {
        // The compiler's wording changes from release to release; the snapshots are of the pinned one.
        // Written past the test harness, which would swallow it.
        let text = format!("SKIPPED ui: the snapshots are of Rust {pinned} (rust-toolchain.toml), this is {used}");
        std::io::stderr().write_all(text.as_bytes()).expect("stderr is writable");
        return;
    }
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}

fn pinned() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../rust-toolchain.toml");
    let text = std::fs::read_to_string(path).expect("rust-toolchain.toml is readable");
    let channel = text.lines().find_map(|line| line.strip_prefix("channel = "));
    channel.expect("it names a channel").trim_matches('"').to_string()
}
