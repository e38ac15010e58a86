use super::TestBus;
use crate::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Ping {
    n: u32,
}
impl crate::Message for Ping {
    const NAME: &'static str = "ping";
}

#[derive(Serialize, Deserialize)]
struct Pong {
    n: u32,
}
impl crate::Message for Pong {
    const NAME: &'static str = "pong";
}

async fn answer(m: Ping, ctx: &mut Context) -> Result {
    if m.n == 13 {
        return Err(HandlerError::new("no thirteen"));
    }
    ctx.publish(Pong { n: m.n });
    Ok(())
}

async fn run(seed: u64) -> (Vec<u32>, Duration) {
    let mut bus = TestBus::seeded(seed);
    bus.start(bus.endpoint("ponger").on(answer)).await;
    for n in 0..20 {
        bus.bus("ponger").send(Ping { n }).await.unwrap();
    }
    bus.settle().await;
    assert_eq!(bus.running("ponger").stats().deferred, 1);
    assert!(bus.dead_letters("ponger").await.unwrap().is_empty());
    bus.advance(Duration::from_secs(600)).await;
    let dead = bus.dead_letters("ponger").await.unwrap();
    assert_eq!(dead.len(), 1, "{:?}", bus.running("ponger").stats());
    assert_eq!((dead[0].reason.as_str(), dead[0].attempts), ("handler failed", 16));
    assert_eq!(dead[0].detail, ["no thirteen"]);
    let pongs = bus.sent::<Pong>().iter().map(|p| p.n).collect();
    bus.stop().await.unwrap();
    (pongs, bus.elapsed())
}

#[tokio::test(start_paused = true)]
async fn retries_and_dead_letters_in_virtual_time_and_again_the_same() {
    let first = run(7).await;
    assert_eq!(first.0.len(), 19);
    assert_eq!(run(7).await, first);
}
