//! Messages that leave: into queues of this database, or into the outbox.

use super::{
    deliveries::{bury_as, envelopes},
    plan::{Dead, shard_of_queued},
    statement::Draft,
};
use sagabus_core::{Destination, Outgoing, Result};
use std::sync::PoisonError;

/// Bits of a queue row's id below its queue's number.
pub(crate) const QUEUE_BITS: u32 = 45;

/// Returns what the statement answers as ids of outbox rows and as order keys behind.
pub(super) fn write(draft: &mut Draft<'_>, joined: bool, sends: &[(usize, &Outgoing)]) -> Result<(String, String)> {
    let nothing = || ("null::bigint[]".to_owned(), "null::text[]".to_owned());
    if sends.is_empty() {
        return Ok(nothing());
    }
    if joined {
        enqueue(draft, &sends.iter().map(|(_, outgoing)| *outgoing).collect::<Vec<_>>())?;
        return Ok(nothing());
    }
    let all = || sends.iter().map(|(_, outgoing)| *outgoing);
    let endpoint = draft.sql.bind(&*draft.owner.endpoint);
    let node = draft.sql.bind(draft.owner.node.0);
    let topics = draft.sql.bind(all().map(|o| matches!(o.to, Destination::Topic(_))).collect::<Vec<_>>());
    let names = draft.texts(all().map(|outgoing| outgoing.to.name()));
    let keys: Vec<Option<&str>> = all().map(|o| o.message.headers.order_key.as_deref()).collect();
    let ordered = keys.iter().any(Option::is_some);
    let keys = draft.maybe_texts(keys.into_iter());
    let (headers, bodies) = envelopes(draft, all().map(|outgoing| &outgoing.message))?;
    let table = draft.table("outbox");
    draft.part("sends", format!(
        "insert into {table} (endpoint,node,topic,destination,order_key,headers,body) select {endpoint},{node}::uuid,w.* \
         from unnest({topics}::bool[],{names}::text[],{keys}::text[],{headers}::text[],{bodies}::bytea[]) w returning id"
    ));
    let behind = match ordered {
        true => format!(
            "(select array_agg(distinct t.order_key) from {table} t where t.endpoint={endpoint} and \
             t.order_key=any({keys}::text[]) and t.node<>{node}::uuid)"
        ),
        false => "null::text[]".into(),
    };
    Ok(("(select array_agg(id order by id) from sends)".into(), behind))
}

/// Rows of queues, in order. What can never arrive becomes a dead letter of the sender.
fn enqueue(draft: &mut Draft<'_>, sends: &[&Outgoing]) -> Result<()> {
    let known = draft.inner.queues.read().unwrap_or_else(PoisonError::into_inner);
    let mut rows: Vec<(&Outgoing, Option<i32>)> = Vec::with_capacity(sends.len());
    let mut dead = Vec::new();
    for outgoing in sends {
        match &outgoing.to {
            Destination::Topic(_) => rows.push((outgoing, None)),
            Destination::Queue(name) => match known.get(name.as_str()) {
                Some(number) => rows.push((outgoing, Some(*number))),
                None => dead.push(unroutable(outgoing, name)),
            },
        }
    }
    drop(known);
    bury_as(draft, "unroutable", &dead)?;
    if rows.is_empty() {
        return Ok(());
    }
    let ids = draft.sql.bind(rows.iter().map(|(o, _)| o.message.headers.message_id.0).collect::<Vec<_>>());
    let shards = draft.sql.bind(rows.iter().map(|(o, _)| shard_of_queued(&o.message)).collect::<Vec<_>>());
    let numbers = draft.sql.bind(rows.iter().map(|(_, number)| *number).collect::<Vec<_>>());
    let (headers, bodies) = envelopes(draft, rows.iter().map(|(outgoing, _)| &outgoing.message))?;
    let (queue, sequence) = (draft.table("queue"), draft.table("queue_seq"));
    let insert = format!("insert into {queue} (id,shard,message_id,headers,body)");
    let next = format!("nextval('{sequence}')");
    if rows.iter().all(|(_, number)| number.is_some()) {
        draft.part(
            "sends",
            format!(
                "{insert} select (w.queue::bigint<<{QUEUE_BITS})|{next},w.shard,w.id,w.headers,w.body from \
             unnest({numbers}::int[],{shards}::smallint[],{ids}::uuid[],{headers}::text[],{bodies}::bytea[]) \
             w(queue,shard,id,headers,body)"
            ),
        );
        return Ok(());
    }
    let topics = draft.maybe_texts(rows.iter().map(|(o, number)| number.is_none().then(|| o.to.name())));
    let subscription = draft.table("subscription");
    // numbers are drawn after the sort, so that the order of the sends is that of the rows
    draft.part(
        "sends",
        format!(
            "{insert} select (x.queue::bigint<<{QUEUE_BITS})|{next},x.shard,x.id,x.headers,x.body from (select \
         coalesce(w.queue,s.queue) as queue,w.shard,w.id,w.headers,w.body,w.ord from \
         unnest({numbers}::int[],{topics}::text[],{shards}::smallint[],{ids}::uuid[],{headers}::text[],\
         {bodies}::bytea[]) with ordinality w(queue,topic,shard,id,headers,body,ord) left join {subscription} s on \
         s.topic=w.topic where coalesce(w.queue,s.queue) is not null order by w.ord) x"
        ),
    );
    Ok(())
}

pub(crate) fn unroutable<'b>(outgoing: &'b Outgoing, name: &str) -> Dead<'b> {
    Dead {
        handler: "",
        message: &outgoing.message,
        attempts: 0,
        reason: format!("unroutable: there is no queue {name}"),
        detail: vec![format!("to {:?}", outgoing.to)],
    }
}
