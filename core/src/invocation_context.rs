//! The engine's side of a handler's context.

use crate::{
    Context, Effects, EndpointInfo, Error, ErrorKind, HandlerError, Incoming, Intent, Message, Result, SagaAddress,
    SendOptions, Transaction, TransactionDeadline, context::Parts,
};
use bytes::Bytes;
use std::{future::Future, sync::Arc};

/// The methods of a [`Context`] for the endpoint, the programming models and the test kits.
///
/// They live in a trait of the ports, so that a handler's author does not meet them beside `send` and `publish`.
pub trait InvocationContext: Sized {
    /// The context of one invocation. `may_begin` tells whether the units before this one are committed, so that an own
    /// transaction may start.
    fn new(incoming: Incoming, info: Arc<EndpointInfo>, may_begin: bool) -> Self;

    /// Gives the messages that the handler sends the same ids at each run. An endpoint without a store needs it: a receiver
    /// with a store then handles each message once.
    fn with_same_ids(self, handler: Arc<str>) -> Self;

    /// The message as it was received.
    fn incoming(&self) -> &Incoming;

    /// The endpoint's parts.
    fn info(&self) -> &Arc<EndpointInfo>;

    /// Sets the saga that later sends name as their originator.
    fn set_saga(&mut self, saga: Option<SagaAddress>);

    /// The effects that the handler has recorded so far.
    fn effects(&mut self) -> &mut Effects;

    /// Records the first error; the handler then fails with it even if it returns Ok. An [invalid](Error::is_invalid) send
    /// (no route, too large, not encodable) would fail at each retry, so it is permanent.
    fn fail(&mut self, error: Error);

    /// Sends a reply to a given queue: for `reply` and for a saga's reply to its originator.
    fn reply_at<M: Message>(&mut self, message: M, to: String, correlation: Option<String>, saga: Option<SagaAddress>);

    /// The handler's own transaction, opened on first use. Typed access is `ctx.transaction::<Sqlite>()`.
    ///
    /// # Errors
    /// [Conflict](Error::is_conflict) while units before this one are not committed; the endpoint runs the handler again.
    fn begin(&mut self) -> impl Future<Output = Result<&mut dyn Transaction>> + Send;

    /// Whether the handler asked for a transaction that could not be given yet.
    fn wanted_begin(&self) -> bool;

    /// The time limit of the handler's transaction.
    fn deadline(&self) -> TransactionDeadline;

    /// The effects and the open transaction, if any.
    fn into_parts(self) -> (Effects, Option<Box<dyn Transaction>>);

    /// Decodes the message.
    fn decode<M: Message>(&self) -> Result<M>;

    /// Encodes a value; `what` names it in the error.
    fn encode<T: serde::Serialize>(&self, what: &str, value: &T) -> Result<Bytes>;
}

impl InvocationContext for Context {
    fn new(incoming: Incoming, info: Arc<EndpointInfo>, may_begin: bool) -> Self {
        Self(Box::new(Parts {
            incoming,
            info,
            saga: None,
            effects: Effects::default(),
            transaction: None,
            may_begin,
            wanted_begin: false,
            deadline: TransactionDeadline::default(),
            same_ids: None,
        }))
    }

    fn with_same_ids(mut self, handler: Arc<str>) -> Self {
        self.0.same_ids = Some(handler);
        self
    }

    fn incoming(&self) -> &Incoming {
        &self.0.incoming
    }

    fn info(&self) -> &Arc<EndpointInfo> {
        &self.0.info
    }

    fn set_saga(&mut self, saga: Option<SagaAddress>) {
        self.0.saga = saga;
    }

    fn effects(&mut self) -> &mut Effects {
        &mut self.0.effects
    }

    fn fail(&mut self, error: Error) {
        self.0.effects.error.get_or_insert_with(|| match error.is_invalid() || error.is_unsupported() {
            true => HandlerError::permanent(error),
            false => error.into(),
        });
    }

    fn reply_at<M: Message>(&mut self, message: M, to: String, correlation: Option<String>, saga: Option<SagaAddress>) {
        let options = SendOptions { id: self.next_id(), ..SendOptions::new().to(to) };
        let cause = &self.0.incoming.message.headers;
        match self.0.info.outgoing(&message, Intent::Reply, options, Some(cause), self.0.saga.as_ref()) {
            Ok(mut outgoing) => {
                outgoing.message.headers.correlation_id = correlation;
                outgoing.message.headers.saga = saga;
                self.0.effects.sends.push(outgoing);
            }
            Err(error) => self.fail(error),
        }
    }

    async fn begin(&mut self) -> Result<&mut dyn Transaction> {
        if self.0.transaction.is_none() {
            if !self.0.may_begin {
                self.0.wanted_begin = true;
                return Err(Error::new(ErrorKind::Conflict, "the units before this one are not committed yet"));
            }
            let Some(store) = self.0.info.store.clone() else {
                return Err(Error::unsupported(format!("endpoint {} has no store", self.0.info.name)));
            };
            let transaction = store.begin().await?;
            if let Some(limit) = transaction.limit() {
                self.0.deadline.start(limit);
            }
            self.0.transaction = Some(transaction);
        }
        match &mut self.0.transaction {
            Some(transaction) => Ok(&mut **transaction),
            None => Err(Error::closed("the transaction is gone")),
        }
    }

    fn wanted_begin(&self) -> bool {
        self.0.wanted_begin
    }

    fn deadline(&self) -> TransactionDeadline {
        self.0.deadline.clone()
    }

    fn into_parts(self) -> (Effects, Option<Box<dyn Transaction>>) {
        (self.0.effects, self.0.transaction)
    }

    fn decode<M: Message>(&self) -> Result<M> {
        let message = &self.0.incoming.message;
        self.0.info.codec.decode(&message.headers.content_type, &message.body)
    }

    fn encode<T: serde::Serialize>(&self, what: &str, value: &T) -> Result<Bytes> {
        self.0.info.codec.encode_value(what, value)
    }
}
