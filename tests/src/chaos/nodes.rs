//! The endpoints, as the node runs them and as the generator knows them.

use super::{
    effects, functions,
    messages::{Add, AddOwn, Flaky, Half, Note, Poison, Remind, Step},
    sagas::{Alarm, Pair, Tally, Watcher},
};
use sagabus::{Endpoint, EndpointBuilder, Recoverability, sqlx};
use std::time::Duration;

/// Where everything lies.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Where the messages go
    #[arg(long)]
    pub transport: String,
    /// Where state lies
    #[arg(long)]
    pub store: String,
    /// The lease, in milliseconds: how long a stopped process is waited for
    #[arg(long, default_value_t = 600)]
    pub lease_ms: u64,
}

impl Place {
    fn endpoint(&self, name: &str) -> EndpointBuilder {
        effects::written_to(&self.store);
        Endpoint::builder(name)
            .transport(self.transport.as_str())
            .store(self.store.as_str())
            .lease(Duration::from_millis(self.lease_ms))
            .recoverability(Recoverability {
                immediate: 1,
                pause: Duration::from_millis(5),
                delays: vec![Duration::from_millis(60), Duration::from_millis(120)],
                // two hundred kills hit some message more often than the default allows, without it being to blame
                deaths: 1000,
                ..Recoverability::default()
            })
    }

    /// Sagas and functions.
    pub fn chaos(&self) -> EndpointBuilder {
        self.endpoint("chaos")
            .saga::<Tally>()
            .saga::<Watcher>()
            .saga::<Pair>()
            .saga::<Alarm>()
            .on(functions::heard)
            .on(functions::flaky)
            .on(functions::poison)
            .route::<Note>("ledger")
    }

    /// Writes down what was sent.
    pub fn ledger(&self) -> EndpointBuilder {
        self.endpoint("ledger").on(functions::note)
    }

    /// The ordered one.
    pub fn line(&self) -> EndpointBuilder {
        self.endpoint("line").ordered().on(functions::step)
    }

    /// Sends only.
    pub fn generator(&self) -> EndpointBuilder {
        self.endpoint("generator")
            .route::<Add>("chaos")
            .route::<AddOwn>("chaos")
            .route::<Half>("chaos")
            .route::<Remind>("chaos")
            .route::<Flaky>("chaos")
            .route::<Poison>("chaos")
            .route::<Step>("line")
    }

    /// The ledger's table, beside the store's.
    pub async fn create_ledger(&self) -> anyhow::Result<()> {
        use sqlx::{Connection as _, Executor as _};
        if effects::is_postgres(&self.store) {
            let mut connection = sqlx::PgConnection::connect(&self.store).await?;
            connection.execute(effects::POSTGRES).await?;
            connection.close().await?;
            return Ok(());
        }
        let path = self.store.trim_start_matches("sqlite://");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
        connection.execute(effects::SQLITE).await?;
        connection.close().await?;
        Ok(())
    }
}
