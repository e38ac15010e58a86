//! Values on their way into a statement.

use sagabus_core::{Error, ErrorKind, Result, Timestamp};
use sqlx::sqlite::SqliteArguments;
use std::sync::Arc;
use uuid::Uuid;

enum Value {
    Null,
    Int(i64),
    Text(String),
    FileState(Arc<str>),
    Blob(Vec<u8>),
}

/// Bound values.
#[derive(Default)]
pub(crate) struct Args(Vec<Value>);

impl Args {
    pub(crate) fn int(&mut self, value: i64) {
        self.0.push(Value::Int(value));
    }

    pub(crate) fn time(&mut self, value: Timestamp) {
        self.int(value.0);
    }

    pub(crate) fn maybe_int(&mut self, value: Option<i64>) {
        self.0.push(value.map_or(Value::Null, Value::Int));
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.0.push(Value::Text(value.to_string()));
    }

    pub(crate) fn maybe_text(&mut self, value: Option<&str>) {
        self.0.push(value.map_or(Value::Null, |text| Value::Text(text.to_string())));
    }

    /// Costs no copy.
    pub(crate) fn shared(&mut self, value: &Arc<str>) {
        self.0.push(Value::FileState(Arc::clone(value)));
    }

    pub(crate) fn blob(&mut self, value: &[u8]) {
        self.0.push(Value::Blob(value.to_vec()));
    }

    pub(crate) fn maybe_blob(&mut self, value: Option<&[u8]>) {
        self.0.push(value.map_or(Value::Null, |bytes| Value::Blob(bytes.to_vec())));
    }

    pub(crate) fn id(&mut self, value: Uuid) {
        self.blob(value.as_bytes());
    }

    /// Headers as they are stored: JSON text, readable with the sqlite3 shell.
    pub(crate) fn headers(&mut self, value: &sagabus_core::Headers) -> Result<()> {
        let text = String::from_utf8(value.to_json()?);
        // serde_json writes UTF-8 only
        self.0.push(Value::Text(text.unwrap_or_default()));
        Ok(())
    }

    /// Unbound parameters at the end, up to `count`, as NULL: where another statement's parameters follow.
    pub(super) fn pad(&mut self, count: usize) {
        while self.0.len() < count {
            self.0.push(Value::Null);
        }
    }

    /// The values of the statement that follows in the same text.
    pub(super) fn append(&mut self, mut next: Self) {
        self.0.append(&mut next.0);
    }

    /// As the driver takes them.
    pub(super) fn bind(self) -> Result<SqliteArguments> {
        use sqlx::Arguments as _;
        let mut bound = SqliteArguments::default();
        bound.reserve(self.0.len(), 0);
        for value in self.0 {
            let added = match value {
                Value::Null => bound.add(None::<i64>),
                Value::Int(value) => bound.add(value),
                Value::Text(value) => bound.add(value),
                Value::FileState(value) => bound.add(value),
                Value::Blob(value) => bound.add(value),
            };
            added.map_err(|e| Error::with_source(ErrorKind::Invalid, "bind a value for sqlite", e))?;
        }
        Ok(bound)
    }
}
