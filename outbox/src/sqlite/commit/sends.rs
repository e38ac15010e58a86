//! Where sends go: into queues of this database, or into the outbox.

use super::{
    super::{
        sql::{self, Rows, Step},
        write_context::WriteContext,
    },
    dedup,
    deliveries::{dead_letter_steps, envelope},
    queue_row::{QueueInsert, Routed},
    statements::{ExpectedRows, StatementBatch},
};
use crate::fold::{DeadLetterRow, FoldedBatch, shard_of_queued};
use sagabus_core::{CommitBatch, Destination, OutboxId, Outcome, Outgoing, Owner, Result};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError},
};

static KNOWN: Rows = Rows::new("select name from queue_name where name in (values ", "(?)", ")");

static SUBSCRIBED: Rows =
    Rows::new("select column1,s.queue from (values ", "(?,?)", ") w cross join subscription s on s.topic=w.column2");

pub(super) static QUEUE: Rows = Rows::new(
    "insert or fail into queue(queue,shard,message_id,headers,body) select column1,column2,column3,column4,column5 \
     from (values ",
    "(?,?,?,?,?)",
    ") w where column1 is not null",
);

static OUTBOX: Rows = Rows::new(
    "insert or fail into outbox(endpoint,node,topic,destination,order_key,headers,body) select \
     column1,column2,column3,column4,column5,column6,column7 from (values ",
    "(?,?,?,?,?,?,?)",
    ") w where column1 is not null",
);

static BLOCKED_BY_PREDECESSOR: Rows = Rows::new(
    "select column1 from (values ",
    "(?,?,?,?)",
    ") w where exists(select 1 from outbox o where o.endpoint=column2 and o.order_key=column4 and \
     o.order_key is not null and o.node<>column3)",
);

/// So many rows are worth encoding beside the statements before them; fewer go with those in one text.
const MIN_ROWS_ENCODED_ASIDE: usize = 64;

/// The queues that each send goes to, in order. `is_new` says of which places the id is new.
pub(super) async fn queues_of<'a>(
    context: &mut WriteContext<'_>,
    sends: &[&'a Outgoing],
    is_new: impl Fn(usize) -> bool,
) -> Result<Routed<'a>> {
    let known = known_queues(context, sends).await?;
    let mut topics = subscribers(context, sends).await?;
    let mut routed = Routed::default();
    for (index, outgoing) in sends.iter().enumerate() {
        let fresh_id = is_new(index);
        match &outgoing.to {
            Destination::Queue(name) => match known.get(name.as_str()) {
                Some(Some(queue)) => routed.rows.push(QueueInsert { queue: Arc::clone(queue), outgoing, fresh_id }),
                Some(None) | None => routed.unknown.push(index),
            },
            Destination::Topic(topic) => {
                for queue in topics.entry(topic.as_str()).or_default() {
                    routed.rows.push(QueueInsert { queue: Arc::clone(queue), outgoing, fresh_id });
                }
            }
        }
    }
    Ok(routed)
}

/// The named queues, as far as they exist. Those that are known from before need no asking.
async fn known_queues<'a>(
    context: &mut WriteContext<'_>,
    sends: &[&'a Outgoing],
) -> Result<HashMap<&'a str, Option<Arc<str>>>> {
    let mut found: HashMap<&str, Option<Arc<str>>> = HashMap::new();
    {
        let cache = context.shared.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for outgoing in sends {
            if let Destination::Queue(name) = &outgoing.to {
                found.entry(name).or_insert_with(|| cache.get(name.as_str()).cloned());
            }
        }
    }
    let missing: Vec<&str> = found.iter().filter(|(_, queue)| queue.is_none()).map(|(name, _)| *name).collect();
    let steps = Step::rows(
        &KNOWN,
        &missing,
        |_| {},
        |args, name| {
            args.text(name);
            Ok(())
        },
    )?;
    for step in steps {
        for row in step.fetch(context.connection, "look for queues in sqlite").await? {
            let name: Arc<str> = sql::column::<&str>(&row, 0)?.into();
            if !context.announcements.declared_queue {
                context.shared.queues.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(&name));
            }
            if let Some(slot) = found.get_mut(&*name) {
                *slot = Some(name);
            }
        }
    }
    Ok(found)
}

