//! Ways to a server that are not a plain connection: TLS with a checked certificate, and a pooler in transaction mode.

#![cfg(feature = "postgres")]
#![allow(clippy::disallowed_methods, reason = "servers start in real time")]

#[path = "postgres_support/private_server.rs"]
mod private_server;

use private_server::PrivateServer;
use sagabus_core::{
    CommitBatch, Destination, Envelope, Gate, Headers, Intent, MessageId, NodeId, Outgoing, Owner, Queues, Runtime,
    SHARDS, Store, UnitOfWork,
};
use sagabus_outbox::postgres::{PostgresOptions, PostgresStore};
use sqlx::{PgConnection, Row as _};
use std::{sync::Arc, time::Duration};

fn options(pooler: bool) -> PostgresOptions {
    let mut options = PostgresOptions::default();
    options.shared = false;
    options.pooler = pooler;
    options.connect_limit = Duration::from_secs(20);
    options
}

/// A unit that sends one message to the queue `work`.
fn batch(runtime: &Runtime, joined: bool) -> CommitBatch {
    let id = || MessageId(runtime.uuid());
    let mut unit = UnitOfWork::new("order".into(), id(), Gate::Inbox);
    let headers = Headers::new(id(), "work.item", Intent::Command, runtime.now());
    unit.sends.push(Outgoing { to: Destination::Queue("work".into()), message: Envelope::new(headers, &b"x"[..]) });
    let owner = Owner { endpoint: "shop".into(), node: NodeId(runtime.uuid()) };
    CommitBatch { owner, joined, units: vec![unit], sent: Vec::new() }
}

async fn own_sql(store: &PostgresStore, runtime: &Runtime, sql: &'static str) -> String {
    let mut transaction = store.begin().await.expect("begin");
    let connection: &mut PgConnection = transaction.raw().downcast_mut().expect("a connection");
    let row = sqlx::query(sql).persistent(false).fetch_one(&mut *connection).await.expect("own sql");
    let outcome = transaction.finish(batch(runtime, true)).await.outcomes.remove(0);
    assert!(outcome.is_applied(), "{outcome:?}");
    row.get(0)
}

/// `verify-full` with a certificate of one's own is what leaves no room for a stranger; its refusal tells no secret.
async fn tls(server: &PrivateServer) {
    let runtime = Runtime::system();
    let url = |mode: &str, root: &str| {
        let root = server.path(root);
        format!("postgres://sagabus:secret@localhost:{}/postgres?sslmode={mode}&sslrootcert={root}", server.port)
    };
    let store = PostgresStore::open(&url("verify-full", "server.crt"), options(false)).await.expect("open");
    Store::migrate(&store).await.expect("migrate");
    store.check().await.expect("check");
    store.queues().expect("queues").declare("work").await.expect("declare");
    let encrypted = "select ssl::text from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(own_sql(&store, &runtime, encrypted).await, "true");
    let outcomes = store.commit(batch(&runtime, true)).await.outcomes;
    assert!(outcomes[0].is_applied(), "{outcomes:?}");
    store.close().await;
    let error = PostgresStore::open(&url("verify-full", "other.crt"), options(false)).await.expect_err("a stranger");
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert!(format!("{error:?}").to_lowercase().contains("certificate"), "{error:?}");
}

/// Sessions are shared among three: no LISTEN, no settings that stay, no named statements. Readers find by polling what
/// another process has sent.
async fn pooler(server: &PrivateServer) {
    let runtime = Runtime::system();
    let url = format!("postgres://sagabus:secret@127.0.0.1:{}/postgres?sslmode=disable", server.pooler);
    let open = async || Arc::new(PostgresStore::open(&url, options(true)).await.expect("open"));
    let (sender, reader) = (open().await, open().await);
    Store::migrate(&*sender).await.expect("migrate");
    reader.check().await.expect("check");
    let queue: Arc<dyn Queues> = reader.queues().expect("queues");
    queue.declare("work").await.expect("declare");
    let all: Vec<u16> = (0..SHARDS).collect();
    let before = queue.depth("work").await.expect("depth");
    let work = (0..8).map(|n| {
        let (sender, runtime) = (Arc::clone(&sender), runtime.clone());
        async move {
            for _ in 0..10 {
                if n % 2 == 0 {
                    own_sql(&sender, &runtime, "select 'x'::text").await;
                } else {
                    let outcomes = sender.commit(batch(&runtime, true)).await.outcomes;
                    assert!(outcomes[0].is_applied(), "{outcomes:?}");
                }
            }
        }
    });
    let reading = async {
        let mut found = 0;
        for _ in 0..600 {
            found = queue.read("work", &all, 0, 1000).await.expect("read").len() as u64;
            if found == before + 80 {
                break;
            }
            queue.wait("work", Duration::from_millis(100)).await;
        }
        found
    };
    let (_, found) = tokio::join!(futures::future::join_all(work), reading);
    assert_eq!(found, before + 80);
    let settings = own_sql(&sender, &runtime, "select current_setting('idle_in_transaction_session_timeout')").await;
    assert_eq!(settings, "2s", "a handler's transaction is limited here too");
    sender.close().await;
    drop(queue);
    reader.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_ways_to_a_server() {
    let server = PrivateServer::start();
    tls(&server).await;
    pooler(&server).await;
}
