use crate::{
    Capabilities, Codec, Destination, Envelope, Error, ErrorKind, HandlerError, Headers, Intent, Limits, Message,
    MessageId, NodeId, Outgoing, Result, Runtime, SagaAddress, SagaWrite, Store, TimerChange, Timestamp, Transaction,
    UserHeader,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Notify;
use uuid::Uuid;

/// What an endpoint is made of, as far as a handler's context and the programming models need it.
pub struct EndpointInfo {
    /// Its name, which is its queue's name.
    pub name: Arc<str>,
    /// This run of it.
    pub node: NodeId,
    /// Its encoding.
    pub codec: Codec,
    /// Its limits.
    pub limits: Limits,
    /// Time, ids, tasks.
    pub runtime: Runtime,
    /// Who owns which command: message type to endpoint. `*` (no message is called so) owns all that are not listed: for
    /// test kits.
    pub owners: HashMap<String, String>,
    /// Where replies to this process go, if it has a queue.
    pub reply_to: Option<String>,
    /// Its store, if it has one.
    pub store: Option<Arc<dyn Store>>,
}

/// The message that is being handled, and what is known about it.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The message.
    pub message: Arc<Envelope>,
    /// How often handling it was tried before.
    pub attempts: u32,
}

/// What a handler gets beside its message: who sent it, and ways to say something back.
///
/// `send`, `publish` and `reply` are not async. They only note what is to leave; it leaves if and only if the handler
/// returns Ok and its unit commits. A message that cannot be encoded or routed is remembered and fails the handler.
pub struct Context(Box<Parts>);

/// What a context has. Boxed, since it changes hands on its way through the programming models.
struct Parts {
    incoming: Incoming,
    info: Arc<EndpointInfo>,
    saga: Option<SagaAddress>,
    effects: Effects,
    transaction: Option<Box<dyn Transaction>>,
    may_begin: bool,
    wanted_begin: bool,
    deadline: TransactionDeadline,
    same_ids: Option<Arc<str>>,
}

/// What a handler asked for, so far.
#[derive(Default)]
pub struct Effects {
    /// Messages.
    pub sends: Vec<Outgoing>,
    /// Whether the handler chose the id of one of them.
    pub chosen_ids: bool,
    /// Messages that leave after a delay.
    pub delayed_sends: Vec<(Outgoing, Duration)>,
    /// Timers.
    pub timers: Vec<TimerChange>,
    /// The saga's new state, set by the saga's route.
    pub saga: Option<SagaWrite>,
    /// The first message that could not be encoded or routed.
    pub error: Option<HandlerError>,
}

/// How a message is sent, where that differs from the usual.
#[derive(Clone, Debug, Default)]
pub struct SendOptions {
    headers: Vec<(String, UserHeader)>,
    key: Option<String>,
    expires_in: Option<Duration>,
    id: Option<MessageId>,
    to: Option<String>,
    after: Option<Duration>,
}

impl SendOptions {
    /// As usual.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), UserHeader { value: value.into(), propagate: false }));
        self
    }

    /// Adds a header that messages sent while handling this one carry too, and so on.
    pub fn propagated_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), UserHeader { value: value.into(), propagate: true }));
        self
    }

    /// The key within which an ordered endpoint keeps the order.
    pub fn key(mut self, key: impl ToString) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// After this time the message is dropped, and counted, instead of handled.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(time);
        self
    }

    /// Uses this message id: for a safe repetition of a send whose outcome is unknown.
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sends to this endpoint, whoever owns the type.
    pub fn to(mut self, endpoint: impl Into<String>) -> Self {
        self.to = Some(endpoint.into());
        self
    }

    /// Delivers it so much later, and never before. This is the transport's own delay, in whole seconds: for what has no
    /// store (senders, and endpoints that handle at least once), and only for commands. It can be neither listed nor
    /// cancelled. Whoever has a store sets a saga's timeout instead.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = Some(delay).filter(|delay| !delay.is_zero());
        self
    }

    /// How much later it is to be delivered, if so.
    pub fn delay(&self) -> Option<Duration> {
        self.after
    }

    /// The message id that was chosen, if one was.
    pub fn chosen_id(&self) -> Option<MessageId> {
        self.id
    }
}

