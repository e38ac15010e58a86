//! Stored messages back into envelopes.

use super::sql;
use sagabus_core::{Envelope, Headers, Result};
use sqlx::sqlite::SqliteRow;

/// Two columns, headers and body, from `index` on.
pub(crate) fn envelope(row: &SqliteRow, index: usize) -> Result<Envelope> {
    let headers = Headers::from_json(sql::column::<&[u8]>(row, index)?)?;
    Ok(Envelope::new(headers, sql::bytes(row, index + 1)?))
}

/// The same; a damaged row is reported and passed over, so that it does not hold up the others.
pub(crate) fn envelope_or_report(row: &SqliteRow, index: usize, table: &str, id: i64) -> Option<Envelope> {
    match envelope(row, index) {
        Ok(envelope) => Some(envelope),
        Err(error) => {
            tracing::error!(table, id, error = &error as &dyn std::error::Error, "a stored message cannot be read");
            None
        }
    }
}
