use super::{correlate, kind::Kind, origin::Origin};
use bytes::Bytes;
use sagabus_core::{
    Context, Destination, Due, Error, InstanceId, Intent, InvocationContext, Message, SagaAddress, SendOptions,
    TimerChange, TimerId, Timestamp,
};
use std::{
    fmt::Display,
    mem,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

/// What a saga's handler gets beside its message.
///
/// It is a [`Context`] (`send`, `publish`, `reply`, ids, headers, own SQL) with what only sagas have: timeouts, aliases,
/// an originator, an end. Nothing is async: the calls only note what is to happen, and it happens if and only if the
/// handler returns Ok and its unit commits. It derefs to `Context`, so helpers can take `&mut Context`.
pub struct SagaContext {
    context: Context,
    kind: Arc<Kind>,
    address: SagaAddress,
    origin: Option<Bytes>,
    is_new: bool,
    completed: bool,
    aliases: Vec<(String, String)>,
}

impl std::fmt::Debug for SagaContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SagaContext")
            .field("context", &self.context)
            .field("saga", &self.address)
            .field("is_new", &self.is_new)
            .field("completed", &self.completed)
            .finish_non_exhaustive()
    }
}

/// What a handler left behind.
pub(crate) struct Finished {
    pub(crate) context: Context,
    pub(crate) address: SagaAddress,
    pub(crate) origin: Option<Bytes>,
    pub(crate) completed: bool,
    pub(crate) aliases: Vec<(String, String)>,
}

impl Deref for SagaContext {
    type Target = Context;
    fn deref(&self) -> &Context {
        &self.context
    }
}

impl DerefMut for SagaContext {
    fn deref_mut(&mut self) -> &mut Context {
        &mut self.context
    }
}

impl SagaContext {
    /// Everything sent from here on names the saga, so that replies find it.
    pub(crate) fn new(
        mut context: Context,
        kind: Arc<Kind>,
        address: SagaAddress,
        origin: Option<Bytes>,
        is_new: bool,
    ) -> Self {
        context.set_saga(Some(address.clone()));
        Self { context, kind, address, origin, is_new, completed: false, aliases: Vec::new() }
    }

    /// The correlation value.
    pub fn saga_key(&self) -> &str {
        &self.address.key
    }

    /// This instance of the saga. Another saga under the same key, later, has another one.
    pub fn instance(&self) -> InstanceId {
        self.address.instance
    }

    /// Whether this message starts the saga.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Sends `message` back to this instance of the saga after `delay`, counted from the commit by the database's clock.
    ///
    /// Its type must be routed with [`timeout`](crate::Routes::timeout). Keep the id to
    /// [cancel](SagaContext::cancel_timeout) it; when the saga completes, its timeouts go with it.
    pub fn timeout<M: Message>(&mut self, delay: Duration, message: M) -> TimerId {
        self.set_timer(Due::After(delay), &message)
    }

    /// The same at a moment: a [`Timestamp`] or a `std::time::SystemTime`. At once if it is past.
    pub fn timeout_at<M: Message>(&mut self, moment: impl Into<Timestamp>, message: M) -> TimerId {
        self.set_timer(Due::At(moment.into()), &message)
    }

    fn set_timer<M: Message>(&mut self, due: Due, message: &M) -> TimerId {
        let info = Arc::clone(self.context.info());
        let id = TimerId(info.runtime.uuid());
        if !self.kind.timeouts.contains(&M::NAME) {
            self.refuse(format!(
                "{} is not a timeout of saga {} (its timeouts: {}): add `.timeout::<{}>()` to its routes",
                M::NAME,
                self.kind.kind,
                Kind::list(&self.kind.timeouts),
                crate::names::of::<M>(),
            ));
            return id;
        }
        let options = SendOptions::new().to(&*info.name);
        let cause = &self.context.incoming().message.headers;
        match info.outgoing(message, Intent::Timeout, options, Some(cause), None) {
            Ok(outgoing) => {
                debug_assert!(matches!(outgoing.to, Destination::Queue(_)));
                let mut message = Box::new(outgoing.message);
                message.headers.saga = Some(self.address.clone());
                message.headers.reply_to = None;
                self.context.effects().timers.push(TimerChange::Set { id, due, message });
            }
            Err(error) => self.context.fail(error),
        }
        id
    }

