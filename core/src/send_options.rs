//! The options of one send.

use crate::{MessageId, UserHeader};
use std::time::Duration;

/// The options of one send: headers, key, expiry, id, destination, delay.
///
/// ```
/// # use sagabus_core::SendOptions;
/// # use std::time::Duration;
/// let options = SendOptions::new().key("customer-7").expires_in(Duration::from_secs(60)).header("tenant", "acme");
/// # assert!(options.delay().is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "options do nothing until a send takes them"]
pub struct SendOptions {
    pub(crate) headers: Vec<(String, UserHeader)>,
    pub(crate) key: Option<String>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) id: Option<MessageId>,
    pub(crate) to: Option<String>,
    pub(crate) after: Option<Duration>,
}

impl SendOptions {
    /// The default options.
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
