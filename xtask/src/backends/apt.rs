//! Installs debian packages, without letting them start their services.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

/// Asked by every package before it starts its service; 101 means no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing of them.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !geteuid().is_root() {
        bail!("installing {} needs root", packages.join(" "));
    }
    eprintln!("installing {}", packages.join(" "));
    let _no_services = NoServices::declare()?;
    // The lists of a new machine may be missing or old; a second try with new ones is cheaper than always fetching them.
    if apt_get(&["install", "--yes", "--no-install-recommends"], packages).is_err() {
        apt_get(&["update"], &[])?;
        apt_get(&["install", "--yes", "--no-install-recommends"], packages)?;
    }
    Ok(())
}

fn apt_get(verb: &[&str], packages: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"]).args(verb).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    // Its chatter is no result of ours.
    let status = command.stdout(std::io::stderr()).status().context("run apt-get")?;
    if !status.success() {
        bail!("apt-get {} {}: {status}", verb[0], packages.join(" "));
    }
    Ok(())
}

/// While it lives, packages do not start services: a system-wide server would take the default ports and outlive us.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn declare() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("write {POLICY}"))?;
        fs::set_permissions(POLICY, Permissions::from_mode(0o755)).with_context(|| format!("write {POLICY}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("warning: remove {POLICY}: {error}");
        }
    }
}
