//! A real broker, a prefix per case, and a proxy per process.

#![allow(dead_code, reason = "each test program uses what it needs")]

use async_trait::async_trait;
use bytes::Bytes;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use sagabus_core::{
    Capabilities, DatabaseId, MessageId, NodeId, Outgoing, ReceiveOptions, Receiver, Result, Runtime, SendOutcome,
    Topology, Transport,
};
use sagabus_testkit::{
    proxy::{Proxy, amqp::Settlements},
    transport::{Promises, TransportHarness},
};
use sagabus_transports::rabbitmq::{RabbitMqOptions, RabbitMqTransport};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// Before the broker.
pub(crate) type RabbitProxy = Proxy<Settlements>;

pub(crate) const PARTITIONS: u16 = 4;

/// What is published to, and what the queues are bound to.
pub(crate) const EXCHANGES: [&str; 4] =
    ["sagabus.events", "sagabus.events.queues", "sagabus.keyed", "sagabus.keyed.queues"];

/// The broker's address: `cargo xtask servers up --only rabbitmq` prints it.
pub(crate) fn url() -> String {
    std::env::var("SAGABUS_RABBITMQ_URL").expect("SAGABUS_RABBITMQ_URL is not set")
}

/// The same with another place, and parameters.
pub(crate) fn through(port: u16, parameters: &str) -> String {
    let url = url();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, vhost) = rest.split_once('/').unwrap_or((rest, "%2f"));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let vhost = vhost.split('?').next().unwrap();
    format!("{scheme}://{user}@127.0.0.1:{port}/{vhost}?{parameters}")
}

pub(crate) fn place() -> String {
    let url = url();
    let authority = url.split("://").nth(1).unwrap().split('/').next().unwrap();
    authority.rsplit('@').next().unwrap().to_string()
}

pub(crate) fn fresh_prefix() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("kit-{}-{}.", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct RabbitHarness {
    pub(crate) prefix: String,
    proxies: Mutex<Vec<Arc<RabbitProxy>>>,
    nodes: Arc<Mutex<HashMap<NodeId, Arc<RabbitProxy>>>>,
    queues: Arc<Mutex<BTreeSet<String>>>,
    admin: tokio::sync::OnceCell<Connection>,
}

impl RabbitHarness {
    pub(crate) fn new() -> Self {
        Self {
            prefix: fresh_prefix(),
            proxies: Mutex::default(),
            nodes: Arc::default(),
            queues: Arc::default(),
            admin: tokio::sync::OnceCell::new(),
        }
    }

    /// A transport through a proxy of its own.
    pub(crate) async fn process(&self, parameters: &str) -> (Arc<Process>, Arc<RabbitProxy>) {
        let proxy = Arc::new(Proxy::before_amqp(place()).await.unwrap());
        self.proxies.lock().unwrap().push(Arc::clone(&proxy));
        let more = if parameters.is_empty() { String::new() } else { format!("&{parameters}") };
        let url = through(proxy.port, &format!("prefix={}&partitions={PARTITIONS}{more}", self.prefix));
        let inner = RabbitMqTransport::connect(&url, RabbitMqOptions::new(Runtime::system())).await.unwrap();
        let process = Process {
            inner,
            proxy: Arc::clone(&proxy),
            nodes: Arc::clone(&self.nodes),
            queues: Arc::clone(&self.queues),
        };
        (Arc::new(process), proxy)
    }

    /// A channel of a raw client, straight to the broker.
    pub(crate) async fn raw(&self) -> Channel {
        let connect = || async { Connection::connect(&url(), ConnectionProperties::default()).await.unwrap() };
        self.admin.get_or_init(connect).await.create_channel().await.unwrap()
    }

    /// The name on the broker.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) async fn delete_exchange(&self, name: &str) {
        self.raw().await.exchange_delete(self.name(name).into(), ExchangeDeleteOptions::default()).await.unwrap();
    }

    pub(crate) async fn delete_queue(&self, name: &str) {
        self.raw().await.queue_delete(self.name(name).into(), QueueDeleteOptions::default()).await.unwrap();
    }

    /// What waits in a queue of exactly this name.
    pub(crate) async fn waiting(&self, name: &str) -> Option<u32> {
        let options = QueueDeclareOptions::durable().passive();
        let declared = self.raw().await.queue_declare(name.into(), options, FieldTable::default()).await;
        declared.ok().map(|queue| queue.message_count())
    }
}