async fn subscribers<'a>(
    context: &mut WriteContext<'_>,
    sends: &[&'a Outgoing],
) -> Result<HashMap<&'a str, Vec<Arc<str>>>> {
    let mut topics: Vec<&str> = sends
        .iter()
        .filter_map(|outgoing| match &outgoing.to {
            Destination::Topic(topic) => Some(topic.as_str()),
            Destination::Queue(_) => None,
        })
        .collect();
    topics.sort_unstable();
    topics.dedup();
    let mut index = 0i64;
    let steps = Step::rows(
        &SUBSCRIBED,
        &topics,
        |_| {},
        |args, topic| {
            args.int(index);
            index += 1;
            args.text(topic);
            Ok(())
        },
    )?;
    let mut found: HashMap<&str, Vec<Arc<str>>> = HashMap::new();
    for step in steps {
        for row in step.fetch(context.connection, "look for subscribers in sqlite").await? {
            if let Some(topic) = topics.get(sql::position(&row, 0)?) {
                found.entry(topic).or_default().push(sql::column::<&str>(&row, 1)?.into());
            }
        }
    }
    Ok(found)
}

/// The inserts of queue rows.
pub(super) fn queue_steps(context: &mut WriteContext<'_>, rows: &[QueueInsert<'_>]) -> Result<Vec<Step>> {
    announce_queues(context, rows);
    encode_rows(rows)
}

fn announce_queues(context: &mut WriteContext<'_>, rows: &[QueueInsert<'_>]) {
    let mut last: Option<&Arc<str>> = None;
    for row in rows {
        if last.is_none_or(|last| !Arc::ptr_eq(last, &row.queue)) {
            context.announcements.queue(&row.queue);
        }
        last = Some(&row.queue);
    }
}

fn encode_rows(rows: &[QueueInsert<'_>]) -> Result<Vec<Step>> {
    Step::rows(
        &QUEUE,
        rows,
        |_| {},
        |args, row| {
            let headers = &row.outgoing.message.headers;
            args.shared(&row.queue);
            args.int(i64::from(shard_of_queued(&row.outgoing.message)));
            args.id(headers.message_id.0);
            envelope(args, &row.outgoing.message)
        },
    )
}

/// Joined: where the sends of a batch go. Only a careful one asks which ids the queues have seen before: otherwise the
/// rows that remember them say so, and the batch is run again, carefully.
pub(super) async fn resolve<'b>(
    context: &mut WriteContext<'_>,
    batch: &CommitBatch,
    folded: &FoldedBatch<'b>,
    with_savepoints: bool,
) -> Result<Routed<'b>> {
    if !batch.joined || folded.sends.is_empty() {
        return Ok(Routed::default());
    }
    let sends: Vec<&'b Outgoing> = folded.sends.iter().map(|send| send.outgoing).collect();
    let is_new = |index: usize| folded.sends.get(index).is_some_and(|send| send.fresh_id);
    let mut routed = queues_of(context, &sends, is_new).await?;
    if with_savepoints {
        dedup::drop_seen(context, &mut routed).await?;
    }
    Ok(routed)
}

/// Writes the sends of a batch.
pub(super) fn write<'a>(
    context: &mut WriteContext<'_>,
    batch: &CommitBatch,
    folded: &FoldedBatch<'_>,
    routed: &'a Routed<'_>,
    statements: &mut StatementBatch<'a>,
) -> Result<()> {
    let sends: Vec<&Outgoing> = folded.sends.iter().map(|send| send.outgoing).collect();
    if !batch.joined {
        statements.add(outbox_steps(&batch.owner, &sends)?, sends.len(), |rows| {
            ExpectedRows::Outbox(i64::try_from(rows).unwrap_or(i64::MAX))
        });
        return Ok(());
    }
    for (steps, rows) in dedup::remember(context, &routed.rows)? {
        statements.add(steps, rows, ExpectedRows::Exactly);
    }
    let lost: Vec<&Outgoing> = routed.unknown.iter().filter_map(|index| sends.get(*index).copied()).collect();
    statements.add_any(dead_letter_unroutable(context, &batch.owner, &lost)?);
    let rows = &routed.rows;
    if rows.len() < MIN_ROWS_ENCODED_ASIDE {
        statements.add(queue_steps(context, rows)?, rows.len(), ExpectedRows::Exactly);
    } else {
        announce_queues(context, rows);
        statements.add_late(Box::new(|| encode_rows(rows)), rows.len(), ExpectedRows::Exactly);
    }
    Ok(())
}

