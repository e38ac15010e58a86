//! What a store answered, as lines that are the same for all stores that agree.

use sagabus_core::{Envelope, Error, Headers, Outgoing, SagaRow, SendOutcome, Timestamp};
use std::fmt::Write as _;

/// An answer, one fact a line.
pub(super) type Lines = Vec<String>;

const DAY: i64 = 86_400_000_000;

/// A time of the database's clock. Operations only ask for times that are long past, now, or some whole days ahead, so
/// that days are exact enough to tell them apart.
pub(super) fn moment(time: Timestamp, start: Timestamp) -> String {
    let away = time.0 - start.0;
    if !(-DAY..1000 * DAY).contains(&away) {
        return format!("at {}", time.0);
    }
    format!("day {}", (away + DAY / 2).div_euclid(DAY))
}

pub(super) fn envelope(message: &Envelope) -> String {
    parts(&message.headers, &message.body)
}

/// As a queue stores it.
pub(super) fn stored(headers: &[u8], body: &[u8]) -> String {
    match Headers::from_json(headers) {
        Ok(headers) => parts(&headers, body),
        Err(error) => format!("unreadable: {error}"),
    }
}

fn parts(headers: &Headers, body: &[u8]) -> String {
    let json = headers.to_json().map(|json| String::from_utf8_lossy(&json).into_owned()).unwrap_or_default();
    format!("{json} {}", bytes(body))
}

pub(super) fn outgoing(outgoing: &Outgoing) -> String {
    format!("{:?} {}", outgoing.to, envelope(&outgoing.message))
}

pub(super) fn bytes(bytes: &[u8]) -> String {
    if bytes.len() <= 40 {
        return format!("{:?}", String::from_utf8_lossy(bytes));
    }
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    format!("{} bytes {hash:x}", bytes.len())
}

pub(super) fn saga(row: Option<&SagaRow>) -> String {
    let Some(row) = row else { return "no saga".into() };
    let mut line = format!("saga {:?} {:?} {} v{} schema {}", row.kind, row.key, row.instance, row.version, row.schema);
    // writing to a string cannot fail
    let _ = write!(line, " state {} completed {}", bytes(&row.state), row.completed);
    let _ = write!(line, " origin {:?}", row.origin.as_deref().map(bytes));
    line
}

pub(super) fn error(error: &Error) -> String {
    // stores word their failures as they like
    format!("error {:?}", error.kind())
}

pub(super) fn sent(outcome: &SendOutcome) -> String {
    match outcome {
        SendOutcome::Done => "done".into(),
        SendOutcome::Unroutable(_) => "unroutable".into(),
        SendOutcome::Retry(e) => format!("retry {}", error(e)),
        SendOutcome::Unknown(e) => format!("unknown {}", error(e)),
    }
}

/// The lines, or the failure.
pub(super) fn or_error(answer: sagabus_core::Result<Lines>) -> Lines {
    answer.unwrap_or_else(|e| vec![error(&e)])
}
