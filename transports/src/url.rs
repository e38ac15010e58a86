//! The parts of a broker's URL: parameters, durations, user and hosts.
//!
//! Any part may be secret. So no error repeats a value, and none of these types shows one in its `Debug`.

use sagabus_core::{Error, Result};
use std::{fmt, str::FromStr, time::Duration};

/// One `name=value` of a URL's query.
#[derive(Clone, Copy)]
pub(crate) struct Parameter<'a> {
    broker: &'static str,
    name: &'a str,
    value: &'a str,
}

/// Gives each parameter of the URL to `set`, and returns the URL without its query. `broker` is for error texts.
pub(crate) fn read_parameters<'a>(
    broker: &'static str,
    url: &'a str,
    mut set: impl FnMut(Parameter<'a>) -> Result<()>,
) -> Result<&'a str> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(Parameter { broker, name, value })?;
    }
    Ok(base)
}

impl<'a> Parameter<'a> {
    /// The parameter's name.
    pub(crate) fn name(self) -> &'a str {
        self.name
    }

    /// The value as it stands in the URL.
    pub(crate) fn raw(self) -> &'a str {
        self.value
    }

    /// The value without percent encoding.
    #[cfg(any(test, feature = "kafka"))]
    pub(crate) fn text(self) -> Result<String> {
        percent_decode(self.value).ok_or_else(|| self.out_of_range())
    }

    /// The value as a number.
    pub(crate) fn number<T: FromStr>(self) -> Result<T> {
        self.value.parse().map_err(|_| self.out_of_range())
    }

    /// The value as a duration; a bare number is in `bare_unit`.
    pub(crate) fn duration(self, bare_unit: Duration) -> Result<Duration> {
        parse_duration(self.value, bare_unit).ok_or_else(|| self.out_of_range())
    }

    /// The choice whose name is the value.
    pub(crate) fn one_of<T: Copy>(self, choices: &[(&str, T)]) -> Result<T> {
        let chosen = choices.iter().find(|(name, _)| *name == self.value);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| self.out_of_range())
    }

    /// The error for a value that the parameter cannot have.
    pub(crate) fn out_of_range(self) -> Error {
        Error::invalid(format!("the parameter {} of the {} URL has no value in its range", self.name, self.broker))
    }

    /// The error for a name that no parameter has.
    pub(crate) fn unknown(self) -> Error {
        Error::invalid(format!("the {} URL has an unknown parameter {:?}", self.broker, self.name))
    }
}

impl fmt::Debug for Parameter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameter").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads `500ms`, `30s`, `5m`, `2h` or `1d`. A bare number is in `bare_unit`.
pub(crate) fn parse_duration(text: &str, bare_unit: Duration) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" => bare_unit,
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(60 * 60),
        "d" => Duration::from_secs(24 * 60 * 60),
        _ => return None,
    };
    unit.checked_mul(number.parse().ok()?)
}

/// The part of a URL between `//` and the path: `user:password@host:port,host2:port2`.
pub(crate) struct Authority<'a> {
    /// User and password, still percent-encoded; `None` if there is no user.
    pub(crate) user: Option<&'a str>,
    hosts: &'a str,
}

impl<'a> Authority<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let (user, hosts) = text.rsplit_once('@').unwrap_or(("", text));
        Self { user: Some(user).filter(|user| !user.is_empty()), hosts }
    }

    /// The hosts, each with its port if it names one.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.hosts.split(',')
    }
}

/// Undoes percent encoding. The result has no NUL, which would end a text in a C library.
#[cfg(any(test, feature = "kafka"))]
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_or_that_of_the_option() {
        let second = Duration::from_secs(1);
        let read = |text| parse_duration(text, second);
        assert_eq!(read("500ms"), Some(second / 2));
        assert_eq!(read("30s"), Some(30 * second));
        assert_eq!(read("30"), Some(30 * second));
        assert_eq!(read("5m"), Some(300 * second));
        assert_eq!(read("2h"), Some(7200 * second));
        assert_eq!(read("1d"), Some(86_400 * second));
        assert_eq!(parse_duration("30", Duration::from_millis(1)), Some(30 * second / 1000));
        for wrong in ["", "s", "-1s", "1.5s", "1 s", "1us", "1sec", "5000000000s", "ms500"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parameters_are_read_in_order_and_cut_off() {
        let mut seen = Vec::new();
        let base = read_parameters("kafka", "kafka://host/?a=1&&b&c=x%40=", |parameter| {
            seen.push((parameter.name().to_string(), parameter.text()?));
            Ok(())
        });
        assert_eq!(base.unwrap(), "kafka://host/");
        let expected = [("a", "1"), ("b", ""), ("c", "x@=")].map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(seen, expected);
    }

    #[test]
    fn neither_errors_nor_debug_show_a_value() {
        let parameter = Parameter { broker: "kafka", name: "linger", value: "hunter2%" };
        let errors = [
            parameter.text().unwrap_err(),
            parameter.number::<u16>().unwrap_err(),
            parameter.duration(Duration::from_secs(1)).unwrap_err(),
            parameter.one_of(&[("yes", true), ("no", false)]).unwrap_err(),
            parameter.unknown(),
        ];
        for error in errors {
            assert!(error.is_invalid() && error.to_string().contains("linger"), "{error:?}");
            assert!(!format!("{error} {error:?} {parameter:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn an_authority_has_a_user_and_hosts() {
        let read = |text| {
            let authority = Authority::parse(text);
            (authority.user, authority.hosts().collect::<Vec<_>>())
        };
        assert_eq!(read("me:p@ss@a:1,b"), (Some("me:p@ss"), vec!["a:1", "b"]));
        assert_eq!(read("@a"), (None, vec!["a"]));
        assert_eq!(read("a"), (None, vec!["a"]));
    }

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(percent_decode("a%40%c3%a9").as_deref(), Some("a@é"));
        for wrong in ["%", "%4", "%zz", "%ff", "%00"] {
            assert_eq!(percent_decode(wrong), None, "{wrong}");
        }
    }
}