    /// Cancels a timeout. Nothing happens if it has taken effect or was cancelled before.
    pub fn cancel_timeout(&mut self, timer: TimerId) {
        let (kind, key) = (Arc::clone(&self.kind.kind), self.address.key.clone());
        let timers = &mut self.context.effects().timers;
        let before = timers.len();
        timers.retain(|change| !matches!(change, TimerChange::Set { id, .. } if *id == timer));
        if timers.len() == before {
            timers.push(TimerChange::Cancel { kind, key, id: timer });
        }
    }

    /// Cancels all timeouts of one type that this instance has asked for so far.
    pub fn cancel_timeouts<M: Message>(&mut self) {
        let cancel = TimerChange::CancelType {
            kind: Arc::clone(&self.kind.kind),
            key: self.address.key.clone(),
            instance: self.address.instance,
            message_type: M::NAME.to_string(),
        };
        let is_new = self.is_new;
        let timers = &mut self.context.effects().timers;
        timers.retain(
            |change| !matches!(change, TimerChange::Set { message, .. } if message.headers.message_type == M::NAME),
        );
        if !is_new {
            timers.push(cancel);
        }
    }

    /// Ends the saga with this message: its row, aliases and timeouts go. The next starting message begins a new instance.
    pub fn complete(&mut self) {
        self.completed = true;
    }

    /// From now on this saga is also found under this value, by
    /// [`continued_by_alias`](crate::Routes::continued_by_alias) routes of this name.
    pub fn alias(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        if !self.kind.aliases.contains(&name) {
            return self.refuse(format!(
                "no route of saga {} looks it up by alias {name:?} (its aliases: {}): \
                 add `.continued_by_alias::<…>({name:?}, |m| …)`",
                self.kind.kind,
                Kind::list(&self.kind.aliases),
            ));
        }
        let what = format!("the alias {name} of saga {}, key {:?},", self.kind.kind, self.address.key);
        match correlate::check_value(&what, &value, &self.context.info().limits) {
            Ok(()) => self.aliases.push((name.to_string(), value)),
            Err(problem) => self.refuse(problem),
        }
    }

    /// Answers whoever started this saga, from any of its handlers, however much later. Fails the handler if the
    /// starting message named no place for replies.
    pub fn reply_to_originator<M: Message>(&mut self, message: M) {
        let Some(origin) = &self.origin else {
            return self.refuse(format!(
                "saga {}, key {:?}, was started by a message that named no place for replies",
                self.kind.kind, self.address.key
            ));
        };
        match Origin::decode(origin) {
            Ok(origin) => self.context.reply_at(message, origin.reply_to, Some(origin.correlation), origin.saga),
            Err(e) => self.refuse(format!(
                "cannot decode the originator of saga {}, key {:?}: {e}",
                self.kind.kind, self.address.key
            )),
        }
    }

    /// A mistake in the program: no retry will help.
    fn refuse(&mut self, text: String) {
        self.context.fail(Error::invalid(text));
    }

    /// Takes it apart, with cancellations before the timers that are set.
    pub(crate) fn finish(mut self) -> Finished {
        let timers = &mut self.context.effects().timers;
        if self.completed {
            timers.clear();
        }
        let (sets, mut cancels) =
            mem::take(timers).into_iter().partition::<Vec<_>, _>(|change| matches!(change, TimerChange::Set { .. }));
        cancels.extend(sets);
        *timers = cancels;
        Finished {
            context: self.context,
            address: self.address,
            origin: self.origin,
            completed: self.completed,
            aliases: if self.completed { Vec::new() } else { self.aliases },
        }
    }
}