impl EndpointInfo {
    /// Encodes and addresses a message. `cause` is the message being handled, if any; `saga` the saga that sends.
    pub fn outgoing<M: Message>(
        &self,
        message: &M,
        intent: Intent,
        options: SendOptions,
        cause: Option<&Headers>,
        saga: Option<&SagaAddress>,
    ) -> Result<Outgoing> {
        let to = match (intent, options.to) {
            (Intent::Event, _) => Destination::Topic(M::NAME.to_string()),
            (_, Some(endpoint)) => {
                crate::check_name("endpoint", &endpoint)?;
                Destination::Queue(endpoint)
            }
            (_, None) => Destination::Queue(self.owner_of(M::NAME)?.to_string()),
        };
        let id = options.id.unwrap_or_else(|| MessageId(self.runtime.uuid()));
        let now = self.runtime.now();
        let mut headers = match cause {
            Some(cause) => cause.derive_for(id, M::NAME, intent, now),
            None => Headers::new(id, M::NAME, intent, now),
        };
        if headers.content_type != self.codec.content_type() {
            headers.content_type = self.codec.content_type().to_string();
        }
        headers.reply_to.clone_from(&self.reply_to);
        headers.originator = saga.cloned();
        headers.order_key = options.key;
        headers.expires_at = options.expires_in.map(|time| now.plus(time));
        headers.user.extend(options.headers);
        let message = Envelope::new(headers, self.codec.encode(message)?);
        message.check(&self.limits)?;
        Ok(Outgoing { to, message })
    }

    fn owner_of(&self, message_type: &str) -> Result<&str> {
        let owner = self.owners.get(message_type).or_else(|| self.owners.get("*"));
        owner.map(String::as_str).ok_or_else(|| {
            Error::invalid(format!(
                "endpoint {} does not know who owns the command {message_type}: add \
                 `.route::<…>(\"endpoint\")` for it to the builder, or `.to(\"endpoint\")` to the send options",
                self.name
            ))
        })
    }
}

