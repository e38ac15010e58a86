//! An envelope becomes a record.

use super::{headers as h, names::Names};
use crate::compact_headers;
use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};
use sagabus_core::{Destination, Error, ErrorKind, Headers, Intent, Outgoing, Result, SagaAddress, UserHeader};
use std::collections::BTreeMap;

/// A message as it goes to the cluster.
pub(super) struct Wire {
    pub(super) topic: String,
    /// Whether the topic must be there.
    pub(super) must_exist: bool,
    /// Chooses the partition. Without one, what is sent within some milliseconds goes to one partition, another each time:
    /// a request to the broker is for one partition, and it answers them one after another.
    pub(super) key: Option<String>,
    pub(super) headers: OwnedHeaders,
    pub(super) body: Bytes,
    /// Milliseconds.
    pub(super) timestamp: i64,
}

/// The record for a message; refused if it is too large or has no topic.
pub(super) fn wire(outgoing: &Outgoing, names: &Names, limit: usize) -> Result<Wire> {
    let headers = &outgoing.message.headers;
    let (topic, must_exist) = match &outgoing.to {
        Destination::Queue(queue) => (names.queue(queue)?, true),
        Destination::Topic(kind) => (names.event(kind)?, false),
    };
    let (encoded, weight) = encode(headers)?;
    let key = headers.order_key.clone();
    let size = outgoing.message.body.len() + weight + key.as_ref().map_or(0, String::len);
    if size > limit {
        return Err(Error::invalid(format!(
            "message {} has {size} bytes with its headers, this transport takes {limit}",
            headers.message_id
        )));
    }
    Ok(Wire {
        topic,
        must_exist,
        key,
        headers: encoded,
        body: outgoing.message.body.clone(),
        timestamp: headers.sent_at.0 / 1000,
    })
}

/// The headers, and about how many bytes they have.
fn encode(headers: &Headers) -> Result<(OwnedHeaders, usize)> {
    let mut table = Table { headers: Some(OwnedHeaders::new_with_capacity(8 + headers.user.len())), weight: 0 };
    table.text(h::ID, headers.message_id.to_string());
    table.text(h::TYPE, &headers.message_type);
    table.text(h::CONTENT_TYPE, &headers.content_type);
    table.text(h::COMPACT, compact_headers::write("", headers));
    if headers.intent != Intent::Command {
        table.text(h::INTENT, intent(headers.intent));
    }
    for (name, text) in [
        (h::CORRELATION, &headers.correlation_id),
        (h::REPLY_TO, &headers.reply_to),
        (h::ORDER_KEY, &headers.order_key),
        (h::TRACEPARENT, &headers.traceparent),
        (h::TRACESTATE, &headers.tracestate),
    ] {
        if let Some(text) = text {
            table.text(name, text);
        }
    }
    if let Some(expires) = headers.expires_at {
        table.text(h::EXPIRES_AT, expires.0.to_string());
    }
    for (name, address) in [(h::SAGA, &headers.saga), (h::ORIGINATOR, &headers.originator)] {
        if let Some(address) = address {
            table.text(name, json::<SagaAddress>(address)?);
        }
    }
    if headers.attempts > 0 {
        table.text(h::ATTEMPTS, headers.attempts.to_string());
    }
    user(&headers.user, &mut table)?;
    Ok((table.headers.unwrap_or_default(), table.weight))
}

fn user(headers: &BTreeMap<String, UserHeader>, table: &mut Table) -> Result<()> {
    let mut others: BTreeMap<&str, &UserHeader> = BTreeMap::new();
    let mut propagate: Vec<&str> = Vec::new();
    for (name, header) in headers {
        if h::reserved(name) {
            others.insert(name, header);
            continue;
        }
        table.text(name, &header.value);
        if header.propagate {
            propagate.push(name);
        }
    }
    if !propagate.is_empty() {
        table.text(h::PROPAGATE, json(&propagate)?);
    }
    if !others.is_empty() {
        table.text(h::USER, json(&others)?);
    }
    Ok(())
}

fn intent(intent: Intent) -> &'static str {
    match intent {
        Intent::Command => "command",
        Intent::Event => "event",
        Intent::Reply => "reply",
        Intent::Timeout => "timeout",
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::with_source(ErrorKind::Invalid, "encode a header for kafka", e))
}

struct Table {
    /// None only while one is added: an empty one would be an allocation of the client library.
    headers: Option<OwnedHeaders>,
    weight: usize,
}

impl Table {
    fn text(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.weight += name.len() + value.len() + 10;
        self.headers = self.headers.take().map(|headers| headers.insert(Header { key: name, value: Some(value) }));
    }
}
