//! TLS, passwords and rights on a real broker. The directory with the certificates, and with the ports of its listeners, is in
//! `SAGABUS_KAFKA_TLS_DIR`: `cargo xtask servers up --only kafka` prints it for a private instance.
#![cfg(all(feature = "kafka", feature = "tls"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

mod kafka_support;
#[path = "kafka_security/oauth.rs"]
mod oauth;

use kafka_support::fresh_prefix;
use sagabus_core::{
    Destination, Envelope, Error, Headers, Intent, MessageId, NodeId, Outgoing, ReceiveOptions, Runtime, SendOutcome,
    Settle, Settlement, Topology, Transport,
};
use sagabus_transports::kafka::{KafkaOptions, KafkaTransport};
use std::{path::PathBuf, time::Duration};

const PATIENCE: Duration = Duration::from_secs(20);

/// A user who may do everything; the password is the name. And one who may do nothing.
const USER: &str = "sagabus";
const NOBODY: &str = "nobody";

struct Site {
    dir: PathBuf,
    ssl: String,
    sasl_ssl: String,
    sasl: String,
}

impl Site {
    fn find() -> Self {
        let dir = PathBuf::from(std::env::var("SAGABUS_KAFKA_TLS_DIR").expect("SAGABUS_KAFKA_TLS_DIR is not set"));
        let ports = std::fs::read_to_string(dir.join("ports")).unwrap();
        let ports: Vec<&str> = ports.split(' ').collect();
        let at = |host: &str, n: usize| format!("{host}:{}", ports[n]);
        Self { ssl: at("localhost", 0), sasl_ssl: at("localhost", 1), sasl: at("127.0.0.1", 2), dir }
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The parameters of a URL: whom to trust, and who we are.
    fn certificates(&self, ca: &str, client: Option<&str>) -> String {
        let mut text = format!("ca_file={}", self.file(ca));
        if let Some(client) = client {
            let (cert, key) = (self.file(&format!("{client}.pem")), self.file(&format!("{client}.key")));
            text.push_str(&format!("&cert_file={cert}&key_file={key}"));
        }
        text
    }
}

async fn connect(url: &str) -> Result<KafkaTransport, Error> {
    connect_with(url, &fresh_prefix(), KafkaOptions::new(Runtime::system())).await
}

async fn connect_with(url: &str, prefix: &str, options: KafkaOptions) -> Result<KafkaTransport, Error> {
    let join = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{join}prefix={prefix}&connect_timeout=6&session_timeout=6&partitions=2");
    KafkaTransport::connect(&url, options).await
}

/// What is told of a connection that does not come about; without a secret.
async fn refused(url: &str, secret: &str) -> Error {
    unshown(connect(url).await, secret)
}

fn unshown(outcome: Result<KafkaTransport, Error>, secret: &str) -> Error {
    let error = outcome.map(drop).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains(secret) && !text.contains("PRIVATE"), "{text}");
    println!("{text}");
    error
}

fn message() -> Outgoing {
    let runtime = Runtime::system();
    let headers = Headers::new(MessageId(runtime.uuid()), "kit.message", Intent::Command, runtime.now());
    Outgoing { to: Destination::Queue("q".into()), message: Envelope::new(headers, "{}") }
}

fn queue() -> Topology {
    Topology { queue: Some("q".into()), ..Topology::default() }
}

fn receiving() -> ReceiveOptions {
    let runtime = Runtime::system();
    ReceiveOptions {
        queue: "q".into(),
        node: NodeId(runtime.uuid()),
        window: 10,
        ordered: false,
        lease: Duration::from_secs(10),
        offsets: None,
        runtime,
    }
}

/// Topics are made and described, and a message passes: all kinds of clients.
async fn works(url: &str) {
    let transport = connect(url).await.unwrap();
    transport.health().await.unwrap();
    transport.provision(&queue()).await.unwrap();
    // it is there now: its settings are asked for
    transport.provision(&queue()).await.unwrap();
    passes(&transport).await;
    transport.close().await;
}

