//! An envelope becomes an AMQP message.

use super::{
    headers as h,
    names::{Names, shard_word, short},
};
use crate::compact_headers;
use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use sagabus_core::{Destination, Error, Headers, Intent, MessageId, Outgoing, Result, SagaAddress, UserHeader};
use std::collections::BTreeMap;

/// Largest message: what RabbitMQ 4 accepts by default.
pub(super) const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Most bytes of headers: they must fit into one frame of 128 KiB.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// A message as it goes to the broker.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    pub(super) id: MessageId,
}

/// The exchanges that everything is published to, interned.
#[derive(Clone)]
pub(super) struct Exchanges {
    pub(super) direct: ShortString,
    pub(super) events: ShortString,
    pub(super) keyed: ShortString,
}

/// The message for the wire; refused if AMQP cannot carry it.
pub(super) fn wire(outgoing: &Outgoing, names: &Names, exchanges: &Exchanges) -> Result<Wire> {
    let headers = &outgoing.message.headers;
    let size = outgoing.message.body.len();
    if size > MAX_MESSAGE_BYTES {
        return Err(Error::invalid(format!(
            "message {} has {size} bytes, this transport takes {MAX_MESSAGE_BYTES} with its headers",
            headers.message_id
        )));
    }
    let (properties, weight) = properties(headers, names)?;
    if weight > MAX_HEADER_BYTES || size + weight > MAX_MESSAGE_BYTES {
        return Err(Error::invalid(format!(
            "message {} has {weight} bytes of headers, this transport takes {MAX_HEADER_BYTES}",
            headers.message_id
        )));
    }
    let (exchange, routing_key) = match (&outgoing.to, &headers.order_key) {
        (Destination::Queue(queue), None) => (&exchanges.direct, short(names.queue(queue))?),
        (Destination::Queue(queue), Some(key)) => (&exchanges.keyed, keyed("q", queue, key)?),
        (Destination::Topic(topic), None) => (&exchanges.events, short(topic)?),
        (Destination::Topic(topic), Some(key)) => (&exchanges.keyed, keyed("t", topic, key)?),
    };
    Ok(Wire {
        exchange: exchange.clone(),
        routing_key,
        properties,
        body: outgoing.message.body.clone(),
        id: headers.message_id,
    })
}

fn keyed(kind: &str, name: &str, key: &str) -> Result<ShortString> {
    short(format!("{kind}.{name}.{}", shard_word(key)))
}

/// The properties, and about how many bytes they have.
fn properties(headers: &Headers, names: &Names) -> Result<(BasicProperties, usize)> {
    let mut table = Table::default();
    let mut properties = BasicProperties::default()
        .with_message_id(short(headers.message_id.to_string())?)
        .with_type(short(&headers.message_type)?)
        .with_content_type(short(&headers.content_type)?)
        .with_delivery_mode(2)
        .with_timestamp(u64::try_from(headers.sent_at.0 / 1_000_000).unwrap_or(0));
    if headers.intent != Intent::Command {
        table.text(h::INTENT, intent(headers.intent));
    }
    properties = properties.with_app_id(short(compact_headers::write(h::OURS, headers))?);
    if let Some(correlation) = &headers.correlation_id {
        match ShortString::try_new(correlation.as_str()) {
            Ok(text) => properties = properties.with_correlation_id(text),
            Err(_) => table.text(h::CORRELATION, correlation.as_str()),
        }
    }
    if let Some(reply_to) = &headers.reply_to {
        match ShortString::try_new(names.queue(reply_to)) {
            Ok(text) => properties = properties.with_reply_to(text),
            Err(_) => table.text(h::REPLY_TO, reply_to.as_str()),
        }
    }
    if let Some(expires) = headers.expires_at {
        table.number(h::EXPIRES_AT, expires.0);
    }
    for (name, text) in [
        (h::ORDER_KEY, &headers.order_key),
        (h::TRACEPARENT, &headers.traceparent),
        (h::TRACESTATE, &headers.tracestate),
    ] {
        if let Some(text) = text {
            table.text(name, text.as_str());
        }
    }
    for (name, address) in [(h::SAGA, &headers.saga), (h::ORIGINATOR, &headers.originator)] {
        if let Some(address) = address {
            table.text(name, json::<SagaAddress>(address)?);
        }
    }
    if headers.attempts > 0 {
        table.number(h::ATTEMPTS, headers.attempts.into());
    }
    user(&headers.user, &mut table)?;
    let weight = table.weight;
    if !table.entries.is_empty() {
        properties = properties.with_headers(FieldTable::from(table.entries));
    }
    Ok((properties, weight))
}

fn user(headers: &BTreeMap<String, UserHeader>, table: &mut Table) -> Result<()> {
    let mut others: BTreeMap<&str, &UserHeader> = BTreeMap::new();
    let mut propagate: Vec<AMQPValue> = Vec::new();
    for (name, header) in headers {
        if h::reserved(name) {
            others.insert(name, header);
            continue;
        }
        table.text(name, header.value.as_str());
        if header.propagate {
            table.weight += name.len() + 5;
            propagate.push(AMQPValue::LongString(name.as_str().into()));
        }
    }
    if !propagate.is_empty() {
        table.insert(h::PROPAGATE, AMQPValue::FieldArray(propagate.into()));
    }
    if !others.is_empty() {
        table.text(h::USER, json(&others)?);
    }
    Ok(())
}

pub(super) fn intent(intent: Intent) -> &'static str {
    match intent {
        Intent::Command => "command",
        Intent::Event => "event",
        Intent::Reply => "reply",
        Intent::Timeout => "timeout",
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::with_source(sagabus_core::ErrorKind::Invalid, "encode a header for rabbitmq", e))
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<ShortString, AMQPValue>,
    weight: usize,
}

impl Table {
    fn text(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let value: Vec<u8> = value.into();
        self.weight += value.len();
        self.insert(name, AMQPValue::LongString(value.into()));
    }

    fn number(&mut self, name: &str, value: i64) {
        self.insert(name, AMQPValue::LongLongInt(value));
    }

    /// The name is one that fits: ours, or not reserved.
    fn insert(&mut self, name: &str, value: AMQPValue) {
        self.weight += name.len() + 10;
        if let Ok(name) = ShortString::try_new(name) {
            self.entries.insert(name, value);
        }
    }
}
