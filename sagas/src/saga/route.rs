use super::{
    context::SagaContext,
    correlate,
    kind::{Kind, Role},
    origin::Origin,
    policy, state,
};
use crate::{Handle, Saga};
use bytes::Bytes;
use futures::future::BoxFuture;
use sagabus_core::{
    Context, Decision, Decoded, Effects, EndpointInfo, Envelope, HandlerError, InstanceId, Invocation,
    InvocationContext, InvocationResult, Message, Route, SagaAddress, SagaChange, SagaRow, SagaWrite,
};
use std::{
    any::{Any, type_name},
    marker::PhantomData,
    sync::Arc,
};

/// What a route's closure makes of a message.
pub(crate) type Value<M> = Box<dyn Fn(&M) -> String + Send + Sync>;

/// One message type of one saga.
pub(crate) struct SagaRoute<S, M> {
    pub(crate) kind: Arc<Kind>,
    pub(crate) role: Role,
    pub(crate) value: Value<M>,
    pub(crate) saga: PhantomData<fn() -> S>,
}

impl<S: Saga + Handle<M>, M: Message> Route for SagaRoute<S, M> {
    fn handler(&self) -> &Arc<str> {
        &self.kind.name
    }

    fn message_type(&self) -> &'static str {
        M::NAME
    }

    fn message_rust_type(&self) -> &'static str {
        type_name::<M>()
    }

    fn is_timeout(&self) -> bool {
        matches!(self.role, Role::Timeout)
    }

    fn target(&self, info: &EndpointInfo, message: &Envelope) -> Result<Decoded, HandlerError> {
        let headers = &message.headers;
        let input: M = info.codec.decode(&headers.content_type, &message.body).map_err(HandlerError::permanent)?;
        let saga = correlate::lookup(&self.kind, self.role, headers, &info.limits, || (self.value)(&input))?;
        Ok(Decoded { saga: Some(saga), input: Some(Box::new(input)) })
    }

    fn decide(&self, message: &Envelope, saga: Option<&SagaRow>) -> Decision {
        policy::decide(&self.kind, self.role, &message.headers, saga)
    }

    fn run(self: Arc<Self>, run: Invocation) -> BoxFuture<'static, InvocationResult> {
        Box::pin(async move {
            let Invocation { context, saga, input } = run;
            let live = saga.filter(|row| !row.completed);
            let (mut context, outcome) = match self.prepare(&context, live, input) {
                Ok((message, loaded)) => self.handle(context, message, loaded).await,
                Err(error) => (context, Err(error)),
            };
            let result = match outcome {
                Ok(write) => {
                    context.effects().saga = Some(write);
                    Ok(())
                }
                Err(error) => {
                    *context.effects() = Effects::default();
                    Err(error)
                }
            };
            InvocationResult { context, result }
        })
    }
}

/// The saga that a handler works on.
struct LoadedSaga<S> {
    state: S,
    address: SagaAddress,
    /// The version that was loaded; `None` for a new instance.
    version: Option<i64>,
    origin: Option<Bytes>,
}

impl<S: Saga + Handle<M>, M: Message> SagaRoute<S, M> {
    fn prepare(
        &self,
        context: &Context,
        row: Option<SagaRow>,
        input: Option<Box<dyn Any + Send>>,
    ) -> Result<(M, LoadedSaga<S>), HandlerError> {
        let message = match input.map(|input| input.downcast::<M>()) {
            Some(Ok(message)) => *message,
            Some(Err(_)) | None => context.decode().map_err(HandlerError::permanent)?,
        };
        let loaded = match row {
            Some(row) => LoadedSaga {
                state: state::decode(&row)?,
                address: row.address(),
                version: Some(row.version),
                origin: row.origin,
            },
            None => self.begin(context, &message)?,
        };
        Ok((message, loaded))
    }

    fn begin(&self, context: &Context, message: &M) -> Result<LoadedSaga<S>, HandlerError> {
        if !matches!(self.role, Role::Start(_)) {
            return Err(HandlerError::permanent(format!("{} does not start saga {}", M::NAME, self.kind.kind)));
        }
        let key = (self.value)(message);
        let what = format!("the key of {} for saga {}", M::NAME, self.kind.kind);
        correlate::check_value(&what, &key, &context.info().limits).map_err(HandlerError::permanent)?;
        let origin = Origin::of(context.headers()).map(|origin| origin.encode());
        Ok(LoadedSaga {
            state: S::default(),
            address: SagaAddress { kind: self.kind.kind.to_string(), key, instance: InstanceId(context.new_id()) },
            version: None,
            origin: origin.transpose().map_err(HandlerError::permanent)?,
        })
    }

    async fn handle(
        &self,
        context: Context,
        message: M,
        loaded: LoadedSaga<S>,
    ) -> (Context, Result<SagaWrite, HandlerError>) {
        let mut saga = loaded.state;
        let kind = Arc::clone(&self.kind);
        let mut ctx = SagaContext::new(context, kind, loaded.address, loaded.origin, loaded.version.is_none());
        let result = saga.handle(message, &mut ctx).await;
        let mut done = ctx.finish();
        let result = match (result, done.context.effects().error.take()) {
            (Err(error), _) | (Ok(()), Some(error)) => Err(error),
            (Ok(()), None) => change(&saga, loaded.version, done.completed, &done.address, done.origin),
        };
        let write = result.map(|change| SagaWrite {
            kind: Arc::clone(&self.kind.kind),
            key: done.address.key,
            change,
            aliases: done.aliases,
        });
        (done.context, write)
    }
}

fn change<S: Saga>(
    saga: &S,
    version: Option<i64>,
    completed: bool,
    address: &SagaAddress,
    origin: Option<Bytes>,
) -> Result<SagaChange, HandlerError> {
    let encode = || state::encode(&address.kind, &address.key, saga);
    let instance = address.instance;
    Ok(match (completed, version) {
        (true, version) => SagaChange::Complete {
            instance,
            version: version.unwrap_or(0),
            keep: match S::KEEP_COMPLETED {
                Some(time) => Some((time, encode()?)),
                None => None,
            },
        },
        (false, Some(version)) => SagaChange::Update { instance, version, state: encode()?, schema: S::SCHEMA },
        (false, None) => SagaChange::Create { instance, state: encode()?, schema: S::SCHEMA, origin },
    })
}
