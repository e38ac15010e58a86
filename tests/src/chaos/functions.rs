//! Handlers without a saga.

use super::{
    effects::{effect, tap},
    messages::{Flaky, Happened, Note, Poison, Step},
};
use sagabus::prelude::*;

pub async fn heard(m: Happened, ctx: &mut Context) -> Result {
    tap("heard", ctx);
    effect(ctx, "heard", &m.key, m.n, None).await
}

/// Writes first and fails then, so that what it wrote must be gone.
pub async fn flaky(m: Flaky, ctx: &mut Context) -> Result {
    tap("flaky", ctx);
    effect(ctx, "flaky", "", m.n, None).await?;
    if ctx.attempts() < m.fails {
        return Err(HandlerError::new(format!("failure {} of {}", ctx.attempts() + 1, m.fails)));
    }
    Ok(())
}

/// What it wrote and what it wanted to send must never be seen.
pub async fn poison(m: Poison, ctx: &mut Context) -> Result {
    tap("poison", ctx);
    effect(ctx, "poison", "", m.n, None).await?;
    ctx.send(Note { from: "poison".into(), key: String::new(), n: m.n });
    Err(HandlerError::permanent("poison"))
}

pub async fn step(m: Step, ctx: &mut Context) -> Result {
    tap("step", ctx);
    effect(ctx, "step", &m.key, m.n, None).await?;
    if ctx.attempts() < m.fails {
        return Err(HandlerError::new("the later ones of its key must wait"));
    }
    Ok(())
}

pub async fn note(m: Note, ctx: &mut Context) -> Result {
    tap("note", ctx);
    effect(ctx, &format!("note:{}", m.from), &m.key, m.n, None).await
}
