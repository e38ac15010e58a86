use crate::{Error, Result};

/// Checks a name that becomes a queue, a topic or a key in a table: endpoints, message types, handlers and sagas.
///
/// 1 to 128 characters of `a-z A-Z 0-9 . _ - : /`. Anything else is refused with an [invalid](Error::is_invalid) error,
/// so that no backend ever has to quote a name. `what` is what the error calls it ("endpoint", "message type").
pub fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(format!("the {what} name is empty")));
    }
    if name.len() > 128 {
        return Err(Error::invalid(format!("the {what} name is {} bytes long, 128 are allowed", name.len())));
    }
    let bad = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/'));
    if let Some(c) = name.chars().find(|c| bad(*c)) {
        return Err(Error::invalid(format!(
            "the {what} name {name:?} contains {c:?}; allowed are letters, digits and . _ - : /"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_are_plain() {
        assert!(check_name("endpoint", "shop.orders-v2/eu:1_a").is_ok());
        for bad in ["", "a b", "a'b", "a\"b", "a;drop", "\u{202e}a", "ä", "a\0"] {
            assert!(check_name("endpoint", bad).is_err(), "{bad:?}");
        }
        assert!(check_name("endpoint", &"a".repeat(128)).is_ok());
        assert!(check_name("endpoint", &"a".repeat(129)).is_err());
    }
}
