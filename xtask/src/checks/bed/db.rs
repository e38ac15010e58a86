//! A database file, read with plain SQL.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, FromRow, SqliteConnection};

/// An open file, for one thread.
pub struct Db {
    runtime: tokio::runtime::Runtime,
    connection: Option<SqliteConnection>,
}

impl Db {
    /// Opens a file that exists.
    pub fn open(path: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(20));
        let connection = runtime.block_on(SqliteConnection::connect_with(&options));
        let connection = connection.with_context(|| format!("open {}", path.display()))?;
        Ok(Self { runtime, connection: Some(connection) })
    }

    fn parts(&mut self) -> Result<(&tokio::runtime::Runtime, &mut SqliteConnection)> {
        let connection = self.connection.as_mut().context("the database is closed")?;
        Ok((&self.runtime, connection))
    }

    /// All rows of a query. The text is ours, so it is safe by construction.
    pub fn rows<T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin>(&mut self, sql: &str) -> Result<Vec<T>> {
        let (runtime, connection) = self.parts()?;
        let query = sqlx::query_as::<_, T>(AssertSqlSafe(sql.to_owned()));
        runtime.block_on(query.fetch_all(connection)).with_context(|| format!("query {sql}"))
    }

    /// The one number of a query.
    pub fn number(&mut self, sql: &str) -> Result<i64> {
        let (runtime, connection) = self.parts()?;
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql.to_owned()));
        runtime.block_on(query.fetch_one(connection)).with_context(|| format!("query {sql}"))
    }

    /// Runs statements.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        let (runtime, connection) = self.parts()?;
        let all = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection);
        runtime.block_on(all).with_context(|| format!("run {sql}"))?;
        Ok(())
    }

    /// Whether somebody holds the write lock, and goes on holding it for a moment.
    pub fn is_locked(&mut self) -> Result<bool> {
        self.run("pragma busy_timeout = 300")?;
        let taken = self.run("begin immediate; rollback");
        self.run("pragma busy_timeout = 20000")?;
        match taken {
            Ok(()) => Ok(false),
            Err(error) if format!("{error:#}").contains("locked") => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Runs one statement with text and blob parameters, in order.
    pub fn run_with(&mut self, sql: &str, values: &[Bind<'_>]) -> Result<()> {
        let (runtime, connection) = self.parts()?;
        let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
        for value in values {
            query = match value {
                Bind::Text(text) => query.bind((*text).to_owned()),
                Bind::Blob(blob) => query.bind(blob.to_vec()),
                Bind::Number(number) => query.bind(*number),
            };
        }
        runtime.block_on(query.execute(connection)).with_context(|| format!("run {sql}"))?;
        Ok(())
    }

    /// A whole table as JSON, blobs in hex.
    pub fn dump(&mut self, table: &str) -> Result<Vec<Value>> {
        let columns: Vec<(String,)> = self.rows(&format!("select name from pragma_table_info('{table}')"))?;
        let pairs: Vec<String> = columns
            .iter()
            .map(|(name,)| format!("'{name}', iif(typeof(\"{name}\") = 'blob', hex(\"{name}\"), \"{name}\")"))
            .collect();
        let lines: Vec<(String,)> = self.rows(&format!("select json_object({}) from {table}", pairs.join(", ")))?;
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

impl Drop for Db {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // a file that cannot be closed cleanly has been read all the same
            let _ = self.runtime.block_on(connection.close());
        }
    }
}
