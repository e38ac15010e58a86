//! `--backend`: which store and which broker a check runs on, and their servers.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use super::db::Db;
use super::place::Layout;
use crate::backends::provide::{Provided, provide};
use crate::backends::{kafka::Kafka, postgres::Postgres, rabbitmq::RabbitMq};

/// Where state lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In a file.
    Sqlite,
    /// On a server.
    Postgres,
}

/// What carries the messages, if it is not the store's kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// RabbitMQ.
    RabbitMq,
    /// Kafka.
    Kafka,
}

impl Broker {
    /// As the command line calls it, and the feature that brings its driver.
    pub fn word(self) -> &'static str {
        match self {
            Broker::RabbitMq => "rabbitmq",
            Broker::Kafka => "kafka",
        }
    }
}

/// What a check runs on: `STORE`, or `BROKER+STORE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Where the messages are, if not in a database.
    pub broker: Option<Broker>,
    /// Where state is.
    pub store: Store,
}

const BROKERS: [Broker; 2] = [Broker::RabbitMq, Broker::Kafka];
const STORES: [(&str, Store); 2] = [("sqlite", Store::Sqlite), ("postgres", Store::Postgres)];

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (broker, store) = match text.split_once('+') {
            Some((broker, store)) => (Some(broker), store),
            None => (None, text),
        };
        let found = STORES.iter().find(|(name, _)| *name == store).map(|(_, store)| *store);
        let known = || "there are sqlite and postgres, each alone or behind rabbitmq+ or kafka+".to_owned();
        let store = found.ok_or_else(known)?;
        let broker = match broker {
            Some(name) => Some(*BROKERS.iter().find(|known| known.word() == name).ok_or_else(known)?),
            None => None,
        };
        Ok(Self { broker, store })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(broker) = self.broker {
            write!(f, "{}+", broker.word())?;
        }
        f.write_str(match self.store {
            Store::Sqlite => "sqlite",
            Store::Postgres => "postgres",
        })
    }
}

/// Where one run's things lie.
#[derive(Debug, Clone)]
pub struct Urls {
    /// The messages.
    pub transport: String,
    /// State.
    pub store: String,
}

/// The schema of the queues where they are split from a store on PostgreSQL.
pub const BUS_SCHEMA: &str = "bus";
/// The store's schema, and where the ledger and the audit are.
pub const STORE_SCHEMAS: &str = "sagabus,public";
/// In a run's directory: where its store is, if that is not a file beside it.
const URL_FILE: &str = "store.url";

/// The servers of a backend. They stay up until this is dropped, or longer if somebody else has started them.
#[derive(Debug)]
pub struct Servers {
    backend: Backend,
    store: Option<Provided>,
    broker: Option<Provided>,
    /// What goes into the broker's address behind the prefix.
    parameters: String,
    made: AtomicU32,
}

impl Servers {
    /// Brings up what the backend needs.
    pub fn up(backend: Backend) -> Result<Self> {
        let store = match backend.store {
            Store::Sqlite => None,
            Store::Postgres => Some(provide(&Postgres, false)?),
        };
        let broker = match backend.broker {
            None => None,
            Some(Broker::RabbitMq) => Some(provide(&RabbitMq, false)?),
            Some(Broker::Kafka) => Some(provide(&Kafka, false)?),
        };
        for server in store.iter().chain(&broker) {
            println!("{} ({})", server.identity, server.how.word());
        }
        Ok(Self { backend, store, broker, parameters: String::new(), made: AtomicU32::new(0) })
    }

    /// What they are for.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Where the broker is.
    pub fn broker(&self) -> Result<&str> {
        Ok(&self.broker.as_ref().context("there is no broker in this run")?.address)
    }

    /// Has the broker reached at another address, and with these parameters of the URL.
    pub fn reroute(&mut self, address: String, parameters: &str) -> Result<()> {
        self.broker.as_mut().context("there is no broker in this run")?.address = address;
        self.parameters = parameters.to_owned();
        Ok(())
    }

