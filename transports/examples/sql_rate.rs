//! How many deliveries per second the sql adapter hands out and settles: over the memory store's queues, which is what it
//! costs by itself, and over a SQLite file.
//!
//! `cargo run --release -p sagabus-transports --example sql_rate [-- messages window]`
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement stands outside of the bus")]

use bytes::Bytes;
use sagabus_core::{
    Destination, Envelope, Headers, Intent, MessageId, NodeId, Outgoing, Queues, ReceiveOptions, Runtime, Settle,
    Settlement, Topology, Transport,
};
use sagabus_outbox::{
    memory::MemoryStore,
    sqlite::{SqliteOptions, SqliteStore},
};
use sagabus_transports::sql::{SqlOptions, SqlTransport};
use std::{sync::Arc, time::Duration};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let (count, window) = (args.next().unwrap_or(500_000), args.next().unwrap_or(2000));
    let runtime = Runtime::system();
    let directory = std::env::temp_dir().join(format!("sagabus-rate-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let url = format!("sqlite://{}", directory.join("bus.db").display());
    for (name, ordered) in [("memory", false), ("memory", true), ("sqlite", false)] {
        let queues: Arc<dyn Queues> = match name {
            "sqlite" => SqliteStore::open(&url, SqliteOptions::new(runtime.clone())).await.unwrap(),
            _ => Arc::new(MemoryStore::new(runtime.clone())),
        };
        queues.migrate().await.unwrap();
        let transport = SqlTransport::new(queues, SqlOptions::default());
        let topology = Topology { queue: Some("q".into()), ..Topology::default() };
        transport.provision(&topology).await.unwrap();
        let body = Bytes::from(vec![b'x'; 500]);
        let outgoing = |n: usize| {
            let mut headers = Headers::new(MessageId(runtime.uuid()), "bench", Intent::Command, runtime.now());
            headers.order_key = Some(format!("key-{}", n % 10_000));
            Outgoing { to: Destination::Queue("q".into()), message: Envelope::new(headers, body.clone()) }
        };
        for start in (0..count).step_by(1000) {
            let batch: Vec<Outgoing> = (start..(start + 1000).min(count)).map(outgoing).collect();
            assert!(transport.send_batch(&batch).await.iter().all(|o| o.is_done()));
        }
        let options = ReceiveOptions {
            queue: "q".into(),
            node: NodeId(runtime.uuid()),
            window,
            ordered,
            lease: Duration::from_secs(10),
            offsets: None,
            runtime: runtime.clone(),
        };
        let start = runtime.elapsed();
        let receiver = transport.receive(options).await.unwrap();
        let mut got = 0;
        while got < count {
            let deliveries = receiver.next(200).await.unwrap();
            got += deliveries.len();
            let settle = |d: &sagabus_core::Delivery| Settlement { token: d.token, settle: Settle::Done };
            receiver.settle(deliveries.iter().map(settle).collect()).await.unwrap();
        }
        let took = (runtime.elapsed() - start).as_secs_f64();
        println!("{name}, ordered {ordered}: {count} deliveries in {took:.2} s, {:.0}/s", count as f64 / took);
        receiver.close().await;
    }
    std::fs::remove_dir_all(directory).unwrap();
}
