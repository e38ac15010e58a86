//! Many rows in one: the hot reads.
//!
//! The driver hands each row from its thread to ours, with a wake-up and an allocation per column; for small rows that
//! costs more than reading them. So the hot reads concatenate their rows within SQLite into one value and take it apart
//! here: numbers in decimal, each followed by a space, then bytes whose lengths were among the numbers. SQLite's `||` and
//! `group_concat` do not look at the bytes as long as the database's encoding is UTF-8, which `check` sees to.

use super::error::doing;
use bytes::Bytes;
use sagabus_core::{Error, ErrorKind, Result};
use sqlx::{Row as _, sqlite::SqliteRow};
use uuid::Uuid;

/// A packed value, and how far it is read. What comes out of it is copied, so that one message that stays in memory for
/// long does not hold on to all that were read with it.
pub(crate) struct PackedRows(Vec<u8>, usize);

impl PackedRows {
    /// Of the one row and column that a packed reading gives.
    pub(crate) fn new(rows: &[SqliteRow]) -> Result<Self> {
        let Some(row) = rows.first() else { return Ok(Self(Vec::new(), 0)) };
        let value = row.try_get_unchecked::<Option<&[u8]>, _>(0).map_err(doing("read packed rows from sqlite"))?;
        Ok(Self(value.map(<[u8]>::to_vec).unwrap_or_default(), 0))
    }

    fn rest(&self) -> &[u8] {
        self.0.get(self.1..).unwrap_or_default()
    }

    /// Whether there is another row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> Result<i64> {
        let end = self.rest().iter().position(|byte| *byte == b' ').ok_or_else(torn)?;
        let digits = std::str::from_utf8(self.take(end)?).ok().and_then(|text| text.parse().ok()).ok_or_else(torn)?;
        self.1 += 1;
        Ok(digits)
    }

    fn take(&mut self, length: usize) -> Result<&[u8]> {
        let start = self.1;
        self.1 = start.saturating_add(length);
        self.0.get(start..self.1).ok_or_else(torn)
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, length: i64) -> Result<Bytes> {
        let length = usize::try_from(length).map_err(|_| torn())?;
        self.take(length).map(Bytes::copy_from_slice)
    }

    /// An id.
    pub(crate) fn uuid(&mut self) -> Result<Uuid> {
        Uuid::from_slice(self.take(16)?).map_err(|_| torn())
    }
}

fn torn() -> Error {
    Error::new(ErrorKind::Backend, "packed rows from sqlite do not have the lengths that they say")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_torn_is_refused() {
        let mut packed = PackedRows(b"12 -1 3 abcx".to_vec(), 0);
        assert_eq!((packed.number().unwrap(), packed.number().unwrap(), packed.number().unwrap()), (12, -1, 3));
        assert_eq!(packed.bytes(3).unwrap(), "abc");
        assert!(!packed.is_empty() && packed.number().is_err() && packed.bytes(-1).is_err());
        assert!(packed.bytes(2).is_err());
    }
}
