//! What the broker delivers becomes a message, whoever sent it.

use super::{
    frame_repair::REPLACEMENT,
    headers as h,
    names::Names,
    received::{ConsumerKind, Received},
};
use crate::compact_headers;
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use sagabus_core::{
    Envelope, Headers, Intent, Limits, MessageId, Runtime, SagaAddress, Timestamp, UserHeader, check_name,
};
use std::{collections::BTreeMap, sync::Arc};

/// The message type of what cannot be understood.
const UNDECODABLE: &str = "sagabus.undecodable";

/// What reading needs to know.
pub(super) struct Decoder {
    /// The receiver's, as the broker knows it.
    pub(super) queue: String,
    pub(super) names: Names,
    pub(super) events: ShortString,
    pub(super) runtime: Runtime,
}

impl Decoder {
    pub(super) fn decode(&self, kind: ConsumerKind, delivery: Delivery) -> Received {
        let properties = &delivery.properties;
        // an id that had to be mended may be another message's, too
        let id =
            properties.message_id().as_ref().filter(|id| !id.as_str().is_empty() && !id.as_str().contains(REPLACEMENT));
        let anonymous = id.is_none();
        let id = match id {
            Some(id) => MessageId::from_foreign(id.as_str()),
            None => MessageId(self.runtime.uuid()),
        };
        let (headers, defect) = self.headers(&delivery, id);
        let dead = kind == ConsumerKind::DeadLetters;
        let dead_letter_cause = dead.then(|| self.dead_letter_cause(properties.headers().as_ref())).flatten();
        Received {
            kind,
            message: Arc::new(Envelope::new(headers, delivery.data)),
            defect: dead_letter_cause.or(defect),
            suspect: delivery.redelivered || dead,
            anonymous,
        }
    }

    fn headers(&self, delivery: &Delivery, id: MessageId) -> (Headers, Option<String>) {
        let properties = &delivery.properties;
        let (kind, mut defect) = match self.kind(delivery) {
            Ok(kind) => (kind, None),
            Err(defect) => (UNDECODABLE.to_string(), Some(defect)),
        };
        if let Some(property) = repaired(properties) {
            defect = Some(format!("its property {property} is no UTF-8"));
        }
        let mut headers = Headers::new(id, kind, Intent::Command, self.runtime.now());
        if let Some(seconds) = properties.timestamp() {
            headers.sent_at = Timestamp(i64::try_from(*seconds).unwrap_or(0).saturating_mul(1_000_000));
        }
        let text = |text: &Option<ShortString>| text.as_ref().map(|t| t.as_str().to_string()).filter(|t| !t.is_empty());
        if let Some(content_type) = properties.content_type()
            && !["", &headers.content_type].contains(&content_type.as_str())
        {
            headers.content_type = content_type.as_str().to_string();
        }
        headers.correlation_id = properties.correlation_id().as_ref().map(|t| t.as_str().to_string());
        headers.reply_to = text(properties.reply_to()).map(|queue| self.names.strip(&queue).to_string());
        let app = properties.app_id().as_ref().map(ShortString::as_str).filter(|app| !app.contains(REPLACEMENT));
        let compact = app.and_then(|app| app.strip_prefix(h::OURS));
        let mut conversation = compact.and_then(|compact| compact_headers::read(compact, &mut headers));
        let mut too_much = false;
        if let Some(table) = properties.headers() {
            too_much = read_table(table, &mut headers, &mut conversation);
        }
        headers.conversation_id = conversation.unwrap_or_else(|| compact_headers::conversation(&headers)).0;
        let limits = Limits::default();
        if too_much || headers.check(&limits).is_err() {
            defect.get_or_insert_with(|| {
                format!("its headers are more than {} or larger than {} bytes", limits.header_count, limits.headers)
            });
            headers.user.clear();
            headers.correlation_id = None;
            headers.order_key = None;
            headers.saga = None;
            headers.originator = None;
            headers.tracestate = None;
            headers.traceparent = None;
        }
        (headers, defect)
    }

    /// The type's name: the property, or where an event came from.
    fn kind(&self, delivery: &Delivery) -> Result<String, String> {
        let property = delivery.properties.kind().as_ref().map(ShortString::as_str).filter(|kind| !kind.is_empty());
        let kind = match property {
            Some(kind) => kind,
            None if delivery.exchange == self.events => delivery.routing_key.as_str(),
            None => return Err("the message has no type: the AMQP property `type` is missing".into()),
        };
        check_name("message type", kind).map_err(|error| error.to_string())?;
        Ok(kind.to_string())
    }

    /// Why the broker took it out of its queue, if it is to stay out.
    ///
    /// One that was only delivered too often gets another chance, alone: whatever ended processes or connections again and
    /// again, it wore out the deliveries of all that were on their way. One that does it by itself is set aside by the
    /// limit of this queue. What had an order does not get it: its successors are through.
    fn dead_letter_cause(&self, table: Option<&FieldTable>) -> Option<String> {
        let death = table.and_then(|t| t.inner().get("x-death")).and_then(|deaths| array(deaths).first());
        let Some(AMQPValue::FieldTable(death)) = death else {
            return Some("rabbitmq took it out of its queue, and does not say why".into());
        };
        let field = |name: &str| death.inner().get(name).and_then(scalar).unwrap_or_default();
        let (queue, reason) = (field("queue"), field("reason"));
        if reason != "delivery_limit" {
            return Some(format!("rabbitmq took it out of queue {queue}: {reason}"));
        }
        if queue == self.queue {
            return None;
        }
        Some(format!(
            "rabbitmq took it out of queue {queue}: {reason} (it was delivered too often without being settled: it may \
             end the process or the connection)"
        ))
    }
}

