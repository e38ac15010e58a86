//! A record becomes a message, whoever wrote it.

use super::headers as h;
use crate::compact_headers;
use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message, Timestamp as RecordTime};
use sagabus_core::{
    Envelope, Headers, Intent, Limits, MessageId, Runtime, SagaAddress, Timestamp, UserHeader, check_name,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// The message type of what cannot be understood.
const UNDECODABLE: &str = "sagabus.undecodable";

/// The most headers of ours that are read of a record.
const MAX_OWN_HEADERS: usize = 64;

/// A message that was read, and why it cannot be understood, if so.
pub(super) struct Decoded {
    pub(super) message: Envelope,
    pub(super) defect: Option<String>,
}

/// Reads a record. `event` is the type that its topic is for.
pub(super) fn decode(record: &BorrowedMessage<'_>, event: Option<&str>, runtime: &Runtime) -> Decoded {
    let body = record.payload().map(Bytes::copy_from_slice);
    // rdkafka panics on a header whose name is not UTF-8, which anybody may write
    let fields = catch_unwind(AssertUnwindSafe(|| Fields::read(record)));
    let (fields, mut defect) = match fields {
        Ok(fields) => (fields, None),
        Err(_) => (Fields::default(), Some("the name of a header is not UTF-8".to_string())),
    };
    // the same for each reading of the record
    let id = match &fields.id {
        Some(id) => MessageId::from_foreign(id),
        None => {
            let coordinates = format!("kafka:{}/{}/{}", record.topic(), record.partition(), record.offset());
            MessageId::from_foreign(&coordinates)
        }
    };
    // before its type: other clients' tombstones have no headers either
    if body.is_none() {
        defect.get_or_insert_with(|| "the message has no body: it is a tombstone of a compacted topic".into());
    }
    let kind = match fields.kind.as_deref().or(event) {
        None => Err("the message has no type: the header sagabus-type is missing".to_string()),
        Some(kind) => check_name("message type", kind).map(|()| kind.to_string()).map_err(|e| e.to_string()),
    };
    let kind = kind.unwrap_or_else(|why| {
        defect.get_or_insert(why);
        UNDECODABLE.to_string()
    });
    let intent = if event.is_some() { Intent::Event } else { Intent::Command };
    let mut headers = Headers::new(id, kind, intent, runtime.now());
    if let RecordTime::CreateTime(millis) | RecordTime::LogAppendTime(millis) = record.timestamp() {
        headers.sent_at = Timestamp(millis.saturating_mul(1000));
    }
    if fields.id.is_none() {
        // a foreign record: what is its key to Kafka is its order key to us
        let limits = Limits::default();
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        headers.order_key = key.filter(|key| (1..=limits.key).contains(&key.len())).map(str::to_string);
    }
    let too_much = fields.too_much;
    fields.into_headers(&mut headers);
    let limits = Limits::default();
    if too_much || headers.check(&limits).is_err() {
        defect.get_or_insert_with(|| {
            format!("its headers are more than {} or larger than {} bytes", limits.header_count, limits.headers)
        });
        headers = Headers::new(id, headers.message_type, headers.intent, headers.sent_at);
    }
    Decoded { message: Envelope::new(headers, body.unwrap_or_default()), defect }
}

/// The headers as they lie in the record: ours, and the rest.
#[derive(Default)]
struct Fields<'r> {
    id: Option<Cow<'r, str>>,
    kind: Option<Cow<'r, str>>,
    own: Vec<(&'r str, &'r [u8])>,
    user: BTreeMap<String, UserHeader>,
    too_much: bool,
}

impl<'r> Fields<'r> {
    /// A name may come again: the last one counts. Nothing is copied that is larger than all headers together may be.
    fn read(record: &'r BorrowedMessage<'_>) -> Self {
        let limits = Limits::default();
        let mut fields = Self::default();
        let Some(headers) = record.headers() else { return fields };
        for header in headers.iter() {
            let value = header.value.unwrap_or_default();
            if header.key.len() + value.len() > 2 * limits.headers {
                fields.too_much = true;
                continue;
            }
            let text = || String::from_utf8_lossy(value);
            match header.key {
                h::ID => fields.id = Some(text()).filter(|id| !id.is_empty()),
                h::TYPE => fields.kind = Some(text()),
                name if name.starts_with("sagabus-") || h::reserved(name) => {
                    if fields.own.len() < MAX_OWN_HEADERS {
                        fields.own.push((name, value));
                    }
                }
                name if fields.user.len() < limits.header_count => {
                    fields.user.insert(name.to_string(), UserHeader { value: text().into_owned(), propagate: false });
                }
                name => fields.too_much |= !fields.user.contains_key(name),
            }
        }
        fields
    }

    /// Fills in the headers. One that does not parse is left out, and the message is handled all the same.
    fn into_headers(self, headers: &mut Headers) {
        headers.user = self.user;
        let mut propagate: Vec<String> = Vec::new();
        let mut conversation = None;
        for (name, value) in &self.own {
            let text = || Some(String::from_utf8_lossy(value).into_owned());
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
            match *name {
                h::CONTENT_TYPE => headers.content_type = text().unwrap_or_default(),
                h::INTENT => match *value {
                    b"command" => headers.intent = Intent::Command,
                    b"event" => headers.intent = Intent::Event,
                    b"reply" => headers.intent = Intent::Reply,
                    b"timeout" => headers.intent = Intent::Timeout,
                    _ => {}
                },
                h::COMPACT => {
                    let named = std::str::from_utf8(value).ok().and_then(|text| compact_headers::read(text, headers));
                    conversation = named.or(conversation);
                }
                h::CONVERSATION => {
                    let named = text().and_then(|text| text.parse().ok()).map(MessageId);
                    conversation = named.or(conversation);
                }
                h::CAUSATION => headers.causation_id = text().map(|text| MessageId::from_foreign(&text)),
                h::CORRELATION => headers.correlation_id = text(),
                h::REPLY_TO => headers.reply_to = text().filter(|queue| check_name("queue", queue).is_ok()),
                h::SENT_AT => headers.sent_at = number().map_or(headers.sent_at, Timestamp),
                h::EXPIRES_AT => headers.expires_at = number().map(Timestamp),
                h::ORDER_KEY => headers.order_key = text(),
                h::SAGA => headers.saga = json::<SagaAddress>(value),
                h::ORIGINATOR => headers.originator = json::<SagaAddress>(value),
                h::ATTEMPTS => headers.attempts = number().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                h::FIRST => headers.first_attempt = *value == b"1",
                h::TRACEPARENT => headers.traceparent = text(),
                h::TRACESTATE => headers.tracestate = text(),
                h::PROPAGATE => propagate = json(value).unwrap_or_default(),
                h::USER => headers.user.extend(json::<BTreeMap<String, UserHeader>>(value).unwrap_or_default()),
                _ => {}
            }
        }
        headers.conversation_id = conversation.unwrap_or_else(|| compact_headers::conversation(headers)).0;
        for name in propagate {
            if let Some(header) = headers.user.get_mut(&name) {
                header.propagate = true;
            }
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}
