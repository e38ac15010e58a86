//! What a user would write.

use crate::{
    payload::{Counter, Input, Output},
    postgres::is_postgres,
};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Whether the handler also writes a row of its own, and where to.
static OWN_SQL: AtomicBool = AtomicBool::new(false);
static ON_POSTGRES: AtomicBool = AtomicBool::new(false);

/// From now on the handler also writes a row of its own.
pub(super) fn write_own_rows(store: &str) {
    ON_POSTGRES.store(is_postgres(store), Ordering::Relaxed);
    OWN_SQL.store(true, Ordering::Relaxed);
}

impl Message for Input {
    const NAME: &'static str = "bench.input";
}

impl Message for Output {
    const NAME: &'static str = "bench.output";
}

/// Asks a saga for a timeout.
#[derive(Serialize, Deserialize)]
pub(super) struct Remind {
    pub(super) key: u64,
    /// Microseconds since 1970.
    pub(super) at: i64,
}

impl Message for Remind {
    const NAME: &'static str = "bench.remind";
}

/// The timeout.
#[derive(Serialize, Deserialize)]
pub(super) struct Due {
    at: i64,
}

impl Message for Due {
    const NAME: &'static str = "bench.due";
}

/// Timeouts that came, and those that came too early.
pub(super) static CAME: AtomicU64 = AtomicU64::new(0);
pub(super) static EARLY: AtomicU64 = AtomicU64::new(0);

#[derive(Default, Serialize, Deserialize)]
pub(super) struct CountingSaga(Counter);

impl Saga for CountingSaga {
    const NAME: &'static str = "counting";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Input>(|m| m.key).started_by::<Remind>(|m| m.key).timeout::<Due>();
    }
}

impl Handle<Input> for CountingSaga {
    async fn handle(&mut self, m: Input, ctx: &mut SagaContext) -> Result {
        if OWN_SQL.load(Ordering::Relaxed) {
            let (saga, amount) = (m.key.cast_signed(), m.seq.cast_signed());
            if ON_POSTGRES.load(Ordering::Relaxed) {
                let row = sqlx::query("insert into business(saga, amount) values ($1, $2)").bind(saga).bind(amount);
                row.execute(ctx.transaction::<Postgres>().await?).await?;
            } else {
                let row = sqlx::query("insert into business(saga, amount) values (?, ?)").bind(saga).bind(amount);
                row.execute(ctx.transaction::<Sqlite>().await?).await?;
            }
        }
        let output = self.0.handle(&m);
        ctx.send(output);
        Ok(())
    }
}

impl Handle<Remind> for CountingSaga {
    async fn handle(&mut self, m: Remind, ctx: &mut SagaContext) -> Result {
        ctx.timeout_at(sagabus::Timestamp(m.at), Due { at: m.at });
        Ok(())
    }
}

impl Handle<Due> for CountingSaga {
    async fn handle(&mut self, m: Due, ctx: &mut SagaContext) -> Result {
        if ctx.now().0 < m.at {
            EARLY.fetch_add(1, Ordering::Relaxed);
        }
        CAME.fetch_add(1, Ordering::Relaxed);
        self.0.count += 1;
        Ok(())
    }
}

/// Without a saga: one in, one out.
pub(super) async fn pass_on(m: Input, ctx: &mut Context) -> Result {
    ctx.send(Output { key: m.key, seq: m.seq, at: m.at, count: 0, note: m.note });
    Ok(())
}

/// The sink never runs; its handler makes its queue.
pub(super) async fn drop_output(_: Output, _: &mut Context) -> Result {
    Ok(())
}
