//! The passthrough over the transport by itself: what an endpoint does with it, without an endpoint. Receive, send,
//! settle, several batches at a time.

use super::{IN, OUT, sink};
use crate::{
    args::Spec,
    measure::Span,
    payload::{Input, Output, key_of},
    profile::Profile,
    report::Side,
};
use anyhow::{Context as _, Result, ensure};
use sagabus::{
    Runtime,
    ports::{
        Delivery, Destination, Envelope, Headers, Intent, MessageId, NodeId, Outgoing, ReceiveOptions, Receiver,
        Settle, Settlement, Topology, Transport,
    },
    transport::kafka::{KafkaOptions, KafkaTransport},
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Batches under way, and messages in each at most.
const BATCHES: usize = 8;
const BATCH: usize = 384;

pub(crate) async fn run(spec: &Spec) -> Result<Side> {
    ensure!(!spec.feed.is_live(), "the passthrough over the port has no generator");
    let url = spec.transport.as_deref().context("the cluster")?;
    let runtime = Runtime::system();
    let transport = Arc::new(KafkaTransport::connect(url, KafkaOptions::new(runtime.clone())).await?);
    for queue in [IN, OUT] {
        transport.provision(&Topology { queue: Some(queue.into()), ..Topology::default() }).await?;
    }
    let inputs: Vec<u64> = (1..=spec.messages).collect();
    for chunk in inputs.chunks(1000) {
        let input = |seq: &u64| outgoing(&runtime, IN, &Input::new(key_of(*seq, spec.keys), *seq, 0));
        send(&transport, chunk.iter().map(input).collect::<Result<_>>()?).await?;
    }
    let profile = Profile::start();
    let options = ReceiveOptions {
        queue: IN.into(),
        node: NodeId(runtime.uuid()),
        window: BATCHES * BATCH,
        ordered: false,
        lease: Duration::from_secs(5),
        offsets: None,
        runtime: runtime.clone(),
    };
    let receiver = transport.receive(options).await?;
    let mut span = None;
    let (mut through, mut batches) = (0, 0);
    let mut passing = JoinSet::new();
    while through < spec.messages {
        tokio::select! {
            deliveries = receiver.next(BATCH), if passing.len() < BATCHES => {
                span.get_or_insert_with(Span::start);
                let (transport, receiver, runtime) = (transport.clone(), receiver.clone(), runtime.clone());
                passing.spawn(pass(transport, receiver, runtime, deliveries?));
            }
            Some(passed) = passing.join_next() => {
                through += passed??;
                batches += 1;
            }
        }
    }
    let span = span.context("nothing was sent")?;
    let side = Side::measured(&span, spec.messages, batches);
    drop(profile);
    receiver.stop().await;
    receiver.close().await;
    transport.close().await;
    let (left, (out, distinct)) = (sink::left(url, IN).await?, sink::count(url, OUT).await?);
    let n = i64::try_from(spec.messages)?;
    ensure!(left == 0 && out == n && distinct == n, "audit: {n} sent, {left} left, {out} out, {distinct} distinct");
    Ok(side)
}

async fn pass(
    transport: Arc<KafkaTransport>,
    receiver: Arc<dyn Receiver>,
    runtime: Runtime,
    deliveries: Vec<Delivery>,
) -> Result<u64> {
    let output = |delivery: &Delivery| {
        let m: Input = serde_json::from_slice(&delivery.message.body)?;
        outgoing(&runtime, OUT, &Output { key: m.key, seq: m.seq, at: m.at, count: 0, note: m.note })
    };
    send(&transport, deliveries.iter().map(output).collect::<Result<_>>()?).await?;
    let done = |delivery: &Delivery| Settlement { token: delivery.token, settle: Settle::Done };
    receiver.settle(deliveries.iter().map(done).collect()).await?;
    Ok(deliveries.len() as u64)
}

async fn send(transport: &KafkaTransport, batch: Vec<Outgoing>) -> Result<()> {
    for outcome in transport.send_batch(&batch).await {
        ensure!(outcome.is_done(), "not sent: {outcome:?}");
    }
    Ok(())
}

fn outgoing<M: sagabus::Message>(runtime: &Runtime, queue: &str, message: &M) -> Result<Outgoing> {
    let headers = Headers::new(MessageId(runtime.uuid()), M::NAME, Intent::Command, runtime.now());
    let message = Envelope::new(headers, serde_json::to_vec(message)?);
    Ok(Outgoing { to: Destination::Queue(queue.into()), message })
}
