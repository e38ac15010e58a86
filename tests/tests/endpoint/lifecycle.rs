//! Pausing, stopping, starting again.

use crate::bed::{Bed, Seen, eventually, start};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "lifecycle.work")]
struct Work {
    n: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    seen: Vec<u64>,
}

impl Saga for Counter {
    const NAME: &'static str = "counter";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Work>(|m| m.n % 7);
    }
}

impl Handle<Work> for Counter {
    async fn handle(&mut self, m: Work, ctx: &mut SagaContext) -> Result {
        // so that a stop always finds some of them at work
        tokio::time::sleep(Duration::from_millis(m.n % 5)).await;
        self.seen.push(m.n);
        ctx.send(Seen(m.n.to_string()));
        Ok(())
    }
}

async fn a_paused_endpoint_takes_nothing(bed: Bed) {
    let recorder = bed.recorder().await;
    let shop = start(bed.endpoint("shop").saga::<Counter>()).await;
    shop.bus().send(Work { n: 1 }).await.unwrap();
    bed.expect(&shop, &["1"]).await;
    shop.pause();
    assert!(shop.health().await.paused);
    shop.bus().send(Work { n: 2 }).await.unwrap();
    // there is nothing to wait for when nothing is to happen
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((bed.seen(), shop.stats().received), (vec!["1".to_string()], 1));
    shop.resume();
    bed.expect(&shop, &["1", "2"]).await;
    assert!(!shop.health().await.paused);
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

/// Stopped again and again in the middle of its work; every message takes effect once, and none is handed out twice
/// because of a stop: what had started is finished, what had not is handed back.
async fn a_stop_under_load_loses_and_repeats_nothing(bed: Bed) {
    const MESSAGES: u64 = 300;
    let recorder = bed.recorder().await;
    let sender = bed.endpoint("sender").route::<Work>("shop").build().await.unwrap();
    // the queue must be there before anyone sends to it
    drop(bed.endpoint("shop").saga::<Counter>().build().await.unwrap());
    for sent in sender.bus().send_all((0..MESSAGES).map(|n| Work { n })).await.unwrap() {
        sent.unwrap();
    }
    let mut handled = 0;
    for _ in 0..5 {
        let shop = start(bed.endpoint("shop").concurrency(8).saga::<Counter>()).await;
        eventually("some are handled", || async {
            if shop.stats().handled >= 20 || handled + shop.stats().handled >= MESSAGES {
                Ok(())
            } else {
                Err(format!("{:?}", shop.stats()))
            }
        })
        .await;
        shop.stop().await.unwrap();
        let stats = shop.stats();
        assert_eq!((stats.duplicates, stats.dead), (0, 0), "{stats:?}");
        handled += stats.handled;
    }
    let shop = start(bed.endpoint("shop").saga::<Counter>()).await;
    eventually("all are recorded", || async {
        let seen = bed.seen();
        if seen.len() as u64 >= MESSAGES { Ok(()) } else { Err(format!("{} of {MESSAGES}", seen.len())) }
    })
    .await;
    bed.quiet(&shop).await;
    let seen = bed.seen();
    assert_eq!(seen.len() as u64, MESSAGES, "each once");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len() as u64, MESSAGES, "and all of them");
    assert_eq!(handled + shop.stats().handled, MESSAGES, "no handler's work was done twice");
    shop.stop().await.unwrap();
    recorder.stop().await.unwrap();
}

async fn a_stop_is_final_and_may_be_repeated(bed: Bed) {
    let shop = start(bed.endpoint("shop").saga::<Counter>()).await;
    assert!(shop.health().await.ok, "{:?}", shop.health().await);
    shop.stop().await.unwrap();
    shop.stop().await.unwrap();
}

on_every_backend!(
    a_paused_endpoint_takes_nothing,
    a_stop_under_load_loses_and_repeats_nothing,
    a_stop_is_final_and_may_be_repeated,
);
