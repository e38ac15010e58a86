//! What things are called on the broker.

use lapin::types::ShortString;
use sagabus_core::{Error, Result, shard_of};

/// The prefix that keeps the systems on one virtual host apart, and the names made with it.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
}

impl Names {
    pub(super) fn queue(&self, queue: &str) -> String {
        format!("{}{queue}", self.prefix)
    }

    /// Holds one message: which endpoints there are, and what they have subscribed to.
    pub(super) fn endpoints(&self) -> String {
        format!("{}sagabus.endpoints", self.prefix)
    }

    /// Whose turn it is to change exchanges and bindings.
    pub(super) fn lock(&self) -> String {
        format!("{}sagabus.endpoints.lock", self.prefix)
    }

    /// Where the broker puts what it delivered too often.
    pub(super) fn error(&self, queue: &str) -> String {
        format!("{}{queue}.error", self.prefix)
    }

    /// Where it puts what cannot even be read from there.
    pub(super) fn unreadable(&self, queue: &str) -> String {
        format!("{}{queue}.unreadable", self.prefix)
    }

    pub(super) fn partition(&self, queue: &str, number: u16) -> String {
        format!("{}{queue}.p{number:02}", self.prefix)
    }

    /// The exchange, and the queue, of a level of the delays.
    pub(super) fn delay(&self, level: u32) -> String {
        format!("{}sagabus.delay.{level:02}", self.prefix)
    }

    /// Hands out what was delayed.
    pub(super) fn delay_out(&self) -> String {
        format!("{}sagabus.delay.out", self.prefix)
    }

    /// What was delayed and has no destination: the exchange, and the queue.
    pub(super) fn delay_strays(&self) -> String {
        format!("{}sagabus.delay.undeliverable", self.prefix)
    }

    /// Events without an order key; the routing key is the message type.
    pub(super) fn events(&self) -> String {
        format!("{}sagabus.events", self.prefix)
    }

    /// Everything with an order key.
    pub(super) fn keyed(&self) -> String {
        format!("{}sagabus.keyed", self.prefix)
    }

    /// Each exchange that is published to, and the one behind it to which the queues are bound.
    pub(super) fn exchanges(&self) -> [(String, String); 2] {
        [(self.events(), self.events_bound()), (self.keyed(), self.keyed_bound())]
    }

    pub(super) fn events_bound(&self) -> String {
        format!("{}.queues", self.events())
    }

    pub(super) fn keyed_bound(&self) -> String {
        format!("{}.queues", self.keyed())
    }

    /// A reply address as the broker knows it, without the prefix.
    pub(super) fn strip<'a>(&self, queue: &'a str) -> &'a str {
        queue.strip_prefix(self.prefix.as_str()).unwrap_or(queue)
    }
}

/// The last word of a keyed routing key.
pub(super) fn shard_word(key: &str) -> String {
    word(shard_of(key.as_bytes()))
}

pub(super) fn word(shard: u16) -> String {
    format!("s{shard:02}")
}

/// A name for the wire.
pub(super) fn short(name: impl AsRef<str> + Into<String>) -> Result<ShortString> {
    let length = name.as_ref().len();
    ShortString::try_new(name).map_err(|_| Error::invalid(format!("a name of {length} bytes is too long for AMQP")))
}
