//! The port between the endpoint and the programming models.

use crate::{Context, EndpointInfo, Envelope, HandlerError, SagaLookup, SagaRow};
use futures::future::BoxFuture;
use std::{any::Any, sync::Arc, time::Duration};

/// One message type to one handler: a saga's, a service's or a function's.
///
/// The types of message and state are known inside and erased here; dispatch costs one boxed future per message.
pub trait Route: Send + Sync + 'static {
    /// The handler's stable name: part of its inbox rows, attempts and dead letters.
    fn handler(&self) -> &Arc<str>;

    /// The wire name of the message type.
    fn message_type(&self) -> &'static str;

    /// The message type in Rust, so that two types with one wire name are found at build.
    fn message_rust_type(&self) -> &'static str;

    /// Whether this is a saga's timeout: fed by timers only, never by the transport.
    fn is_timeout(&self) -> bool {
        false
    }

    /// Decodes the message and finds out which saga it is for. An error is permanent: the message is undecodable.
    fn target(&self, info: &EndpointInfo, message: &Envelope) -> Result<Decoded, HandlerError>;

    /// What to do, given the saga that was found. Called only if the target names one.
    fn decide(&self, message: &Envelope, saga: Option<&SagaRow>) -> Decision;

    /// Runs the handler. The context holds the effects afterwards.
    fn run(self: Arc<Self>, invocation: Invocation) -> BoxFuture<'static, InvocationResult>;
}

/// A decoded message and the saga that it is for: see [`Route::target`].
pub struct Decoded {
    /// The saga, if the route has one.
    pub saga: Option<SagaLookup>,
    /// The decoded message, for the first run; a later run decodes again.
    pub input: Option<Box<dyn Any + Send>>,
}

impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded").field("saga", &self.saga).finish_non_exhaustive()
    }
}

/// See [`Route::run`].
pub struct Invocation {
    /// What the handler gets.
    pub context: Context,
    /// The saga as loaded, or as the unit before left it.
    pub saga: Option<SagaRow>,
    /// The decoded message, if this is the first run.
    pub input: Option<Box<dyn Any + Send>>,
}

impl std::fmt::Debug for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invocation").field("context", &self.context).field("saga", &self.saga).finish_non_exhaustive()
    }
}

/// See [`Route::run`].
#[derive(Debug)]
pub struct InvocationResult {
    /// The context, with the effects.
    pub context: Context,
    /// How it went.
    pub result: Result<(), HandlerError>,
}

/// See [`Route::decide`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run the handler; with no saga row, it starts a new instance.
    Run,
    /// Park the message until the saga exists, at most so long.
    Park(Duration),
    /// Dead-letter it, for this reason.
    DeadLetter(String),
    /// Drop it and count it under this policy.
    Drop(&'static str),
}

/// What becomes of a message whose saga does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// It waits for the saga to be created, then goes to the dead letters.
    Park(Duration),
    /// It goes to the dead letters at once.
    DeadLetter,
    /// It is dropped, and counted.
    Discard,
}

impl Default for NotFound {
    /// Five minutes of patience.
    fn default() -> Self {
        Self::Park(Duration::from_secs(300))
    }
}

/// What becomes of a starting message whose saga already exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExisting {
    /// The running saga handles it.
    #[default]
    Handle,
    /// It goes to the dead letters.
    DeadLetter,
    /// It is dropped, and counted.
    Discard,
}