/// A property that could not be read as text.
fn repaired(properties: &BasicProperties) -> Option<&'static str> {
    let texts = [
        ("type", properties.kind()),
        ("message-id", properties.message_id()),
        ("content-type", properties.content_type()),
        ("correlation-id", properties.correlation_id()),
        ("reply-to", properties.reply_to()),
    ];
    let bad = |text: &Option<ShortString>| text.as_ref().is_some_and(|text| text.as_str().contains(REPLACEMENT));
    texts.into_iter().find(|(_, text)| bad(text)).map(|(name, _)| name)
}

/// Reads what fits; answers whether there was more than is allowed. Looks into no nested table or array but our own list
/// of names, and copies nothing that is larger than all headers together may be.
fn read_table(table: &FieldTable, headers: &mut Headers, conversation: &mut Option<MessageId>) -> bool {
    let limits = Limits::default();
    let mut too_much = false;
    let mut propagate: &[AMQPValue] = &[];
    for (name, value) in table.inner() {
        let name = name.as_str();
        if h::brokers_own(name) || name.contains(REPLACEMENT) {
            continue;
        }
        if matches!(value, AMQPValue::LongString(text) if text.len() > limits.headers) {
            too_much = true;
            continue;
        }
        match name {
            h::PROPAGATE => propagate = array(value),
            h::COMPACT => {
                *conversation = scalar(value).and_then(|text| compact_headers::read(&text, headers)).or(*conversation)
            }
            h::CONVERSATION => {
                *conversation = scalar(value).and_then(|text| text.parse().ok()).map(MessageId).or(*conversation);
            }
            _ if name.starts_with("sagabus-") || matches!(name, h::TRACEPARENT | h::TRACESTATE) => {
                own(name, value, headers);
            }
            _ => {
                let Some(value) = scalar(value) else { continue };
                if headers.user.len() >= limits.header_count {
                    too_much = true;
                    continue;
                }
                headers.user.insert(name.to_string(), UserHeader { value, propagate: false });
            }
        }
    }
    for name in propagate.iter().filter_map(scalar) {
        if let Some(header) = headers.user.get_mut(&name) {
            header.propagate = true;
        }
    }
    too_much
}

/// One of ours. What does not parse is left out: it is of use to nobody, and the message is handled all the same.
fn own(name: &str, value: &AMQPValue, headers: &mut Headers) {
    match name {
        h::INTENT => {
            headers.intent = match scalar(value).as_deref() {
                Some("event") => Intent::Event,
                Some("reply") => Intent::Reply,
                Some("timeout") => Intent::Timeout,
                _ => Intent::Command,
            }
        }
        h::CAUSATION => headers.causation_id = scalar(value).map(|text| MessageId::from_foreign(&text)),
        h::CORRELATION => headers.correlation_id = scalar(value),
        h::REPLY_TO => headers.reply_to = scalar(value),
        h::SENT_AT => {
            if let Some(micros) = number(value) {
                headers.sent_at = Timestamp(micros);
            }
        }
        h::EXPIRES_AT => headers.expires_at = number(value).map(Timestamp),
        h::ORDER_KEY => headers.order_key = scalar(value),
        h::SAGA => headers.saga = json::<SagaAddress>(value),
        h::ORIGINATOR => headers.originator = json::<SagaAddress>(value),
        h::ATTEMPTS => headers.attempts = number(value).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        h::FIRST => headers.first_attempt = matches!(value, AMQPValue::Boolean(true)),
        h::TRACEPARENT => headers.traceparent = scalar(value),
        h::TRACESTATE => headers.tracestate = scalar(value),
        h::USER => headers.user.extend(json::<BTreeMap<String, UserHeader>>(value).unwrap_or_default()),
        _ => {}
    }
}

fn json<T: serde::de::DeserializeOwned>(value: &AMQPValue) -> Option<T> {
    match value {
        AMQPValue::LongString(text) => serde_json::from_slice(text.as_bytes()).ok(),
        _ => None,
    }
}

/// A value as text; arrays, tables, bytes, decimals and nothing have none.
fn scalar(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.as_str().to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        other => number(other)?.to_string(),
    })
}

fn number(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(n) => i64::from(*n),
        AMQPValue::ShortShortUInt(n) => i64::from(*n),
        AMQPValue::ShortInt(n) => i64::from(*n),
        AMQPValue::ShortUInt(n) => i64::from(*n),
        AMQPValue::LongInt(n) => i64::from(*n),
        AMQPValue::LongUInt(n) => i64::from(*n),
        AMQPValue::LongLongInt(n) => *n,
        AMQPValue::Timestamp(n) => i64::try_from(*n).ok()?,
        _ => return None,
    })
}

fn array(value: &AMQPValue) -> &[AMQPValue] {
    match value {
        AMQPValue::FieldArray(array) => array.as_slice(),
        _ => &[],
    }
}
