//! The table of backends: what each needs, and which suites it has in this tree.

pub mod apt;
pub mod certificates;
pub mod compose;
pub mod kafka;
pub mod postgres;
pub mod private_server;
pub mod provide;
pub mod rabbitmq;
pub mod state;
pub mod wire;

use std::path::PathBuf;

use anyhow::Result;

use private_server::PrivateServer;

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

/// A test program that needs a server; it finds the address in the environment. Its target says `test = false`, so that
/// `cargo test` without a server leaves it alone.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// What the table calls it.
    pub name: &'static str,
    /// The test target.
    pub test: &'static str,
    /// Features beyond those that the workspace's packages ask for among themselves.
    pub features: &'static str,
    /// What it needs beside the server.
    pub needs: &'static [Need],
}

/// What only one suite needs.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A program in a directory of programs, and the Debian package it is in.
    Program(&'static str, &'static str),
    /// A variable that is set for an instance of ours, and may be by whoever names another one.
    Variable(&'static str),
}

impl Suite {
    const fn new(name: &'static str, test: &'static str) -> Self {
        Self { name, test, features: "", needs: &[] }
    }

    /// The arguments for cargo. The whole workspace is named, so that dependencies have the features, and so the builds,
    /// that they have in the embedded suites.
    pub fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["test", "--workspace", "--no-fail-fast", "--test", self.test];
        if !self.features.is_empty() {
            arguments.extend(["--features", self.features]);
        }
        arguments
    }
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
    Suite::new("transport conformance", "rabbitmq_conformance"),
    Suite::new("hazards of lapin and the broker", "rabbitmq_hazards"),
    Suite::new("exchanges and queues that disappear", "rabbitmq_topology"),
    Suite {
        features: "sagabus-transports/tls",
        needs: &[Need::Variable("SAGABUS_RABBITMQ_TLS_URL")],
        ..Suite::new("tls", "rabbitmq_tls")
    },
];

const KAFKA: &[Suite] = &[
    Suite { features: KAFKA_ON, ..Suite::new("transport conformance", "kafka_conformance") },
    Suite { features: KAFKA_ON, ..Suite::new("hazards of librdkafka and the broker", "kafka_hazards") },
    Suite { features: KAFKA_ON, ..Suite::new("positions", "kafka_positions") },
    Suite {
        features: "sagabus-tests/kafka,sagabus-transports/tls",
        needs: &[Need::Variable("SAGABUS_KAFKA_TLS_DIR")],
        ..Suite::new("tls, passwords and rights", "kafka_security")
    },
    Suite { features: KAFKA_ON, ..Suite::new("endpoints", "kafka") },
];

/// librdkafka is compiled for those who ask for it only.
pub const KAFKA_ON: &str = "sagabus-tests/kafka";

const POSTGRES: &[Suite] = &[
    Suite::new("store conformance", "postgres_conformance"),
    Suite::new("transport conformance", "postgres_transport"),
    Suite::new("faults", "postgres_faults"),
    Suite::new("plans", "postgres_plans"),
    Suite::new("counts and wake-ups, shared", "postgres_attempts"),
    Suite::new("own SQL, shared", "postgres_sharing"),
    Suite::new("roles and partitions", "postgres_upkeep"),
    Suite::new("acceptance", "acceptance_postgres"),
    Suite {
        needs: &[
            Need::Program("pgbouncer", "pgbouncer"),
            Need::Program("openssl", "openssl"),
            Need::Program("pg_ctlcluster", "postgresql"),
        ],
        ..Suite::new("tls and pooler", "postgres_ways")
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
    fn start(&self, installed: PathBuf, instance: &mut PrivateServer) -> Result<()>;

    /// Verifies that what answers is the instance we started in this directory, not somebody else's on the same port,
    /// and does what is left to do once it answers.
    fn confirm(&self, instance: &PrivateServer) -> Result<()>;
}
