//! Statements over any number of rows, in a few sizes, so that the driver's statement cache knows them again.
//!
//! A [`Rows`] statement is `before`, then n times `row` separated by commas, then `after`. It exists in power-of-two
//! sizes; the rows that a size has too many stay unbound, which SQLite reads as NULL, and every statement is written so
//! that a row of NULLs does nothing. Parameters that are the same for all rows come before the rows.
//!
//! This is the only module that asserts SQL text to be safe: the texts are made of `&'static str` alone, and everything
//! that comes from outside is a bound parameter.

pub(crate) use super::args::Args;
use super::error::doing;
use bytes::Bytes;
use futures::TryStreamExt as _;
use sagabus_core::{Error, ErrorKind, Result, Timestamp};
use sqlx::{
    AssertSqlSafe, Either, Executor as _, Row as _, SqliteConnection,
    sqlite::{SqliteArguments, SqliteRow},
};
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// The largest size. 256 rows of the widest statement stay far below SQLite's 32766 parameters.
pub(crate) const MAX_ROWS_PER_STATEMENT: usize = 256;
const STATEMENT_SIZES: usize = MAX_ROWS_PER_STATEMENT.trailing_zeros() as usize + 1;

/// A statement over rows.
pub(crate) struct Rows {
    before: &'static str,
    row: &'static str,
    after: &'static str,
    texts: [OnceLock<Arc<str>>; STATEMENT_SIZES],
}

impl Rows {
    /// See the module.
    pub(crate) const fn new(before: &'static str, row: &'static str, after: &'static str) -> Self {
        Self { before, row, after, texts: [const { OnceLock::new() }; STATEMENT_SIZES] }
    }

    /// The text for so many rows.
    pub(crate) fn text(&self, rows: usize) -> Arc<str> {
        let size = rows.clamp(1, MAX_ROWS_PER_STATEMENT).next_power_of_two();
        let slot = size.trailing_zeros() as usize;
        let make = || {
            let mut text = String::with_capacity(self.before.len() + size * (self.row.len() + 1) + self.after.len());
            text.push_str(self.before);
            for n in 0..size {
                if n > 0 {
                    text.push(',');
                }
                text.push_str(self.row);
            }
            text.push_str(self.after);
            Arc::from(text)
        };
        match self.texts.get(slot) {
            Some(cell) => Arc::clone(cell.get_or_init(make)),
            None => make(),
        }
    }
}

/// What a statement did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) changes: u64,
    pub(crate) last_id: i64,
}

/// One statement, ready to run.
pub(crate) struct Step {
    text: Arc<str>,
    args: Args,
}

impl Step {
    /// A statement without rows.
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text: Arc::from(text), args: Args::default() }
    }

    /// With values.
    pub(crate) fn with(text: &'static str, bind: impl FnOnce(&mut Args)) -> Self {
        let mut step = Self::new(text);
        bind(&mut step.args);
        step
    }

    /// A statement over rows; more than [`MAX_ROWS_PER_STATEMENT`] of them become several steps.
    pub(crate) fn rows<T>(
        statement: &Rows,
        rows: &[T],
        head: impl Fn(&mut Args),
        mut each: impl FnMut(&mut Args, &T) -> Result<()>,
    ) -> Result<Vec<Self>> {
        let mut steps = Vec::with_capacity(rows.len().div_ceil(MAX_ROWS_PER_STATEMENT));
        for chunk in rows.chunks(MAX_ROWS_PER_STATEMENT) {
            let mut args = Args::default();
            head(&mut args);
            for row in chunk {
                each(&mut args, row)?;
            }
            steps.push(Self { text: statement.text(chunk.len()), args });
        }
        Ok(steps)
    }

    /// For the test that looks at every statement's plan.
    fn record(&self) {
        #[cfg(test)]
        recorded().lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(self.text.to_string());
    }

    fn query(self) -> Result<Query> {
        self.record();
        Ok(sqlx::query_with(AssertSqlSafe(self.text), self.args.bind()?))
    }

    /// Runs it for its effect.
    pub(crate) async fn run(self, connection: &mut SqliteConnection, context: &'static str) -> Result<Done> {
        execute(self.query()?, connection, context).await
    }

    /// Runs it for its rows.
    pub(crate) async fn fetch(
        self,
        connection: &mut SqliteConnection,
        context: &'static str,
    ) -> Result<Vec<SqliteRow>> {
        self.query()?.fetch_all(connection).await.map_err(doing(context))
    }
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>;

/// Steps that are made while the ones before them run: encoding a batch's messages takes as long as writing its sagas.
pub(crate) type Late<'a> = Box<dyn FnOnce() -> Result<Vec<Step>> + Send + 'a>;

async fn execute(query: Query, connection: &mut SqliteConnection, context: &'static str) -> Result<Done> {
    let result = query.execute(connection).await.map_err(doing(context))?;
    Ok(Done { changes: result.rows_affected(), last_id: result.last_insert_rowid() })
}

/// Runs several steps for their effects, in as few trips to the driver's thread as pays: short ones together in one
/// text, long ones (whose joined text would be dear to hash at each use) one by one. `proceed` sees each result as soon
/// as it is there; when it says no, what is left is skipped if it has not run yet, and the answer is false.
pub(crate) async fn run_all(
    connection: &mut SqliteConnection,
    steps: Vec<Step>,
    context: &'static str,
    proceed: impl FnMut(usize, Done) -> bool,
) -> Result<bool> {
    run_with(connection, steps, None, context, proceed).await
}

