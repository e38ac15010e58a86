//! Messages from outside of any unit: a repeated one is recognised.

use super::{
    super::{
        op::{Op, Stop},
        sql::{self, Step},
        tx::{Desk, Tx},
    },
    dedup,
    route::{queue_steps, queues_of},
};
use futures::future::BoxFuture;
use sagabus_core::{Outgoing, Result};
use std::{collections::HashSet, sync::Arc};

/// See [`Queues::enqueue`](sagabus_core::Queues::enqueue). Answers the places of those whose queue does not exist.
pub(crate) struct Enqueue(pub(crate) Arc<[Outgoing]>);

impl Op for Enqueue {
    type Answer = HashSet<usize>;

    fn weight(&self) -> usize {
        self.0.len()
    }

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<HashSet<usize>, Stop>> {
        Box::pin(async move { Ok(enqueue(&mut tx.desk(), &self.0).await?) })
    }
}

async fn enqueue(desk: &mut Desk<'_>, batch: &[Outgoing]) -> Result<HashSet<usize>> {
    let sends: Vec<&Outgoing> = batch.iter().collect();
    let mut routed = queues_of(desk, &sends, |_| false).await?;
    dedup::drop_seen(desk, &mut routed).await?;
    let mut steps: Vec<Step> = dedup::remember(desk, &routed.rows)?.into_iter().flat_map(|(steps, _)| steps).collect();
    steps.extend(queue_steps(desk, &routed.rows)?);
    sql::run_all(desk.connection, steps, "enqueue in sqlite", |_, _| true).await?;
    Ok(routed.unknown.into_iter().collect())
}
