//! `amqps://` to a real broker that demands certificates of its clients. Its address and the certificates' directory are in
//! `SAGABUS_RABBITMQ_TLS_URL` and `SAGABUS_RABBITMQ_TLS_DIR`: `cargo xtask servers up --only rabbitmq` prints them for a
//! private instance.
#![cfg(all(feature = "rabbitmq", feature = "tls"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test should panic where it fails, and uses real time"
)]

use sagabus_core::{
    Destination, Envelope, Error, Headers, Intent, MessageId, NodeId, Outgoing, ReceiveOptions, Runtime, Settle,
    Settlement, Topology, Transport,
};
use sagabus_transports::rabbitmq::{RabbitMqOptions, RabbitMqTransport};
use std::{path::PathBuf, time::Duration};

struct Tls {
    url: String,
    dir: PathBuf,
}

impl Tls {
    fn find() -> Self {
        let url = std::env::var("SAGABUS_RABBITMQ_TLS_URL").expect("SAGABUS_RABBITMQ_TLS_URL is not set");
        Self { url, dir: std::env::var("SAGABUS_RABBITMQ_TLS_DIR").unwrap().into() }
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).unwrap()
    }

    async fn connect(&self, ca: Option<&str>, client: Option<&str>) -> Result<RabbitMqTransport, Error> {
        let mut options = RabbitMqOptions::new(Runtime::system());
        options.prefix = format!("tls-{}.", std::process::id());
        options.ca_pem = ca.map(|name| self.text(name));
        options.identity_pem =
            client.map(|name| (self.text(&format!("{name}.pem")).into(), self.text(&format!("{name}.key")).into()));
        RabbitMqTransport::connect(&self.url, options).await
    }

    async fn refused(&self, ca: Option<&str>, client: Option<&str>) -> String {
        let error = self.connect(ca, client).await.map(drop).unwrap_err();
        let text = format!("{error:?}");
        let password = self.url.split(['/', ':', '@']).nth(4).unwrap();
        assert!(!password.is_empty() && !text.contains(&format!(":{password}")), "{text}");
        assert!(!text.contains("BEGIN"), "{text}");
        assert!(text.contains("localhost:"), "it does not say where: {text}");
        println!("{text}");
        text
    }
}

/// The same by URL, as an endpoint is given it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_by_url() {
    let tls = Tls::find();
    let file = |name: &str| tls.dir.join(name).display().to_string();
    let files = format!("ca_file={}&cert_file={}&key_file={}", file("ca.pem"), file("client.pem"), file("client.key"));
    let options = RabbitMqOptions::new(Runtime::system());
    let transport = RabbitMqTransport::connect(&format!("{}?{files}", tls.url), options).await.unwrap();
    transport.health().await.unwrap();
    transport.close().await;
}

/// Both sides show certificates of the same authority: messages go to and fro.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_on_both_sides() {
    let tls = Tls::find();
    let transport = tls.connect(Some("ca.pem"), Some("client")).await.unwrap();
    assert!(!format!("{transport:?}").contains("PRIVATE"));
    let runtime = Runtime::system();
    transport.provision(&Topology { queue: Some("q".into()), ..Topology::default() }).await.unwrap();
    let headers = Headers::new(MessageId(runtime.uuid()), "kit.message", Intent::Command, runtime.now());
    let id = headers.message_id;
    let to = Destination::Queue("q".into());
    let sent = transport.send_batch(&[Outgoing { to, message: Envelope::new(headers, "{}") }]).await;
    assert!(sent[0].is_done(), "{sent:?}");
    let options = ReceiveOptions {
        queue: "q".into(),
        node: NodeId(runtime.uuid()),
        window: 1,
        ordered: false,
        lease: Duration::from_secs(10),
        offsets: None,
        runtime,
    };
    let receiver = transport.receive(options).await.unwrap();
    let got = receiver.next(1).await.unwrap();
    assert_eq!(got[0].message.headers.message_id, id);
    receiver.settle(vec![Settlement { token: got[0].token, settle: Settle::Done }]).await.unwrap();
    receiver.close().await;
    transport.close().await;
}

/// The broker's certificate is signed by somebody else: the error says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_refused() {
    let tls = Tls::find();
    for ca in [Some("other-ca.pem"), None] {
        let text = tls.refused(ca, Some("client")).await;
        assert!(text.contains("certificate"), "{text}");
    }
}

/// A client without a certificate, or with one of another authority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cannot_show_who_it_is() {
    let tls = Tls::find();
    for client in [None, Some("other-client")] {
        let text = tls.refused(Some("ca.pem"), client).await;
        // tls 1.3 is done for the client before the broker has looked: its alert may be overtaken by its reset
        let said = ["certificate", "alert", "reset"].iter().any(|word| text.to_lowercase().contains(word));
        assert!(said, "{text}");
    }
}

/// What is no certificate at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_cannot_be_read() {
    let tls = Tls::find();
    let mut options = RabbitMqOptions::new(Runtime::system());
    options.ca_pem = Some(tls.text("ca.pem"));
    options.identity_pem = Some((b"hunter2".to_vec(), b"hunter2".to_vec()));
    let error = RabbitMqTransport::connect(&tls.url, options).await.map(drop).unwrap_err();
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}
