use sagabus_core::{Delivery, Envelope, Token};
use std::sync::Arc;

/// Which of a receiver's queues a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ConsumerKind {
    /// The endpoint's own: no order.
    Unordered,
    /// A partition of an ordered endpoint: handed out in its order.
    Ordered,
    /// What the broker gave up on.
    DeadLetters,
}

/// A message as it was read, kept until it is settled: it may have to be handed out again. What the broker sent is gone by
/// then: with a thousand of them in flight it would take up more of the processor's cache than the messages themselves.
pub(super) struct Received {
    pub(super) kind: ConsumerKind,
    pub(super) message: Arc<Envelope>,
    pub(super) defect: Option<String>,
    pub(super) suspect: bool,
    /// It came without an id. The one that it was given stays the same each time that this receiver hands it out.
    pub(super) anonymous: bool,
}

impl Received {
    pub(super) fn delivery(&self, token: Token) -> Delivery {
        Delivery {
            message: Arc::clone(&self.message),
            defect: self.defect.clone(),
            token,
            gate: None,
            fence: None,
            suspect: self.suspect,
            anonymous: self.anonymous,
        }
    }
}
