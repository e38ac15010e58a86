//! What lapin and the broker are known to do wrong, each against our transport on a real broker.
#![cfg(feature = "rabbitmq")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod rabbitmq_support;

use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use rabbitmq_support::{RabbitHarness, RabbitProxy, place, through, url};
use sagabus_core::{
    Destination, Intent, MessageId, Outgoing, Runtime, SendOutcome, Settle, Settlement, Topology, Transport, UserHeader,
};
use sagabus_testkit::{
    amqp,
    transport::{Fixture, TransportHarness},
};
use sagabus_transports::rabbitmq::{RabbitMqOptions, RabbitMqTransport};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

async fn bed(parameters: &str) -> (Arc<RabbitHarness>, Fixture, Arc<RabbitProxy>) {
    let harness = Arc::new(RabbitHarness::new());
    let (process, proxy) = harness.process(parameters).await;
    (harness.clone(), Fixture::new(harness, process), proxy)
}

fn to(bed: &Fixture, queue: &str) -> Outgoing {
    Outgoing { to: Destination::Queue(queue.into()), message: bed.message("{}") }
}

fn plain(queue: &str) -> Topology {
    Topology { queue: Some(queue.into()), ..Topology::default() }
}

/// The one that nobody takes is blamed, among a thousand in flight, from each of four tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_message_is_blamed() {
    let (harness, bed, _) = bed("").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let tasks: Vec<_> = (0..4usize)
        .map(|task| {
            let bed = bed.clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let bad = [task, 500 + 37 * round, 501 + 37 * round, 999];
                    let batch: Vec<Outgoing> =
                        (0..1000).map(|n| to(&bed, if bad.contains(&n) { "nowhere" } else { "q" })).collect();
                    let outcomes = bed.transport.send_batch(&batch).await;
                    for (n, outcome) in outcomes.iter().enumerate() {
                        match outcome {
                            SendOutcome::Unroutable(_) => assert!(bad.contains(&n), "{n} was blamed"),
                            outcome => assert!(outcome.is_done() && !bad.contains(&n), "{n}: {outcome:?}"),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    bed.depth("q", 4 * 5 * 996).await;
    harness.close().await;
}

/// Whether lapin pins a returned message on another message's confirm: printed, since it is not for us to promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_lapin_blames() {
    let (harness, bed, _) = bed("").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let channel = harness.raw().await;
    channel.confirm_select(Default::default()).await.unwrap();
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..10 {
        let sends = (0..1000).map(|n| {
            let key = if n % 100 == 50 { "nowhere".to_string() } else { format!("{}q", harness.prefix) };
            let properties = BasicProperties::default().with_message_id(n.to_string().into()).with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            channel.basic_publish("".into(), key.into(), options, b"x", properties)
        });
        for (n, confirm) in futures::future::join_all(sends).await.into_iter().enumerate() {
            if let Confirmation::Ack(Some(message)) = confirm.unwrap().await.unwrap() {
                let same = message.properties.message_id().as_ref().unwrap().as_str() == n.to_string();
                if same { right += 1 } else { wrong += 1 }
            }
        }
    }
    println!("raw lapin: {right} returned messages on their own confirm, {wrong} on another one's");
    assert_eq!(right + wrong, 100);
    harness.close().await;
}

/// A blocked connection: sends are refused at once, receiving goes on, and all is well afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_connection_refuses_and_recovers() {
    let (harness, bed, proxy) = bed("confirm_timeout=2").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    bed.fill("q", 20).await;
    let receiver = bed.receiver("q", 10).await;
    assert!(proxy.block(true));
    bed.eventually("sends are refused", async || {
        let outcome = bed.transport.send_batch(&[to(&bed, "q")]).await.remove(0);
        matches!(outcome, SendOutcome::Retry(_)).then_some(())
    })
    .await;
    assert!(bed.transport.health().await.unwrap_err().to_string().contains("low"));
    let got = bed.take(&receiver, 10).await;
    bed.settle(&receiver, &got, Settle::Done).await;
    bed.take(&receiver, 10).await;
    assert!(proxy.block(false));
    bed.eventually("sends work again", async || {
        bed.transport.send_batch(&[to(&bed, "q")]).await.remove(0).is_done().then_some(())
    })
    .await;
    harness.close().await;
}

/// Confirms that never come: unknown after the timeout, and the next sends are fine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_confirms_are_unknown() {
    let (harness, bed, proxy) = bed("confirm_timeout=2").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    bed.fill("q", 1).await;
    proxy.swallow_confirms(true);
    let batch: Vec<Outgoing> = (0..600).map(|_| to(&bed, "q")).collect();
    let outcomes = bed.transport.send_batch(&batch).await;
    assert!(outcomes.iter().all(|o| matches!(o, SendOutcome::Unknown(_) | SendOutcome::Retry(_))), "{outcomes:?}");
    proxy.swallow_confirms(false);
    bed.eventually("sends work again", async || {
        bed.transport.send_batch(&[to(&bed, "q")]).await.remove(0).is_done().then_some(())
    })
    .await;
    harness.close().await;
}

