//! A real broker, a prefix per case, and a proxy per process.

#![allow(dead_code, reason = "each test program uses what it needs")]

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use sagabus_core::{
    Capabilities, DatabaseId, MessageId, NodeId, Outgoing, ReceiveOptions, Receiver, Result, Runtime, SendOutcome,
    Topology, Transport,
};
use sagabus_testkit::{
    proxy::{Proxy, kafka::Readdress},
    transport::{Promises, TransportHarness},
};
use sagabus_transports::kafka::{KafkaOptions, KafkaTransport};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Before the broker.
pub(crate) type KafkaProxy = Proxy<Readdress>;

/// More than the five consumers of a case.
pub(crate) const PARTITIONS: u16 = 6;

/// The broker's host and port: `cargo xtask servers up --only kafka` prints its address.
pub(crate) fn place() -> String {
    let url = std::env::var("SAGABUS_KAFKA_URL").expect("SAGABUS_KAFKA_URL is not set");
    url.strip_prefix("kafka://").unwrap_or(&url).trim_end_matches('/').to_string()
}

pub(crate) fn fresh_prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // the broker outlives us, and numbers of processes come again
    let moment = Runtime::system().now().0 % 100_000_000_000;
    format!("kit-{moment}-{}.", NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn raw_config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", place());
    config
}

pub(crate) struct KafkaHarness {
    pub(crate) prefix: String,
    nodes: Arc<Mutex<HashMap<NodeId, Arc<KafkaProxy>>>>,
    /// Straight to the broker, for looking.
    straight: tokio::sync::OnceCell<KafkaTransport>,
}

impl KafkaHarness {
    pub(crate) fn new() -> Self {
        Self { prefix: fresh_prefix(), nodes: Arc::default(), straight: tokio::sync::OnceCell::new() }
    }

    pub(crate) fn topic(&self, queue: &str) -> String {
        format!("{}cmd.{queue}", self.prefix)
    }

    async fn connect(&self, place: &str, parameters: &str) -> KafkaTransport {
        let url =
            format!("kafka://{place}/?prefix={}&partitions={PARTITIONS}&session_timeout=6&{parameters}", self.prefix);
        KafkaTransport::connect(&url, KafkaOptions::new(Runtime::system())).await.unwrap()
    }

    /// A transport through a proxy of its own.
    pub(crate) async fn process(&self, parameters: &str) -> (Arc<Process>, Arc<KafkaProxy>) {
        let port = place().rsplit_once(':').unwrap().1.parse().unwrap();
        let proxy = Arc::new(Proxy::before_kafka(port).await.unwrap());
        let inner = self.connect(&format!("127.0.0.1:{}", proxy.port), parameters).await;
        let process = Process { inner, proxy: Arc::clone(&proxy), nodes: Arc::clone(&self.nodes) };
        (Arc::new(process), proxy)
    }

    pub(crate) async fn straight(&self) -> &KafkaTransport {
        self.straight.get_or_init(async || self.connect(&place(), "").await).await
    }

    /// Writes a record as any other client would.
    pub(crate) fn write(&self, topic: &str, key: Option<&[u8]>, body: Option<&[u8]>, headers: OwnedHeaders) {
        let producer: ThreadedProducer<DefaultProducerContext> = raw_config().create().unwrap();
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
        record.key = key;
        record.payload = body;
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    }
}

#[async_trait]
impl TransportHarness for KafkaHarness {
    async fn open(&self) -> Arc<dyn Transport> {
        self.process("").await.0
    }

    async fn again(&self) -> Arc<dyn Transport> {
        self.process("").await.0
    }

    async fn depth(&self, queue: &str) -> u64 {
        self.straight().await.backlog(queue).await.unwrap()
    }

    async fn inject(&self, queue: &str, id: MessageId, headers: Bytes, body: Bytes) -> bool {
        let id = id.to_string();
        let table = OwnedHeaders::new()
            .insert(Header { key: "sagabus-id", value: Some(&id) })
            .insert(Header { key: "raw", value: Some(&headers[..]) });
        self.write(&self.topic(queue), None, Some(&body), table);
        true
    }

    async fn cut(&self, node: NodeId) -> bool {
        self.nodes.lock().unwrap()[&node].cut();
        true
    }

    async fn mend(&self, node: NodeId) {
        self.nodes.lock().unwrap()[&node].mend();
    }

    fn promises(&self) -> Promises {
        Promises { deduplicates: false, removes_reply_queues: true }
    }

    async fn close(&self) {
        if let Some(straight) = self.straight.get() {
            straight.close().await;
        }
        let consumer: BaseConsumer = raw_config().create().unwrap();
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
        let ours = |name: &&str| name.starts_with(&self.prefix);
        let topics: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).filter(ours).collect();
        let admin: AdminClient<DefaultClientContext> = raw_config().create().unwrap();
        if !topics.is_empty() {
            admin.delete_topics(&topics, &AdminOptions::new()).await.unwrap();
        }
    }
}

/// Remembers who is behind which proxy.
pub(crate) struct Process {
    pub(crate) inner: KafkaTransport,
    proxy: Arc<KafkaProxy>,
    nodes: Arc<Mutex<HashMap<NodeId, Arc<KafkaProxy>>>>,
}

#[async_trait]
impl Transport for Process {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn database(&self) -> Option<&DatabaseId> {
        self.inner.database()
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.inner.provision(topology).await
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.nodes.lock().unwrap().insert(options.node, Arc::clone(&self.proxy));
        self.inner.receive(options).await
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        self.inner.send_batch(batch).await
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
