//! Pages of a list.

use sagabus_core::{Error, Result, Timestamp};
use std::{fmt, str::FromStr};

/// A place in a list, after which the next page begins. Opaque.
///
/// Its text form (`Display`, `FromStr`) may travel in a link or a form.
///
/// ```
/// use sagabus::admin::Cursor;
///
/// let start = Cursor::start();
/// assert_eq!(start.to_string().parse::<Cursor>().unwrap(), start);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor(After);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum After {
    #[default]
    Start,
    Id(i64),
    Due(i64, i64),
    Key(String),
}

impl Cursor {
    /// The beginning of any list.
    #[must_use]
    pub fn start() -> Self {
        Self::default()
    }

    pub(super) fn after_id(id: i64) -> Self {
        Self(After::Id(id))
    }

    pub(super) fn after_due(due: Timestamp, row: i64) -> Self {
        Self(After::Due(due.0, row))
    }

    pub(super) fn after_key(key: &str) -> Self {
        Self(After::Key(key.to_string()))
    }

    pub(super) fn id(&self) -> Result<i64> {
        match &self.0 {
            After::Start => Ok(0),
            After::Id(id) => Ok(*id),
            _ => Err(other_list()),
        }
    }

    pub(super) fn due(&self) -> Result<Option<(Timestamp, i64)>> {
        match &self.0 {
            After::Start => Ok(None),
            After::Due(due, row) => Ok(Some((Timestamp(*due), *row))),
            _ => Err(other_list()),
        }
    }

    pub(super) fn key(&self) -> Result<&str> {
        match &self.0 {
            After::Start => Ok(""),
            After::Key(key) => Ok(key),
            _ => Err(other_list()),
        }
    }
}

fn other_list() -> Error {
    Error::invalid("this cursor is of another list: begin a list with `Cursor::start()`")
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            After::Start => f.write_str("start"),
            After::Id(id) => write!(f, "id:{id}"),
            After::Due(due, row) => write!(f, "due:{due}:{row}"),
            After::Key(key) => write!(f, "key:{key}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::invalid(format!("{text:?} is no cursor: pass the text of an earlier page's `next`"));
        match text.split_once(':') {
            None if text == "start" => Ok(Self::start()),
            Some(("id", id)) => id.parse().map(Self::after_id).map_err(|_| bad()),
            Some(("due", due_and_row)) => {
                let (due, row) = due_and_row.split_once(':').ok_or_else(bad)?;
                let due = due.parse().map(Timestamp).map_err(|_| bad())?;
                row.parse().map(|row| Self::after_due(due, row)).map_err(|_| bad())
            }
            Some(("key", key)) => Ok(Self::after_key(key)),
            _ => Err(bad()),
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items, at most as many as were asked for.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` at the end of the list.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    pub(super) fn new(items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> Cursor) -> Self {
        let next = items.last().filter(|_| items.len() >= limit).map(cursor);
        Self { items, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_fits_its_list_only() {
        for cursor in
            [Cursor::start(), Cursor::after_id(-7), Cursor::after_key("a:b"), Cursor::after_due(Timestamp(-1), 9)]
        {
            assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
        assert!("id:x".parse::<Cursor>().unwrap_err().is_invalid());
        assert!("".parse::<Cursor>().is_err());
        assert!(Cursor::after_id(1).key().unwrap_err().is_invalid());
        assert!(Cursor::after_key("k").id().unwrap_err().is_invalid());
    }

    #[test]
    fn only_a_full_page_has_a_next_one() {
        let page = |items: Vec<i64>| Page::new(items, 2, |id| Cursor::after_id(*id));
        assert_eq!(page(vec![4, 9]).next, Some(Cursor::after_id(9)));
        assert_eq!((page(vec![4]).next, page(vec![]).next), (None, None));
    }
}
