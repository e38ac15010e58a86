//! SQLite without a framework: a file with a queue table and a saga table, and statements over many rows.

use crate::payload::Input;
use anyhow::{Context as _, Result};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use std::{path::Path, sync::Arc};

/// Of the rows that the program works on, and of those that it makes.
pub(super) const IN: i64 = 1;
pub(super) const OUT: i64 = 2;

const SCHEMA: &str = "
create table if not exists queue(id integer primary key, queue integer not null, message_id blob not null,
    body blob not null) strict;
create index if not exists queue_by_queue on queue(queue);
create table if not exists seen(message_id blob primary key) strict, without rowid;
create table if not exists saga(key integer primary key, version integer not null, state text not null) strict;
create table if not exists business(id integer primary key, saga integer not null, amount integer not null) strict;
";

pub(super) async fn connect(path: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "4000")
        .pragma("cache_size", "-65536")
        .row_buffer_size(512)
        .disable_statement_logging();
    SqliteConnection::connect_with(&options).await.context("open the twin's file")
}

pub(super) async fn create(path: &Path) -> Result<()> {
    let mut connection = connect(path).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Text for `n` rows, made once.
fn rows(before: &str, row: &str, after: &str, n: usize) -> String {
    let mut text = String::with_capacity(before.len() + n * (row.len() + 1) + after.len());
    text.push_str(before);
    for at in 0..n {
        if at > 0 {
            text.push(',');
        }
        text.push_str(row);
    }
    text.push_str(after);
    text
}

/// A statement in the sizes that are powers of two, and one more: few enough for the driver's cache. What a size has too
/// many is bound to NULL, which matches and inserts nothing.
struct Sized {
    before: &'static str,
    row: &'static str,
    after: &'static str,
    columns: usize,
    texts: Vec<(usize, Arc<str>)>,
}

impl Sized {
    fn new(before: &'static str, row: &'static str, after: &'static str, full: usize) -> Self {
        let mut sizes: Vec<usize> = (0..10).map(|bits| 1 << bits).filter(|n| *n < full).collect();
        sizes.push(full);
        let texts = sizes.into_iter().map(|n| (n, Arc::from(rows(before, row, after, n)))).collect();
        Self { before, row, after, columns: row.matches('?').count(), texts }
    }

    fn text(&self, n: usize) -> (usize, Arc<str>) {
        match self.texts.iter().find(|(size, _)| *size >= n) {
            Some((size, text)) => (*size, text.clone()),
            None => (n, Arc::from(rows(self.before, self.row, self.after, n))),
        }
    }

    fn query(&self, n: usize, mut arguments: SqliteArguments) -> Result<Query> {
        use sqlx::Arguments as _;
        let (size, text) = self.text(n);
        for _ in n * self.columns..size * self.columns {
            arguments.add(None::<i64>).map_err(anyhow::Error::msg)?;
        }
        Ok(sqlx::query_with(AssertSqlSafe(text), arguments))
    }
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>;

fn bind<'q, T>(arguments: &mut SqliteArguments, value: T) -> Result<()>
where
    T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    use sqlx::Arguments as _;
    arguments.add(value).map_err(anyhow::Error::msg)
}

/// The reading connection.
pub(super) struct Reader {
    connection: SqliteConnection,
    states: Sized,
}

impl Reader {
    pub(super) async fn open(path: &Path, batch: usize) -> Result<Self> {
        let states = Sized::new("select key, version, state from saga where key in (", "?", ")", batch);
        Ok(Self { connection: connect(path).await?, states })
    }

    /// Rows of the input queue after a cursor.
    pub(super) async fn page(&mut self, after: i64, limit: usize) -> Result<Vec<(i64, Input)>> {
        let page = "select id, body from queue where queue = ? and id > ? order by id limit ?";
        let query = sqlx::query(page).bind(IN).bind(after).bind(i64::try_from(limit)?);
        let rows = query.fetch_all(&mut self.connection).await?;
        let read =
            |row: &SqliteRow| Ok((row.try_get_unchecked(0)?, serde_json::from_slice(row.try_get_unchecked(1)?)?));
        rows.iter().map(read).collect()
    }

    /// Versions and states of the keys that have any.
    pub(super) async fn states(&mut self, keys: &[u64]) -> Result<Vec<(u64, i64, String)>> {
        let mut arguments = SqliteArguments::default();
        for key in keys {
            bind(&mut arguments, i64::try_from(*key)?)?;
        }
        let rows = self.states.query(keys.len(), arguments)?.fetch_all(&mut self.connection).await?;
        let read = |row: &SqliteRow| {
            let key: i64 = row.try_get_unchecked(0)?;
            Ok((key.cast_unsigned(), row.try_get_unchecked(1)?, row.try_get_unchecked(2)?))
        };
        rows.iter().map(read).collect()
    }
}

/// What one commit does.
#[derive(Default)]
pub(super) struct Batch {
    /// Input rows: the gate.
    pub(super) ids: Vec<i64>,
    /// Key, version that was loaded (0: none), messages folded into it, new state.
    pub(super) sagas: Vec<(u64, i64, i64, String)>,
    /// Id and body of each output.
    pub(super) outputs: Vec<(uuid::Uuid, Vec<u8>)>,
    /// One row of the business table for each message, with a statement for each, as a handler would.
    pub(super) own: Vec<(u64, u64)>,
    /// When the messages were due, for the latencies.
    pub(super) at: Vec<u64>,
}

/// The writing connection. `or fail`: a statement that could abort would copy every page that it touches first, and
/// whatever goes wrong rolls the whole batch back anyway.
pub(super) struct Writer {
    connection: SqliteConnection,
    delete: Sized,
    create: Sized,
    update: Sized,
    seen: Sized,
    insert: Sized,
    pub(super) commits: u64,
}

impl Writer {
    pub(super) async fn open(path: &Path, batch: usize) -> Result<Self> {
        Ok(Self {
            connection: connect(path).await?,
            delete: Sized::new("delete from queue where id in (", "?", ")", batch),
            create: Sized::new(
                "insert or fail into saga(key, version, state) select * from (values ",
                "(?,?,?)",
                ") where column1 is not null",
                batch,
            ),
            // not `on conflict`: a changed version must change nothing
            update: Sized::new(
                "update or fail saga set version = w.column3, state = w.column4 from (values ",
                "(?,?,?,?)",
                ") w where saga.key = w.column1 and saga.version = w.column2",
                batch,
            ),
            seen: Sized::new(
                "insert or fail into seen(message_id) select * from (values ",
                "(?)",
                ") where column1 is not null",
                batch,
            ),
            insert: Sized::new(
                "insert or fail into queue(queue, message_id, body) select * from (values ",
                "(?,?,?)",
                ") where column1 is not null",
                batch,
            ),
            commits: 0,
        })
    }

    /// Adds rows to a queue: durable when it returns.
    pub(super) async fn enqueue(&mut self, queue: i64, messages: Vec<(uuid::Uuid, Vec<u8>)>) -> Result<()> {
        let mut transaction = self.connection.begin_with("begin immediate").await?;
        let n = messages.len();
        self.seen.query(n, ids(&messages)?)?.execute(&mut *transaction).await?;
        self.insert.query(n, rows_of(queue, messages)?)?.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Commits a batch, or nothing of it: the gate and the versions are checked.
    pub(super) async fn commit(&mut self, work: Batch) -> Result<()> {
        let mut transaction = self.connection.begin_with("begin immediate").await?;
        let n = work.ids.len();
        let mut arguments = SqliteArguments::default();
        for id in &work.ids {
            bind(&mut arguments, *id)?;
        }
        let deleted = self.delete.query(n, arguments)?.execute(&mut *transaction).await?;
        anyhow::ensure!(deleted.rows_affected() == n as u64, "the gate: {} of {n}", deleted.rows_affected());

        let (created, updated): (Vec<_>, Vec<_>) = work.sagas.into_iter().partition(|saga| saga.1 == 0);
        for (new, sagas) in [(true, created), (false, updated)] {
            if sagas.is_empty() {
                continue;
            }
            let n = sagas.len();
            let mut arguments = SqliteArguments::default();
            for (key, version, count, state) in sagas {
                bind(&mut arguments, i64::try_from(key)?)?;
                if !new {
                    bind(&mut arguments, version)?;
                }
                bind(&mut arguments, version + count)?;
                bind(&mut arguments, state)?;
            }
            let statement = if new { &self.create } else { &self.update };
            let written = statement.query(n, arguments)?.execute(&mut *transaction).await?;
            anyhow::ensure!(written.rows_affected() == n as u64, "versions: {} of {n}", written.rows_affected());
        }
        for (saga, amount) in work.own {
            sqlx::query("insert into business(saga, amount) values (?, ?)")
                .bind(i64::try_from(saga)?)
                .bind(i64::try_from(amount)?)
                .execute(&mut *transaction)
                .await?;
        }
        // no row in `seen`: the gate stands for the outputs too
        self.insert.query(n, rows_of(OUT, work.outputs)?)?.execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.commits += 1;
        Ok(())
    }
}

fn ids(messages: &[(uuid::Uuid, Vec<u8>)]) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for (id, _) in messages {
        bind(&mut arguments, id.as_bytes().to_vec())?;
    }
    Ok(arguments)
}

fn rows_of(queue: i64, messages: Vec<(uuid::Uuid, Vec<u8>)>) -> Result<SqliteArguments> {
    let mut arguments = SqliteArguments::default();
    for (id, body) in messages {
        bind(&mut arguments, queue)?;
        bind(&mut arguments, id.as_bytes().to_vec())?;
        bind(&mut arguments, body)?;
    }
    Ok(arguments)
}
