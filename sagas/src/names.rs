//! How types are called in error texts.

/// `OrderPlaced` instead of `shop::messages::OrderPlaced`; generic arguments likewise.
pub(crate) fn short(type_name: &str) -> String {
    let mut short = String::with_capacity(type_name.len());
    let mut rest = type_name;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'))).unwrap_or(rest.len());
        let (path, tail) = rest.split_at(end);
        short.push_str(path.rsplit("::").next().unwrap_or(path));
        let next = tail.chars().next();
        short.extend(next);
        rest = &tail[next.map_or(0, char::len_utf8)..];
    }
    short
}

/// [`short`] of a type.
pub(crate) fn of<T: ?Sized>() -> String {
    short(std::any::type_name::<T>())
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn paths_are_dropped() {
        assert_eq!(short("shop::messages::OrderPlaced"), "OrderPlaced");
        assert_eq!(short("a::B<c::D, &'static e::F>"), "B<D, &'static F>");
        assert_eq!(short("u32"), "u32");
        assert_eq!(short(""), "");
    }
}