/// A connection that breaks under way: everything sent is done, to be tried again, or unknown; nothing that was told
/// as done is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_connections_lose_nothing_that_was_done() {
    let (harness, bed, proxy) = bed("").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let receiver = bed.receiver("q", 100).await;
    let sender = {
        let bed = bed.clone();
        tokio::spawn(async move {
            let mut done = Vec::new();
            let start = bed.runtime.elapsed();
            let mut unknown = 0;
            while bed.runtime.elapsed() - start < Duration::from_secs(4) {
                let batch: Vec<Outgoing> = (0..50).map(|_| to(&bed, "q")).collect();
                let outcomes = bed.transport.send_batch(&batch).await;
                unknown += outcomes.iter().filter(|o| matches!(o, SendOutcome::Unknown(_))).count();
                let sent = batch.iter().zip(&outcomes).filter(|(_, o)| o.is_done());
                done.extend(sent.map(|(message, _)| message.message.headers.message_id));
                bed.runtime.sleep(Duration::from_millis(5)).await;
            }
            (done, unknown)
        })
    };
    let mut seen = BTreeSet::new();
    let mut kills = 0;
    let start = bed.runtime.elapsed();
    while !sender.is_finished() {
        if bed.runtime.elapsed() - start > Duration::from_millis(500) * (kills + 1) {
            kills += 1;
            proxy.kill();
        }
        if let Some(Ok(got)) = bed.runtime.timeout(Duration::from_millis(50), receiver.next(50)).await {
            seen.extend(got.iter().map(|d| d.message.headers.message_id));
            bed.settle(&receiver, &got, Settle::Done).await;
        }
    }
    let (done, unknown) = sender.await.unwrap();
    let missing = |seen: &std::collections::BTreeSet<sagabus_core::MessageId>| {
        done.iter().filter(|id| !seen.contains(id)).count()
    };
    bed.eventually("all of them came", async || {
        if let Some(Ok(got)) = bed.runtime.timeout(Duration::from_millis(200), receiver.next(200)).await {
            seen.extend(got.iter().map(|d| d.message.headers.message_id));
            bed.settle(&receiver, &got, Settle::Done).await;
        }
        (missing(&seen) == 0).then_some(())
    })
    .await;
    println!("{kills} kills, {} connections, {} done, {unknown} unknown", proxy.accepted(), done.len());
    assert!(kills >= 4 && done.len() > 500 && proxy.accepted() > 4);
    harness.close().await;
}

/// A channel that the broker closed (an exchange is gone) is made again, and so is the exchange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_publishing_channel_is_rebuilt() {
    let (harness, bed, _) = bed("").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    bed.publish("kit.event", vec![bed.message("x")]).await;
    let name = format!("{}sagabus.events", harness.prefix);
    harness.raw().await.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
    let event = || Outgoing { to: Destination::Topic("kit.event".into()), message: bed.message("x") };
    let outcome = bed.transport.send_batch(&[event()]).await.remove(0);
    assert!(matches!(outcome, SendOutcome::Unknown(_) | SendOutcome::Retry(_)), "{outcome:?}");
    bed.eventually("sends work again", async || {
        bed.transport.send_batch(&[event(), to(&bed, "q")]).await.iter().all(SendOutcome::is_done).then_some(())
    })
    .await;
    harness.close().await;
}

