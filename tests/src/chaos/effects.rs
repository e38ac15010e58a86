//! The effect ledger: a table without any unique constraint, written through the handler's own transaction.

use sagabus::prelude::*;
use sagabus::sqlx;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    sync::OnceLock,
};

/// `at` and `due` are milliseconds by the database's clock.
pub const TABLE: &str = "create table if not exists effect (
    id integer primary key autoincrement,
    kind text not null,
    key text not null,
    n integer not null,
    message text not null,
    pid integer not null,
    at integer not null default (cast(unixepoch('subsec') * 1000 as integer)),
    due integer
)";

/// Writes a row in the handler's transaction. `due_in` is noted as a moment of the database's clock.
pub async fn effect(ctx: &mut Context, kind: &str, key: &str, n: u64, due_in: Option<u64>) -> Result {
    let message = ctx.message_id().to_string();
    let connection = ctx.transaction::<Sqlite>().await?;
    let row = sqlx::query(
        "insert into effect (kind, key, n, message, pid, due)
         values (?, ?, ?, ?, ?, cast(unixepoch('subsec') * 1000 as integer) + ?)",
    );
    row.bind(kind)
        .bind(key)
        .bind(i64::try_from(n)?)
        .bind(message)
        .bind(i64::from(std::process::id()))
        .bind(due_in.map(i64::try_from).transpose()?)
        .execute(&mut *connection)
        .await?;
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
