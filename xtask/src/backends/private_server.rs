//! A private instance of a server: directory, port, user and log.

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::unistd::{Uid, User, geteuid};

use super::Server;
use super::state::{How, Process, Running, remove};
use crate::{paths, proc};

/// A private instance in the making. Everything it starts is on record before anything can go wrong with it.
#[derive(Debug)]
pub struct PrivateServer {
    /// Empty at first, and the server's user's own.
    pub dir: PathBuf,
    /// Free a moment ago, and below the range the kernel gives to outgoing connections.
    pub port: u16,
    /// Where it will listen.
    pub address: String,
    user: Option<User>,
    running: Running,
}

impl PrivateServer {
    /// Makes the directory and finds a port.
    pub fn prepare(server: &dyn Server) -> Result<Self> {
        let user = user_of(server)?;
        let dir = directory(server.name(), user.is_some());
        remove(&dir)?;
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        }
        DirBuilder::new().mode(0o700).create(&dir).with_context(|| format!("create {}", dir.display()))?;
        if let Some(user) = &user {
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            chown(&dir, Some(uid), Some(gid)).with_context(|| format!("give {} to {}", dir.display(), user.name))?;
        }
        let port = free_port(server.port())?;
        let address = server.address(port);
        let running = Running {
            server: server.name().to_owned(),
            how: How::Private,
            address: address.clone(),
            dir: Some(dir.clone()),
            processes: Vec::new(),
        };
        running.save()?;
        Ok(Self { dir, port, address, user, running })
    }

    /// An instance that has ended, to be started again in its directory and at its port.
    pub fn again(server: &dyn Server, running: &Running) -> Result<Self> {
        let dir = running.dir.clone().context("the directory of an instance that is not ours")?;
        let port = super::wire::host_and_port(&running.address, server.port())?.1;
        let running = Running { processes: Vec::new(), ..running.clone() };
        Ok(Self { dir, port, address: running.address.clone(), user: user_of(server)?, running })
    }

    /// A command as the server's user, in its directory, with nothing to read.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env("HOME", &self.dir).env("USER", &user.name);
        }
        command
    }

    /// Runs a command to its end; its output is shown only if it fails.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        proc::output(command)
    }

    /// Starts a process that stays, with its output in the log, and puts it on record. What is started later is stopped
    /// first.
    pub fn launch(&mut self, command: &mut Command) -> Result<()> {
        let log = self.log();
        let file = File::options().create(true).append(true).open(&log).context("open the server's log")?;
        let errors = file.try_clone().context("open the server's log")?;
        let child = command.stdout(file).stderr(errors).process_group(0).spawn();
        let child = child.with_context(|| format!("start {}", command.get_program().display()))?;
        proc::kill_on_signal(child.id());
        self.running.processes.insert(0, Process::of(child.id())?);
        self.running.save()
    }

    /// The log of everything launched. Beside the directory, so that it stays when the data is removed.
    pub fn log(&self) -> PathBuf {
        paths::servers().join(format!("{}.log", self.running.server))
    }

    /// What is on record.
    pub fn running(&self) -> &Running {
        &self.running
    }
}

/// The first port from `first` on that nobody listens on.
pub fn free_port(first: u16) -> Result<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 50).find(free).with_context(|| format!("find a free port in {first}..{}", first + 50))
}

fn user_of(server: &dyn Server) -> Result<Option<User>> {
    let Some(name) = server.user().filter(|_| geteuid() == Uid::from_raw(0)) else {
        return Ok(None);
    };
    let user = User::from_name(name).with_context(|| format!("look up the user {name}"))?;
    ensure!(user.is_some(), "there is no user {name} to run {} as", server.name());
    Ok(user)
}

/// In the target directory, unless another user is to work in it and cannot get there.
fn directory(name: &str, other_user: bool) -> PathBuf {
    let dir = paths::servers().join(name);
    if !other_user || dir.ancestors().skip(1).all(|parent| !parent.exists() || passable(parent)) {
        return dir;
    }
    let mut hasher = DefaultHasher::new();
    paths::target().hash(&mut hasher);
    PathBuf::from(format!("/var/tmp/sagabus-{name}-{:016x}", hasher.finish()))
}

fn passable(dir: &Path) -> bool {
    dir.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}
