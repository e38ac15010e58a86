//! Passthrough figures of the RabbitMQ transport and of a raw lapin twin, in turns in one run.
//!
//! `SAGABUS_RABBITMQ_URL=… cargo run --release -p sagabus-transports --features rabbitmq --example rabbitmq_rate [-- messages bytes]`
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement stands outside of the bus")]

use bytes::Bytes;
use futures::{StreamExt, future::join_all};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use sagabus_core::{
    Destination, Envelope, Headers, Intent, MessageId, NodeId, Outgoing, ReceiveOptions, Runtime, Settle, Settlement,
    Topology, Transport,
};
use sagabus_transports::rabbitmq::{RabbitMqOptions, RabbitMqTransport};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const WINDOW: usize = 1000;
const CHUNK: usize = 250;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let url = std::env::var("SAGABUS_RABBITMQ_URL").expect("SAGABUS_RABBITMQ_URL");
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let (count, size) = (args.next().unwrap_or(60_000), args.next().unwrap_or(500));
    let body = Bytes::from(vec![b'x'; size]);
    let raw = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let runtime = Runtime::system();
    let mut options = RabbitMqOptions::new(runtime.clone());
    options.prefix = "rate.".into();
    options.publish_window = WINDOW;
    let transport = RabbitMqTransport::connect(&url, options).await.unwrap();
    used(1);
    for round in 0..3 {
        let (out, back) = ours(&transport, &runtime, count, &body).await;
        println!(
            "round {round}: sagabus publishes {out:.0}/s, receives and settles {back:.0}/s, {:.1} us CPU",
            used(count)
        );
        let (out, back) = twin(&raw, count, &body).await;
        println!(
            "round {round}: raw lapin publishes {out:.0}/s, receives and acks {back:.0}/s, {:.1} us CPU",
            used(count)
        );
    }
    let channel = raw.create_channel().await.unwrap();
    for name in ["twin", "rate.q", "rate.q.error", "rate.q.unreadable", "rate.q.bindings"] {
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }
    transport.close().await;
}

/// This process's CPU time per message since the last call; it tells more than the rate where the machine is shared.
fn used(count: usize) -> f64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let last = LAST.swap(ticks, std::sync::atomic::Ordering::Relaxed);
    (ticks - last) as f64 * 10_000.0 / count as f64
}

fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

async fn ours(transport: &RabbitMqTransport, runtime: &Runtime, count: usize, body: &Bytes) -> (f64, f64) {
    transport.provision(&Topology { queue: Some("q".into()), ..Topology::default() }).await.unwrap();
    let outgoing = |_| {
        let headers = Headers::new(MessageId(runtime.uuid()), "rate.message", Intent::Command, runtime.now());
        Outgoing { to: Destination::Queue("q".into()), message: Envelope::new(headers, body.clone()) }
    };
    let batches: Vec<Vec<Outgoing>> = (0..count / CHUNK).map(|_| (0..CHUNK).map(outgoing).collect()).collect();
    let start = Instant::now();
    let mut sends = futures::stream::iter(batches.iter().map(|batch| transport.send_batch(batch))).buffered(8);
    while let Some(outcomes) = sends.next().await {
        assert!(outcomes.iter().all(|o| o.is_done()));
    }
    let out = rate(count, start);
    let start = Instant::now();
    let options = ReceiveOptions {
        queue: "q".into(),
        node: NodeId(runtime.uuid()),
        window: WINDOW,
        ordered: false,
        lease: Duration::from_secs(10),
        offsets: None,
        runtime: runtime.clone(),
    };
    let receiver = transport.receive(options).await.unwrap();
    let mut got = 0;
    while got < count {
        let deliveries = receiver.next(200).await.unwrap();
        got += deliveries.len();
        let done = |d: &sagabus_core::Delivery| Settlement { token: d.token, settle: Settle::Done };
        receiver.settle(deliveries.iter().map(done).collect()).await.unwrap();
    }
    let back = rate(count, start);
    receiver.close().await;
    (out, back)
}

async fn publish(channel: &Channel, body: &[u8]) -> lapin::PublisherConfirm {
    let id = uuid::Uuid::now_v7().to_string();
    let properties = BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    channel.basic_publish("".into(), "twin".into(), options, body, properties).await.unwrap()
}

async fn twin(connection: &Connection, count: usize, body: &[u8]) -> (f64, f64) {
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(Default::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare("twin".into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    let start = Instant::now();
    let mut waiting = VecDeque::new();
    for _ in 0..count / CHUNK {
        if waiting.len() * CHUNK >= WINDOW {
            join_all(waiting.pop_front().into_iter().flatten()).await;
        }
        waiting.push_back(join_all((0..CHUNK).map(|_| publish(&channel, body))).await);
    }
    for batch in waiting {
        assert!(join_all(batch).await.into_iter().all(|c| c.unwrap().is_ack()));
    }
    let out = rate(count, start);
    let start = Instant::now();
    channel.basic_qos(1250, Default::default()).await.unwrap();
    let mut consumer = channel
        .basic_consume("twin".into(), "twin".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    for number in 1..=count {
        let delivery = consumer.next().await.unwrap().unwrap();
        if number % 200 == 0 || number == count {
            delivery.ack(BasicAckOptions { multiple: true }).await.unwrap();
        }
    }
    let back = rate(count, start);
    channel.close(200, "done".into()).await.unwrap();
    (out, back)
}
