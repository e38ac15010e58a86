//! The parts of an endpoint that contexts and programming models need.

use crate::{
    Codec, Destination, Envelope, Error, Headers, Intent, Limits, Message, MessageId, NodeId, Outgoing, Result,
    Runtime, SagaAddress, SendOptions, Store,
};
use std::{collections::HashMap, fmt, sync::Arc};

/// The parts of an endpoint that contexts and programming models need.
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

impl fmt::Debug for EndpointInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointInfo").field("name", &self.name).field("node", &self.node).finish_non_exhaustive()
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
