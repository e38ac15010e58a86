//! How a PostgreSQL store is opened.

use sagabus_core::{Error, Result, Runtime};
use sqlx::postgres::PgConnectOptions;
use std::{fmt, str::FromStr as _, time::Duration};

/// How a PostgreSQL store is opened. `PostgresOptions::default()` is right for nearly everyone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The schema that holds the tables (default `sagabus`): a lower case letter or `_`, then up to 47 lower case
    /// letters, digits or `_`. The URL's parameter `schema` overrides it.
    pub schema: String,
    /// Gives up durability: commits do not wait for the disk, and a server that does not sync is accepted. For tests.
    pub volatile: bool,
    /// How many commits may run at once (default 2).
    pub committers: usize,
    /// Most connections for everything but handlers' own transactions (default 10).
    pub connections: usize,
    /// Most handlers' own transactions at once, each on a connection of its own (default 12).
    pub transactions: usize,
    /// What the server calls this process's connections (default `sagabus`).
    pub application_name: String,
    /// How long a handler may hold its own transaction (default 2 s).
    pub transaction_limit: Duration,
    /// How long any statement of the store may take before the server cancels it (default 30 s).
    pub statement_limit: Duration,
    /// How long a connection may take to be made (default 5 s).
    pub connect_limit: Duration,
    /// For how long handled messages are remembered (default 7 days).
    pub horizon: Duration,
    /// The server stands behind a pooler in transaction mode: no LISTEN, no settings of a session, and no named prepared
    /// statements. Slower; readers poll (default off).
    pub pooler: bool,
    /// Stores that this process opens with the same URL and schema share connections and wake-ups (default on).
    pub shared: bool,
    /// Time, ids, tasks.
    pub runtime: Runtime,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            schema: "sagabus".into(),
            volatile: false,
            committers: 2,
            connections: 10,
            transactions: 12,
            application_name: "sagabus".into(),
            transaction_limit: Duration::from_secs(2),
            statement_limit: Duration::from_secs(30),
            connect_limit: Duration::from_secs(5),
            horizon: Duration::from_secs(7 * 86_400),
            pooler: false,
            shared: true,
            runtime: Runtime::system(),
        }
    }
}

impl PostgresOptions {
    /// The defaults, with this runtime.
    pub fn new(runtime: Runtime) -> Self {
        Self { runtime, ..Self::default() }
    }

    /// Puts the tables into this schema. See [`schema`](Self::schema).
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Gives up durability. See [`volatile`](Self::volatile).
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }
}

/// A server, a database and a schema, from a URL and options.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) connect: PgConnectOptions,
    pub(crate) schema: Schema,
    /// For texts: host and database, without user and password.
    pub(crate) location: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.location, self.schema.name)
    }
}

/// A schema's name, which has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Schema {
    pub(crate) name: String,
}

impl Schema {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let head = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let tail = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !head || !tail || name.len() > 48 || name.starts_with("pg_") {
            return Err(Error::invalid(format!(
                "the schema name {name:?} is not one of a lower case letter or _, then at most 47 of a-z, 0-9 and _"
            )));
        }
        Ok(Self { name: name.to_owned() })
    }

    /// As it stands before a table's name.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.name)
    }

    /// The channel of its wake-ups.
    pub(crate) fn channel(&self) -> String {
        format!("sagabus_{}", self.name)
    }
}

impl Address {
    /// Never shows the URL: it may hold a password.
    pub(crate) fn parse(url: &str, schema: &str) -> Result<Self> {
        let scheme = url.split("://").next().unwrap_or_default();
        if scheme != "postgres" && scheme != "postgresql" {
            return Err(Error::invalid("the store url does not begin with postgres://user@host/database"));
        }
        let (url, wanted) = without_schema(url);
        let schema = Schema::new(wanted.as_deref().unwrap_or(schema))?;
        let connect = PgConnectOptions::from_str(&url).map_err(|_| {
            Error::invalid(
                "the postgres url cannot be read: write postgres://user:password@host:5432/database, with special \
                 characters in the password percent-encoded",
            )
        })?;
        let database = connect.get_database().unwrap_or_else(|| connect.get_username()).to_owned();
        let location = format!("postgres at {}:{}/{database}", connect.get_host(), connect.get_port());
        Ok(Self { connect, schema, location })
    }
}

/// Takes our own parameter `schema` out of a URL's query: the driver would hand it to the server.
fn without_schema(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (ours, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("schema="));
    let schema = ours.first().and_then(|pair| pair.strip_prefix("schema=")).map(ToOwned::to_owned);
    let url = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    (url, schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_names_are_checked() {
        for good in ["sagabus", "_x", "a1_b", &"a".repeat(48)] {
            assert!(Schema::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "A", "a\"b", "a;b", "a b", "pg_x", "ä", &"a".repeat(49)] {
            assert!(Schema::new(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }

    #[test]
    fn urls_are_read_and_never_shown() {
        let address = Address::parse("postgres://u:secret@h:1234/d?schema=other&sslmode=require", "sagabus").unwrap();
        assert_eq!((address.schema.name.as_str(), address.location.as_str()), ("other", "postgres at h:1234/d"));
        assert!(!format!("{address:?}").contains("secret"));
        for bad in ["mysql://u:secret@h/d", "postgres://u:secret@h:notaport/d", "postgres://u:secret@h/d?schema=A"] {
            let error = Address::parse(bad, "sagabus").unwrap_err();
            assert!(error.is_invalid() && !format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
