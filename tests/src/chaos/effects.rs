//! The effect ledger: a table without any unique constraint, written through the handler's own transaction.

use sagabus::prelude::*;
use sagabus::sqlx;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// `at` and `due` are milliseconds by the database's clock.
pub const SQLITE: &str = "create table if not exists effect (
    id integer primary key autoincrement,
    kind text not null,
    key text not null,
    n integer not null,
    message text not null,
    pid integer not null,
    at integer not null default (cast(unixepoch('subsec') * 1000 as integer)),
    due integer
)";

/// The same. An id is drawn when a row is written, which is not the order of commits here: for that there is `seq`, which
/// the harness has filled in at the commit.
pub const POSTGRES: &str = "create table if not exists public.effect (
    id bigint generated always as identity primary key,
    kind text not null,
    key text not null,
    n bigint not null,
    message text not null,
    pid bigint not null,
    at bigint not null default (floor(extract(epoch from clock_timestamp()) * 1000)::bigint),
    due bigint,
    seq bigint
)";

/// Whether the store is PostgreSQL. One store per process, so this needs no context.
static ON_POSTGRES: AtomicBool = AtomicBool::new(false);

/// Says which database the handlers' transactions will be in.
pub fn written_to(store: &str) {
    ON_POSTGRES.store(is_postgres(store), Ordering::Relaxed);
}

pub fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres")
}

/// Writes a row in the handler's transaction. `due_in` is noted as a moment of the database's clock.
pub async fn effect(ctx: &mut Context, kind: &str, key: &str, n: u64, due_in: Option<u64>) -> Result {
    let message = ctx.message_id().to_string();
    let (n, pid, due_in) = (i64::try_from(n)?, i64::from(std::process::id()), due_in.map(i64::try_from).transpose()?);
    if ON_POSTGRES.load(Ordering::Relaxed) {
        let row = sqlx::query(
            "insert into public.effect (kind, key, n, message, pid, due)
             values ($1, $2, $3, $4, $5, floor(extract(epoch from clock_timestamp()) * 1000)::bigint + $6)",
        );
        let row = row.bind(kind).bind(key).bind(n).bind(message).bind(pid).bind(due_in);
        row.execute(ctx.transaction::<Postgres>().await?).await?;
    } else {
        let row = sqlx::query(
            "insert into effect (kind, key, n, message, pid, due)
             values (?, ?, ?, ?, ?, cast(unixepoch('subsec') * 1000 as integer) + ?)",
        );
        let row = row.bind(kind).bind(key).bind(n).bind(message).bind(pid).bind(due_in);
        row.execute(ctx.transaction::<Sqlite>().await?).await?;
    }
    Ok(())
}

/// Notes outside of any transaction that a handler was started: from this the harness counts redeliveries.
pub fn tap(handler: &str, ctx: &Context) {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let path = std::env::var_os("CHAOS_TAP")?;
        OpenOptions::new().create(true).append(true).open(path).ok()
    });
    if let Some(mut file) = file.as_ref() {
        let line = format!("{handler} {} {} {}\n", ctx.message_id(), ctx.attempts(), std::process::id());
        // a lost line makes a redelivery uncounted, nothing else
        let _ = file.write_all(line.as_bytes());
    }
}
