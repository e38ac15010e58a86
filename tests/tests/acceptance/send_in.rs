//! Sends in the caller's own transaction.

use crate::{
    fixture::{Entry, Fixture, Ledger, messages},
    own_database, own_sql,
};
use sagabus::{prelude::*, sqlx};
use std::time::{Duration, Instant};

messages! {
    Happened "in.happened"
}

async fn happened(m: Happened, ctx: &mut Context) -> Result {
    ctx.send(Entry::new(m.run, &m.key, m.n));
    Ok(())
}

/// Writes a row, and sends a command and an event, in one transaction.
async fn in_transaction(f: &Fixture, bus: &Bus, n: u64, commit: bool) {
    let mut connection = own_sql::connect(f).await;
    let mut transaction = own_database::begin(&mut connection).await;
    let query = sqlx::query("insert into posting values ('k', 0, $1)").bind(i64::try_from(n).unwrap());
    query.execute(&mut *transaction).await.unwrap();
    bus.send_in(&mut *transaction, Entry::new(f.run, "k", n)).await.unwrap();
    bus.publish_in(&mut *transaction, Happened::new(f.run, "k", n + 1)).await.unwrap();
    match commit {
        true => transaction.commit().await.unwrap(),
        false => transaction.rollback().await.unwrap(),
    }
}

pub(crate) async fn a_send_of_a_rolled_back_transaction_never_leaves(f: &Fixture) {
    let shop = f.start(f.endpoint("shop").await.on(happened).saga::<Ledger>()).await;
    in_transaction(f, &shop.bus(), 10, false).await;
    // one that commits after it shows that its turn has passed
    in_transaction(f, &shop.bus(), 20, true).await;
    f.eventually("the committed ones", || async { f.ledger("shop", "k").await.len() == 2 }).await;
    // and a stop sends whatever is left
    shop.stop().await.unwrap();
    let mut entries = f.ledger("shop", "k").await;
    entries.sort_unstable();
    assert_eq!(entries, [20, 21]);
    assert_eq!(f.waiting("shop").await, 0);
    assert_eq!(own_sql::rows(&mut own_sql::connect(f).await, "k").await, (1, 20));
}

pub(crate) async fn a_send_of_a_committed_transaction_leaves_soon(f: &Fixture) {
    // its relay comes round by itself after a third of this
    let shop = f.start(f.endpoint("shop").await.on(happened).saga::<Ledger>().lease(Duration::from_secs(120))).await;
    let started = Instant::now();
    in_transaction(f, &shop.bus(), 1, true).await;
    f.eventually("both", || async { f.ledger("shop", "k").await.len() == 2 }).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    // without a store there is no transaction to be in
    let bare = Endpoint::builder("bare").transport(f.transport().await).route::<Entry>("shop").build().await.unwrap();
    let mut connection = f.connect().await;
    let error = bare.bus().send_in(&mut connection, Entry::new(f.run, "k", 1)).await.unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("has no store"), "{error:?}");
}
