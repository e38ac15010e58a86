//! Text that an application chose: any Rust string, while PostgreSQL refuses U+0000.

use std::borrow::Cow;

/// U+0000 as U+0001 U+0001, U+0001 as U+0001 U+0002: nothing else changes, and the order stays that of the bytes.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b > 1) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\u{1}', "\u{1}\u{2}").replace('\0', "\u{1}\u{1}"))
}

/// The reverse.
pub(crate) fn unescape(text: String) -> String {
    if !text.contains('\u{1}') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\u{1}' if chars.next() == Some('\u{1}') => '\0',
            other => other,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_in_the_same_order() {
        let mut texts =
            vec!["", "a", "\0", "\0\0", "\u{1}", "\u{1}\u{1}", "\u{1}\u{2}", "\u{2}", "a\0b", "a\u{1}b", "ä\0"];
        texts.sort_unstable();
        let escaped: Vec<String> = texts.iter().map(|text| escape(text).into_owned()).collect();
        assert!(escaped.is_sorted() && escaped.iter().all(|text| !text.contains('\0')));
        for (text, escaped) in texts.iter().zip(escaped) {
            assert_eq!(*text, unescape(escaped));
        }
    }
}
