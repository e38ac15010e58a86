use crate::{Error, InstanceId, Limits, MessageId, Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What travels with a body, the same on every transport.
///
/// Stored as JSON by the tables and mapped to native fields by the brokers. Headers survive retries, timers, parking
/// and the dead letters unchanged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Headers {
    /// Unique per message, and stable through every redelivery.
    #[serde(rename = "id")]
    pub message_id: MessageId,
    /// The wire name of the body's type.
    #[serde(rename = "type")]
    pub message_type: String,
    /// What the message is meant as.
    pub intent: Intent,
    /// The body's encoding.
    #[serde(rename = "ct", default = "json", skip_serializing_if = "is_json")]
    pub content_type: String,
    /// Ties a reply to its request.
    #[serde(rename = "corr", default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The same for all messages that one first message brought about.
    #[serde(rename = "conv")]
    pub conversation_id: Uuid,
    /// The message whose handling sent this one.
    #[serde(rename = "cause", default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<MessageId>,
    /// The queue that a reply goes to.
    #[serde(rename = "reply", default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// When it was sent, by the sender's clock. For people; nothing is decided by it.
    #[serde(rename = "sent")]
    pub sent_at: Timestamp,
    /// After this moment the message is dropped, and counted, instead of handled.
    #[serde(rename = "exp", default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The key within which an ordered endpoint keeps the order.
    #[serde(rename = "key", default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<String>,
    /// The saga that this message is for: set on timeouts and on replies to a saga's request.
    #[serde(rename = "to", default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<SagaAddress>,
    /// The saga that sent this message; a reply goes back to it.
    #[serde(rename = "from", default, skip_serializing_if = "Option::is_none")]
    pub originator: Option<SagaAddress>,
    /// How often handling was tried before this delivery. For people and handlers; the endpoint counts in its store.
    #[serde(rename = "att", default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// Set by a sender that generated a fresh id for this message and has not sent it before. Without it the endpoint checks
    /// the inbox before it runs the handler. This is an optimisation only: the commit deduplicates in any case.
    #[serde(rename = "first", default, skip_serializing_if = "std::ops::Not::not")]
    pub first_attempt: bool,
    /// W3C trace context: `traceparent`.
    #[serde(rename = "tp", default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// W3C trace context: `tracestate`.
    #[serde(rename = "ts", default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// The application's own headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user: BTreeMap<String, UserHeader>,
}

/// What a message is meant as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// For one endpoint, its owner.
    Command,
    /// For whoever subscribed.
    Event,
    /// The answer to a request.
    Reply,
    /// A saga's message to itself, later.
    Timeout,
}

/// The address of one instance of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SagaAddress {
    /// `endpoint/saga`.
    #[serde(rename = "k")]
    pub kind: String,
    /// The correlation value.
    #[serde(rename = "v")]
    pub key: String,
    /// The instance.
    #[serde(rename = "i")]
    pub instance: InstanceId,
}

/// One application header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserHeader {
    /// Its text.
    #[serde(rename = "v")]
    pub value: String,
    /// Whether messages sent while handling this one carry it too.
    #[serde(rename = "p", default, skip_serializing_if = "std::ops::Not::not")]
    pub propagate: bool,
}

fn json() -> String {
    "application/json".into()
}

fn is_json(text: &str) -> bool {
    text == "application/json"
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Headers {
    /// The headers of a message that nothing caused.
    pub fn new(message_id: MessageId, message_type: impl Into<String>, intent: Intent, sent_at: Timestamp) -> Self {
        Self {
            message_id,
            message_type: message_type.into(),
            intent,
            content_type: json(),
            correlation_id: None,
            conversation_id: message_id.0,
            causation_id: None,
            reply_to: None,
            sent_at,
            expires_at: None,
            order_key: None,
            saga: None,
            originator: None,
            attempts: 0,
            first_attempt: false,
            traceparent: None,
            tracestate: None,
            user: BTreeMap::new(),
        }
    }

    /// The headers of a message sent while handling `self`: same conversation and trace, caused by this message, with
    /// the user headers that propagate.
    pub fn derive_for(&self, message_id: MessageId, message_type: &str, intent: Intent, sent_at: Timestamp) -> Self {
        let mut headers = Self::new(message_id, message_type, intent, sent_at);
        headers.conversation_id = self.conversation_id;
        headers.causation_id = Some(self.message_id);
        headers.traceparent.clone_from(&self.traceparent);
        headers.tracestate.clone_from(&self.tracestate);
        for (name, header) in self.user.iter().filter(|(_, h)| h.propagate) {
            headers.user.insert(name.clone(), header.clone());
        }
        headers
    }

    /// As the tables store them.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = Vec::with_capacity(512);
        serde_json::to_writer(&mut json, self)
            .map_err(|e| Error::with_source(crate::ErrorKind::Invalid, "encode headers", e))?;
        Ok(json)
    }

    /// As the tables stored them.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::with_source(crate::ErrorKind::Invalid, "decode headers", e))
    }

    /// Refuses more than the limits allow: a bad type name, too many or too large headers.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        crate::check_name("message type", &self.message_type)?;
        if self.user.len() > limits.header_count {
            return Err(Error::invalid(format!(
                "message {} has {} user headers, {} are allowed",
                self.message_id,
                self.user.len(),
                limits.header_count
            )));
        }
        let size = self.size();
        if size > limits.headers {
            return Err(Error::invalid(format!(
                "the headers of message {} have {size} bytes, {} are allowed",
                self.message_id, limits.headers
            )));
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let text = |t: &Option<String>| t.as_ref().map_or(0, String::len);
        let address = |a: &Option<SagaAddress>| a.as_ref().map_or(0, |a| a.kind.len() + a.key.len() + 16);
        let user: usize = self.user.iter().map(|(k, v)| k.len() + v.value.len() + 1).sum();
        64 + self.message_type.len()
            + self.content_type.len()
            + text(&self.correlation_id)
            + text(&self.reply_to)
            + text(&self.order_key)
            + text(&self.traceparent)
            + text(&self.tracestate)
            + address(&self.saga)
            + address(&self.originator)
            + user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_propagate() {
        let mut first = Headers::new(MessageId(Uuid::from_u128(1)), "a.b", Intent::Event, Timestamp(5));
        first.user.insert("tenant".into(), UserHeader { value: "ü".into(), propagate: true });
        first.user.insert("local".into(), UserHeader { value: "x".into(), propagate: false });
        assert_eq!(Headers::from_json(&first.to_json().unwrap()).unwrap(), first);
        let second = first.derive_for(MessageId(Uuid::from_u128(2)), "c", Intent::Command, Timestamp(6));
        assert_eq!(second.causation_id, Some(first.message_id));
        assert_eq!(second.conversation_id, first.conversation_id);
        assert_eq!(second.user.keys().collect::<Vec<_>>(), ["tenant"]);
    }

    #[test]
    fn too_much_is_refused() {
        let mut headers = Headers::new(MessageId(Uuid::from_u128(1)), "a.b", Intent::Event, Timestamp(5));
        let limits = Limits::default();
        assert!(headers.check(&limits).is_ok());
        headers.user.insert("big".into(), UserHeader { value: "x".repeat(20_000), propagate: false });
        assert!(headers.check(&limits).unwrap_err().to_string().contains("are allowed"));
        headers.user.clear();
        headers.message_type = "../../etc passwd".into();
        assert!(headers.check(&limits).is_err());
    }
}
