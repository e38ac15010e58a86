//! Messages from outside of any unit: a repeated one is recognised.

use super::{
    super::{
        op::{Op, Stop},
        sql::{self, Rows, Step},
        tx::{Desk, Tx},
    },
    gates::{Age, age_of},
    route::{QueueInsert, queue_steps, queues_of},
};
use futures::future::BoxFuture;
use sagabus_core::{MessageId, Outgoing, Result};
use std::{collections::HashSet, sync::Arc};

static SEEN: Rows = Rows::new(
    "select column1 from (values ",
    "(?,?,?,?)",
    ") w where exists(select 1 from queue_dedup d where d.day=column2 and d.queue=column3 and d.message_id=column4) or \
     exists(select 1 from queue_dedup_misc m where m.queue=column3 and m.message_id=column4)",
);

static REMEMBER: Rows = Rows::new(
    "insert or ignore into queue_dedup(day,queue,message_id) select column1,column2,column3 from (values ",
    "(?,?,?)",
    ") w where column1 is not null",
);

static REMEMBER_MISC: Rows = Rows::new(
    "insert or ignore into queue_dedup_misc(at,queue,message_id) select ?,column1,column2 from (values ",
    "(?,?)",
    ") w where column1 is not null",
);

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
    let mut routed = queues_of(desk, &sends).await?;
    let seen = seen(desk, &routed.rows).await?;
    let mut here: HashSet<(Arc<str>, MessageId)> = HashSet::new();
    let mut place = 0;
    routed.rows.retain(|row| {
        place += 1;
        let id = row.outgoing.message.headers.message_id;
        !seen.contains(&(place - 1)) && here.insert((Arc::clone(&row.queue), id))
    });
    let (mut dated, mut misc) = (Vec::new(), Vec::new());
    for row in &routed.rows {
        let id = row.outgoing.message.headers.message_id;
        match age_of(id, desk.now, desk.shared.options.horizon) {
            Age::Usual(day) => dated.push((day, &row.queue, id)),
            Age::Unusual(_) => misc.push((&row.queue, id)),
        }
    }
    let mut steps = Step::rows(&REMEMBER, &dated, |_| {}, |args, (day, queue, id)| {
        args.int(*day);
        args.shared(queue);
        args.id(id.0);
        Ok(())
    })?;
    steps.extend(Step::rows(&REMEMBER_MISC, &misc, |args| args.time(desk.now), |args, (queue, id)| {
        args.shared(queue);
        args.id(id.0);
        Ok(())
    })?);
    steps.extend(queue_steps(desk, &routed.rows)?);
    sql::run_all(desk.connection, steps, "enqueue in sqlite", |_, _| true).await?;
    Ok(routed.unknown.into_iter().collect())
}

/// The rows that their queue has seen before.
async fn seen(desk: &mut Desk<'_>, rows: &[QueueInsert<'_>]) -> Result<HashSet<usize>> {
    let mut place = 0i64;
    let (now, horizon) = (desk.now, desk.shared.options.horizon);
    let steps = Step::rows(&SEEN, rows, |_| {}, |args, row| {
        let id = row.outgoing.message.headers.message_id;
        args.int(place);
        place += 1;
        args.maybe_int(age_of(id, now, horizon).day());
        args.shared(&row.queue);
        args.id(id.0);
        Ok(())
    })?;
    let mut seen = HashSet::new();
    for step in steps {
        for row in step.fetch(desk.connection, "look for repeated messages in sqlite").await? {
            seen.insert(sql::position(&row, 0)?);
        }
    }
    Ok(seen)
}
