//! Messages from outside of any unit: a repeated one is recognised.

use super::{
    super::{
        op::{Op, OpError},
        sql::{self, Step},
        write_context::{Tx, WriteContext},
    },
    dedup,
    sends::{queue_steps, queues_of},
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

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<HashSet<usize>, OpError>> {
        Box::pin(async move { Ok(enqueue(&mut tx.context(), &self.0).await?) })
    }
}

async fn enqueue(context: &mut WriteContext<'_>, batch: &[Outgoing]) -> Result<HashSet<usize>> {
    let sends: Vec<&Outgoing> = batch.iter().collect();
    let mut routed = queues_of(context, &sends, |_| false).await?;
    dedup::drop_seen(context, &mut routed).await?;
    let mut steps: Vec<Step> =
        dedup::remember(context, &routed.rows)?.into_iter().flat_map(|(steps, _)| steps).collect();
    steps.extend(queue_steps(context, &routed.rows)?);
    sql::run_all(context.connection, steps, "enqueue in sqlite", |_, _| true).await?;
    Ok(routed.unknown.into_iter().collect())
}
