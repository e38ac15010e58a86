use crate::{
    Capabilities, EndpointInfo, Envelope, Error, HandlerError, Headers, Intent, InvocationContext, Message, MessageId,
    Outgoing, SagaAddress, SagaWrite, SendOptions, TimerChange, Timestamp, Transaction, TransactionDeadline,
};
use std::{fmt, sync::Arc, time::Duration};
use uuid::Uuid;

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
pub struct Context(pub(crate) Box<Parts>);

/// What a context has. Boxed, since it changes hands on its way through the programming models.
pub(crate) struct Parts {
    pub(crate) incoming: Incoming,
    pub(crate) info: Arc<EndpointInfo>,
    pub(crate) saga: Option<SagaAddress>,
    pub(crate) effects: Effects,
    pub(crate) transaction: Option<Box<dyn Transaction>>,
    pub(crate) may_begin: bool,
    pub(crate) wanted_begin: bool,
    pub(crate) deadline: TransactionDeadline,
    pub(crate) same_ids: Option<Arc<str>>,
}

/// What a handler asked for, so far.
#[derive(Debug, Default)]
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

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("endpoint", &self.0.info.name)
            .field("message_id", &self.message_id())
            .field("message_type", &self.headers().message_type)
            .field("attempts", &self.0.incoming.attempts)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// The id of the next message, if it is not a new one.
    pub(crate) fn next_id(&self) -> Option<MessageId> {
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
}
