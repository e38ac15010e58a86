//! Fences that must hold, and gates that are claimed.

use super::{
    super::sql::{NOW, indexed_equals},
    draft::StatementBuilder,
};
use crate::fold::FoldedBatch;
use sagabus_core::{RowTable, sabotage};

pub(super) fn write(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) {
    fences(draft, folded);
    inbox(draft, folded);
    for (table, gates) in &folded.rows {
        rows(draft, *table, gates);
    }
    if folded.attempt_rows.is_empty() {
        return;
    }
    let handlers = draft.texts(folded.attempt_rows.iter().map(|(handler, _)| &***handler));
    let ids = draft.sql.bind(folded.attempt_rows.iter().map(|(_, id)| id.0).collect::<Vec<_>>());
    let (attempt, endpoint) = (draft.table("attempt"), draft.sql.bind(&*draft.owner.endpoint));
    draft.part(
        "counted",
        format!(
            "delete from {attempt} t using unnest({ids}::uuid[],{handlers}::text[]) w(message_id,handler) where {} and \
         t.handler=w.handler and (t.endpoint={endpoint}) is true",
            indexed_equals("message_id")
        ),
    );
}

/// Compares fences, and locks their rows: no node takes a shard over between the comparison and the commit.
fn fences(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) {
    if folded.fences.is_empty() {
        return;
    }
    let groups = draft.texts(folded.fences.iter().map(|fence| &*fence.group));
    let shard = |shard: u16| i16::try_from(shard).unwrap_or(-1);
    let shards = draft.sql.bind(folded.fences.iter().map(|fence| shard(fence.shard)).collect::<Vec<_>>());
    let epochs = draft.sql.bind(folded.fences.iter().map(|fence| fence.epoch).collect::<Vec<_>>());
    let table = draft.table("shard");
    let part = format!(
        "select 1 from {table} t join unnest({groups}::text[],{shards}::smallint[],{epochs}::bigint[]) \
         w(grp,shard,epoch) on t.grp=w.grp and t.shard=w.shard and t.epoch=w.epoch for share of t"
    );
    draft.counted("fence", part, folded.fences.len());
}

fn inbox(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) {
    if folded.inbox.is_empty() {
        return;
    }
    // the insert itself is the check: a row that is there fails the statement
    let unchecked = if sabotage::active("skip-inbox-check") { " on conflict do nothing" } else { "" };
    let endpoint = draft.sql.bind(&*draft.owner.endpoint);
    let in_days: Vec<_> =
        folded.inbox.iter().filter_map(|(slot, handler, id)| Some((slot.day?, *handler, *id))).collect();
    if !in_days.is_empty() {
        let days = draft.sql.bind(in_days.iter().map(|(day, _, _)| *day).collect::<Vec<_>>());
        let ids = draft.sql.bind(in_days.iter().map(|(_, _, id)| id.0).collect::<Vec<_>>());
        let (handlers, table) = (draft.texts(in_days.iter().map(|(_, handler, _)| &***handler)), draft.table("inbox"));
        draft.part(
            "inbox_day",
            format!(
                "insert into {table} (day,message_id,handler,endpoint) select w.*,{endpoint} from \
             unnest({days}::int[],{ids}::uuid[],{handlers}::text[]) w{unchecked}"
            ),
        );
    }
    let in_misc: Vec<_> = folded.inbox.iter().filter(|(slot, _, _)| slot.misc).collect();
    if !in_misc.is_empty() {
        let ids = draft.sql.bind(in_misc.iter().map(|(_, _, id)| id.0).collect::<Vec<_>>());
        let handlers = draft.texts(in_misc.iter().map(|(_, handler, _)| &***handler));
        let table = draft.table("inbox_misc");
        draft.part(
            "inbox_old",
            format!(
                "insert into {table} (message_id,handler,endpoint,at) select w.*,{endpoint},{NOW} from \
             unnest({ids}::uuid[],{handlers}::text[]) w{unchecked}"
            ),
        );
    }
}

fn rows(draft: &mut StatementBuilder<'_>, table: RowTable, gates: &[(i64, i64)]) {
    let ids = draft.sql.bind(gates.iter().map(|gate| gate.0).collect::<Vec<_>>());
    let (name, from) = (format!("gate_{}", table.name()), draft.table(table.name()));
    if table == RowTable::Queue {
        // a queue row is never moved, so its id says it all
        let part = format!("delete from {from} where id=any({ids}::bigint[]) returning 1");
        return draft.counted(&name, part, gates.len());
    }
    let tokens = draft.sql.bind(gates.iter().map(|gate| gate.1).collect::<Vec<_>>());
    let part = format!(
        "delete from {from} t using unnest({ids}::bigint[],{tokens}::bigint[]) w(id,token) where {} and \
         t.token=w.token returning 1",
        indexed_equals("id")
    );
    if table == RowTable::Timer && sabotage::active("timer-delete-early") {
        return draft.part(&name, part);
    }
    draft.counted(&name, part, gates.len());
}
