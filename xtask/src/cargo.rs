//! Running cargo from inside of cargo.

use std::env;
use std::process::Command;

use crate::paths;

/// `cargo` in the workspace's root, on the toolchain that runs us.
pub fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).env("CARGO_TARGET_DIR", paths::target());
    forget_outer_package(&mut command);
    command
}

/// Takes away what the outer `cargo run` says about *its* package, which build scripts and tests would believe.
pub fn forget_outer_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(&name);
        }
    }
}
