//! A row becomes a delivery.

use super::in_flight::Taken;
use sagabus_core::{
    Delivery, Envelope, Error, Fence, Headers, Intent, Limits, QueueRow, RowGate, RowTable, Runtime, UserHeader,
};
use std::{error::Error as _, sync::Arc};

/// The message type of what cannot be understood.
pub(super) const UNDECODABLE: &str = "sagabus.undecodable";

/// The user header with the headers as they came, as far as they fit.
pub(super) const RAW_HEADERS: &str = "sagabus.raw-headers";

pub(super) fn delivery(taken: Taken, group: Option<&Arc<str>>, runtime: &Runtime) -> Delivery {
    let Taken { row, token, epoch, suspect } = taken;
    let (shard, id) = (row.shard, row.id);
    let (message, defect) = match Headers::from_json(&row.headers) {
        Ok(mut headers) => {
            // what the queue takes for the id is the id: a foreign writer may have put another one into the headers
            headers.message_id = row.message_id;
            (Envelope::new(headers, row.body), None)
        }
        Err(error) => undecodable(row, &error, runtime),
    };
    Delivery {
        message: Arc::new(message),
        defect,
        token,
        gate: Some(RowGate { table: RowTable::Queue, id, token: 0 }),
        fence: group.map(|group| Fence { group: Arc::clone(group), shard, epoch }),
        suspect,
        anonymous: false,
    }
}

fn undecodable(row: QueueRow, error: &Error, runtime: &Runtime) -> (Envelope, Option<String>) {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let mut headers = Headers::new(row.message_id, UNDECODABLE, Intent::Event, runtime.now());
    headers.content_type = "application/octet-stream".into();
    let raw = UserHeader { value: truncated(&row.headers, Limits::default().headers / 2), propagate: false };
    headers.user.insert(RAW_HEADERS.into(), raw);
    (Envelope::new(headers, row.body), Some(format!("the headers cannot be decoded{cause}")))
}

/// The text, with what is no UTF-8 replaced, cut at a character's end.
fn truncated(bytes: &[u8], limit: usize) -> String {
    let mut text = String::from_utf8_lossy(bytes.get(..limit).unwrap_or(bytes)).into_owned();
    // a replacement is longer than what it replaces
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sagabus_core::{MessageId, Token};

    #[test]
    fn hostile_headers_become_a_defect_within_the_limits() {
        for raw in [
            Bytes::new(),
            Bytes::from_static(b"{"),
            Bytes::from_static(b"\xff\xfe\0"),
            Bytes::from("[".repeat(100_000)),
            Bytes::from("\u{fffd}".repeat(20_000)),
            Bytes::from_static(&[0xff; 20_000]),
            Bytes::from_static(b"{\"id\":\"not a uuid\"}"),
        ] {
            let runtime = Runtime::system();
            let id = MessageId(runtime.uuid());
            let row = QueueRow { id: 7, shard: 3, message_id: id, headers: raw, body: Bytes::from_static(b"x") };
            let taken = Taken { row, token: Token { epoch: 1, position: 7 }, epoch: 2, suspect: false };
            let delivery = delivery(taken, None, &runtime);
            assert!(delivery.defect.is_some_and(|d| d.starts_with("the headers cannot be decoded: ")));
            assert_eq!(delivery.message.headers.message_id, id);
            delivery.message.check(&Limits::default()).unwrap();
        }
    }
}
