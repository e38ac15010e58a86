//! Sending from outside handlers.

mod direct_sender;
mod request;

use direct_sender::DirectSender;
use request::Requests;
use sagabus_core::{
    EndpointInfo, Error, Intent, Message, MessageId, Outgoing, Owner, Result, SendOptions, SendOutcome, Transport,
};
use std::{any::Any, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Sends and publishes from outside handlers. Cheap to clone.
///
/// A send may be delayed by [`SendOptions::after`], where the transport can do that: RabbitMQ, and the memory broker.
///
/// `send` and `publish` go directly to the transport and return when the message is durable there. `send_in` and
/// `publish_in` record the message in the caller's own transaction: it leaves if and only if that commits, and the
/// endpoint must be running to send it.
#[derive(Clone)]
pub struct Bus {
    info: Arc<EndpointInfo>,
    owner: Owner,
    joined: bool,
    direct: DirectSender,
    requests: Requests,
    enlisted: Arc<Notify>,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("endpoint", &self.info.name).field("joined", &self.joined).finish_non_exhaustive()
    }
}

impl Bus {
    pub(crate) fn new(
        info: Arc<EndpointInfo>,
        transport: Arc<dyn Transport>,
        owner: Owner,
        joined: bool,
        lease: Duration,
    ) -> Self {
        let direct = DirectSender::new(transport.clone(), &info.runtime);
        let requests = Requests::new(transport, info.clone(), lease);
        Self { info, owner, joined, direct, requests, enlisted: Arc::default() }
    }

    /// Sends a command to the endpoint that owns its type. Returns when it is durable at its destination.
    ///
    /// # Errors
    /// [Unknown](Error::is_unknown): it may have been sent; repeat it through [`send_with`](Bus::send_with) with
    /// [`SendOptions::id`] set to the error's [`message_id`](Error::message_id). [Transient](Error::is_transient): it was not sent.
    /// [Not found](Error::is_not_found): there is no such queue. [Invalid](Error::is_invalid): no route, too large, or it
    /// cannot be encoded.
    pub async fn send<M: Message>(&self, message: M) -> Result<MessageId> {
        self.send_with(message, SendOptions::new()).await
    }

    /// Sends a command, with options.
    pub async fn send_with<M: Message>(&self, message: M, options: SendOptions) -> Result<MessageId> {
        self.single(message, Intent::Command, options).await
    }

    /// Publishes an event to everyone who subscribed to its type. Errors as for [`send`](Bus::send).
    pub async fn publish<M: Message>(&self, message: M) -> Result<MessageId> {
        self.publish_with(message, SendOptions::new()).await
    }

    /// Publishes an event, with options.
    pub async fn publish_with<M: Message>(&self, message: M, options: SendOptions) -> Result<MessageId> {
        self.single(message, Intent::Event, options).await
    }

    async fn single<M: Message>(&self, message: M, intent: Intent, options: SendOptions) -> Result<MessageId> {
        let (delay, chosen) = (options.delay(), options.chosen_id().is_some());
        let outgoing = self.info.outgoing(&message, intent, options, None, None)?;
        self.one(if chosen { outgoing } else { first(outgoing) }, delay).await
    }

    async fn one(&self, outgoing: Outgoing, delay: Option<Duration>) -> Result<MessageId> {
        let id = outgoing.message.headers.message_id;
        let outcome = match delay {
            None => self.direct.send(outgoing).await,
            Some(delay) => self.direct.send_delayed(outgoing, delay).await?,
        };
        sent(outcome, id)
    }

    /// Sends many commands of one type, in order, in as few round trips as the transport allows. One result each.
    ///
    /// # Errors
    /// Fails as a whole, before anything is sent, if a message cannot be encoded or routed.
    pub async fn send_all<M: Message>(&self, messages: impl IntoIterator<Item = M>) -> Result<Vec<Result<MessageId>>> {
        let outgoing = messages
            .into_iter()
            .map(|message| Ok(first(self.info.outgoing(&message, Intent::Command, SendOptions::new(), None, None)?)))
            .collect::<Result<Vec<_>>>()?;
        let ids: Vec<MessageId> = outgoing.iter().map(|o| o.message.headers.message_id).collect();
        let outcomes = self.direct.send_batch(&outgoing).await;
        Ok(ids.into_iter().zip(outcomes).map(|(id, outcome)| sent(outcome, id)).collect())
    }

    /// Records a command in the caller's own open transaction, given as the database's connection
    /// (`&mut SqliteConnection`, so `&mut *transaction`). It leaves if and only if that transaction commits.
    pub async fn send_in<C: Any + Send, M: Message>(&self, connection: &mut C, message: M) -> Result<MessageId> {
        let outgoing = self.info.outgoing(&message, Intent::Command, SendOptions::new(), None, None)?;
        self.enlist(connection, outgoing).await
    }

    /// Records an event in the caller's own open transaction. See [`send_in`](Bus::send_in).
    pub async fn publish_in<C: Any + Send, M: Message>(&self, connection: &mut C, message: M) -> Result<MessageId> {
        let outgoing = self.info.outgoing(&message, Intent::Event, SendOptions::new(), None, None)?;
        self.enlist(connection, outgoing).await
    }

    async fn enlist(&self, connection: &mut (dyn Any + Send), outgoing: Outgoing) -> Result<MessageId> {
        let Some(store) = &self.info.store else {
            return Err(Error::unsupported(format!(
                "endpoint {} has no store: add one to the builder to send in a transaction",
                self.info.name
            )));
        };
        let id = outgoing.message.headers.message_id;
        store.enlist(connection, &self.owner, self.joined, vec![outgoing]).await?;
        self.enlisted.notify_one();
        Ok(id)
    }

    /// Sends a command and waits for the reply of type `R`. Replies come to a queue of this process; one that comes after
    /// the time limit, or after a restart, is dropped.
    ///
    /// # Errors
    /// As for [`send`](Bus::send); also [unknown](Error::is_unknown) when no reply came in time: the command may have
    /// been handled.
    pub async fn request<M: Message, R: Message>(&self, message: M, within: Duration) -> Result<R> {
        let mut outgoing = self.info.outgoing(&message, Intent::Command, SendOptions::new(), None, None)?;
        let reply = self.requests.expect(&mut outgoing).await?;
        self.one(outgoing, None).await?;
        let reply = reply.wait(within).await?;
        if reply.headers.message_type != R::NAME {
            return Err(Error::invalid(format!(
                "the reply to {} is a {}, not a {}",
                M::NAME,
                reply.headers.message_type,
                R::NAME
            )));
        }
        self.info.codec.decode(&reply.headers.content_type, &reply.body)
    }

    #[cfg(test)]
    pub(crate) fn runtime(&self) -> &sagabus_core::Runtime {
        &self.info.runtime
    }

    /// Rung when a caller's own transaction has recorded sends.
    pub(crate) fn enlisted(&self) -> Arc<Notify> {
        self.enlisted.clone()
    }

    pub(crate) async fn close(&self) {
        self.requests.close().await;
    }
}

/// The id was drawn for it, and it is sent once.
fn first(mut outgoing: Outgoing) -> Outgoing {
    outgoing.message.headers.first_attempt = true;
    outgoing
}

fn sent(outcome: SendOutcome, id: MessageId) -> Result<MessageId> {
    match outcome {
        SendOutcome::Done => Ok(id),
        SendOutcome::Unroutable(reason) => Err(Error::new(sagabus_core::ErrorKind::NotFound, reason)),
        SendOutcome::Retry(error) | SendOutcome::Unknown(error) => Err(error.for_message(id)),
    }
}
