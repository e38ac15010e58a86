//! A database, read with plain SQL: a file of SQLite's, or one on a PostgreSQL server.
//!
//! Most statements are the same on both; where they are not, [`Db`] has a word for it.

use std::path::Path;
use std::str::FromStr as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection, FromRow, PgConnection, SqliteConnection};

/// How long a server may be away before a question to it fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the server calls us, so that a check that breaks connections can leave ours alone.
pub const APPLICATION: &str = "sagabus-xtask";

/// An open database, for one thread.
pub struct Db {
    runtime: tokio::runtime::Runtime,
    link: Link,
}

enum Link {
    Sqlite(SqliteConnection),
    Postgres { connection: PgConnection, options: Box<PgConnectOptions> },
    Closed,
}

/// What a row becomes, whichever database it comes from.
pub trait Columns: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin> Columns for T {}

impl Db {
    /// Opens a file that exists.
    pub fn open(path: &Path) -> Result<Self> {
        let runtime = runtime()?;
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(20));
        let connection = runtime.block_on(SqliteConnection::connect_with(&options));
        let connection = connection.with_context(|| format!("open {}", path.display()))?;
        Ok(Self { runtime, link: Link::Sqlite(connection) })
    }

    /// Connects to a database on a PostgreSQL server; tables are looked for in these schemas.
    pub fn connect(url: &str, schemas: &str) -> Result<Self> {
        let runtime = runtime()?;
        let options = PgConnectOptions::from_str(url).context("read the postgres address")?;
        let options = options.application_name(APPLICATION).options([("search_path", schemas)]);
        let options = options.disable_statement_logging();
        let connection = runtime.block_on(options.connect()).context("connect to postgres")?;
        Ok(Self { runtime, link: Link::Postgres { connection, options: Box::new(options) } })
    }

    /// Whether it is on a PostgreSQL server.
    pub fn is_postgres(&self) -> bool {
        matches!(self.link, Link::Postgres { .. })
    }

    /// Bytes that are text, as text.
    pub fn text(&self, column: &str) -> String {
        match self.is_postgres() {
            true => format!("convert_from({column}, 'UTF8')"),
            false => format!("cast({column} as text)"),
        }
    }

    /// The column of the effect ledger that grows in commit order.
    pub fn commit_order(&self) -> &'static str {
        if self.is_postgres() { "seq" } else { "id" }
    }

    /// All rows of a query. The text is ours, so it is safe by construction.
    pub fn rows<T: Columns>(&mut self, sql: &str) -> Result<Vec<T>> {
        let text = || AssertSqlSafe(sql.to_owned());
        self.patiently(|runtime, link| match link {
            Link::Sqlite(connection) => runtime.block_on(sqlx::query_as::<_, T>(text()).fetch_all(connection)),
            Link::Postgres { connection, .. } => {
                runtime.block_on(sqlx::query_as::<_, T>(text()).persistent(false).fetch_all(connection))
            }
            Link::Closed => Err(sqlx::Error::PoolClosed),
        })
        .with_context(|| format!("query {sql}"))
    }

    /// The one number of a query.
    pub fn number(&mut self, sql: &str) -> Result<i64> {
        let rows: Vec<(i64,)> = self.rows(sql)?;
        rows.first().map(|(number,)| *number).with_context(|| format!("query {sql}: no row"))
    }

    /// Runs statements.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        let text = || AssertSqlSafe(sql.to_owned());
        self.patiently(|runtime, link| match link {
            Link::Sqlite(connection) => runtime.block_on(sqlx::raw_sql(text()).execute(connection)).map(drop),
            Link::Postgres { connection, .. } => runtime.block_on(sqlx::raw_sql(text()).execute(connection)).map(drop),
            Link::Closed => Err(sqlx::Error::PoolClosed),
        })
        .with_context(|| format!("run {sql}"))
    }

    /// Asks again, over a new connection, while a server is away.
    fn patiently<T>(
        &mut self,
        ask: impl Fn(&tokio::runtime::Runtime, &mut Link) -> Result<T, sqlx::Error>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match ask(&self.runtime, &mut self.link) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Link::Postgres { connection, options } = &mut self.link else { return Err(error.into()) };
            if !is_lost(&error) {
                return Err(error.into());
            }
            loop {
                match self.runtime.block_on(options.connect()) {
                    Ok(another) => {
                        *connection = another;
                        break;
                    }
                    Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
                    Err(error) => return Err(error).context("connect to postgres again"),
                }
            }
        }
    }

    /// Whether somebody holds a file's write lock, and goes on holding it for a moment. A server has no such lock.
    pub fn is_locked(&mut self) -> Result<bool> {
        if self.is_postgres() {
            return Ok(false);
        }
        self.run("pragma busy_timeout = 300")?;
        let taken = self.run("begin immediate; rollback");
        self.run("pragma busy_timeout = 20000")?;
        match taken {
            Ok(()) => Ok(false),
            Err(error) if format!("{error:#}").contains("locked") => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Runs one statement of SQLite's with text and blob parameters, in order.
    pub fn run_with(&mut self, sql: &str, values: &[Bind<'_>]) -> Result<()> {
        let Link::Sqlite(connection) = &mut self.link else { bail!("run {sql}: not a file") };
        let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
        for value in values {
            query = match value {
                Bind::Text(text) => query.bind((*text).to_owned()),
                Bind::Blob(blob) => query.bind(blob.to_vec()),
                Bind::Number(number) => query.bind(*number),
            };
        }
        self.runtime.block_on(query.execute(connection)).with_context(|| format!("run {sql}"))?;
        Ok(())
    }

    /// The names of all tables that are to be seen.
    pub fn tables(&mut self) -> Result<Vec<String>> {
        let sql = match self.is_postgres() {
            true => "select relname::text from pg_class where relkind = 'r' and pg_table_is_visible(oid)",
            false => "select name from sqlite_schema where type = 'table'",
        };
        Ok(self.rows::<(String,)>(sql)?.into_iter().map(|(name,)| name).collect())
    }

    /// A whole table as JSON, blobs in hex.
    pub fn dump(&mut self, table: &str) -> Result<Vec<Value>> {
        let sql = if self.is_postgres() {
            format!("select to_json(t)::text from {table} t")
        } else {
            let columns: Vec<(String,)> = self.rows(&format!("select name from pragma_table_info('{table}')"))?;
            let pairs: Vec<String> = columns
                .iter()
                .map(|(name,)| format!("'{name}', iif(typeof(\"{name}\") = 'blob', hex(\"{name}\"), \"{name}\")"))
                .collect();
            format!("select json_object({}) from {table}", pairs.join(", "))
        };
        let lines: Vec<(String,)> = self.rows(&sql)?;
        lines.iter().map(|(line,)| serde_json::from_str(line).context("read a row as JSON")).collect()
    }
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub enum Bind<'a> {
    /// As TEXT.
    Text(&'a str),
    /// As BLOB.
    Blob(&'a [u8]),
    /// As INTEGER.
    Number(i64),
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")
}

/// Whether the connection, or the server behind it, is gone: the same question may be asked again.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        // what cannot be closed cleanly has been read all the same
        match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Sqlite(connection) => drop(self.runtime.block_on(connection.close())),
            Link::Postgres { connection, .. } => drop(self.runtime.block_on(connection.close())),
            Link::Closed => {}
        }
    }
}
