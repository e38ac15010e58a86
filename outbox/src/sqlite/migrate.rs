//! Creating and checking the schema, and checking that commits are synced.

use super::{
    open::OpenFile,
    shared::FileState,
    sql::{self, Step},
    write_context::Tx,
};
use sagabus_core::{Error, ErrorKind, Result};
use sqlx::SqliteConnection;

/// The migrations in order; the n-th brings the schema to version n.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_start.sql"),
    include_str!("../../migrations/sqlite/0002_position.sql"),
];

fn current() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The version of the schema that is there: 0 for none.
async fn version(connection: &mut SqliteConnection) -> Result<i64> {
    let context = "read the schema version from sqlite";
    let there = Step::new("select count(*) from sqlite_schema where type='table' and name='sagabus_schema'");
    let rows = there.fetch(connection, context).await?;
    if rows.first().map_or(Ok(0), |row| sql::column::<i64>(row, 0))? == 0 {
        return Ok(0);
    }
    let rows = Step::new("select max(version) from sagabus_schema").fetch(connection, context).await?;
    rows.first().map_or(Ok(0), |row| sql::column::<i64>(row, 0))
}

/// Brings the schema up to date, within one write transaction: of many processes that try, one does it.
async fn migrate(tx: &mut Tx) -> Result<()> {
    let from = version(&mut tx.connection).await?;
    if from > current() {
        return Err(newer(&tx.shared, from));
    }
    for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)) {
        sql::migration(&mut tx.connection, migration).await?;
    }
    Ok(())
}

fn newer(shared: &FileState, found: i64) -> Error {
    Error::invalid(format!(
        "the schema of {} has version {found}, this program knows {}; update the program",
        shared.path.display(),
        current()
    ))
}

impl OpenFile {
    pub(crate) async fn migrate(&self) -> Result<()> {
        // most starts find it done, and need not wait for the file's one writer
        let found = self.read.run(&self.shared, async |connection| version(connection).await).await;
        if found.is_ok_and(|found| found == current()) {
            return Ok(());
        }
        self.write(|tx| Box::pin(migrate(tx))).await
    }

    /// Refuses a schema that is missing or of another version, and settings under which a commit may be lost.
    pub(crate) async fn check(&self) -> Result<()> {
        let found = self.read.run(&self.shared, async |connection| version(connection).await).await?;
        if found > current() {
            return Err(newer(&self.shared, found));
        }
        if found < current() {
            return Err(Error::invalid(format!(
                "the schema of {} has version {found}, this program needs {}; call migrate() first",
                self.shared.path.display(),
                current()
            )));
        }
        let (journal, synchronous, encoding) = self.write(|tx| Box::pin(settings(tx))).await?;
        if encoding != "UTF-8" {
            return Err(Error::invalid(format!(
                "{} is encoded in {encoding}; sagabus needs a database in UTF-8",
                self.shared.path.display()
            )));
        }
        if self.shared.options.volatile {
            return Ok(());
        }
        if journal == "wal" && synchronous >= 2 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{} does not sync its commits (journal_mode={journal}, synchronous={synchronous}); sagabus needs wal and \
                 full, or a store that is opened as volatile",
                self.shared.path.display()
            ),
        ))
    }
}

/// Journal mode, synchronous and encoding, as SQLite itself reports them on the connection that writes.
async fn settings(tx: &mut Tx) -> Result<(String, i64, String)> {
    let context = "read settings from sqlite";
    let text = "select journal_mode,synchronous,encoding from pragma_journal_mode,pragma_synchronous,pragma_encoding";
    let rows = Step::new(text).fetch(&mut tx.connection, context).await?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Backend, "sqlite does not tell its settings"))?;
    Ok((sql::column(row, 0)?, sql::column(row, 1)?, sql::column(row, 2)?))
}
