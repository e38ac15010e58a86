//! Sends in the caller's own transaction.

use crate::{
    place::BEGIN,
    world::{Book, Entry, World, messages},
};
use sagabus::{prelude::*, sqlx::Connection};
use std::time::{Duration, Instant};

messages! {
    Happened "in.happened"
}

async fn happened(m: Happened, ctx: &mut Context) -> Result {
    ctx.send(Entry::new(m.run, &m.key, m.n));
    Ok(())
}

/// Sends a command and an event, and says which, in one transaction.
async fn in_transaction(w: &World, bus: &Bus, n: u64, commit: bool) {
    let mut connection = w.connect().await;
    let mut transaction = connection.begin_with(BEGIN).await.unwrap();
    bus.send_in(&mut *transaction, Entry::new(w.run, "k", n)).await.unwrap();
    bus.publish_in(&mut *transaction, Happened::new(w.run, "k", n + 1)).await.unwrap();
    match commit {
        true => transaction.commit().await.unwrap(),
        false => transaction.rollback().await.unwrap(),
    }
}

pub(crate) async fn a_send_of_a_rolled_back_transaction_never_leaves(w: &World) {
    let shop = w.start(w.endpoint("shop").await.on(happened).saga::<Book>()).await;
    in_transaction(w, &shop.bus(), 10, false).await;
    // one that commits after it shows that its turn has passed
    in_transaction(w, &shop.bus(), 20, true).await;
    w.eventually("the committed ones", || async { w.book("shop", "k").await.len() == 2 }).await;
    // and a stop sends whatever is left
    shop.stop().await.unwrap();
    let mut entries = w.book("shop", "k").await;
    entries.sort_unstable();
    assert_eq!(entries, [20, 21]);
    assert_eq!(w.admin().await.counts().await.unwrap()["queue"], 0);
}

pub(crate) async fn a_send_of_a_committed_transaction_leaves_soon(w: &World) {
    // its relay comes round by itself after a third of this
    let shop = w.start(w.endpoint("shop").await.on(happened).saga::<Book>().lease(Duration::from_secs(120))).await;
    let started = Instant::now();
    in_transaction(w, &shop.bus(), 1, true).await;
    w.eventually("both", || async { w.book("shop", "k").await.len() == 2 }).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    // without a store there is no transaction to be in
    let bare = Endpoint::builder("bare").transport(w.transport().await).route::<Entry>("shop").build().await.unwrap();
    let mut connection = w.connect().await;
    let error = bare.bus().send_in(&mut connection, Entry::new(w.run, "k", 1)).await.unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("has no store"), "{error:?}");
}
