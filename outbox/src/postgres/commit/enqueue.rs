//! Rows of queues.

use super::{super::sql::NOW, deliveries::envelopes, draft::StatementBuilder};
use crate::{dedup::DedupSlot, fold::shard_of_queued, wakeups::WakeKey};
use sagabus_core::{Destination, Outgoing, Result};
use std::collections::BTreeSet;

/// Bits of a queue row's id below its queue's number.
pub(crate) const QUEUE_BITS: u32 = 45;

/// A message for queues.
pub(crate) struct Queued<'a> {
    pub(crate) outgoing: &'a Outgoing,
    /// The queue's number; none for a message to the subscribers of a topic.
    pub(crate) number: Option<i32>,
    /// The id is sent for the first and the last time: see [`sagabus_core::UnitOfWork::fresh_ids`].
    pub(crate) fresh_id: bool,
}

/// What the rows' arguments are called in the statement.
struct Columns {
    numbers: String,
    shards: String,
    ids: String,
    headers: String,
    bodies: String,
}

/// Adds rows, in order. Ids that a queue has taken before fail the statement, unless the draft takes its time about them;
/// fresh ones are not even remembered.
pub(super) fn write(draft: &mut StatementBuilder<'_>, rows: &[Queued<'_>]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    exist(draft, rows);
    let slot = |row: &Queued<'_>| match row.fresh_id {
        true => DedupSlot { day: None, misc: false },
        false => draft.inner.dedup_slot(row.outgoing.message.headers.message_id),
    };
    let slots: Vec<DedupSlot> = rows.iter().map(slot).collect();
    let careful = draft.repeats || slots.iter().any(|slot| slot.misc);
    let numbers = draft.sql.bind(rows.iter().map(|row| row.number).collect::<Vec<_>>());
    let shards = draft.sql.bind(
        rows.iter().map(|row| i16::try_from(shard_of_queued(&row.outgoing.message)).unwrap_or(0)).collect::<Vec<_>>(),
    );
    let ids = draft.sql.bind(rows.iter().map(|row| row.outgoing.message.headers.message_id.0).collect::<Vec<_>>());
    let (headers, bodies) = envelopes(draft, rows.iter().map(|row| &row.outgoing.message))?;
    let columns = Columns { numbers, shards, ids, headers, bodies };
    if careful || rows.iter().any(|row| row.number.is_none()) {
        routed(draft, rows, &slots, &columns, careful);
    } else {
        direct(draft, &slots, &columns);
    }
    Ok(())
}

/// Numbers of queues are remembered, and a queue may have been removed meanwhile.
fn exist(draft: &mut StatementBuilder<'_>, rows: &[Queued<'_>]) {
    let numbers: BTreeSet<i32> = rows.iter().filter_map(|row| row.number).collect();
    if !numbers.is_empty() {
        let count = draft.sql.bind(i64::try_from(numbers.len()).unwrap_or(i64::MAX));
        let numbers = draft.sql.bind(numbers.into_iter().collect::<Vec<_>>());
        let table = draft.table("queue_name");
        draft.checks.push(format!("(select count(*) from {table} where number=any({numbers}::int[]))={count}"));
    }
}

fn days(draft: &mut StatementBuilder<'_>, slots: &[DedupSlot]) -> String {
    draft.sql.bind(slots.iter().map(|slot| slot.day).collect::<Vec<_>>())
}

/// The usual case: to queues by name, with ids of our own making.
fn direct(draft: &mut StatementBuilder<'_>, slots: &[DedupSlot], columns: &Columns) {
    let Columns { numbers, shards, ids, headers, bodies } = columns;
    let (dedup, insert, id) = (draft.table("queue_dedup"), insert(draft), row_id(draft, "w"));
    if slots.iter().any(|slot| slot.day.is_some()) {
        let days = days(draft, slots);
        draft.part(
            "taken",
            format!(
                "insert into {dedup} (day,message_id,queue) select w.* from unnest({days}::int[],{ids}::uuid[],\
                 {numbers}::int[]) w(day,id,queue) where w.day is not null"
            ),
        );
    }
    draft.part(
        "sends",
        format!(
            "{insert} select {id},w.shard,w.id,w.headers,w.body from unnest({numbers}::int[],{shards}::smallint[],\
             {ids}::uuid[],{headers}::text[],{bodies}::bytea[]) w(queue,shard,id,headers,body)"
        ),
    );
}

