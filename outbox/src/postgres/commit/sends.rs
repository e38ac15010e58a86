//! Messages that leave: into queues of this database, or into the outbox.

use super::{
    super::queue_numbers::ABSENT_QUEUE,
    deliveries::{envelopes, insert_dead_letters_as},
    draft::StatementBuilder,
    enqueue::{self, Queued},
};
use crate::fold::{DeadLetterRow, FoldedSend};
use sagabus_core::{Destination, Error, ErrorKind, Outgoing, Result};
use std::sync::{Arc, PoisonError};

/// Returns what the statement answers as ids of outbox rows and as blocked order keys.
pub(super) fn write(
    draft: &mut StatementBuilder<'_>,
    joined: bool,
    sends: &[FoldedSend<'_>],
) -> Result<(String, String)> {
    let nothing = || ("null::bigint[]".to_owned(), "null::text[]".to_owned());
    if sends.is_empty() {
        return Ok(nothing());
    }
    if joined {
        into_queues(draft, sends)?;
        return Ok(nothing());
    }
    let all = || sends.iter().map(|send| send.outgoing);
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
    let blocked = match ordered {
        true => format!(
            "(select array_agg(distinct t.order_key) from {table} t where t.endpoint={endpoint} and \
             t.order_key=any({keys}::text[]) and t.node<>{node}::uuid)"
        ),
        false => "null::text[]".into(),
    };
    Ok(("(select array_agg(id order by id) from sends)".into(), blocked))
}

/// Rows of queues, in order. A message without a queue becomes a dead letter of the sender.
fn into_queues(draft: &mut StatementBuilder<'_>, sends: &[FoldedSend<'_>]) -> Result<()> {
    let mut rows: Vec<Queued<'_>> = Vec::with_capacity(sends.len());
    let (no_handler, mut dead) = (Arc::from(""), Vec::new());
    {
        let known = draft.inner.queues.read().unwrap_or_else(PoisonError::into_inner);
        for &FoldedSend { outgoing, fresh_id, .. } in sends {
            match &outgoing.to {
                Destination::Topic(_) => rows.push(Queued { outgoing, number: None, fresh_id }),
                Destination::Queue(name) => match known.get(name.as_str()) {
                    Some(&ABSENT_QUEUE) => dead.push(unroutable(&no_handler, outgoing, name)),
                    Some(number) => rows.push(Queued { outgoing, number: Some(*number), fresh_id }),
                    None => {
                        let text = format!("the number of the queue {name} was forgotten meanwhile");
                        return Err(Error::new(ErrorKind::Transient, text));
                    }
                },
            }
        }
    }
    insert_dead_letters_as(draft, "unroutable", &dead)?;
    enqueue::write(draft, &rows)
}

fn unroutable<'b>(no_handler: &'b Arc<str>, outgoing: &'b Outgoing, name: &str) -> DeadLetterRow<'b> {
    DeadLetterRow {
        handler: no_handler,
        message: &outgoing.message,
        attempts: 0,
        reason: format!("unroutable: there is no queue {name}").into(),
        detail: vec![format!("to {:?}", outgoing.to)].into(),
    }
}