/// The queue is deleted under its consumer: it is declared and bound again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_declared_again() {
    let (harness, bed, _) = bed("").await;
    bed.queue("q", &["kit.event"]).await;
    let receiver = bed.receiver("q", 10).await;
    let name = format!("{}q", harness.prefix);
    harness.raw().await.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    bed.eventually("a message comes through again", async || {
        let event = Outgoing { to: Destination::Topic("kit.event".into()), message: bed.message("x") };
        bed.transport.send_batch(&[event]).await;
        let got = bed.runtime.timeout(Duration::from_millis(200), receiver.next(10)).await?;
        got.ok()
    })
    .await;
    harness.close().await;
}

/// A receiver with plenty at hand reads no more for a while: it still hears that its queue is gone, and nothing stays behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_with_plenty_at_hand_misses_nothing() {
    let (harness, bed, _) = bed("").await;
    bed.queue("q", &[]).await;
    let name = format!("{}q", harness.prefix);
    let receiver = bed.receiver("q", 2000).await;
    let sent = bed.fill("q", 6000).await;
    assert!(bed.drain(&receiver, &sent).await.values().all(|times| *times == 1), "each comes once");

    bed.fill("q", 4000).await;
    bed.take(&receiver, 2000).await;
    bed.eventually("all that may be are sent ahead", async || (harness.waiting(&name).await? == 0).then_some(())).await;
    harness.raw().await.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    let error = bed.runtime.timeout(Duration::from_secs(15), receiver.next(1)).await.expect("it is noticed");
    assert!(error.unwrap_err().is_not_found());
    harness.close().await;
}

/// A peer that vanished without a word is noticed by the heartbeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_noticed() {
    let (harness, bed, proxy) = bed("heartbeat=1").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let receiver = bed.receiver("q", 10).await;
    proxy.freeze(true);
    let error = bed.runtime.timeout(Duration::from_secs(15), receiver.next(1)).await.expect("it is noticed");
    assert!(!error.unwrap_err().is_closed());
    proxy.freeze(false);
    proxy.kill();
    let other = bed.again().await;
    let sent = other.fill("q", 3).await;
    bed.eventually("it comes", async || {
        receiver.next(10).await.ok().map(|got| assert!(sent.contains(&got[0].message.headers.message_id)))
    })
    .await;
    harness.close().await;
}

/// A receiver that is stopped and waits for its last settlements waits: it kept its thread from everyone else, so that a commit
/// or a confirm whose task had its turn there stood still until the drain was over.
#[test]
fn a_stopped_receiver_lets_others_run() {
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (harness, bed, _) = bed("").await;
            bed.transport.provision(&plain("q")).await.unwrap();
            bed.fill("q", 1).await;
            let receiver = bed.receiver("q", 10).await;
            let token = receiver.next(10).await.unwrap()[0].token;
            receiver.stop().await;
            bed.fill("q", 1).await;
            receiver.settle(vec![Settlement { token, settle: Settle::Done }]).await.unwrap();
            bed.transport.health().await.unwrap();
            harness.close().await;
        });
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(60)).expect("the runtime's one thread works on");
}

/// What is delivered too often ends in the broker's error queue. It may not be to blame, so it comes from there once more,
/// as a suspect; what had an order has lost it, and comes with the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brokers_dead_letters_are_drained() {
    let (harness, bed, _) = bed("delivery_limit=1").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let sent = bed.fill("q", 1).await;
    for _ in 0..2 {
        let receiver = bed.receiver("q", 1).await;
        assert!(bed.take(&receiver, 1).await[0].defect.is_none());
        drop(receiver);
    }
    let receiver = bed.receiver("q", 1).await;
    let dead = bed.take(&receiver, 1).await.remove(0);
    assert_eq!(dead.message.headers.message_id, sent[0]);
    assert!(dead.suspect && dead.defect.is_none(), "{:?}", dead.defect);
    bed.settle(&receiver, &[dead], Settle::Done).await;
    receiver.close().await;
    assert_eq!(harness.waiting(&format!("{}q.error", harness.prefix)).await, Some(0));
    let topology = Topology { queue: Some("line".into()), ordered: true, ..Topology::default() };
    bed.transport.provision(&topology).await.unwrap();
    let sent = bed.send("line", bed.keyed("key", 0..1)).await;
    // its place is worth ten times as many
    for _ in 0..11 {
        let (receiver, _) = bed.ordered("line", 1).await;
        assert!(bed.take(&receiver, 1).await[0].defect.is_none());
        drop(receiver);
    }
    let (receiver, _) = bed.ordered("line", 1).await;
    let dead = bed.take(&receiver, 1).await.remove(0);
    assert_eq!(dead.message.headers.message_id, sent[0]);
    let defect = dead.defect.clone().unwrap();
    assert!(defect.contains("delivery_limit") && defect.contains(".line.p"), "{defect}");
    bed.settle(&receiver, &[dead], Settle::Done).await;
    receiver.close().await;
    harness.close().await;
}

