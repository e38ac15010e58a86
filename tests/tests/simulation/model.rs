//! The application: an order saga, workers that fail now and then, and a ledger of effects without unique keys.

use sagabus::{ports::InvocationContext, prelude::*, store::memory::ScratchRows};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(crate) const STEPS: u32 = 3;

#[derive(Serialize, Deserialize, Message)]
#[message(name = "sim.placed")]
pub(crate) struct Placed {
    pub(crate) order: u64,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "sim.work")]
pub(crate) struct Work {
    pub(crate) order: u64,
    pub(crate) step: u32,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "sim.worked")]
pub(crate) struct Worked {
    pub(crate) order: u64,
    pub(crate) step: u32,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "sim.remind")]
pub(crate) struct Remind {
    due: i64,
}

#[derive(Serialize, Deserialize, Message)]
#[message(name = "sim.done")]
pub(crate) struct Done {
    pub(crate) order: u64,
    pub(crate) placed: u32,
    pub(crate) worked: Vec<u32>,
    pub(crate) reminded: u32,
    pub(crate) early: bool,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Order {
    order: u64,
    placed: u32,
    worked: Vec<u32>,
    reminded: u32,
    early: bool,
}

impl Saga for Order {
    const NAME: &'static str = "order";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Placed>(|m| m.order).continued_by::<Worked>(|m| m.order).timeout::<Remind>();
    }
}

impl Order {
    fn finish_when_complete(&mut self, ctx: &mut SagaContext) {
        if self.worked.len() < STEPS as usize || self.reminded == 0 {
            return;
        }
        ctx.publish(Done {
            order: self.order,
            placed: self.placed,
            worked: self.worked.clone(),
            reminded: self.reminded,
            early: self.early,
        });
        ctx.complete();
    }
}

impl Handle<Placed> for Order {
    async fn handle(&mut self, m: Placed, ctx: &mut SagaContext) -> Result {
        self.order = m.order;
        self.placed += 1;
        for step in 0..STEPS {
            ctx.send(Work { order: m.order, step });
        }
        let delay = Duration::from_millis(200 + m.order * 37 % 3000);
        let due = ctx.now().plus(delay).0;
        ctx.timeout(delay, Remind { due });
        Ok(())
    }
}

impl Handle<Worked> for Order {
    async fn handle(&mut self, m: Worked, ctx: &mut SagaContext) -> Result {
        fail_now_and_then(ctx, m.order + u64::from(m.step), 5)?;
        self.worked.push(m.step);
        self.finish_when_complete(ctx);
        Ok(())
    }
}

impl Handle<Remind> for Order {
    async fn handle(&mut self, m: Remind, ctx: &mut SagaContext) -> Result {
        self.reminded += 1;
        self.early |= ctx.now().0 < m.due;
        self.finish_when_complete(ctx);
        Ok(())
    }
}

/// Fails the first tries of some messages: with an error, or with a panic.
fn fail_now_and_then(ctx: &Context, n: u64, tries: u32) -> Result {
    assert!(n % 23 != 7 || ctx.attempts() > 0, "a planned panic");
    if n % 7 == 3 && ctx.attempts() < tries {
        return Err(HandlerError::new("a planned failure"));
    }
    Ok(())
}

/// Writes one row per run into its own transaction, under a key that no other run has: a second effect shows.
async fn effect(ctx: &mut Context, name: String) -> Result {
    let unique = ctx.new_id();
    let transaction = ctx.begin().await?;
    let rows = transaction.raw().downcast_mut::<ScratchRows>().ok_or("not the memory store")?;
    rows.put(format!("{name}/{unique}"), Vec::new());
    Ok(())
}

pub(crate) async fn work(m: Work, ctx: &mut Context) -> Result {
    effect(ctx, format!("work/{}/{}", m.order, m.step)).await?;
    fail_now_and_then(ctx, m.order * 3 + u64::from(m.step), 6)?;
    ctx.publish(Worked { order: m.order, step: m.step });
    Ok(())
}

pub(crate) async fn done(m: Done, ctx: &mut Context) -> Result {
    let mut worked = m.worked.clone();
    worked.sort_unstable();
    let state = format!("{}:{}:{:?}:{}", m.placed, m.reminded, worked, m.early);
    effect(ctx, format!("done/{}/{state}", m.order)).await
}

/// One of a numbered row of messages with one key, for the ordered endpoint.
#[derive(Serialize, Deserialize, Message)]
#[message(name = "sim.line")]
pub(crate) struct Line {
    pub(crate) key: u64,
    pub(crate) n: u64,
}

/// Notes every message that does not follow the one before it of its key.
pub(crate) async fn line(m: Line, ctx: &mut Context) -> Result {
    let (unique, attempts) = (ctx.new_id(), ctx.attempts());
    let transaction = ctx.begin().await?;
    let rows = transaction.raw().downcast_mut::<ScratchRows>().ok_or("not the memory store")?;
    let last = format!("last/{}", m.key);
    let before = rows.get(&last).and_then(|n| String::from_utf8_lossy(n).parse().ok()).unwrap_or(0u64);
    if before + 1 != m.n {
        rows.put(format!("line/{}/{} after {before}/{unique}", m.key, m.n), Vec::new());
    }
    rows.put(last, m.n.to_string());
    rows.put(format!("line/{}/{}/{unique}", m.key, m.n), Vec::new());
    if (m.key + m.n) % 5 == 3 && attempts < 6 {
        return Err(HandlerError::new("a planned failure"));
    }
    Ok(())
}