impl Context {
    /// For the endpoint and the test kits. `may_begin` says whether units before this one are committed, so that an own
    /// transaction may start.
    pub fn new(incoming: Incoming, info: Arc<EndpointInfo>, may_begin: bool) -> Self {
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

    /// For an endpoint without a store, which cannot know whether this handler has run on this message before: what it sends
    /// gets the same ids at each run, so that whoever has a store handles it once.
    pub fn with_same_ids(mut self, handler: Arc<str>) -> Self {
        self.0.same_ids = Some(handler);
        self
    }

    /// The id of the next message, if it is not a new one.
    fn next_id(&self) -> Option<MessageId> {
        let handler = self.0.same_ids.as_ref()?;
        let number = self.0.effects.sends.len() + self.0.effects.delayed_sends.len();
        let name = format!("{}/{handler}/{number}", self.0.info.name);
        Some(MessageId(Uuid::new_v5(&self.message_id().0, name.as_bytes())))
    }

    /// The headers of the message.
    pub fn headers(&self) -> &Headers {
        &self.0.incoming.message.headers
    }

    /// The id of the message.
    pub fn message_id(&self) -> MessageId {
        self.headers().message_id
    }

    /// How often handling this message was tried before: 0 the first time.
    pub fn attempts(&self) -> u32 {
        self.0.incoming.attempts
    }

    /// The endpoint's name.
    pub fn endpoint(&self) -> &str {
        &self.0.info.name
    }

    /// Wall clock time, by this process's clock.
    pub fn now(&self) -> Timestamp {
        self.0.info.runtime.now()
    }

    /// A new unique id. Another one at each run of the handler.
    pub fn new_id(&self) -> Uuid {
        self.0.info.runtime.uuid()
    }

    /// Sends a command to the endpoint that owns its type.
    pub fn send<M: Message>(&mut self, message: M) {
        self.send_with(message, SendOptions::new());
    }

    /// Sends a command, with options.
    pub fn send_with<M: Message>(&mut self, message: M, options: SendOptions) {
        self.note(&message, Intent::Command, options);
    }

    /// Publishes an event to everyone who subscribed to its type.
    pub fn publish<M: Message>(&mut self, message: M) {
        self.publish_with(message, SendOptions::new());
    }

    /// Publishes an event, with options.
    pub fn publish_with<M: Message>(&mut self, message: M, options: SendOptions) {
        self.note(&message, Intent::Event, options);
    }

    /// Answers the message that is being handled. Fails the handler if that named no place for replies.
    pub fn reply<M: Message>(&mut self, message: M) {
        let headers = self.headers();
        let Some(to) = headers.reply_to.clone() else {
            let text = format!("message {} ({}) names no place for replies", headers.message_id, headers.message_type);
            return self.fail(Error::invalid(text));
        };
        let correlation = headers.correlation_id.clone().unwrap_or_else(|| headers.message_id.to_string());
        let saga = headers.originator.clone();
        self.reply_at(message, to, Some(correlation), saga);
    }

    /// Sends a reply to a known place; for `reply` and for a saga's reply to its originator.
    pub fn reply_at<M: Message>(
        &mut self,
        message: M,
        to: String,
        correlation: Option<String>,
        saga: Option<SagaAddress>,
    ) {
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

    fn note<M: Message>(&mut self, message: &M, intent: Intent, mut options: SendOptions) {
        let cause = &self.0.incoming.message.headers;
        self.0.effects.chosen_ids |= options.chosen_id().is_some();
        let delay = options.after;
        options.id = options.id.or_else(|| self.next_id());
        match self.0.info.outgoing(message, intent, options, Some(cause), self.0.saga.as_ref()) {
            Ok(outgoing) => match delay {
                None => self.0.effects.sends.push(outgoing),
                Some(delay) => self.note_later(outgoing, delay),
            },
            Err(error) => self.fail(error),
        }
    }

    fn note_later(&mut self, outgoing: Outgoing, delay: Duration) {
        let mut capabilities = Capabilities::all();
        capabilities.longest_delay = self.0.info.store.as_ref().and_then(|store| store.longest_delay());
        match capabilities.check_delay(&outgoing, delay) {
            Ok(()) => self.0.effects.delayed_sends.push((outgoing, delay)),
            Err(error) => self.fail(error),
        }
    }

    /// Remembers the first thing that went wrong; the handler fails with it even if it returns Ok. What is
    /// [invalid](Error::is_invalid) (no route, too large, cannot be encoded) would be so at each retry: it is permanent.
    pub fn fail(&mut self, error: Error) {
        self.0.effects.error.get_or_insert_with(|| match error.is_invalid() || error.is_unsupported() {
            true => HandlerError::permanent(error),
            false => error.into(),
        });
    }

    /// The handler's own transaction, opened on first use. Typed access is `ctx.transaction::<Sqlite>()`.
    pub async fn begin(&mut self) -> Result<&mut dyn Transaction> {
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

    /// For the programming models: the message as it came.
    pub fn incoming(&self) -> &Incoming {
        &self.0.incoming
    }

    /// For the programming models: what the endpoint is made of.
    pub fn info(&self) -> &Arc<EndpointInfo> {
        &self.0.info
    }

    /// For the programming models: the saga on whose behalf messages are sent from here on.
    pub fn set_saga(&mut self, saga: Option<SagaAddress>) {
        self.0.saga = saga;
    }

    /// For the programming models: what was asked for so far.
    pub fn effects(&mut self) -> &mut Effects {
        &mut self.0.effects
    }

    /// For the endpoint: whether the handler asked for a transaction that could not be given yet.
    pub fn wanted_begin(&self) -> bool {
        self.0.wanted_begin
    }

    /// For the endpoint: tells when the handler has held its transaction for too long.
    pub fn deadline(&self) -> TransactionDeadline {
        self.0.deadline.clone()
    }

    /// For the endpoint: the effects and the open transaction.
    pub fn into_parts(self) -> (Effects, Option<Box<dyn Transaction>>) {
        (self.0.effects, self.0.transaction)
    }

    /// For the programming models: decodes the message.
    pub fn decode<M: Message>(&self) -> Result<M> {
        let message = &self.0.incoming.message;
        self.0.info.codec.decode(&message.headers.content_type, &message.body)
    }

    /// For the programming models: encodes a value.
    pub fn encode<T: serde::Serialize>(&self, what: &str, value: &T) -> Result<Bytes> {
        self.0.info.codec.encode_value(what, value)
    }
}

/// The time limit of a handler's own transaction, known to the endpoint as soon as the transaction is open.
#[derive(Clone, Default)]
pub struct TransactionDeadline(Arc<DeadlineInner>);

#[derive(Default)]
struct DeadlineInner {
    limit: OnceLock<Duration>,
    started: Notify,
}

impl TransactionDeadline {
    fn start(&self, limit: Duration) {
        // only the first transaction of a run counts: there is no second one
        let _ = self.0.limit.set(limit);
        self.0.started.notify_one();
    }

    /// Ends when a transaction has been held for its limit, with the limit; never without one. For one waiter.
    pub async fn exceeded(&self, runtime: &Runtime) -> Duration {
        loop {
            if let Some(limit) = self.0.limit.get() {
                runtime.sleep(*limit).await;
                return *limit;
            }
            self.0.started.notified().await;
        }
    }
}