/// A message goes to and fro, and what is finished is written down.
async fn passes(transport: &KafkaTransport) {
    let outgoing = message();
    let id = outgoing.message.headers.message_id;
    let sent = transport.send_batch(&[outgoing]).await;
    assert!(sent[0].is_done(), "{sent:?}");
    let receiver = transport.receive(receiving()).await.unwrap();
    let got = Runtime::system().timeout(PATIENCE, receiver.next(1)).await.expect("a message").unwrap();
    assert_eq!(got[0].message.headers.message_id, id);
    receiver.settle(vec![Settlement { token: got[0].token, settle: Settle::Done }]).await.unwrap();
    receiver.close().await;
    assert_eq!(transport.backlog("q").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_on_both_sides() {
    let site = Site::find();
    works(&format!("kafka+ssl://{}/?{}", site.ssl, site.certificates("ca.pem", Some("client")))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_refused() {
    let site = Site::find();
    for ca in [site.certificates("other-ca.pem", Some("client")), String::new()] {
        let error = refused(&format!("kafka+ssl://{}/?{ca}", site.ssl), "PRIVATE").await;
        assert!(!error.is_transient() && error.to_string().contains("certificate"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cannot_show_who_it_is() {
    let site = Site::find();
    for client in [None, Some("other-client")] {
        let error =
            refused(&format!("kafka+ssl://{}/?{}", site.ssl, site.certificates("ca.pem", client)), "PRIVATE").await;
        // tls 1.3 is done for the client before the broker has looked: its alert may be overtaken by its reset
        let text = error.to_string().to_lowercase();
        let said =
            ["certificate", "alert", "handshake", "disconnected", "reset"].iter().any(|word| text.contains(word));
        assert!(said, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_cannot_be_read() {
    let site = Site::find();
    let error = refused(&format!("kafka+ssl://{}/?ca_file={}", site.ssl, site.file("ports")), "PRIVATE").await;
    assert!(error.is_invalid() && error.to_string().contains("ssl.ca.location"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_by_every_mechanism() {
    let site = Site::find();
    let ca = site.certificates("ca.pem", None);
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        works(&format!("kafka+ssl://{USER}:{USER}@{}/?sasl={mechanism}&{ca}", site.sasl_ssl)).await;
    }
    works(&format!("kafka://{USER}:{USER}@{}/", site.sasl)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told_at_once() {
    let site = Site::find();
    let ca = site.certificates("ca.pem", None);
    let runtime = Runtime::system();
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        let start = runtime.elapsed();
        let url = format!("kafka+ssl://{USER}:hunter2@{}/?sasl={mechanism}&{ca}", site.sasl_ssl);
        let error = refused(&url, "hunter2").await;
        assert!(!error.is_transient() && error.to_string().to_lowercase().contains("authentication"), "{error:?}");
        assert!(runtime.elapsed() - start < Duration::from_secs(5), "{error:?}");
    }
    let error = refused(&format!("kafka://{USER}:hunter2@{}/", site.sasl), "hunter2").await;
    assert!(!error.is_transient(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rights_are_told_with_the_topic() {
    let site = Site::find();
    let url = format!("kafka://{NOBODY}:{NOBODY}@{}/", site.sasl);
    let transport = connect(&url).await.unwrap();
    let told = |error: &Error| {
        let text = format!("{error:?}").to_lowercase();
        assert!(!error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("cmd.q") && text.contains("authorization"), "{error:?}");
    };
    told(&transport.provision(&queue()).await.unwrap_err());
    told(&transport.receive(receiving()).await.map(drop).unwrap_err());
    // whoever may do nothing is not told whether it exists; the message stays with its sender
    let sent = transport.send_batch(&[message()]).await;
    assert!(matches!(&sent[0], SendOutcome::Retry(error) if format!("{error:?}").contains("uthorization")), "{sent:?}");
    transport.close().await;
}