/// A conflict is explained and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_settings_are_explained_and_left() {
    let (harness, bed, _) = bed("").await;
    let name = format!("{}q", harness.prefix);
    let raw = harness.raw().await;
    raw.queue_declare(name.clone().into(), QueueDeclareOptions::durable(), FieldTable::default()).await.unwrap();
    let publish = raw.basic_publish("".into(), name.clone().into(), Default::default(), b"x", Default::default());
    publish.await.unwrap();
    let error = bed.transport.provision(&plain("q")).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("left as it is"), "{error:?}");
    assert!(error.to_string().contains("x-queue-type") || error.to_string().contains("inequivalent"), "{error:?}");
    bed.eventually("the message is still there", async || (harness.waiting(&name).await == Some(1)).then_some(()))
        .await;
    raw.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    harness.close().await;
}

/// A message of a foreign client: type, JSON body, values of every kind, no id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_are_understood() {
    let (harness, bed, _) = bed("").await;
    bed.queue("q", &["shop.order-placed"]).await;
    let mut table = FieldTable::default();
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::FieldTable(FieldTable::default()));
    for (name, value) in [
        ("text", AMQPValue::LongString("ü".into())),
        ("yes", AMQPValue::Boolean(true)),
        ("small", AMQPValue::ShortShortInt(-3)),
        ("big", AMQPValue::LongLongInt(i64::MIN)),
        ("half", AMQPValue::Double(0.5)),
        ("when", AMQPValue::Timestamp(7)),
        ("table", AMQPValue::FieldTable(inner)),
        ("list", AMQPValue::FieldArray(vec![AMQPValue::Void].into())),
        ("bytes", AMQPValue::ByteArray(vec![1, 2].into())),
        ("nothing", AMQPValue::Void),
    ] {
        table.insert(name.into(), value);
    }
    let raw = harness.raw().await;
    let events = format!("{}sagabus.events", harness.prefix);
    let properties = BasicProperties::default().with_headers(table);
    let publish =
        raw.basic_publish(events.into(), "shop.order-placed".into(), Default::default(), b"{\"n\":1}", properties);
    publish.await.unwrap();
    let (receiver, _) = bed.ordered("q", 10).await;
    let got = bed.take(&receiver, 1).await.remove(0);
    assert!(got.anonymous && got.defect.is_none());
    let headers = &got.message.headers;
    assert_eq!((headers.message_type.as_str(), headers.intent), ("shop.order-placed", Intent::Command));
    assert_eq!((headers.content_type.as_str(), &got.message.body[..]), ("application/json", &b"{\"n\":1}"[..]));
    let user: Vec<_> = headers.user.iter().map(|(name, header)| (name.as_str(), header.value.as_str())).collect();
    let min = i64::MIN.to_string();
    assert_eq!(
        user,
        [("big", min.as_str()), ("half", "0.5"), ("small", "-3"), ("text", "ü"), ("when", "7"), ("yes", "true")]
    );
    harness.close().await;
}

