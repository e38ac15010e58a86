//! The grammar of names, the same as `sagabus_core::check_name`.

/// What is wrong with a wire name, if anything.
pub(crate) fn problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("the message name is empty".into());
    }
    if name.len() > 128 {
        return Some(format!("the message name is {} bytes long, 128 are allowed", name.len()));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    name.chars()
        .find(|c| !good(*c))
        .map(|c| format!("the message name contains {c:?}; allowed are letters, digits and . _ - : /"))
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn the_grammar_is_the_one_of_core() {
        for name in
            ["shop.order-placed", "a", "A:b/c_9", "", "a b", "ä", "a\0", "x'y", &"a".repeat(128), &"a".repeat(129)]
        {
            assert_eq!(problem(name).is_none(), sagabus_core::check_name("message", name).is_ok(), "{name:?}");
        }
    }
}
