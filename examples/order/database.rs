//! The store's database, as the example's own SQL sees it: SQLite, or PostgreSQL with the feature `postgres`.

use sagabus::sqlx::{
    self, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
#[cfg(feature = "postgres")]
use sagabus::sqlx::{PgPool, postgres::PgPoolOptions};
use std::{str::FromStr, sync::OnceLock, time::Duration};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres,
}

static KIND: OnceLock<Kind> = OnceLock::new();

/// Which of them a handler's transaction is on.
pub(crate) fn kind() -> Kind {
    KIND.get().copied().unwrap_or(Kind::Sqlite)
}

/// What the store's URL names. An error for what this build has no driver for.
pub(crate) fn choose(url: &str) -> Result<(), String> {
    let kind = match url.split(':').next() {
        Some("sqlite") => Kind::Sqlite,
        #[cfg(feature = "postgres")]
        Some("postgres" | "postgresql") => Kind::Postgres,
        _ => return Err(format!("the example keeps its own rows by SQL, and this build has no driver for {url}")),
    };
    // it is called once
    let _ = KIND.set(kind);
    Ok(())
}

/// For reading, and for placing orders. Handlers use their own transactions instead.
#[derive(Clone)]
pub(crate) enum Database {
    Sqlite(SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
}

/// Runs a statement on whichever it is. The text is the same for both: SQLite knows `$1` as well.
macro_rules! on_either {
    ($database:expr, $pool:ident => $work:expr) => {
        match $database {
            crate::database::Database::Sqlite($pool) => $work,
            #[cfg(feature = "postgres")]
            crate::database::Database::Postgres($pool) => $work,
        }
    };
}

/// The same in a handler's transaction.
macro_rules! in_handler {
    ($ctx:expr, $query:expr) => {
        match crate::database::kind() {
            crate::database::Kind::Sqlite => {
                $query.execute($ctx.transaction::<sagabus::Sqlite>().await?).await?.rows_affected()
            }
            #[cfg(feature = "postgres")]
            crate::database::Kind::Postgres => {
                $query.execute($ctx.transaction::<sagabus::Postgres>().await?).await?.rows_affected()
            }
        }
    };
}

pub(crate) use {in_handler, on_either};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS orders (id BIGINT PRIMARY KEY, status TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS ledger (
        order_id BIGINT NOT NULL, entry TEXT NOT NULL, amount BIGINT NOT NULL, message_id TEXT NOT NULL
    );";

impl Database {
    pub(crate) async fn open(url: &str) -> sqlx::Result<Self> {
        match kind() {
            Kind::Sqlite => {
                let options = SqliteConnectOptions::from_str(url)?
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    // longer than any other process holds the file, even one that is stopped and continued
                    .busy_timeout(Duration::from_secs(60));
                let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await?;
                sqlx::raw_sql(SCHEMA).execute(&pool).await?;
                Ok(Self::Sqlite(pool))
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres => {
                let pool = PgPoolOptions::new().max_connections(2).connect(url).await?;
                // two that create at once would get in each other's way
                let turn = "SELECT pg_advisory_xact_lock(7368);";
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("{turn}{SCHEMA}"))).execute(&pool).await?;
                Ok(Self::Postgres(pool))
            }
        }
    }

    pub(crate) async fn close(&self) {
        on_either!(self, pool => pool.close().await);
    }
}
