//! Several nodes of one endpoint.

use crate::bed::{Bed, Seen, admin, eventually, start};
use sagabus::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Message, Serialize, Deserialize)]
#[message(name = "competing.add")]
struct Add {
    key: u64,
    n: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct List {
    seen: Vec<u64>,
}

impl Saga for List {
    const NAME: &'static str = "list";
    type Key = u64;
    fn routes(r: &mut Routes<Self>) {
        r.started_by::<Add>(|m| m.key);
    }
}

impl Handle<Add> for List {
    async fn handle(&mut self, m: Add, ctx: &mut SagaContext) -> Result {
        // a chance for the other one to come between
        tokio::task::yield_now().await;
        self.seen.push(m.n);
        ctx.send(Seen(m.n.to_string()));
        Ok(())
    }
}

/// Three nodes, few keys, so that they meet at the same sagas: no update is lost, no message is handled twice.
async fn nodes_of_one_endpoint_share_its_work(bed: Bed) {
    const MESSAGES: u64 = 240;
    const KEYS: u64 = 4;
    let recorder = bed.recorder().await;
    let nodes = [
        start(bed.endpoint("shop").saga::<List>()).await,
        start(bed.endpoint("shop").saga::<List>()).await,
        start(bed.endpoint("shop").saga::<List>()).await,
    ];
    // the shards are shared out by heartbeats: until each node has its part, one would do everything
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    for n in 0..MESSAGES {
        nodes[0].bus().send(Add { key: n % KEYS, n }).await.unwrap();
    }
    eventually("all are recorded", || async {
        let seen = bed.seen().len() as u64;
        if seen >= MESSAGES { Ok(()) } else { Err(format!("{seen} of {MESSAGES}")) }
    })
    .await;
    for node in &nodes {
        bed.quiet(node).await;
    }
    assert_eq!(bed.seen().len() as u64, MESSAGES);
    let mut all = Vec::new();
    for key in 0..KEYS {
        let row = admin(&nodes[0]).saga("shop/list", &key.to_string()).await.unwrap().unwrap();
        let list: List = serde_json::from_slice(&row.state).unwrap();
        assert_eq!(row.version, list.seen.len() as i64, "a version per message");
        all.extend(list.seen);
    }
    all.sort_unstable();
    assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>());
    let handled: Vec<u64> = nodes.iter().map(|node| node.stats().handled).collect();
    assert_eq!(handled.iter().sum::<u64>(), MESSAGES, "{handled:?}");
    assert!(handled.iter().filter(|handled| **handled > 0).count() > 1, "one has done everything: {handled:?}");
    for node in nodes {
        node.stop().await.unwrap();
    }
    recorder.stop().await.unwrap();
}

on_every_backend!(nodes_of_one_endpoint_share_its_work);