/// What we say in one property may be said in headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_understood_too() {
    let (harness, bed, _) = bed("").await;
    bed.queue("q", &[]).await;
    let uuid = |n: u8| format!("00000000-0000-4000-8000-0000000000{n:02}");
    let text = |text: &str| AMQPValue::LongString(text.into());
    let stamp = format!("sent-at=5;cause={};conversation={};first", uuid(1), uuid(2));
    let one = vec![("sagabus", text(&stamp))];
    let each = vec![
        ("sagabus-sent-at", AMQPValue::LongLongInt(5)),
        ("sagabus-causation-id", text(&uuid(1))),
        ("sagabus-conversation-id", text(&uuid(2))),
        ("sagabus-first", AMQPValue::Boolean(true)),
    ];
    let cause = vec![("sagabus-causation-id", text(&uuid(1)))];
    let raw = harness.raw().await;
    let ours = format!("sagabus;{stamp}");
    for (n, app, headers) in
        [(10, "", one), (11, "", each), (12, &*ours, Vec::new()), (13, "", cause), (14, "shop;first", Vec::new())]
    {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(name.into(), value);
        }
        let properties = BasicProperties::default().with_message_id(uuid(n).into()).with_type("kit.message".into());
        let properties = properties.with_headers(table).with_app_id(app.into());
        let name = harness.name("q");
        raw.basic_publish("".into(), name.into(), Default::default(), b"{}", properties).await.unwrap();
    }
    let (receiver, _) = bed.ordered("q", 10).await;
    let mut got: Vec<_> =
        bed.take(&receiver, 5).await.into_iter().map(|delivery| delivery.message.headers.clone()).collect();
    got.sort_by_key(|headers| headers.message_id.0);
    for headers in &got[..3] {
        assert_eq!((headers.sent_at.0, headers.first_attempt), (5, true));
        assert_eq!(headers.causation_id.map(|id| id.to_string()), Some(uuid(1)));
        assert_eq!(headers.conversation_id.to_string(), uuid(2));
    }
    assert_eq!((got[3].conversation_id.to_string(), got[3].first_attempt), (uuid(1), false));
    // another application's id says nothing to us
    assert_eq!((got[4].conversation_id.to_string(), got[4].first_attempt), (uuid(14), false));
    assert_eq!(got[4].causation_id, None);
    harness.close().await;
}

/// And ours by a foreign one: a queue of its own, bound as the documentation says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_read_ours() {
    let (harness, bed, _) = bed("").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let raw = harness.raw().await;
    let queue = raw.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await.unwrap();
    let behind = harness.name("sagabus.events.queues");
    let bound = raw.queue_bind(
        queue.name().clone(),
        behind.into(),
        "kit.event".into(),
        Default::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    let mut message = bed.message("{\"n\":1}");
    message.headers.intent = Intent::Event;
    message.headers.correlation_id = Some("order-7".into());
    message.headers.reply_to = Some("q".into());
    message.headers.traceparent = Some("00-1-2-01".into());
    message.headers.user.insert("tenant".into(), UserHeader { value: "ü".into(), propagate: true });
    let (id, kind) = (message.headers.message_id, message.headers.message_type.clone());
    let sent_at = message.headers.sent_at.0;
    bed.publish("kit.event", vec![message]).await;
    let got = raw.basic_get(queue.name().clone(), Default::default()).await.unwrap().expect("the event is there");
    let properties = &got.delivery.properties;
    let text = |name: &Option<lapin::types::ShortString>| name.as_ref().map(|text| text.as_str().to_string());
    assert_eq!(text(properties.message_id()), Some(id.to_string()));
    assert_eq!(text(properties.kind()), Some(kind));
    assert_eq!(text(properties.content_type()), Some("application/json".into()));
    assert_eq!(text(properties.correlation_id()), Some("order-7".into()));
    assert_eq!(text(properties.reply_to()), Some(harness.name("q")));
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(*properties.timestamp(), Some(u64::try_from(sent_at / 1_000_000).unwrap()));
    let headers = properties.headers().as_ref().unwrap().inner();
    let long = |text: &str| Some(AMQPValue::LongString(text.into()));
    assert_eq!(headers.get("sagabus-intent").cloned(), long("event"));
    assert_eq!(headers.get("traceparent").cloned(), long("00-1-2-01"));
    assert_eq!(headers.get("tenant").cloned(), long("ü"));
    assert_eq!(text(properties.app_id()), Some(format!("sagabus;sent-at={sent_at}")));
    assert_eq!(got.delivery.data, b"{\"n\":1}");
    harness.close().await;
}

