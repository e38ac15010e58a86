//! Tokens instead of passwords. The broker takes tokens that nobody signed, and holds them to who they are for and until
//! when: a connection whose token has expired is cut off, unless it has shown a new one by then.

use super::{
    NOBODY, PATIENCE, Site, USER, connect_with, kafka_support::fresh_prefix, message, passes, queue, receiving, unshown,
};
use sagabus_core::{Error, Runtime, Settle, Settlement, Topology, Transport};
use sagabus_transports::kafka::{KafkaOptions, KafkaTransport, OauthToken};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

const LIFETIME: Duration = Duration::from_secs(60);

/// Without padding.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for bytes in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | usize::from(bytes.get(n).copied().unwrap_or(0)));
        out.extend((0..=bytes.len()).map(|n| char::from(DIGITS[bits >> (18 - 6 * n) & 63])));
    }
    out
}

/// Issued a while ago, so that clocks do not matter; good until so many milliseconds from now.
fn jwt(subject: &str, left: i64) -> String {
    let now = Runtime::system().now().0 / 1000;
    let seconds = |millis: i64| format!("{}.{:03}", millis / 1000, millis % 1000);
    let claims = format!(r#"{{"sub":"{subject}","iat":{},"exp":{}}}"#, seconds(now - 99_000), seconds(now + left));
    format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(&claims))
}

fn token(subject: &str, lifetime: Duration) -> OauthToken {
    OauthToken::new(jwt(subject, i64::try_from(lifetime.as_millis()).unwrap()), subject, lifetime)
}

fn options(token: impl Fn() -> OauthToken + Send + Sync + 'static) -> KafkaOptions {
    KafkaOptions::new(Runtime::system()).oauth(move || Ok(token()))
}

fn url(site: &Site) -> String {
    format!("kafka+ssl://{}/?sasl=oauthbearer&{}", site.sasl_ssl, site.certificates("ca.pem", None))
}

/// Makes topics, which cannot be done with a token.
async fn prepare(site: &Site, prefix: &str, topology: &Topology) {
    let url = format!("kafka://{USER}:{USER}@{}/", site.sasl);
    let transport = connect_with(&url, prefix, KafkaOptions::new(Runtime::system())).await.unwrap();
    transport.provision(topology).await.unwrap();
    transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_the_token() {
    let site = Site::find();
    let prefix = fresh_prefix();
    let subscribed = Topology { subscriptions: vec!["kit.event".into()], ..queue() };
    prepare(&site, &prefix, &subscribed).await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let source = move || {
        count.fetch_add(1, Ordering::Relaxed);
        token(USER, LIFETIME)
    };
    let transport = connect_with(&url(&site), &prefix, options(source)).await.unwrap();
    transport.health().await.unwrap();
    transport.provision(&subscribed).await.unwrap();
    // the end of the subscription is written down, by a client of its own
    transport.provision(&queue()).await.unwrap();
    passes(&transport).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "one token does for all clients");
    transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_new_topics_is_refused() {
    let site = Site::find();
    let transport = connect_with(&url(&site), &fresh_prefix(), options(|| token(USER, LIFETIME))).await.unwrap();
    let error = transport.provision(&queue()).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    for part in ["cmd.q", "oauthbearer", "2 partitions", "max.message.bytes="] {
        assert!(error.to_string().contains(part), "{error:?}");
    }
    assert!(!transport.capabilities().reply_queues);
    assert!(transport.provision(&Topology { temporary: true, ..queue() }).await.unwrap_err().is_unsupported());
    transport.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_says_who_it_is() {
    let site = Site::find();
    let prefix = fresh_prefix();
    prepare(&site, &prefix, &queue()).await;
    let transport = connect_with(&url(&site), &prefix, options(|| token(NOBODY, LIFETIME))).await.unwrap();
    let error = transport.provision(&queue()).await.unwrap_err();
    assert!(format!("{error:?}").to_lowercase().contains("authorization"), "{error:?}");
    transport.close().await;
}

async fn refused(site: &Site, options: KafkaOptions, secret: &str) -> Error {
    let runtime = Runtime::system();
    let start = runtime.elapsed();
    let error = unshown(connect_with(&url(site), &fresh_prefix(), options).await, secret);
    assert!(runtime.elapsed() - start < Duration::from_secs(5), "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_broker_does_not_take() {
    let site = Site::find();
    let expired = jwt(USER, -10_000);
    for bad in [expired, "hunter2hunter2".to_string()] {
        let shown = bad.clone();
        let options = options(move || OauthToken::new(bad.clone(), USER, LIFETIME));
        let error = refused(&site, options, shown.split('.').nth(1).unwrap_or(&shown)).await;
        assert!(!error.is_transient() && error.to_string().contains("invalid_token"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_used() {
    let site = Site::find();
    let of = |token: &str, lifetime| {
        options({
            let token = token.to_string();
            move || OauthToken::new(token.clone(), USER, lifetime)
        })
    };
    for (options, what) in [
        (of("hunter2", Duration::ZERO), "expired"),
        (of("hunter2\u{1}", LIFETIME), "characters"),
        (of("hunter2\0", LIFETIME), "characters"),
        (of("hunter2 hunter2", LIFETIME), "characters"),
        (of("", LIFETIME), "empty"),
    ] {
        let error = refused(&site, options, "hunter2").await;
        assert!(error.is_invalid() && error.to_string().contains(what), "{error:?}");
    }
    let gone = KafkaOptions::new(Runtime::system()).oauth(|| Err("the provider is\0gone".into()));
    let error = refused(&site, gone, "hunter2").await;
    assert!(error.is_transient() && error.to_string().contains("the provider is gone"), "{error:?}");
    let panics = KafkaOptions::new(Runtime::system()).oauth(|| panic!("no token today"));
    let error = refused(&site, panics, "hunter2").await;
    assert!(!error.is_transient() && error.to_string().contains("panicked"), "{error:?}");
}

/// Longer than two lives of a token in all: without new ones the broker would have closed every connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_outlive_their_tokens() {
    const LIFE: Duration = Duration::from_secs(8);
    let site = Site::find();
    let runtime = Runtime::system();
    let prefix = fresh_prefix();
    prepare(&site, &prefix, &queue()).await;
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let source = move || {
        count.fetch_add(1, Ordering::Relaxed);
        token(USER, LIFE)
    };
    let transport: KafkaTransport = connect_with(&url(&site), &prefix, options(source)).await.unwrap();
    let receiver = transport.receive(receiving()).await.unwrap();
    let (start, mut sent) = (runtime.elapsed(), HashSet::new());
    while runtime.elapsed() - start < LIFE * 2 {
        let outgoing = message();
        sent.insert(outgoing.message.headers.message_id);
        let outcome = transport.send_batch(&[outgoing]).await;
        assert!(outcome[0].is_done(), "{outcome:?}");
        for delivery in runtime.timeout(PATIENCE, receiver.next(10)).await.expect("a message").unwrap() {
            sent.remove(&delivery.message.headers.message_id);
            receiver.settle(vec![Settlement { token: delivery.token, settle: Settle::Done }]).await.unwrap();
        }
        runtime.sleep(Duration::from_millis(200)).await;
    }
    assert!(sent.is_empty(), "{sent:?}");
    receiver.close().await;
    // by the client for questions, which nobody has used since the start
    assert_eq!(transport.backlog("q").await.unwrap(), 0);
    transport.health().await.unwrap();
    let asked = asked.load(Ordering::Relaxed);
    assert!((3..=6).contains(&asked), "{asked} tokens in two lives");
    transport.close().await;
}
