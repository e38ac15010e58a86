//! A saga's state as it is stored: JSON, whatever the endpoint's messages are in, so that people can read it.

use crate::Saga;
use bytes::Bytes;
use sagabus_core::{HandlerError, SagaRow};
use std::cmp::Ordering;

/// Reads a stored state, upgrading it if its schema is another one. An error names the saga, its key and the versions.
pub(crate) fn decode<S: Saga>(row: &SagaRow) -> Result<S, HandlerError> {
    let undecodable = |e: serde_json::Error| {
        HandlerError::permanent(format!(
            "cannot decode the state of saga {}, key {:?}, version {}, schema {}: {e}",
            row.kind, row.key, row.version, row.schema
        ))
    };
    if row.schema == S::SCHEMA {
        return serde_json::from_slice(&row.state).map_err(undecodable);
    }
    let old = serde_json::from_slice(&row.state).map_err(undecodable)?;
    let new = S::upgrade(row.schema, old).map_err(|e| not_upgraded::<S>(row, &e))?;
    serde_json::from_value(new).map_err(undecodable)
}

fn not_upgraded<S: Saga>(row: &SagaRow, error: &HandlerError) -> HandlerError {
    let text = format!(
        "cannot upgrade the state of saga {}, key {:?}, version {}, from schema {} to {}: {error:?}",
        row.kind,
        row.key,
        row.version,
        row.schema,
        S::SCHEMA
    );
    match (row.schema.cmp(&S::SCHEMA), error.retry_delay()) {
        // A newer program is being rolled out beside this one: its processes will do it.
        (Ordering::Greater, Some(delay)) => HandlerError::retry_in(delay, text),
        (Ordering::Greater, None) if !error.is_permanent() => HandlerError::new(text),
        _ => HandlerError::permanent(text),
    }
}

/// Writes a state.
pub(crate) fn encode<S: Saga>(kind: &str, key: &str, state: &S) -> Result<Bytes, HandlerError> {
    match serde_json::to_vec(state) {
        Ok(bytes) => Ok(bytes.into()),
        Err(e) => Err(HandlerError::permanent(format!("cannot encode the state of saga {kind}, key {key:?}: {e}"))),
    }
}
