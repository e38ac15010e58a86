use super::{
    connection::ConnectionManager,
    delay_topology,
    encode::{Exchanges, MAX_MESSAGE_BYTES, Wire, wire},
    names::{Names, short},
    options::{RabbitMqOptions, parse},
    publish_channel::PublishOutcome,
    publisher::{Publisher, PublisherOptions},
    receiver::RabbitMqReceiver,
    shared::ReceiverState,
    topology_manager::TopologyManager,
};
use crate::lock;
use async_trait::async_trait;
use sagabus_core::{
    Capabilities, DatabaseId, Destination, Error, ErrorKind, Outgoing, ReceiveOptions, Receiver, Result, SendOutcome,
    Task, Topology, Transport, check_name,
};
use std::{
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A RabbitMQ broker as a transport: see the [module](super) for what it makes of it.
///
/// It holds two connections and repairs them by itself. Dropping it without [`close`](Transport::close) is a crash: the
/// connections end, sends on their way are unknown, and what was in flight comes again.
pub struct RabbitMqTransport {
    pub(super) manager: Arc<TopologyManager>,
    publish: Arc<ConnectionManager>,
    publisher: Publisher,
    pub(super) exchanges: Exchanges,
    receivers: Mutex<Vec<Weak<ReceiverState>>>,
    checker: Task<()>,
    closed: AtomicBool,
}

impl RabbitMqTransport {
    /// Connects to `amqp://user:password@host:port/vhost`; several hosts are separated by commas, and parameters follow
    /// after a question mark (see [`RabbitMqOptions`]).
    ///
    /// # Errors
    /// [Invalid](Error::is_invalid) for a URL that cannot be read, [unsupported](Error::is_unsupported) for `amqps://`
    /// without the feature `tls`, [transient](Error::is_transient) when no host answers. None of them shows the URL.
    pub async fn connect(url: &str, options: RabbitMqOptions) -> Result<Self> {
        let (hosts, options) = parse(url, options)?;
        let names = Names { prefix: options.prefix.clone() };
        let consume = ConnectionManager::new("consume", hosts.clone(), options.clone());
        let publish = Arc::new(ConnectionManager::new("publish", hosts.clone(), options.clone()));
        let admin = ConnectionManager::new("declare", hosts, options.clone());
        consume.get(false).await?;
        let exchanges = Exchanges { direct: short("")?, events: short(names.events())?, keyed: short(names.keyed())? };
        let manager = Arc::new(TopologyManager::new(names, options.clone(), consume, admin));
        let publisher = Publisher::start(PublisherOptions {
            connection: Arc::clone(&publish),
            manager: Arc::clone(&manager),
            window: options.publish_window,
            confirm_timeout: options.confirm_timeout,
            runtime: options.runtime.clone(),
        });
        Ok(Self {
            checker: options.runtime.spawn(keep_checking(Arc::clone(&manager), options.topology_check)),
            exchanges,
            manager,
            publish,
            publisher,
            receivers: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Takes an endpoint off the list: it gets no more events, and a command to it is unroutable once its queue is gone.
    /// Without this, what is for an endpoint whose queue was deleted waits for the endpoint to come back. Its queues are
    /// left, with what is in them; an endpoint that starts again is on the list again.
    ///
    /// # Errors
    /// [Transient](Error::is_transient) when the broker does not answer.
    pub async fn retire(&self, queue: &str) -> Result<()> {
        self.open()?;
        self.manager.retire(queue).await
    }

    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the transport is closed"));
        }
        Ok(())
    }

    pub(super) async fn publish(&self, wires: Vec<Wire>) -> Vec<PublishOutcome> {
        self.publisher.publish(wires, self.manager.options.publish_window).await
    }

    /// What nobody took. If the list of endpoints has somebody who should have, the bindings were gone: they are there
    /// again, and it is sent again.
    async fn resend_returned(&self, batch: &[Outgoing], returned: &[usize]) -> Vec<(usize, SendOutcome)> {
        let pick = |at: &usize| batch.get(*at).map(|outgoing| (*at, outgoing));
        let returned: Vec<(usize, &Outgoing)> = returned.iter().filter_map(pick).collect();
        let destinations: Vec<&Destination> = returned.iter().map(|(_, outgoing)| &outgoing.to).collect();
        let registered = match self.manager.find_registered(&destinations).await {
            Ok(registered) => registered,
            Err(error) => return returned.iter().map(|(at, _)| (*at, SendOutcome::Retry(error.clone()))).collect(),
        };
        let mut outcomes = Vec::with_capacity(returned.len());
        let (mut positions, mut wires) = (Vec::new(), Vec::new());
        for ((at, outgoing), registered) in returned.into_iter().zip(registered) {
            match self.retry(outgoing, registered) {
                Some(wire) => {
                    positions.push((at, outgoing, registered));
                    wires.push(wire);
                }
                None => outcomes.push((at, outcome(PublishOutcome::Returned, outgoing))),
            }
        }
        if wires.is_empty() {
            return outcomes;
        }
        for ((at, outgoing, registered), published) in positions.into_iter().zip(self.publish(wires).await) {
            let missing = || {
                let name = outgoing.to.name();
                let text = format!("a queue that takes {name} is missing, though its endpoint was not retired");
                SendOutcome::Retry(Error::new(ErrorKind::Transient, text))
            };
            let outcome = match published {
                PublishOutcome::Returned if registered => missing(),
                published => outcome(published, outgoing),
            };
            outcomes.push((at, outcome));
        }
        outcomes
    }

    /// How to send it once more. A command with an order key went to where the shards of an endpoint are bound; a queue
    /// without any binding there, a reply queue or one that somebody else made, gets it directly.
    fn retry(&self, outgoing: &Outgoing, registered: bool) -> Option<Wire> {
        let names = &self.manager.names;
        if registered {
            return wire(outgoing, names, &self.exchanges).ok();
        }
        let Destination::Queue(queue) = &outgoing.to else { return None };
        outgoing.message.headers.order_key.as_ref()?;
        let mut wire = wire(outgoing, names, &self.exchanges).ok()?;
        wire.exchange = self.exchanges.direct.clone();
        wire.routing_key = short(names.queue(queue)).ok()?;
        Some(wire)
    }
}

/// A binding that is gone shows itself only when nobody else gets the event.
async fn keep_checking(manager: Arc<TopologyManager>, every: Duration) {
    let runtime = manager.options.runtime.clone();
    loop {
        runtime.sleep(every + runtime.jitter(every / 4)).await;
        match manager.check_topology().await {
            Err(error) if error.is_closed() => return,
            Err(error) => tracing::warn!(%error, "could not check what is declared on rabbitmq"),
            Ok(()) => {}
        }
    }
}

impl Drop for RabbitMqTransport {
    fn drop(&mut self) {
        self.checker.abort();
    }
}

impl fmt::Debug for RabbitMqTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqTransport").field("options", &self.manager.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for RabbitMqTransport {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::all();
        capabilities.max_message = MAX_MESSAGE_BYTES;
        capabilities.longest_delay = Some(delay_topology::MAX_DELAY);
        capabilities
    }

    fn database(&self) -> Option<&DatabaseId> {
        None
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.open()?;
        crate::refuse(topology, &self.capabilities())?;
        self.manager.provision(topology).await
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.open()?;
        check_name("queue", &options.queue)?;
        let receiver = RabbitMqReceiver::start(Arc::clone(&self.manager), options).await?;
        let mut receivers = lock(&self.receivers);
        receivers.retain(|known| known.strong_count() > 0);
        receivers.push(Arc::downgrade(receiver.state()));
        Ok(Arc::new(receiver))
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if let Err(error) = self.open() {
            return vec![SendOutcome::Retry(error); batch.len()];
        }
        let mut refused: Vec<Option<String>> = vec![None; batch.len()];
        let mut wires = Vec::with_capacity(batch.len());
        for (outgoing, refused) in batch.iter().zip(&mut refused) {
            match wire(outgoing, &self.manager.names, &self.exchanges) {
                Ok(wire) => wires.push(wire),
                Err(error) => *refused = Some(error.to_string()),
            }
        }
        let mut published = self.publish(wires).await.into_iter();
        let lost = || SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome"));
        let mut returned = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for (at, (outgoing, refused)) in batch.iter().zip(refused).enumerate() {
            outcomes.push(match refused {
                Some(text) => SendOutcome::Unroutable(text),
                None => match published.next() {
                    Some(result) => {
                        if matches!(result, PublishOutcome::Returned) {
                            returned.push(at);
                        }
                        outcome(result, outgoing)
                    }
                    None => lost(),
                },
            });
        }
        if !returned.is_empty() {
            for (at, outcome) in self.resend_returned(batch, &returned).await {
                if let Some(slot) = outcomes.get_mut(at) {
                    *slot = outcome;
                }
            }
        }
        outcomes
    }

    async fn send_delayed(&self, batch: &[(Outgoing, Duration)]) -> Vec<SendOutcome> {
        match self.open() {
            Ok(()) => self.send_through_delays(batch).await,
            Err(error) => vec![SendOutcome::Retry(error); batch.len()],
        }
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        let runtime = &self.manager.options.runtime;
        let probe = async {
            let live = self.publish.get(false).await?;
            if let Some(reason) = live.blocked() {
                return Err(Error::new(ErrorKind::Transient, format!("rabbitmq takes no messages for now: {reason}")));
            }
            self.manager.consume.get(false).await?;
            let receivers: Vec<Arc<ReceiverState>> = lock(&self.receivers).iter().filter_map(Weak::upgrade).collect();
            receivers.iter().find_map(|receiver| receiver.trouble()).map_or(Ok(()), Err)
        };
        match runtime.timeout(Duration::from_secs(2), probe).await {
            Some(outcome) => outcome,
            None => Err(Error::new(ErrorKind::Transient, "rabbitmq does not answer")),
        }
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.publisher.stop();
        self.checker.abort();
        self.publish.close().await;
        self.manager.consume.close().await;
    }
}

fn outcome(published: PublishOutcome, outgoing: &Outgoing) -> SendOutcome {
    match published {
        PublishOutcome::Done => SendOutcome::Done,
        PublishOutcome::Returned => SendOutcome::Unroutable(match &outgoing.to {
            Destination::Queue(name) => format!("queue {name} does not exist"),
            // an event without any subscriber is delivered to all of them
            Destination::Topic(_) => return SendOutcome::Done,
        }),
        PublishOutcome::Retry(error) => SendOutcome::Retry(error),
        PublishOutcome::Unknown(error) => SendOutcome::Unknown(error),
    }
}
