//! Sagas whose state is the list of what they were told: nothing may be missing in it, and nothing be there twice.

use super::{
    effects::{effect, tap},
    messages::{Add, AddOwn, Half, Happened, Note, Remind, Ring},
};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Default, Serialize, Deserialize)]
pub struct Tally {
    seen: Vec<u64>,
}

impl Saga for Tally {
    const NAME: &'static str = "tally";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Add>(|m| m.key.clone());
        r.started_by::<AddOwn>(|m| m.key.clone());
        r.started_by::<Happened>(|m| m.key.clone());
    }
}

impl Tally {
    fn add(&mut self, key: String, n: u64, ctx: &mut SagaContext) {
        tap("tally", ctx);
        self.seen.push(n);
        ctx.send(Note { from: "tally".into(), key, n });
    }
}

impl Handle<Add> for Tally {
    async fn handle(&mut self, m: Add, ctx: &mut SagaContext) -> Result {
        self.add(m.key, m.n, ctx);
        Ok(())
    }
}

impl Handle<AddOwn> for Tally {
    async fn handle(&mut self, m: AddOwn, ctx: &mut SagaContext) -> Result {
        effect(ctx, "own", &m.key, m.n, None).await?;
        self.add(m.key, m.n, ctx);
        Ok(())
    }
}

impl Handle<Happened> for Tally {
    async fn handle(&mut self, m: Happened, ctx: &mut SagaContext) -> Result {
        self.add(m.key, m.n, ctx);
        Ok(())
    }
}

/// The second saga of the same event.
#[derive(Default, Serialize, Deserialize)]
pub struct Watcher {
    seen: Vec<u64>,
}

impl Saga for Watcher {
    const NAME: &'static str = "watcher";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Happened>(|m| m.key.clone());
    }
}

impl Handle<Happened> for Watcher {
    async fn handle(&mut self, m: Happened, ctx: &mut SagaContext) -> Result {
        tap("watcher", ctx);
        self.seen.push(m.n);
        ctx.send(Note { from: "watcher".into(), key: m.key, n: m.n });
        Ok(())
    }
}

/// Completes with its second half. A half that took effect twice would leave a second life behind.
#[derive(Default, Serialize, Deserialize)]
pub struct Pair {
    left: Option<u64>,
    right: Option<u64>,
}

impl Saga for Pair {
    const NAME: &'static str = "pair";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Half>(|m| m.key.clone());
    }
}

impl Handle<Half> for Pair {
    async fn handle(&mut self, m: Half, ctx: &mut SagaContext) -> Result {
        tap("pair", ctx);
        *(if m.left { &mut self.left } else { &mut self.right }) = Some(m.n);
        if let (Some(left), Some(right)) = (self.left, self.right) {
            for n in [left, right] {
                ctx.send(Note { from: "pair".into(), key: m.key.clone(), n });
            }
            ctx.complete();
        }
        Ok(())
    }
}

/// Writes down when a timeout was asked for and when it took effect.
#[derive(Default, Serialize, Deserialize)]
pub struct Alarm {
    rung: Vec<u64>,
}

impl Saga for Alarm {
    const NAME: &'static str = "alarm";
    type Key = String;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Remind>(|m| m.key.clone()).timeout::<Ring>();
    }
}

impl Handle<Remind> for Alarm {
    async fn handle(&mut self, m: Remind, ctx: &mut SagaContext) -> Result {
        tap("alarm", ctx);
        effect(ctx, "asked", &m.key, m.n, Some(m.delay_ms)).await?;
        ctx.timeout(Duration::from_millis(m.delay_ms), Ring { n: m.n });
        Ok(())
    }
}

impl Handle<Ring> for Alarm {
    async fn handle(&mut self, m: Ring, ctx: &mut SagaContext) -> Result {
        tap("alarm", ctx);
        self.rung.push(m.n);
        let key = ctx.saga_key().to_string();
        // every second one takes the way without own SQL
        if m.n.is_multiple_of(2) {
            effect(ctx, "rang", &key, m.n, None).await?;
        } else {
            ctx.send(Note { from: "alarm".into(), key, n: m.n });
        }
        Ok(())
    }
}
