//! Accounts in the user's own table, moved by own SQL in the handlers' transactions. One program, three roles.
#![allow(clippy::disallowed_methods, reason = "a program outside of the bus")]

use clap::Parser;
use sagabus::{EndpointBuilder, prelude::*, sqlx};
use sagabus_testkit::rng::Rng;
use sagabus_tests::program;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::Duration;

#[derive(Parser)]
struct Args {
    /// The store, a PostgreSQL database
    #[arg(long)]
    store: String,
    /// Where the messages go
    #[arg(long)]
    transport: String,
    /// Create so many accounts with 100 each, and end
    #[arg(long)]
    open: Option<i64>,
    /// Send so many transfers between those accounts, and end
    #[arg(long)]
    send: Option<u64>,
    /// The number of the first of them
    #[arg(long, default_value_t = 0)]
    first: i64,
    /// How many accounts there are
    #[arg(long, default_value_t = 100)]
    accounts: u64,
    /// What the transfers are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(name = "bank.transfer")]
struct Transfer {
    n: i64,
    from: i64,
    to: i64,
    amount: i64,
}

/// Takes the two rows in the order of their ids, so that two transfers never wait for each other; writes down what it
/// did in a table without any unique constraint.
async fn transfer(m: Transfer, ctx: &mut Context) -> Result {
    let connection = ctx.transaction::<Postgres>().await?;
    let locked: Vec<(i64, i64)> =
        sqlx::query_as("select id, balance from public.account where id = any($1) order by id for update")
            .bind(vec![m.from, m.to])
            .fetch_all(&mut *connection)
            .await?;
    let balance = locked.iter().find(|(id, _)| *id == m.from).map_or(0, |(_, balance)| *balance);
    let moved = if balance >= m.amount { m.amount } else { 0 };
    for (id, change) in [(m.from, -moved), (m.to, moved)] {
        let update = sqlx::query("update public.account set balance = balance + $2 where id = $1");
        update.bind(id).bind(change).execute(&mut *connection).await?;
    }
    let entry = sqlx::query("insert into public.entry (n, source, target, moved, pid) values ($1, $2, $3, $4, $5)");
    let entry = entry.bind(m.n).bind(m.from).bind(m.to).bind(moved).bind(i64::from(std::process::id()));
    entry.execute(&mut *connection).await?;
    Ok(())
}

const TABLES: &str = "
    create table public.account (id bigint primary key, balance bigint not null);
    create table public.entry (n bigint not null, source bigint not null, target bigint not null,
                               moved bigint not null, pid bigint not null)";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    program::log();
    let args = Args::parse();
    let endpoint = |name: &str| -> EndpointBuilder {
        let builder = Endpoint::builder(name).transport(args.transport.as_str()).store(args.store.as_str());
        builder.lease(Duration::from_secs(1))
    };
    let bank = || endpoint("bank").on(transfer);
    if let Some(accounts) = args.open {
        bank().build().await?;
        let mut connection = PgConnection::connect(&args.store).await?;
        connection.execute(TABLES).await?;
        let fill = sqlx::query("insert into public.account select i, 100 from generate_series(0, $1 - 1) i");
        fill.bind(accounts).execute(&mut connection).await?;
        return Ok(());
    }
    if let Some(count) = args.send {
        let endpoint = endpoint("teller").route::<Transfer>("bank").build().await?;
        let bus = endpoint.bus();
        let mut rng = Rng::new(args.seed);
        let mut sent = 0;
        while sent < count {
            let mut batch = Vec::new();
            while batch.len() < 20 && sent < count {
                let from = rng.below(args.accounts);
                let to = (from + 1 + rng.below(args.accounts - 1)) % args.accounts;
                let (from, to, amount) = (i64::try_from(from)?, i64::try_from(to)?, 1 + i64::try_from(rng.below(80))?);
                batch.push(Transfer { n: args.first + i64::try_from(sent)?, from, to, amount });
                sent += 1;
            }
            for result in bus.send_all(batch).await? {
                result?;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        program::say(&json!({ "sent": sent }));
        return Ok(());
    }
    let running = bank().build().await?.start().await?;
    program::say(&json!({ "ready": true }));
    program::terminated().await;
    running.stop().await?;
    Ok(())
}
