use crate::Result;
use futures::future::BoxFuture;
use sagabus_core::{
    Context, Decision, Decoded, Effects, EndpointInfo, Envelope, HandlerError, Invocation, InvocationContext,
    InvocationResult, Message, Route, SagaRow,
};
use std::{any::type_name, future::Future, marker::PhantomData, sync::Arc};

/// One message type of a service or a function.
pub(crate) struct PlainRoute<H, M> {
    pub(crate) name: Arc<str>,
    pub(crate) handler: H,
    pub(crate) message: PhantomData<fn(M)>,
}

/// What [`PlainRoute`] calls.
pub(crate) trait Plain<M>: Send + Sync + 'static {
    fn call(&self, message: M, context: &mut Context) -> impl Future<Output = Result> + Send;
}

impl<H: Plain<M>, M: Message> Route for PlainRoute<H, M> {
    fn handler(&self) -> &Arc<str> {
        &self.name
    }

    fn message_type(&self) -> &'static str {
        M::NAME
    }

    fn message_rust_type(&self) -> &'static str {
        type_name::<M>()
    }

    fn target(&self, info: &EndpointInfo, message: &Envelope) -> Result<Decoded> {
        let input: M =
            info.codec.decode(&message.headers.content_type, &message.body).map_err(HandlerError::permanent)?;
        Ok(Decoded { saga: None, input: Some(Box::new(input)) })
    }

    fn decide(&self, _: &Envelope, _: Option<&SagaRow>) -> Decision {
        Decision::Run
    }

    fn run(self: Arc<Self>, run: Invocation) -> BoxFuture<'static, InvocationResult> {
        Box::pin(async move {
            let Invocation { mut context, input, .. } = run;
            let message = match input.map(|input| input.downcast::<M>()) {
                Some(Ok(message)) => Ok(*message),
                Some(Err(_)) | None => context.decode().map_err(HandlerError::permanent),
            };
            let mut result = match message {
                Ok(message) => self.handler.call(message, &mut context).await,
                Err(error) => Err(error),
            };
            if let (Ok(()), Some(error)) = (&result, context.effects().error.take()) {
                result = Err(error);
            }
            if result.is_err() {
                *context.effects() = Effects::default();
            }
            InvocationResult { context, result }
        })
    }
}
