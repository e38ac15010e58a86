//! What can be made to go wrong on the memory broker goes wrong as said, and only then.
#![allow(clippy::unwrap_used, reason = "a test should panic where it fails")]

use sagabus_core::{
    Delivery, Destination, Envelope, Headers, Intent, MessageId, NodeId, Outgoing, ReceiveOptions, Receiver, Runtime,
    SendOutcome, Settle, Settlement, Topology, Transport,
};
use sagabus_transports::memory::{BrokerFaults, DeliveryFault, MemoryBroker, MemoryTransport, SendFault};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

struct World {
    runtime: Runtime,
    broker: MemoryBroker,
    transport: MemoryTransport,
    receiver: Arc<dyn Receiver>,
}

async fn world(seed: u64, ordered: bool) -> World {
    let runtime = Runtime::simulated(seed);
    let broker = MemoryBroker::new(runtime.clone());
    let transport = broker.transport();
    transport.provision(&Topology { queue: Some("q".into()), ordered, ..Topology::default() }).await.unwrap();
    let options = ReceiveOptions {
        queue: "q".into(),
        node: NodeId(runtime.uuid()),
        window: 100,
        ordered,
        lease: Duration::from_secs(1),
        offsets: None,
        runtime: runtime.clone(),
    };
    let receiver = transport.receive(options).await.unwrap();
    World { runtime, broker, transport, receiver }
}

impl World {
    fn message(&self, key: Option<&str>, body: &str) -> Outgoing {
        let mut headers = Headers::new(MessageId(self.runtime.uuid()), "test", Intent::Command, self.runtime.now());
        headers.order_key = key.map(Into::into);
        Outgoing { to: Destination::Queue("q".into()), message: Envelope::new(headers, body.to_string()) }
    }

    async fn send(&self, body: &str) -> SendOutcome {
        self.transport.send_batch(&[self.message(None, body)]).await.remove(0)
    }

    async fn next(&self) -> Option<Vec<Delivery>> {
        self.runtime.timeout(Duration::from_secs(5), self.receiver.next(100)).await.map(Result::unwrap)
    }

    async fn done(&self, got: &[Delivery]) {
        let settlements = got.iter().map(|d| Settlement { token: d.token, settle: Settle::Done }).collect();
        self.receiver.settle(settlements).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn scripted_sends_fail_as_scripted() {
    let world = world(1, false).await;
    let delay = Duration::from_secs(3);
    world.broker.script_sends([
        Some(SendFault::Refuse),
        Some(SendFault::Lose),
        Some(SendFault::LoseConfirm),
        None,
        Some(SendFault::Duplicate),
        Some(SendFault::Delay(delay)),
    ]);
    assert!(matches!(world.send("refused").await, SendOutcome::Retry(_)));
    assert!(matches!(world.send("lost").await, SendOutcome::Unknown(_)));
    assert!(matches!(world.send("unconfirmed").await, SendOutcome::Unknown(_)));
    for body in ["fine", "twice", "late", "after"] {
        assert!(world.send(body).await.is_done());
    }
    let body = |d: &Delivery| String::from_utf8_lossy(&d.message.body).into_owned();
    let start = world.runtime.elapsed();
    let first = world.next().await.unwrap();
    assert_eq!(first.iter().map(body).collect::<Vec<_>>(), ["unconfirmed", "fine", "twice", "twice", "after"]);
    let second = world.next().await.unwrap();
    assert_eq!(second.iter().map(body).collect::<Vec<_>>(), ["late"]);
    let waited = world.runtime.elapsed() - start;
    assert!((delay..delay + Duration::from_millis(5)).contains(&waited), "{waited:?}");
    let stats = world.broker.stats();
    assert_eq!((stats.refused, stats.unknown, stats.duplicated, stats.delayed), (1, 2, 1, 1));
    assert_eq!((stats.queued, stats.delivered), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handed_out_again_while_it_is_in_flight() {
    let world = world(1, false).await;
    world.broker.script_deliveries([Some(DeliveryFault::Redeliver)]);
    assert!(world.send("x").await.is_done());
    let got = world.next().await.unwrap();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].message, got[1].message);
    assert_ne!(got[0].token, got[1].token);
    world.done(&got).await;
    assert_eq!((world.broker.depth("q"), world.broker.stats().redelivered), (Some(0), 1));
}

#[tokio::test(start_paused = true)]
async fn while_it_is_down_nothing_works_and_afterwards_everything_does() {
    let world = world(1, false).await;
    assert!(world.send("before").await.is_done());
    world.broker.set_down(true);
    assert!(matches!(world.send("during").await, SendOutcome::Retry(_)));
    assert!(world.receiver.next(1).await.unwrap_err().is_transient());
    assert!(world.transport.health().await.unwrap_err().is_transient());
    world.broker.set_down(false);
    world.transport.health().await.unwrap();
    assert_eq!(world.next().await.unwrap().len(), 1);
}

/// With every fault at once: at least once, the ordered keys in order, and the same seed gives the same run.
#[test]
fn rough_brokers_lose_nothing_and_keep_ordered_keys() {
    let run = |seed: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = world(seed, true).await;
            world.broker.set_faults(BrokerFaults::rough());
            let mut trace = Vec::new();
            let mut keys: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            for n in 0..60u32 {
                for key in [Some("a"), Some("b"), None] {
                    let outgoing = world.message(key, &n.to_string());
                    while !world.transport.send_batch(std::slice::from_ref(&outgoing)).await[0].is_done() {}
                }
            }
            while world.broker.depth("q") != Some(0) {
                let got = world.next().await.expect("more to come");
                for delivery in &got {
                    let key = delivery.message.headers.order_key.clone().unwrap_or_default();
                    let number = String::from_utf8_lossy(&delivery.message.body).parse().unwrap();
                    trace.push((key.clone(), number));
                    let seen = keys.entry(key).or_default();
                    if !seen.contains(&number) {
                        seen.push(number);
                    }
                }
                world.done(&got).await;
            }
            for key in ["a", "b"] {
                assert_eq!(keys[key], (0..60).collect::<Vec<u32>>(), "seed {seed}");
            }
            assert_eq!(keys[""].len(), 60, "seed {seed}");
            (trace, world.broker.stats())
        })
    };
    let mut total = [0; 5];
    for seed in 0..30 {
        let (_, stats) = run(seed);
        let counts = [stats.refused, stats.unknown, stats.duplicated, stats.delayed, stats.redelivered];
        total.iter_mut().zip(counts).for_each(|(t, c)| *t += c);
    }
    assert!(total.iter().all(|n| *n > 10), "{total:?}");
    assert!(run(5) == run(5), "a seed repeats itself");
}