/// With topics, or with ids that may have been taken before.
fn routed(
    draft: &mut StatementBuilder<'_>,
    rows: &[Queued<'_>],
    slots: &[DedupSlot],
    columns: &Columns,
    careful: bool,
) {
    let Columns { numbers, shards, ids, headers, bodies } = columns;
    let topics = draft.maybe_texts(rows.iter().map(|row| row.number.is_none().then(|| row.outgoing.to.name())));
    let days = days(draft, slots);
    let misc = draft.sql.bind(slots.iter().map(|slot| slot.misc).collect::<Vec<_>>());
    let (subscription, insert, id) = (draft.table("subscription"), insert(draft), row_id(draft, "x"));
    let (dedup, dedup_misc) = (draft.table("queue_dedup"), draft.table("queue_dedup_misc"));
    let once = if careful { "distinct on (queue,id)" } else { "" };
    let by = if careful { "order by queue,id,ord" } else { "" };
    draft.part(
        "routed",
        format!(
            "select {once} y.* from (select coalesce(w.queue,t.queue) as queue,w.shard,w.id,w.headers,w.body,w.day,\
             w.misc,w.ord from unnest({numbers}::int[],{topics}::text[],{shards}::smallint[],{ids}::uuid[],\
             {headers}::text[],{bodies}::bytea[],{days}::int[],{misc}::bool[]) with ordinality \
             w(queue,topic,shard,id,headers,body,day,misc,ord) left join {subscription} t on t.topic=w.topic where \
             coalesce(w.queue,t.queue) is not null) y {by}"
        ),
    );
    // in the order of the keys: two who add the same ids wait for each other in one direction only
    let skip = if careful { " order by 1,2,3 on conflict do nothing returning message_id,queue" } else { "" };
    draft.part(
        "taken",
        format!(
            "insert into {dedup} (day,message_id,queue) select day,id,queue from routed where day is not null{skip}"
        ),
    );
    let mut from = "routed m where true".to_owned();
    if careful {
        draft.part(
            "taken_misc",
            format!(
                "insert into {dedup_misc} (message_id,queue,at) select id,queue,{NOW} from routed where misc{skip}"
            ),
        );
        from = "routed m left join taken d on d.message_id=m.id and d.queue=m.queue left join taken_misc e on \
                e.message_id=m.id and e.queue=m.queue where (m.day is null or d.queue is not null) and (not m.misc or \
                e.queue is not null)"
            .into();
    }
    // numbers are drawn after the sort, so that the order of the sends is that of the rows
    draft.part(
        "sends",
        format!("{insert} select {id},x.shard,x.id,x.headers,x.body from (select m.* from {from} order by m.ord) x"),
    );
}

fn insert(draft: &StatementBuilder<'_>) -> String {
    format!("insert into {} (id,shard,message_id,headers,body)", draft.table("queue"))
}

fn row_id(draft: &StatementBuilder<'_>, row: &str) -> String {
    format!("({row}.queue::bigint<<{QUEUE_BITS})|nextval('{}')", draft.table("queue_seq"))
}

/// The readers that a message in a queue wakes.
pub(crate) fn wake_key_of(outgoing: &Outgoing) -> WakeKey {
    match &outgoing.to {
        Destination::Queue(name) => WakeKey::Queue(name.as_str().into()),
        Destination::Topic(_) => WakeKey::AnyQueue,
    }
}
