//! How a case is put before the endpoint: rows of its own tables, as a foreign writer or a broken disk would leave them.

use anyhow::Result;
use serde_json::{Value, json};

use crate::checks::fixture::db::{Bind, Db};
use sagabus_testkit::rng::Rng;

/// A queue row.
#[derive(Debug, Clone)]
pub struct Row {
    /// As stored, whatever it is.
    pub headers: Vec<u8>,
    /// As stored.
    pub body: Vec<u8>,
    /// 16 bytes, unless that is the case.
    pub id: Vec<u8>,
}

/// Version 7 by layout, of today, so that it is remembered like any other.
pub fn message_id(rng: &mut Rng) -> [u8; 16] {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&((now.as_millis() as u64) << 16 | 0x7000 | rng.below(0x1000)).to_be_bytes());
    id[8..].copy_from_slice(&(rng.next_u64() >> 2 | 1 << 63).to_be_bytes());
    id
}

/// With hyphens.
pub fn hyphenated(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Headers as they should be.
pub fn headers(id: &[u8; 16], message_type: &str) -> Value {
    json!({ "id": hyphenated(id), "type": message_type, "intent": "command", "conv": hyphenated(id), "sent": 1_760_000_000_000_000_i64 })
}

impl Row {
    /// A message as it should be.
    pub fn good(rng: &mut Rng, message_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let id = message_id(rng);
        let headers = headers(&id, message_type).to_string().into_bytes();
        Self { headers, body: body.into(), id: id.to_vec() }
    }

    /// The same with these headers changed; `null` removes one.
    pub fn with(rng: &mut Rng, message_type: &str, body: &str, change: Value) -> Self {
        let id = message_id(rng);
        let mut headers = headers(&id, message_type);
        if let (Some(headers), Value::Object(change)) = (headers.as_object_mut(), change) {
            for (name, value) in change {
                match value {
                    Value::Null => headers.remove(&name),
                    value => headers.insert(name, value),
                };
            }
        }
        Self { headers: headers.to_string().into_bytes(), body: body.into(), id: id.to_vec() }
    }

    /// Headers as raw text.
    pub fn raw(rng: &mut Rng, headers: impl Into<Vec<u8>>) -> Self {
        Self { headers: headers.into(), body: b"{}".to_vec(), id: message_id(rng).to_vec() }
    }

    /// Puts it into the queue, past everything that a sender would have checked.
    pub fn insert(&self, db: &mut Db, queue: &str, shard: i64) -> Result<()> {
        db.run_with(
            "insert into queue (queue, shard, message_id, headers, body) values (?, ?, ?, cast(? as text), ?)",
            &[
                Bind::Text(queue),
                Bind::Number(shard),
                Bind::Blob(&self.id),
                Bind::Blob(&self.headers),
                Bind::Blob(&self.body),
            ],
        )
    }
}