/// The same with late ones at the end.
pub(crate) async fn run_with(
    connection: &mut SqliteConnection,
    steps: Vec<Step>,
    mut late: Option<Late<'_>>,
    context: &'static str,
    mut proceed: impl FnMut(usize, Done) -> bool,
) -> Result<bool> {
    const MAX_JOINED_TEXT: usize = 6 << 10;
    let total: usize = steps.iter().map(|step| step.text.len() + 1).sum();
    if steps.len() > 1 && total <= MAX_JOINED_TEXT && late.is_none() {
        let mut well = true;
        for (n, done) in joined(connection, steps, total, context).await?.into_iter().enumerate() {
            well = well && proceed(n, done);
        }
        return Ok(well);
    }
    let count = steps.len();
    let mut made: Result<Vec<Query>> = Ok(Vec::new());
    for (n, step) in steps.into_iter().enumerate() {
        let running = step.run(connection, context);
        let done = match late.take_if(|_| n + 1 == count) {
            Some(make) => {
                // the first poll hands the statement to the driver's thread; while that works, this one does
                let making = async { make()?.into_iter().map(Step::query).collect() };
                let (done, queries) = futures::join!(running, making);
                made = queries;
                done?
            }
            None => running.await?,
        };
        if !proceed(n, done) {
            return Ok(false);
        }
    }
    if let Some(make) = late {
        made = make()?.into_iter().map(Step::query).collect();
    }
    for (n, query) in made?.into_iter().enumerate() {
        if !proceed(count + n, execute(query, connection, context).await?) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn joined(
    connection: &mut SqliteConnection,
    steps: Vec<Step>,
    total: usize,
    context: &'static str,
) -> Result<Vec<Done>> {
    let mut text = String::with_capacity(total);
    let mut all = Args::default();
    let count = steps.len();
    for mut step in steps {
        step.record();
        text.push_str(&step.text);
        text.push(';');
        step.args.pad(step.text.bytes().filter(|b| *b == b'?').count());
        all.append(step.args);
    }
    let step = Step { text: Arc::from(text), args: all };
    let query = step.query()?;
    let mut results = Vec::with_capacity(count);
    let mut stream = connection.fetch_many(query);
    while let Some(item) = stream.try_next().await.map_err(doing(context))? {
        if let Either::Left(result) = item {
            results.push(Done { changes: result.rows_affected(), last_id: result.last_insert_rowid() });
        }
    }
    Ok(results)
}

/// Runs statements without values, separated by semicolons, and gives the rows of all of them.
pub(crate) async fn script(
    connection: &mut SqliteConnection,
    text: &'static str,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    // bound, though to nothing: so that the driver keeps it prepared
    let query = sqlx::query_with::<sqlx::Sqlite, _>(text, SqliteArguments::default());
    let mut rows = Vec::new();
    let mut stream = connection.fetch_many(query);
    while let Some(item) = stream.try_next().await? {
        if let Either::Right(row) = item {
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The database's clock.
const NOW: &str = "select cast(round(unixepoch('now','subsec')*1000) as integer)*1000";

/// Asks the database's clock.
pub(crate) async fn now(connection: &mut SqliteConnection) -> Result<Timestamp> {
    let rows = script(connection, NOW).await.map_err(doing("ask sqlite for the time"))?;
    rows.first().map_or(Ok(0), |row| column(row, 0)).map(Timestamp)
}

/// A column of a row. The types are ours (strict tables), so they are not checked a second time.
pub(crate) fn column<'r, T: sqlx::Decode<'r, sqlx::Sqlite>>(row: &'r SqliteRow, index: usize) -> Result<T> {
    row.try_get_unchecked(index).map_err(doing("read a column from sqlite"))
}

/// A column as shared bytes.
pub(crate) fn bytes(row: &SqliteRow, index: usize) -> Result<Bytes> {
    column::<&[u8]>(row, index).map(Bytes::copy_from_slice)
}

/// A column as an id.
pub(crate) fn uuid(row: &SqliteRow, index: usize) -> Result<Uuid> {
    let bytes = column::<&[u8]>(row, index)?;
    Uuid::from_slice(bytes).map_err(|e| Error::with_source(ErrorKind::Backend, "read an id from sqlite", e))
}

/// A column as a position in a request's list.
pub(crate) fn position(row: &SqliteRow, index: usize) -> Result<usize> {
    Ok(usize::try_from(column::<i64>(row, index)?).unwrap_or(usize::MAX))
}

/// Runs a migration: many statements, once.
pub(crate) async fn migration(connection: &mut SqliteConnection, text: &'static str) -> Result<()> {
    sqlx::raw_sql(text).execute(connection).await.map_err(doing("migrate the schema of sqlite"))?;
    Ok(())
}

/// The statements that this test process has run.
#[cfg(test)]
pub(crate) fn recorded() -> &'static std::sync::Mutex<std::collections::BTreeSet<String>> {
    static RECORDED: OnceLock<std::sync::Mutex<std::collections::BTreeSet<String>>> = OnceLock::new();
    RECORDED.get_or_init(Default::default)
}

/// The plan of a statement, a line per step.
#[cfg(test)]
pub(crate) async fn folded(connection: &mut SqliteConnection, text: &str) -> Vec<String> {
    let text = AssertSqlSafe(format!("explain query plan {text}"));
    let rows = sqlx::query(text).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(3)).collect()
}