    /// Where the PostgreSQL server is.
    pub fn postgres(&self) -> Result<&str> {
        Ok(&self.store.as_ref().context("there is no postgres server in this run")?.address)
    }

    /// Makes room for a run in a directory: a database of its own, and names of its own on the broker.
    pub fn prepare(&self, dir: &Path, layout: Layout) -> Result<Urls> {
        let name = format!("run_{}_{}", std::process::id(), self.made.fetch_add(1, Ordering::Relaxed));
        let file = |name: &str| format!("sqlite://{}", dir.join(name).display());
        let store = match &self.store {
            None => file("shop.db"),
            Some(server) => {
                Db::connect(&server.address, STORE_SCHEMAS)?.run(&format!("create database {name}"))?;
                let url = with_database(&server.address, &name)?;
                fs::write(dir.join(URL_FILE), &url).context("write down the store's address")?;
                url
            }
        };
        let transport = match (&self.broker, layout) {
            (Some(broker), _) => {
                // a stopped process keeps its messages until the broker misses its heartbeats
                let first = match self.backend.broker {
                    Some(Broker::RabbitMq) => "heartbeat=2&",
                    Some(Broker::Kafka) => "session_timeout=3&partitions=4&drain_timeout=10&send_timeout=8&",
                    None => "",
                };
                format!("{}?{first}prefix={name}.{}", broker.address, self.parameters)
            }
            (None, Layout::Joined) => store.clone(),
            (None, Layout::Split) if self.backend.store == Store::Sqlite => file("bus.db"),
            (None, Layout::Split) => format!("{store}?schema={BUS_SCHEMA}"),
        };
        Ok(Urls { transport, store })
    }
}

/// The store of the run in this directory.
pub fn store_of(run: &Path) -> Result<Db> {
    match fs::read_to_string(run.join(URL_FILE)) {
        Ok(url) => Db::connect(&url, STORE_SCHEMAS),
        Err(_) => Db::open(&run.join("shop.db")),
    }
}

/// Whether a run's store is on a server.
pub fn is_on_a_server(run: &Path) -> bool {
    run.join(URL_FILE).exists()
}

/// Drops what a run has on a database server.
pub fn forget(run: &Path) -> Result<()> {
    let Ok(url) = fs::read_to_string(run.join(URL_FILE)) else { return Ok(()) };
    let name = url.rsplit('/').next().context("the database's name")?;
    // one cannot drop the database that one is connected to
    Db::connect(&with_database(&url, "postgres")?, "public")?
        .run(&format!("drop database if exists {name} with (force)"))
}

/// The URL of another database on the same server.
fn with_database(url: &str, name: &str) -> Result<String> {
    match url.split('?').next().and_then(|url| url.rsplit_once('/')) {
        Some((server, _)) if server.contains("://") && !server.ends_with('/') => Ok(format!("{server}/{name}")),
        _ => bail!("the postgres address names no database"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Backend, Broker, Store, with_database};

    #[test]
    fn names_are_read_and_written() {
        for text in ["sqlite", "postgres", "rabbitmq+sqlite", "rabbitmq+postgres", "kafka+sqlite", "kafka+postgres"] {
            assert_eq!(text.parse::<Backend>().unwrap().to_string(), text);
        }
        let both: Backend = "kafka+postgres".parse().unwrap();
        assert_eq!((both.broker, both.store), (Some(Broker::Kafka), Store::Postgres));
        for bad in ["", "mysql", "rabbitmq", "postgres+sqlite", "rabbitmq+", "rabbitmq+sqlite+x"] {
            assert!(bad.parse::<Backend>().is_err(), "{bad}");
        }
    }

    #[test]
    fn another_database_of_the_same_server() {
        assert_eq!(with_database("postgres://u:p@h:1/a?x=y", "b").unwrap(), "postgres://u:p@h:1/b");
        assert!(with_database("postgres://h", "b").is_err());
    }
}
