//! `cargo xtask servers`: starts, lists and stops the servers that the backend suites need.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::backends::provide::provide;
use crate::backends::state::Running;
use crate::backends::{self, Server};
use crate::command::Check;
use crate::paths;
use crate::table::Table;
use crate::verdict::{Outcome, Timer, Verdict, seconds_since};

/// Starts, lists or stops PostgreSQL, RabbitMQ and Kafka for the suites (counts: servers, answering, failed)
#[derive(Debug, Args)]
pub struct Servers {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Brings them up by the first way that works: environment, docker compose, private instance
    Up {
        #[command(flatten)]
        only: Only,
        /// Install what is missing: debian packages, Kafka's jars
        #[arg(long)]
        install: bool,
    },
    /// Stops what `up` started and removes its data
    Down {
        #[command(flatten)]
        only: Only,
    },
    /// Lists what `up` started and whether it answers
    Status {
        #[command(flatten)]
        only: Only,
    },
}

#[derive(Debug, Args)]
struct Only {
    /// Only these, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Only {
    fn servers(&self) -> Result<Vec<&'static dyn Server>> {
        if let Some(unknown) = self.only.iter().find(|name| !backends::servers().any(|server| server.name() == *name)) {
            let known: Vec<_> = backends::servers().map(Server::name).collect();
            bail!("there is no server {unknown}; there are {}", known.join(", "));
        }
        let wanted = |server: &&dyn Server| self.only.is_empty() || self.only.iter().any(|name| name == server.name());
        Ok(backends::servers().filter(wanted).collect())
    }
}

impl Check for Servers {
    const NAME: &'static str = "servers";

    fn run(self) -> Result<Verdict> {
        match self.action {
            Action::Up { only, install } => up(&only.servers()?, install),
            Action::Down { only } => down(&only.servers()?),
            Action::Status { only } => status(&only.servers()?),
        }
    }
}

fn up(servers: &[&'static dyn Server], install: bool) -> Result<Verdict> {
    let mut timer = Timer::start(Servers::NAME);
    let mut table = Table::new(["server", "provided by", "identity", "seconds"]);
    let mut lines = String::new();
    let mut failed = 0;
    for server in servers {
        let started = Instant::now();
        match provide(*server, install) {
            Ok(provided) => {
                table.row([
                    server.name(),
                    provided.how.word(),
                    &provided.identity,
                    &seconds_since(started).to_string(),
                ]);
                lines.push_str(&format!("{}={}\n", server.variable(), provided.address));
                for (variable, value) in server.extras()? {
                    lines.push_str(&format!("{variable}={value}\n"));
                }
                provided.leave();
            }
            Err(error) => {
                failed += 1;
                table.row([server.name(), "missing", "", &seconds_since(started).to_string()]);
                eprintln!("{}: {error:#}", server.name());
            }
        }
    }
    let file = paths::servers().join("env");
    fs::write(&file, &lines).with_context(|| format!("write {}", file.display()))?;
    println!("{table}");
    println!("# also in {}: `set -a; . {0}; set +a`", file.display());
    println!("{lines}");
    timer.count("servers", servers.len()).count("answering", servers.len() - failed).count("failed", failed);
    Ok(timer.finish(if failed == 0 { Outcome::Pass } else { Outcome::Fail }))
}

fn down(servers: &[&'static dyn Server]) -> Result<Verdict> {
    let mut timer = Timer::start(Servers::NAME);
    let (mut stopped, mut failed) = (0, 0);
    for server in servers {
        match Running::load(server.name()).and_then(|running| running.map(|running| running.stop()).transpose()) {
            Ok(None) => println!("{}: nothing of ours is running", server.name()),
            Ok(Some(())) => {
                println!("{}: stopped", server.name());
                stopped += 1;
            }
            Err(error) => {
                eprintln!("{}: {error:#}", server.name());
                failed += 1;
            }
        }
    }
    let _ = fs::remove_file(paths::servers().join("env"));
    timer.count("servers", servers.len()).count("stopped", stopped).count("failed", failed);
    Ok(timer.finish(if failed == 0 { Outcome::Pass } else { Outcome::Fail }))
}

fn status(servers: &[&'static dyn Server]) -> Result<Verdict> {
    let mut timer = Timer::start(Servers::NAME);
    let mut table = Table::new(["server", "provided by", "state", "address"]);
    let (mut answering, mut failed) = (0, 0);
    for server in servers {
        let Some(running) = Running::load(server.name())? else {
            table.row([server.name(), "", "not started by us", ""]);
            continue;
        };
        let state = match server.probe(&running.address) {
            Ok(identity) if running.alive() => {
                answering += 1;
                identity
            }
            Ok(_) => {
                failed += 1;
                "its process is gone, another one answers".to_owned()
            }
            Err(error) => {
                failed += 1;
                format!("does not answer: {error:#}")
            }
        };
        table.row([server.name(), running.how.word(), &state, &running.address]);
    }
    println!("{table}");
    timer.count("servers", servers.len()).count("answering", answering).count("failed", failed);
    Ok(timer.finish(if failed == 0 { Outcome::Pass } else { Outcome::Fail }))
}