pub(super) fn outbox_steps(owner: &Owner, sends: &[&Outgoing]) -> Result<Vec<Step>> {
    Step::rows(
        &OUTBOX,
        sends,
        |_| {},
        |args, outgoing| {
            args.shared(&owner.endpoint);
            args.id(owner.node.0);
            args.int(i64::from(matches!(outgoing.to, Destination::Topic(_))));
            args.text(outgoing.to.name());
            args.maybe_text(outgoing.message.headers.order_key.as_deref());
            envelope(args, &outgoing.message)
        },
    )
}

/// Sends to queues that do not exist.
pub(super) fn dead_letter_unroutable(
    context: &mut WriteContext<'_>,
    owner: &Owner,
    lost: &[&Outgoing],
) -> Result<Vec<Step>> {
    let reasons: Vec<String> =
        lost.iter().map(|outgoing| format!("unroutable: there is no queue {}", outgoing.to.name())).collect();
    let rows: Vec<(Outgoing, &str)> =
        lost.iter().zip(&reasons).map(|(outgoing, reason)| ((*outgoing).clone(), reason.as_str())).collect();
    dead_letter_rows(context, owner, &rows)
}

/// Sends that can never arrive are dead letters of their sender, without a handler.
pub(crate) fn dead_letter_rows(
    context: &mut WriteContext<'_>,
    owner: &Owner,
    lost: &[(Outgoing, &str)],
) -> Result<Vec<Step>> {
    let no_handler: Arc<str> = Arc::from("");
    let details: Vec<[String; 1]> = lost.iter().map(|(outgoing, _)| [format!("to {:?}", outgoing.to)]).collect();
    let dead: Vec<DeadLetterRow<'_>> = lost
        .iter()
        .zip(&details)
        .map(|((outgoing, reason), detail)| DeadLetterRow {
            handler: &no_handler,
            message: &outgoing.message,
            attempts: 0,
            reason: Cow::Borrowed(*reason),
            detail: Cow::Borrowed(detail.as_slice()),
        })
        .collect();
    dead_letter_steps(context, &owner.endpoint, &dead)
}

/// The outcome of each unit of a batch that applied.
pub(super) async fn outcomes(
    context: &mut WriteContext<'_>,
    batch: &CommitBatch,
    live: &[usize],
    folded: &FoldedBatch<'_>,
    ids: &[OutboxId],
) -> Result<Vec<Outcome>> {
    if batch.joined || folded.sends.is_empty() {
        return Ok(live
            .iter()
            .map(|_| Outcome::Applied { outbox: Vec::new(), blocked_by_predecessor: false })
            .collect());
    }
    let late = blocked_units(context, batch, folded).await?;
    let mut by_unit: BTreeMap<usize, Vec<OutboxId>> = BTreeMap::new();
    for (send, id) in folded.sends.iter().zip(ids) {
        by_unit.entry(send.unit).or_default().push(*id);
    }
    let outcome = |unit: &usize| Outcome::Applied {
        outbox: by_unit.remove(unit).unwrap_or_default(),
        blocked_by_predecessor: late.contains(unit),
    };
    Ok(live.iter().map(outcome).collect())
}

/// The units with a send whose order key has an unsent row of another owner.
async fn blocked_units(
    context: &mut WriteContext<'_>,
    batch: &CommitBatch,
    folded: &FoldedBatch<'_>,
) -> Result<HashSet<usize>> {
    let keyed: Vec<(usize, &str)> = folded
        .sends
        .iter()
        .filter_map(|send| send.outgoing.message.headers.order_key.as_deref().map(|key| (send.unit, key)))
        .collect();
    let steps = Step::rows(
        &BLOCKED_BY_PREDECESSOR,
        &keyed,
        |_| {},
        |args, (unit, key)| {
            args.int(i64::try_from(*unit).unwrap_or(i64::MAX));
            args.shared(&batch.owner.endpoint);
            args.id(batch.owner.node.0);
            args.text(key);
            Ok(())
        },
    )?;
    let mut late = HashSet::new();
    for step in steps {
        for row in step.fetch(context.connection, "look for unsent rows in sqlite").await? {
            late.insert(sql::position(&row, 0)?);
        }
    }
    Ok(late)
}
