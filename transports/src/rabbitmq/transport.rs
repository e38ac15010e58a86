use super::{
    encode::{Exchanges, MAX_MESSAGE, Wire, wire},
    home::Home,
    lane::Verdict,
    link::Link,
    names::{Names, short},
    options::{RabbitOptions, parse},
    publisher::{Publisher, PublisherOptions},
    receiver::{RabbitReceiver, Shared},
};
use crate::lock;
use async_trait::async_trait;
use sagabus_core::{
    Capabilities, DatabaseId, Destination, Error, ErrorKind, Outgoing, ReceiveOptions, Receiver, Result, SendOutcome,
    Topology, Transport, check_name,
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
pub struct RabbitTransport {
    home: Arc<Home>,
    publish: Arc<Link>,
    publisher: Publisher,
    exchanges: Exchanges,
    receivers: Mutex<Vec<Weak<Shared>>>,
    closed: AtomicBool,
}

impl RabbitTransport {
    /// Connects to `amqp://user:password@host:port/vhost`; several hosts are separated by commas, and parameters follow
    /// after a question mark (see [`RabbitOptions`]).
    ///
    /// # Errors
    /// [Invalid](Error::is_invalid) for a URL that cannot be read, [unsupported](Error::is_unsupported) for `amqps://`
    /// without the feature `tls`, [transient](Error::is_transient) when no host answers. None of them shows the URL.
    pub async fn connect(url: &str, options: RabbitOptions) -> Result<Self> {
        let (hosts, options) = parse(url, options)?;
        let names = Names { prefix: options.prefix.clone() };
        let consume = Link::new("consume", hosts.clone(), options.clone());
        let publish = Arc::new(Link::new("publish", hosts, options.clone()));
        consume.get(false).await?;
        let publisher = Publisher::start(PublisherOptions {
            link: Arc::clone(&publish),
            names: names.clone(),
            window: options.publish_window,
            confirm_timeout: options.confirm_timeout,
            runtime: options.runtime.clone(),
        });
        Ok(Self {
            exchanges: Exchanges { direct: short("")?, events: short(&names.events())?, keyed: short(&names.keyed())? },
            home: Arc::new(Home::new(names, options, consume)),
            publish,
            publisher,
            receivers: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    fn open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("the transport is closed"));
        }
        Ok(())
    }

    async fn publish(&self, wires: Vec<Wire>) -> Vec<Verdict> {
        self.publisher.publish(wires, self.home.options.publish_window).await
    }

    /// A command with an order key goes to where the shards of an endpoint are bound. A queue without any binding there, a
    /// reply queue or one that somebody else made, is nevertheless a queue: then it gets it directly.
    async fn directly(&self, batch: &[Outgoing], returned: &[usize]) -> Vec<(usize, Verdict)> {
        let again = |at: usize| {
            let outgoing = batch.get(at)?;
            let Destination::Queue(queue) = &outgoing.to else { return None };
            outgoing.message.headers.order_key.as_ref()?;
            let mut wire = wire(outgoing, &self.home.names, &self.exchanges).ok()?;
            wire.exchange = self.exchanges.direct.clone();
            wire.routing_key = short(&self.home.names.queue(queue)).ok()?;
            Some((at, wire))
        };
        let (places, wires): (Vec<usize>, Vec<Wire>) = returned.iter().filter_map(|at| again(*at)).unzip();
        if wires.is_empty() {
            return Vec::new();
        }
        let verdicts = self.publish(wires).await;
        places.into_iter().zip(verdicts).collect()
    }
}

impl fmt::Debug for RabbitTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitTransport").field("options", &self.home.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for RabbitTransport {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::all();
        capabilities.max_message = MAX_MESSAGE;
        capabilities
    }

    fn database(&self) -> Option<&DatabaseId> {
        None
    }

    async fn provision(&self, topology: &Topology) -> Result<()> {
        self.open()?;
        crate::refuse(topology, &self.capabilities())?;
        self.home.provision(topology).await
    }

    async fn receive(&self, options: ReceiveOptions) -> Result<Arc<dyn Receiver>> {
        self.open()?;
        check_name("queue", &options.queue)?;
        let receiver = RabbitReceiver::start(Arc::clone(&self.home), options).await?;
        let mut receivers = lock(&self.receivers);
        receivers.retain(|known| known.strong_count() > 0);
        receivers.push(Arc::downgrade(receiver.shared()));
        Ok(Arc::new(receiver))
    }

    async fn send_batch(&self, batch: &[Outgoing]) -> Vec<SendOutcome> {
        if let Err(error) = self.open() {
            return vec![SendOutcome::Retry(error); batch.len()];
        }
        let mut refused: Vec<Option<String>> = vec![None; batch.len()];
        let mut wires = Vec::with_capacity(batch.len());
        for (outgoing, refused) in batch.iter().zip(&mut refused) {
            match wire(outgoing, &self.home.names, &self.exchanges) {
                Ok(wire) => wires.push(wire),
                Err(error) => *refused = Some(error.to_string()),
            }
        }
        let mut verdicts = self.publish(wires).await.into_iter();
        let lost = || SendOutcome::Unknown(Error::new(ErrorKind::Unknown, "no outcome"));
        let mut returned = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for (at, (outgoing, refused)) in batch.iter().zip(refused).enumerate() {
            outcomes.push(match refused {
                Some(text) => SendOutcome::Unroutable(text),
                None => match verdicts.next() {
                    Some(verdict) => {
                        if matches!(verdict, Verdict::Returned) {
                            returned.push(at);
                        }
                        outcome(verdict, outgoing)
                    }
                    None => lost(),
                },
            });
        }
        if !returned.is_empty() {
            for (at, verdict) in self.directly(batch, &returned).await {
                if let (Some(slot), Some(outgoing)) = (outcomes.get_mut(at), batch.get(at)) {
                    *slot = outcome(verdict, outgoing);
                }
            }
        }
        outcomes
    }

    async fn health(&self) -> Result<()> {
        self.open()?;
        let runtime = &self.home.options.runtime;
        let look = async {
            let live = self.publish.get(false).await?;
            if let Some(reason) = live.blocked() {
                return Err(Error::new(ErrorKind::Transient, format!("rabbitmq takes no messages for now: {reason}")));
            }
            self.home.consume.get(false).await?;
            let receivers: Vec<Arc<Shared>> = lock(&self.receivers).iter().filter_map(Weak::upgrade).collect();
            receivers.iter().find_map(|receiver| receiver.trouble()).map_or(Ok(()), Err)
        };
        match runtime.timeout(Duration::from_secs(2), look).await {
            Some(outcome) => outcome,
            None => Err(Error::new(ErrorKind::Transient, "rabbitmq does not answer")),
        }
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.publisher.stop();
        self.publish.close().await;
        self.home.consume.close().await;
    }
}

fn outcome(verdict: Verdict, outgoing: &Outgoing) -> SendOutcome {
    match verdict {
        Verdict::Done => SendOutcome::Done,
        Verdict::Returned => SendOutcome::Unroutable(match &outgoing.to {
            Destination::Queue(name) => format!("queue {name} does not exist"),
            Destination::Topic(name) => format!("nobody takes topic {name}"),
        }),
        Verdict::Retry(error) => SendOutcome::Retry(error),
        Verdict::Unknown(error) => SendOutcome::Unknown(error),
    }
}
