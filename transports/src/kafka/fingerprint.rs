//! The fingerprint of a topic: a topic that is removed and made again begins at 0 under the same name.

use sagabus_core::Headers;

/// A message that lay at an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) offset: i64,
    /// The message's id and time.
    message: String,
}

impl Fingerprint {
    pub(super) fn of(offset: i64, headers: &Headers) -> Self {
        Self { offset, message: format!("{} {}", headers.message_id, headers.sent_at.0) }
    }

    /// The text that the store keeps.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.offset, self.message)
    }

    /// Reads the store's text; `None` for any other text.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (offset, message) = text.split_once(' ')?;
        Some(Self { offset: offset.parse().ok().filter(|offset| *offset >= 0)?, message: message.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_was_written() {
        let fingerprint = Fingerprint { offset: 17, message: "0190 5".into() };
        assert_eq!(Fingerprint::read(&fingerprint.text()), Some(fingerprint));
        for text in ["", "17", "x 0190 5", "-3 0190 5"] {
            assert_eq!(Fingerprint::read(text), None, "{text}");
        }
    }
}
