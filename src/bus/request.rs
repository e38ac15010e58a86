use sagabus_core::{
    EndpointInfo, Envelope, Error, ErrorKind, Outgoing, ReceiveOptions, Receiver, Result, Runtime, Settle, Settlement,
    Topology, Transport,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{OnceCell, oneshot};

/// Requests that wait for their replies, and the queue that these come to. The queue is made with the first request.
#[derive(Clone)]
pub(super) struct Requests(Arc<RequestState>);

struct RequestState {
    transport: Arc<dyn Transport>,
    info: Arc<EndpointInfo>,
    lease: Duration,
    queue: String,
    receiver: OnceCell<Arc<dyn Receiver>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Envelope>>>,
}

/// One expected reply. Dropping it stops expecting.
pub(super) struct ExpectedReply {
    requests: Requests,
    correlation: String,
    reply: oneshot::Receiver<Envelope>,
    runtime: Runtime,
}

impl Requests {
    pub(super) fn new(transport: Arc<dyn Transport>, info: Arc<EndpointInfo>, lease: Duration) -> Self {
        let queue = format!("{}.replies.{}", info.name, info.node);
        Self(Arc::new(RequestState {
            transport,
            info,
            lease,
            queue,
            receiver: OnceCell::new(),
            waiting: Mutex::default(),
        }))
    }

    /// Makes the message a request: says where its reply goes, and remembers it.
    pub(super) async fn expect(&self, outgoing: &mut Outgoing) -> Result<ExpectedReply> {
        if !self.0.transport.capabilities().reply_queues {
            return Err(Error::unsupported("this transport has no reply queues"));
        }
        self.0.receiver.get_or_try_init(|| self.open()).await?;
        let headers = &mut outgoing.message.headers;
        let correlation = headers.message_id.to_string();
        headers.correlation_id = Some(correlation.clone());
        headers.reply_to = Some(self.0.queue.clone());
        let (sender, reply) = oneshot::channel();
        self.waiting().insert(correlation.clone(), sender);
        Ok(ExpectedReply { requests: self.clone(), correlation, reply, runtime: self.0.info.runtime.clone() })
    }

    async fn open(&self) -> Result<Arc<dyn Receiver>> {
        let inner = &self.0;
        let topology = Topology { queue: Some(inner.queue.clone()), temporary: true, ..Topology::default() };
        inner.transport.provision(&topology).await?;
        let receiver = inner
            .transport
            .receive(ReceiveOptions {
                queue: inner.queue.clone(),
                node: inner.info.node,
                window: 1000,
                ordered: false,
                lease: inner.lease,
                offsets: None,
                runtime: inner.info.runtime.clone(),
            })
            .await?;
        inner.info.runtime.spawn(listen(self.clone(), receiver.clone()));
        Ok(receiver)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Envelope>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn close(&self) {
        self.waiting().clear();
        if let Some(receiver) = self.0.receiver.get() {
            receiver.stop().await;
            receiver.close().await;
        }
    }
}

async fn listen(requests: Requests, receiver: Arc<dyn Receiver>) {
    loop {
        let deliveries = match receiver.next(100).await {
            Ok(deliveries) => deliveries,
            Err(error) if error.is_closed() => return,
            Err(error) => {
                tracing::warn!(%error, "receiving replies failed, trying again");
                requests.0.info.runtime.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let mut settlements = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            settlements.push(Settlement { token: delivery.token, settle: Settle::Done });
            let correlation = delivery.message.headers.correlation_id.clone().unwrap_or_default();
            match requests.waiting().remove(&correlation) {
                // a caller that no longer waits does not mind
                Some(sender) => drop(sender.send(Arc::unwrap_or_clone(delivery.message))),
                None => tracing::debug!(correlation, "a reply that nobody waits for is dropped"),
            }
        }
        if let Err(error) = receiver.settle(settlements).await {
            tracing::debug!(%error, "settling replies failed; they are dropped when they come again");
        }
    }
}

impl ExpectedReply {
    pub(super) async fn wait(mut self, within: Duration) -> Result<Envelope> {
        match self.runtime.timeout(within, &mut self.reply).await {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(_)) => Err(Error::closed("the bus was closed before the reply came")),
            None => Err(Error::new(ErrorKind::Unknown, format!("no reply came within {within:?}"))),
        }
    }
}

impl Drop for ExpectedReply {
    fn drop(&mut self) {
        self.requests.waiting().remove(&self.correlation);
    }
}
