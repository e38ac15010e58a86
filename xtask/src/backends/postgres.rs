//! PostgreSQL: a private cluster with `initdb`, run as user `postgres` (it refuses to run as root).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::private_server::PrivateServer;
use super::{Server, wire};
use crate::proc;

/// PostgreSQL.
#[derive(Debug)]
pub struct Postgres;

impl Postgres {
    /// Starts the server on the cluster that is there.
    pub fn run(&self, bin: &Path, instance: &mut PrivateServer) -> Result<()> {
        let mut postgres = instance.command(bin.join("postgres"));
        postgres.arg("-D").arg(instance.dir.join("data"));
        for setting in [
            &format!("port={}", instance.port),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            // The defaults, said aloud: the suites count on them, and the stores refuse to start without.
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
        ] {
            postgres.args(["-c", setting]);
        }
        instance.launch(&mut postgres)
    }
}

impl Server for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn variable(&self) -> &'static str {
        "SAGABUS_POSTGRES_URL"
    }

    fn port(&self) -> u16 {
        15432
    }

    fn address(&self, port: u16) -> String {
        format!("postgres://sagabus:sagabus@127.0.0.1:{port}/sagabus")
    }

    fn probe(&self, address: &str) -> Result<String> {
        wire::postgres(address)?;
        // The version is only told after logging in, so it takes a client; without one, what we know is enough.
        let version = psql().and_then(|psql| query(&psql, address, "show server_version").ok());
        Ok(version.map_or_else(|| "PostgreSQL".to_owned(), |version| format!("PostgreSQL {version}")))
    }

    fn packages(&self) -> &'static [&'static str] {
        &["postgresql"]
    }

    fn locate(&self) -> Result<PathBuf> {
        let installed = newest(Path::new("/usr/lib/postgresql"));
        let on_path = || proc::which("initdb").and_then(|initdb| initdb.parent().map(Path::to_path_buf));
        installed
            .or_else(on_path)
            .context("no postgresql server found (no initdb in /usr/lib/postgresql or on the path)")
    }

    fn user(&self) -> Option<&'static str> {
        Some("postgres")
    }

    fn start(&self, bin: PathBuf, instance: &mut PrivateServer) -> Result<()> {
        let data = instance.dir.join("data");
        let mut initdb = instance.command(bin.join("initdb"));
        initdb.arg("--pgdata").arg(&data).args(["--username=sagabus", "--encoding=UTF8", "--locale=C.UTF-8"]);
        // A password even on loopback: every user of this machine can connect to it.
        let password = instance.dir.join("password");
        fs::write(&password, "sagabus\n").context("write the password file")?;
        initdb.args(["--auth=scram-sha-256", "--data-checksums", "--pwfile"]).arg(&password);
        instance.run(&mut initdb).context("initialise the cluster")?;
        self.run(&bin, instance)
    }

    fn confirm(&self, instance: &PrivateServer) -> Result<()> {
        let psql = self.locate()?.join("psql");
        let admin = format!("postgres://sagabus:sagabus@127.0.0.1:{}/postgres", instance.port);
        let theirs = query(&psql, &admin, "show data_directory")?;
        ensure!(
            Path::new(&theirs) == instance.dir.join("data"),
            "the server on port {} works in {theirs}",
            instance.port
        );
        query(&psql, &admin, "create database sagabus")?;
        Ok(())
    }
}

fn newest(root: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(root).ok()?.flatten();
    let number = |version: &fs::DirEntry| version.file_name().to_string_lossy().parse::<u32>().unwrap_or(0);
    let usable = versions.filter(|version| version.path().join("bin/initdb").is_file());
    usable.max_by_key(number).map(|version| version.path().join("bin"))
}

fn psql() -> Option<PathBuf> {
    proc::which("psql").or_else(|| newest(Path::new("/usr/lib/postgresql")).map(|bin| bin.join("psql")))
}

fn query(psql: &Path, address: &str, sql: &str) -> Result<String> {
    let mut command = Command::new(psql);
    command.args([
        "--no-psqlrc",
        "--no-password",
        "--tuples-only",
        "--no-align",
        "--dbname",
        address,
        "--command",
        sql,
    ]);
    command.env("PGCONNECT_TIMEOUT", "5");
    Ok(proc::output(&mut command).with_context(|| format!("ask postgresql to {sql}"))?.trim().to_owned())
}
