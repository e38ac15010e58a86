//! The command line.

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// What sagabus costs, beside the best program without it, in the same run.
///
/// Every command ends with one line of JSON: {"check":…,"verdict":…,"seed":…,"counts":{…},"seconds":…}, and exits 0 only
/// on "pass". Files lie in a fresh directory beside those that the URLs name, PostgreSQL's tables in a fresh schema; both
/// are removed.
#[derive(Parser)]
#[command(name = "sagabus-bench")]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) what: What,
}

#[derive(Subcommand)]
pub(crate) enum What {
    /// The durable saga: one message in, a state loaded and changed, one message out.
    Saga(Saga),
    /// One message in, one out, without a saga.
    Queue(Queue),
    /// One message at rest: from sending it to its output being durable.
    Rest(Rest),
    /// Many timers that become due at the same moment.
    Timers(Timers),
    /// Memory over very many messages.
    Memory(Common),
    /// The rate with few and with many rows in the inbox.
    Inbox(Inbox),
    /// Counts fdatasync against commits, under strace.
    Fsync(Common),
    /// One side of a comparison, in a process of its own: prints what it measured as a line of JSON.
    #[command(hide = true)]
    Side {
        /// What to do, as JSON.
        spec: String,
    },
}

/// What most have in common.
#[derive(Args, Clone)]
pub(crate) struct Common {
    /// What carries the messages; left out, or the same as the store: the store's own queues (joined). Another: split.
    #[arg(long)]
    pub(crate) transport: Option<String>,
    /// What holds the state: a file, or a database with `postgres://` (that alone: where SAGABUS_POSTGRES_URL says); `none`,
    /// for `queue` behind a broker: nothing is stored (RabbitMQ: endpoints `.at_least_once()`; Kafka: its port alone).
    #[arg(long, default_value = "sqlite:///tmp/sagabus-bench.db")]
    pub(crate) store: String,
    /// How many.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) messages: u64,
    /// Sagas that they are for.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) keys: u64,
    /// Runs of each side; medians are reported.
    #[arg(long, default_value_t = 3)]
    pub(crate) runs: usize,
    /// Units in one commit of the engine; 0: its default.
    #[arg(long, default_value_t = 0)]
    pub(crate) batch: usize,
    /// Prints nothing but the last line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Measures only: passes whatever the figures are, if nothing was lost or doubled.
    #[arg(long)]
    pub(crate) no_threshold: bool,
}

#[derive(Args, Clone)]
pub(crate) struct Saga {
    #[command(flatten)]
    pub(crate) common: Common,
    /// All messages are for one saga.
    #[arg(long)]
    pub(crate) hot: bool,
    /// The handler also writes one row through its own SQL.
    #[arg(long)]
    pub(crate) own_sql: bool,
    /// Also runs the engine with one message per transaction.
    #[arg(long)]
    pub(crate) naive: bool,
    /// Also runs the baseline, in turns with the engine.
    #[arg(long = "twin")]
    pub(crate) baseline: bool,
    /// Also measures latencies, with a generator on the same machine at this fraction of the full rate; from 2 on, at
    /// so many messages a second.
    #[arg(long)]
    pub(crate) load: Option<f64>,
}

#[derive(Args, Clone)]
pub(crate) struct Queue {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Also runs the baseline, in turns with the engine.
    #[arg(long = "twin")]
    pub(crate) baseline: bool,
}

#[derive(Args, Clone)]
pub(crate) struct Rest {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Messages, one after another.
    #[arg(long, default_value_t = 200)]
    pub(crate) samples: u64,
}

#[derive(Args, Clone)]
pub(crate) struct Timers {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Timers.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) pending: u64,
}

#[derive(Args, Clone)]
pub(crate) struct Inbox {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Inbox rows, few and many.
    #[arg(long, default_values_t = [10_000, 2_000_000])]
    pub(crate) rows: Vec<u64>,
}

/// The store's URL where there is none.
const NO_STORE: &str = "none";

/// What one process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) who: Who,
    pub(crate) work: Work,
    pub(crate) transport: Option<String>,
    pub(crate) store: String,
    pub(crate) messages: u64,
    pub(crate) keys: u64,
    /// 0: the side's default.
    pub(crate) batch: usize,
    /// The baseline's: commits that may wait for the writer.
    pub(crate) ahead: usize,
    pub(crate) own_sql: bool,
    pub(crate) feed: Feed,
    /// Rows that are put into the inbox first.
    pub(crate) inbox: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Who {
    Engine,
    Baseline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    Saga,
    Queue,
    Timers,
}

/// How the messages come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Feed {
    /// They are in the queue before it begins.
    Preloaded,
    /// So many a second.
    Rate(f64),
    /// One when the last one is through.
    Single,
}

impl Feed {
    /// Whether somebody sends while the others work.
    pub(crate) fn is_live(self) -> bool {
        self != Feed::Preloaded
    }
}

impl Spec {
    /// Whether it is only passed on: there is a broker, and no store.
    pub(crate) fn is_bare(&self) -> bool {
        self.store == NO_STORE
    }
}

impl Common {
    /// A process's work by these settings.
    pub(crate) fn spec(&self, who: Who, work: Work) -> Spec {
        Spec {
            who,
            work,
            transport: self.transport.clone(),
            store: self.store.clone(),
            messages: self.messages,
            keys: self.keys,
            batch: self.batch,
            ahead: 1,
            own_sql: false,
            feed: Feed::Preloaded,
            inbox: 0,
        }
    }

    /// Whether queues and store are one.
    pub(crate) fn is_joined(&self) -> bool {
        self.transport.as_ref().is_none_or(|transport| *transport == self.store)
    }

    /// A line for people.
    pub(crate) fn say(&self, line: impl std::fmt::Display) {
        if !self.json {
            println!("{line}");
        }
    }
}