#[async_trait]
impl TransportHarness for RabbitHarness {
    async fn open(&self) -> Arc<dyn Transport> {
        self.process("").await.0
    }

    async fn again(&self) -> Arc<dyn Transport> {
        self.process("").await.0
    }

    async fn depth(&self, queue: &str) -> u64 {
        let name = format!("{}{queue}", self.prefix);
        let mut names = vec![name.clone()];
        names.extend((0..PARTITIONS).map(|n| format!("{name}.p{n:02}")));
        let proxies: Vec<Arc<RabbitProxy>> = self.proxies.lock().unwrap().clone();
        let out: u64 = proxies.iter().map(|p| p.unsettled(|queue| names.iter().any(|n| n == queue))).sum();
        let mut waiting = 0;
        for name in &names {
            waiting += u64::from(self.waiting(name).await.unwrap_or(0));
        }
        out + waiting
    }

    async fn inject(&self, queue: &str, id: MessageId, headers: Bytes, body: Bytes) -> bool {
        let channel = self.raw().await;
        channel.confirm_select(Default::default()).await.unwrap();
        let mut table = FieldTable::default();
        // a header frame has at most 128 KiB
        table.insert("raw".into(), AMQPValue::LongString(headers[..headers.len().min(100_000)].to_vec().into()));
        let properties =
            BasicProperties::default().with_message_id(id.to_string().into()).with_headers(table).with_delivery_mode(2);
        let key = format!("{}{queue}", self.prefix);
        let publish = channel.basic_publish("".into(), key.into(), BasicPublishOptions::default(), &body, properties);
        assert!(publish.await.unwrap().await.unwrap().is_ack());
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

    fn blurs_returns(&self) -> bool {
        true
    }

    async fn close(&self) {
        let channel = self.raw().await;
        let queues = std::mem::take(&mut *self.queues.lock().unwrap());
        for queue in queues {
            let name = format!("{}{queue}", self.prefix);
            let mut names: Vec<String> =
                ["", ".error", ".unreadable"].iter().map(|end| format!("{name}{end}")).collect();
            names.extend((0..PARTITIONS).map(|n| format!("{name}.p{n:02}")));
            for name in names {
                channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
            }
        }
        channel.queue_delete(self.name("sagabus.endpoints").into(), QueueDeleteOptions::default()).await.unwrap();
        let levels = (0..28).map(|level| format!("sagabus.delay.{level:02}"));
        let delays: Vec<String> = levels.chain(["sagabus.delay.undeliverable".into()]).collect();
        for queue in &delays {
            channel.queue_delete(self.name(queue).into(), QueueDeleteOptions::default()).await.unwrap();
        }
        let exchanges = EXCHANGES.map(String::from).into_iter().chain(delays).chain(["sagabus.delay.out".into()]);
        for exchange in exchanges {
            let name = format!("{}{exchange}", self.prefix);
            channel.exchange_delete(name.into(), ExchangeDeleteOptions::default()).await.unwrap();
        }
    }
}

/// Remembers who is behind which proxy, and what there is to delete.
pub(crate) struct Process {
    pub(crate) inner: RabbitMqTransport,
    proxy: Arc<RabbitProxy>,
    nodes: Arc<Mutex<HashMap<NodeId, Arc<RabbitProxy>>>>,
    queues: Arc<Mutex<BTreeSet<String>>>,
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
        self.inner.provision(topology).await?;
        if let (Some(queue), false) = (&topology.queue, topology.temporary) {
            self.queues.lock().unwrap().insert(queue.clone());
        }
        Ok(())
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.nodes.lock().unwrap().insert(options.node, Arc::clone(&self.proxy));
        self.inner.receive(options).await
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        self.inner.send_batch(batch).await
    }

    async fn send_delayed(&self, batch: &[(Outgoing, Duration)]) -> Vec<SendOutcome> {
        self.inner.send_delayed(batch).await
    }

    async fn health(&self) -> Result<()> {
        self.inner.health().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
