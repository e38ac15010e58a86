//! The table of backends: what each needs, and which suites it has in this tree.

pub mod apt;
pub mod compose;
pub mod kafka;
pub mod postgres;
pub mod provide;
pub mod rabbitmq;
pub mod site;
pub mod state;
pub mod wire;

use std::path::PathBuf;

use anyhow::Result;

use site::Site;

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Backend {
    /// What `--require` and `--only` call it.
    pub name: &'static str,
    /// How to get its server; None if it lives in the test process.
    pub server: Option<&'static dyn Server>,
    /// Suites that run apart, because they need the server. Embedded backends have theirs in `cargo test --workspace`.
    pub suites: &'static [Suite],
}

/// One `cargo test` command that needs a server; it finds the address in the environment.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// What the table calls it.
    pub name: &'static str,
    /// The arguments after `cargo test`.
    pub args: &'static [&'static str],
}

/// Every backend. A backend whose suites arrive gets them listed here and is then part of `--require all`.
pub const ALL: &[Backend] = &[
    Backend { name: "memory", server: None, suites: &[] },
    Backend { name: "sqlite", server: None, suites: &[] },
    Backend { name: "postgres", server: Some(&postgres::Postgres), suites: POSTGRES },
    Backend { name: "rabbitmq", server: Some(&rabbitmq::RabbitMq), suites: RABBITMQ },
    Backend { name: "kafka", server: Some(&kafka::Kafka), suites: KAFKA },
];

const RABBITMQ: &[Suite] = &[
    Suite {
        name: "transport conformance",
        args: &["-p", "sagabus-transports", "--features", "rabbitmq", "--test", "rabbitmq_conformance"],
    },
    Suite {
        name: "hazards of lapin and the broker",
        args: &["-p", "sagabus-transports", "--features", "rabbitmq", "--test", "rabbitmq_hazards"],
    },
    Suite {
        name: "exchanges and queues that disappear",
        args: &["-p", "sagabus-transports", "--features", "rabbitmq", "--test", "rabbitmq_topology"],
    },
    Suite { name: "tls", args: &["-p", "sagabus-transports", "--features", "rabbitmq,tls", "--test", "rabbitmq_tls"] },
];

const KAFKA: &[Suite] = &[
    Suite {
        name: "transport conformance",
        args: &["-p", "sagabus-transports", "--features", "kafka", "--test", "kafka_conformance"],
    },
    Suite {
        name: "hazards of librdkafka and the broker",
        args: &["-p", "sagabus-transports", "--features", "kafka", "--test", "kafka_hazards"],
    },
];

const POSTGRES: &[Suite] = &[
    Suite {
        name: "postgres store",
        args: &["-p", "sagabus-outbox", "--features", "postgres", "--test", "postgres_conformance"],
    },
    Suite {
        name: "postgres transport",
        args: &["-p", "sagabus-outbox", "--features", "postgres", "--test", "postgres_transport"],
    },
    Suite {
        name: "postgres faults",
        args: &["-p", "sagabus-outbox", "--features", "postgres", "--test", "postgres_faults"],
    },
    Suite {
        name: "postgres plans",
        args: &["-p", "sagabus-outbox", "--features", "postgres", "--test", "postgres_plans"],
    },
];

/// The servers among them.
pub fn servers() -> impl Iterator<Item = &'static dyn Server> {
    ALL.iter().filter_map(|backend| backend.server)
}

/// What [`provide`] needs to know to bring a server up in any of its ways.
pub trait Server: Sync {
    /// The backend's name, which is also the compose service's.
    fn name(&self) -> &'static str;

    /// The variable with its address, read by us and by the suites.
    fn variable(&self) -> &'static str;

    /// More that suites find in their environment, if the instance is ours.
    fn extras(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }

    /// The port a private instance or a container listens on, unless it is taken.
    fn port(&self) -> u16;

    /// The address of an instance of ours at this port.
    fn address(&self, port: u16) -> String;

    /// Asks whatever listens there what it is. Fails if it is something else, or not ready yet.
    fn probe(&self, address: &str) -> Result<String>;

    /// The debian packages `--install` may bring.
    fn packages(&self) -> &'static [&'static str];

    /// Looks for an installed server; says what is missing.
    fn locate(&self) -> Result<PathBuf>;

    /// Fetches what is not a debian package.
    fn fetch(&self) -> Result<()> {
        Ok(())
    }

    /// The user it must run as, if it refuses to run as root.
    fn user(&self) -> Option<&'static str> {
        None
    }

    /// Starts a private instance from what [`Self::locate`] found; it need not be ready yet.
    fn start(&self, installed: PathBuf, site: &mut Site) -> Result<()>;

    /// Verifies that what answers is the instance we started in this directory, not somebody else's on the same port,
    /// and does what is left to do once it answers.
    fn confirm(&self, site: &Site) -> Result<()>;
}
