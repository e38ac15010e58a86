//! Rows as JSON lines: the generator's log, and tables as `sqlite3 -json` or `psql` print them, one object a line.

use serde::{Serialize, de::DeserializeOwned};

/// Reads rows. Empty lines are skipped. A last line without its end, as a killed writer leaves it, is skipped too: what
/// it was about to say was not said.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, String> {
    let whole = text.ends_with('\n');
    let count = text.lines().count();
    let mut rows = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(row) => rows.push(row),
            Err(_) if n + 1 == count && !whole => {}
            Err(error) => return Err(format!("line {}: {error}", n + 1)),
        }
    }
    Ok(rows)
}

/// Writes rows.
pub fn write<T: Serialize>(rows: &[T]) -> Result<String, String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row).map_err(|error| error.to_string())?);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::LedgerRow;

    #[test]
    fn rows_survive_and_a_torn_end_is_forgiven() {
        let row = |entry: &str| LedgerRow {
            order_id: "ü\"1".into(),
            entry: entry.into(),
            amount: -5,
            message_id: "m".into(),
        };
        let rows = vec![row("reserved"), row("captured")];
        let text = write(&rows).expect("write");
        assert_eq!(read::<LedgerRow>(&text).expect("read"), rows);
        assert_eq!(read::<LedgerRow>(&text[..text.len() - 4]).expect("torn"), rows[..1]);
        assert_eq!(read::<LedgerRow>(text.trim_end()).expect("no newline, but whole"), rows);
        assert!(read::<LedgerRow>(&format!("{{\n{text}")).expect_err("broken").starts_with("line 1"));
        assert!(read::<LedgerRow>("").expect("empty").is_empty());
    }
}