fn login() -> (String, String) {
    let url = rabbitmq_support::url();
    let user = url.split("://").nth(1).unwrap().split('@').next().unwrap().to_string();
    let (user, password) = user.split_once(':').unwrap();
    (user.to_string(), password.to_string())
}

/// A type that is no UTF-8 ends lapin's connection at each delivery. Here it comes as what it is, on a connection that lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_strings_that_are_no_utf8() {
    let (harness, bed, proxy) = bed("").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let sent = bed.fill("q", 3).await;
    let queue = format!("{}q", harness.prefix);
    amqp::publish(&url(), &queue, b"\xff\xfe", &amqp::headers(&[]), "hostile-1").await.unwrap();
    let more = bed.fill("q", 3).await;
    let connections = proxy.accepted();
    let receiver = bed.receiver("q", 10).await;
    let got = bed.take(&receiver, 7).await;
    let (bad, good): (Vec<_>, Vec<_>) = got.iter().partition(|delivery| delivery.defect.is_some());
    let ids: BTreeSet<MessageId> = good.iter().map(|delivery| delivery.message.headers.message_id).collect();
    assert_eq!(ids, [sent, more].concat().into_iter().collect::<BTreeSet<_>>(), "the good ones come");
    assert_eq!(bad.len(), 1);
    assert!(bad[0].defect.as_ref().is_some_and(|defect| defect.contains("UTF-8")), "{:?}", bad[0].defect);
    bed.settle(&receiver, &got, Settle::Done).await;
    assert_eq!(proxy.accepted(), connections, "the connection did not live");
    receiver.close().await;
    harness.close().await;
}

/// Tables in tables, so deep that a recursive reader as lapin's runs out of stack and ends the process. They are left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deeply_nested_header_tables() {
    let (harness, bed, proxy) = bed("").await;
    bed.transport.provision(&plain("q")).await.unwrap();
    let queue = format!("{}q", harness.prefix);
    // about as much as fits into a frame
    let nested = amqp::nested(b'F', 20_000);
    amqp::publish(&url(), &queue, b"kit.nested", &nested, "hostile-1").await.unwrap();
    let connections = proxy.accepted();
    let receiver = bed.receiver("q", 1).await;
    let got = bed.take(&receiver, 1).await;
    let headers = &got[0].message.headers;
    assert_eq!((headers.message_type.as_str(), headers.user.len()), ("kit.nested", 0));
    assert_eq!((got[0].defect.clone(), got[0].message.body.as_ref()), (None, &b"{}"[..]));
    bed.settle(&receiver, &got, Settle::Done).await;
    assert_eq!(proxy.accepted(), connections, "the connection did not live");
    receiver.close().await;
    harness.close().await;
}

/// A host that does not answer is passed over, wherever one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_hosts_are_tried() {
    let harness = RabbitHarness::new();
    let port: u16 = place().rsplit(':').next().unwrap().parse().unwrap();
    let url = through(port, &format!("prefix={}", harness.prefix));
    let url = url.replacen(&format!("@127.0.0.1:{port}"), &format!("@127.0.0.1:1,127.0.0.1:{port},127.0.0.1:2"), 1);
    assert!(url.contains(":1,127"), "the URL names one host only");
    for _ in 0..12 {
        let transport = RabbitMqTransport::connect(&url, RabbitMqOptions::new(Runtime::system())).await.unwrap();
        transport.health().await.unwrap();
        transport.close().await;
    }
}

/// Errors of a connection that cannot be made tell where, and no secret.
#[tokio::test]
async fn errors_show_no_secret() {
    let url = "amqp://someone:hunter2@127.0.0.1:1/%2f";
    let error = RabbitMqTransport::connect(url, RabbitMqOptions::new(Runtime::system())).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("127.0.0.1:1") && !text.contains("hunter2") && error.is_transient(), "{text}");
    let url = through(place().rsplit(':').next().unwrap().parse().unwrap(), "").replacen("://", "://wrong", 1);
    let error = RabbitMqTransport::connect(&url, RabbitMqOptions::new(Runtime::system())).await.unwrap_err();
    assert!(!format!("{error:?}").contains(&login().1) || login().1 == login().0, "{error:?}");
}
