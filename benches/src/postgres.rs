//! PostgreSQL servers: a schema per run, and what the server itself spends on it.

use crate::measure::stat;
use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use std::{collections::BTreeMap, str::FromStr as _};

/// Where the server is, if the URL is `postgres://` and nothing else.
const VARIABLE: &str = "SAGABUS_POSTGRES_URL";

/// The baselines' settings: plans are made once and probe the indexes, however empty the tables were then.
pub(crate) const PLANS: &str = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set random_page_cost = 1; \
                                set jit = off";

pub(crate) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// The server's address: of the URL, or of the environment. What stands behind `#` only tells two schemas apart.
pub(crate) fn address(url: &str) -> Result<String> {
    let url = url.split('#').next().unwrap_or(url);
    if url != "postgres://" && url != "postgres:" {
        return Ok(url.to_owned());
    }
    std::env::var(VARIABLE)
        .with_context(|| format!("{VARIABLE} names no server: cargo xtask servers up --only postgres"))
}

/// The same database, and in it a schema of one's own that is searched first.
pub(crate) fn in_schema(url: &str, schema: &str) -> String {
    let join = if url.contains('?') { '&' } else { '?' };
    format!("{url}{join}schema={schema}&options[search_path]={schema}")
}

/// A connection with the URL's schema in front of the search path.
pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    // the driver would hand our own parameter to the server
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("schema=")).collect();
    let options = PgConnectOptions::from_str(&format!("{base}?{}", rest.join("&"))).context("read the postgres url")?;
    options.disable_statement_logging().connect().await.context("connect to postgres")
}

/// Runs statements on a connection of its own.
pub(crate) async fn script(url: &str, text: String) -> Result<()> {
    let mut connection = connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// A schema that goes away with it.
pub(crate) struct Schema {
    url: String,
    name: String,
}

impl Schema {
    pub(crate) fn create(url: &str, name: String) -> Result<Self> {
        block_on(script(url, format!("create schema {name}")))?;
        Ok(Self { url: url.to_owned(), name })
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop = format!("set client_min_messages=warning;drop schema if exists {} cascade", self.name);
        if let Err(error) = block_on(script(&self.url, drop)) {
            eprintln!("drop schema {}: {error:#}", self.name);
        }
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Has the server write everything out, so that no run pays for the one before it.
pub(crate) async fn settle(url: &str) -> Result<()> {
    script(url, "checkpoint".into()).await
}

/// What the server has spent so far.
pub(crate) struct Meter {
    connection: PgConnection,
    postmaster: Option<u32>,
    wal: f64,
    cpu: f64,
}

impl Meter {
    /// Begins to measure; None for another database.
    pub(crate) async fn start(url: &str) -> Result<Option<Self>> {
        if !is_postgres(url) {
            return Ok(None);
        }
        let mut connection = connect(url).await?;
        let (pid,): (i32,) = sqlx::query_as("select pg_backend_pid()").fetch_one(&mut connection).await?;
        let postmaster = parent(pid.unsigned_abs());
        let mut meter = Self { connection, postmaster, wal: 0.0, cpu: 0.0 };
        (meter.wal, meter.cpu) = meter.read().await?;
        Ok(Some(meter))
    }

    async fn read(&mut self) -> Result<(f64, f64)> {
        let wal = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(),'0/0')::float8";
        let (wal,): (f64,) = sqlx::query_as(wal).fetch_one(&mut self.connection).await?;
        Ok((wal, self.postmaster.map_or(0.0, cpu_of)))
    }

    /// WAL bytes, and microseconds of CPU of all the server's processes, for each message.
    pub(crate) async fn stop(mut self, messages: u64, more: &mut BTreeMap<String, f64>) -> Result<()> {
        let (wal, cpu) = self.read().await?;
        let per = |value: f64| value / messages.max(1) as f64;
        more.insert("wal_bytes_per_message".into(), per(wal - self.wal).round());
        if self.postmaster.is_some() {
            more.insert("server_cpu_us_per_message".into(), per(cpu - self.cpu));
        }
        Ok(self.connection.close().await?)
    }
}

/// The process that a backend was started by, if it is on this machine.
fn parent(pid: u32) -> Option<u32> {
    let (name, parent, _) = stat(pid)?;
    (name == "postgres").then_some(parent)
}

/// Microseconds of CPU of a server: its own, of those that ended, and of those that live.
fn cpu_of(postmaster: u32) -> f64 {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of = |pid: u32| stat(pid).filter(|(_, parent, _)| pid == postmaster || *parent == postmaster);
    pids.filter_map(of).map(|(_, _, cpu)| cpu).sum()
}
