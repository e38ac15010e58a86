//! Statements: a text, its arguments, and how they are run.

use super::{pool::Conn, text};
use sagabus_core::{Error, ErrorKind, InstanceId, MessageId, Result, Timestamp};
use sqlx::{
    Arguments as _, AssertSqlSafe, Connection as _, Encode, Postgres, Row as _, Type,
    postgres::{PgArguments, PgRow},
};
use std::{borrow::Cow, time::Duration};

/// The database's clock, as a scalar that a statement computes once.
pub(crate) const NOW: &str = "(select (extract(epoch from statement_timestamp())*1000000)::bigint)";

/// Whether a column of `t` is that of `w`, as something that only an index can answer, row by row of `w`. An equality the
/// planner might sort, hash or turn round, and read all of `t` for each statement: it does so while it believes a table to
/// be empty that has grown since. This is for the first column of an index; those after it may be compared as usual. What
/// no index shall answer is written as `(…) is true`. (A subquery is kept from being turned into a join by `offset 0`.)
pub(crate) fn indexed_equals(column: &str) -> String {
    format!("t.{column}=any(array[w.{column}])")
}

/// A statement with its arguments. The text is made of our own constants, a checked schema name and `$n` only.
#[derive(Clone, Default)]
pub(crate) struct Sql {
    pub(crate) text: String,
    args: PgArguments,
    failure: Option<String>,
}

impl Sql {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Adds an argument and returns its placeholder.
    pub(crate) fn bind<'q, T: Encode<'q, Postgres> + Type<Postgres>>(&mut self, value: T) -> String {
        if let Err(error) = self.args.add(value) {
            self.failure = Some(error.to_string());
        }
        format!("${}", self.args.len())
    }

    /// The same, as a link of a chain.
    pub(crate) fn with<'q, T: Encode<'q, Postgres> + Type<Postgres>>(mut self, value: T) -> Self {
        self.bind(value);
        self
    }

    /// Runs it and collects its rows. A connection that does not answer in time is lost.
    ///
    /// Behind a pooler a statement by itself gets a transaction: the driver prepares and executes in two round trips, and
    /// between them the session may become somebody else's.
    pub(crate) async fn run(self, conn: &mut Conn) -> Result<Vec<PgRow>, sqlx::Error> {
        let (_, _, named) = conn.settings();
        if named || conn.get().is_in_transaction() {
            return self.run_once(conn, named).await;
        }
        script(conn, "begin".into()).await?;
        let answer = self.run_once(conn, named).await;
        let end = if answer.is_ok() { "commit" } else { "rollback" };
        let ended = script(conn, end.into()).await;
        let rows = answer?;
        ended.map(|()| rows)
    }

    async fn run_once(self, conn: &mut Conn, named: bool) -> Result<Vec<PgRow>, sqlx::Error> {
        if let Some(failure) = self.failure {
            return Err(sqlx::Error::Encode(failure.into()));
        }
        let (limit, runtime, _) = conn.settings();
        let query = sqlx::query_with(AssertSqlSafe(self.text), self.args).persistent(named);
        let answer = runtime.timeout(limit, query.fetch_all(conn.get())).await;
        conn.within_limit(answer)
    }
}

impl Sql {
    /// Runs it on a connection that is not of a pool.
    pub(crate) async fn run_on(self, connection: &mut sqlx::PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        if let Some(failure) = self.failure {
            return Err(sqlx::Error::Encode(failure.into()));
        }
        sqlx::query_with(AssertSqlSafe(self.text), self.args).persistent(false).fetch_all(connection).await
    }
}

/// Runs a script without arguments, of one or many statements.
pub(crate) async fn script(conn: &mut Conn, text: String) -> Result<(), sqlx::Error> {
    let (limit, runtime, _) = conn.settings();
    let query = sqlx::raw_sql(AssertSqlSafe(text));
    let answer = runtime.timeout(limit, query.execute(conn.get())).await;
    conn.within_limit(answer).map(|_| ())
}

/// A list of texts, as an argument.
pub(crate) type Texts<'a> = Vec<Cow<'a, str>>;

pub(crate) fn micros(time: Duration) -> i64 {
    // a hundred thousand years at most, so that nothing that is added to it overflows
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).min(3_155_760_000_000_000_000)
}

pub(crate) fn shards(shards: &[u16]) -> Vec<i16> {
    shards.iter().map(|shard| i16::try_from(*shard).unwrap_or(i16::MAX)).collect()
}

pub(crate) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Reads columns by position.
pub(crate) struct Reader<'r> {
    row: &'r PgRow,
    next: usize,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(row: &'r PgRow) -> Self {
        Self { row, next: 0 }
    }

    pub(crate) fn get<T: sqlx::Decode<'r, Postgres> + Type<Postgres>>(&mut self) -> Result<T> {
        let at = self.next;
        self.next += 1;
        self.row
            .try_get::<T, usize>(at)
            .map_err(|e| Error::with_source(ErrorKind::Backend, format!("read column {at} of a postgres row"), e))
    }

    /// Leaves columns out: their value is known.
    pub(crate) fn skip<T>(&mut self, known: T, columns: usize) -> T {
        self.next += columns;
        known
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        self.get().map(text::unescape)
    }

    pub(crate) fn maybe_text(&mut self) -> Result<Option<String>> {
        Ok(self.get::<Option<String>>()?.map(text::unescape))
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp> {
        self.get().map(Timestamp)
    }

    pub(crate) fn message(&mut self) -> Result<MessageId> {
        self.get().map(MessageId)
    }

    pub(crate) fn instance(&mut self) -> Result<InstanceId> {
        self.get().map(InstanceId)
    }

    pub(crate) fn shard(&mut self) -> Result<u16> {
        Ok(u16::try_from(self.get::<i16>()?).unwrap_or(0))
    }

    pub(crate) fn count(&mut self) -> Result<u32> {
        Ok(u32::try_from(self.get::<i32>()?).unwrap_or(0))
    }

    pub(crate) fn ordinality(&mut self) -> Result<usize> {
        // positions count from 1 in SQL
        Ok(usize::try_from(self.get::<i64>()?).unwrap_or(0).saturating_sub(1))
    }

    pub(crate) fn bytes(&mut self) -> Result<bytes::Bytes> {
        Ok(self.get::<Vec<u8>>()?.into())
    }

    pub(crate) fn headers(&mut self) -> Result<sagabus_core::Headers> {
        sagabus_core::Headers::from_json(self.get::<&str>()?.as_bytes())
    }
}
