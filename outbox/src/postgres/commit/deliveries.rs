//! Timers, retries, parked messages and dead letters.

use super::{
    super::sql::{NOW, indexed_equals, micros},
    draft::StatementBuilder,
};
use crate::fold::{DeadLetterRow, FoldedBatch, ParkedRow, shard_of_row};
use sagabus_core::{Due, Envelope, Result, RowTable};

pub(super) fn write(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) -> Result<()> {
    let after = drop_timers(draft, folded);
    set_timers(draft, folded, &after)?;
    adopt(draft, folded);
    retries(draft, folded)?;
    park(draft, &folded.parked)?;
    insert_dead_letters(draft, &folded.dead_letters)
}

/// Headers and bodies as two arguments.
pub(super) fn envelopes<'m>(
    draft: &mut StatementBuilder<'_>,
    messages: impl Iterator<Item = &'m Envelope> + Clone,
) -> Result<(String, String)> {
    let headers: Vec<String> = messages.clone().map(headers).collect::<Result<_>>()?;
    let headers = draft.sql.bind(headers);
    Ok((headers, draft.sql.bind(messages.map(|message| &*message.body).collect::<Vec<&[u8]>>())))
}

fn headers(message: &Envelope) -> Result<String> {
    let json = message.headers.to_json()?;
    String::from_utf8(json).map_err(|_| sagabus_core::Error::invalid("encode headers"))
}

fn shards<'m>(draft: &mut StatementBuilder<'_>, rows: impl Iterator<Item = (Option<&'m str>, &'m Envelope)>) -> String {
    let shard = |(key, message)| i16::try_from(shard_of_row(key, message)).unwrap_or(0);
    draft.sql.bind(rows.map(shard).collect::<Vec<_>>())
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A condition that leaves out the gates of this statement in a table: only they may delete those rows, or the count
/// would be wrong.
fn spared(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>, table: RowTable) -> String {
    match folded.rows.get(&table) {
        Some(gates) => {
            let ids = draft.sql.bind(gates.iter().map(|gate| gate.0).collect::<Vec<_>>());
            format!(" and t.id<>all({ids}::bigint[])")
        }
        None => String::new(),
    }
}

/// Cancelled timers, those of instances that end, and those that are set again. Returns a condition that is true when all
/// of them are gone.
fn drop_timers(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) -> String {
    let (timer, mut names) = (draft.table("timer"), Vec::new());
    let nothing = folded.cancels.is_empty() && folded.cancel_types.is_empty() && folded.ended.is_empty();
    if nothing && folded.timers.is_empty() {
        return String::new();
    }
    let spared = spared(draft, folded, RowTable::Timer);
    if !folded.cancels.is_empty() {
        let kinds = draft.texts(folded.cancels.iter().map(|(kind, _, _)| &***kind));
        let keys = draft.texts(folded.cancels.iter().map(|(_, key, _)| *key));
        let ids = draft.sql.bind(folded.cancels.iter().map(|(_, _, id)| id.0).collect::<Vec<_>>());
        draft.part(
            "timer_cancel",
            format!(
                "delete from {timer} t using unnest({kinds}::text[],{keys}::text[],{ids}::uuid[]) w(kind,key,timer_id) \
             where {} and (t.kind=w.kind and t.key=w.key) is true{spared} returning 1",
                indexed_equals("timer_id")
            ),
        );
        names.push("timer_cancel");
    }
    if !folded.cancel_types.is_empty() {
        let kinds = draft.texts(folded.cancel_types.iter().map(|cancel| &**cancel.0));
        let keys = draft.texts(folded.cancel_types.iter().map(|cancel| cancel.1));
        let instances = draft.sql.bind(folded.cancel_types.iter().map(|cancel| cancel.2.0).collect::<Vec<_>>());
        let types = draft.texts(folded.cancel_types.iter().map(|cancel| cancel.3));
        draft.part("timer_type", format!(
            "delete from {timer} t using unnest({kinds}::text[],{keys}::text[],{instances}::uuid[],{types}::text[]) \
             w(kind,key,instance,name) where {} and t.key=w.key and t.instance=w.instance and \
             t.message_type=w.name{spared} returning 1",
            indexed_equals("kind")
        ));
        names.push("timer_type");
    }
    if !folded.ended.is_empty() {
        let kinds = draft.texts(folded.ended.iter().map(|(kind, _, _)| &***kind));
        let keys = draft.texts(folded.ended.iter().map(|(_, key, _)| *key));
        let instances = draft.sql.bind(folded.ended.iter().map(|(_, _, instance)| instance.0).collect::<Vec<_>>());
        draft.part(
            "timer_end",
            format!(
                "delete from {timer} t using unnest({kinds}::text[],{keys}::text[],{instances}::uuid[]) \
             w(kind,key,instance) where {} and t.key=w.key and t.instance=w.instance{spared} returning 1",
                indexed_equals("kind")
            ),
        );
        names.push("timer_end");
    }
    if !folded.timers.is_empty() {
        let ids = draft.sql.bind(folded.timers.iter().map(|timer| timer.id.0).collect::<Vec<_>>());
        let endpoint = draft.sql.bind(&*draft.owner.endpoint);
        draft.part(
            "timer_again",
            format!(
                "delete from {timer} t where t.timer_id=any({ids}::uuid[]) and (t.endpoint={endpoint}) is true{spared} \
             returning 1"
            ),
        );
        names.push("timer_again");
    }
    // one that is handled may be set again under its id, too
    if folded.rows.contains_key(&RowTable::Timer) {
        names.push("gate_timer");
    }
    let gone: Vec<String> = names.iter().map(|name| format!("(select count(*) from {name})>=0")).collect();
    gone.join(" and ")
}

fn set_timers(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>, after: &str) -> Result<()> {
    if folded.timers.is_empty() {
        return Ok(());
    }
    let timers = &folded.timers;
    let saga = |message: &'_ Envelope| message.headers.saga.clone();
    let endpoint = draft.sql.bind(&*draft.owner.endpoint);
    let handlers = draft.texts(timers.iter().map(|timer| &**timer.handler));
    let shards = shards(draft, timers.iter().map(|timer| (None, timer.message)));
    let delay = |due: Due| if let Due::After(time) = due { Some(micros(time)) } else { None };
    let moment = |due: Due| if let Due::At(time) = due { Some(time.0) } else { None };
    let delays = draft.sql.bind(timers.iter().map(|timer| delay(timer.due)).collect::<Vec<_>>());
    let moments = draft.sql.bind(timers.iter().map(|timer| moment(timer.due)).collect::<Vec<_>>());
    let ids = draft.sql.bind(timers.iter().map(|timer| timer.id.0).collect::<Vec<_>>());
    let sagas: Vec<_> = timers.iter().map(|timer| saga(timer.message)).collect();
    let kinds = draft.maybe_texts(sagas.iter().map(|saga| saga.as_ref().map(|saga| saga.kind.as_str())));
    let keys = draft.maybe_texts(sagas.iter().map(|saga| saga.as_ref().map(|saga| saga.key.as_str())));
    let instances =
        draft.sql.bind(sagas.iter().map(|saga| saga.as_ref().map(|saga| saga.instance.0)).collect::<Vec<_>>());
    let types = draft.texts(timers.iter().map(|timer| timer.message.headers.message_type.as_str()));
    let (headers, bodies) = envelopes(draft, timers.iter().map(|timer| timer.message))?;
    let table = draft.table("timer");
    draft.part("timer_set", format!(
        "insert into {table} (endpoint,handler,shard,due,timer_id,kind,key,instance,message_type,headers,body) select \
         {endpoint},w.handler,w.shard,coalesce(w.moment,{NOW}+w.delay),w.id,w.kind,w.key,w.instance,w.type,w.headers,\
         w.body from unnest({handlers}::text[],{shards}::smallint[],{delays}::bigint[],{moments}::bigint[],\
         {ids}::uuid[],{kinds}::text[],{keys}::text[],{instances}::uuid[],{types}::text[],{headers}::text[],\
         {bodies}::bytea[]) w(handler,shard,delay,moment,id,kind,key,instance,type,headers,body) where {after}"
    ));
    Ok(())
}

/// Messages that waited for a saga which is here now. An earlier reading of them, as overdue, is void.
fn adopt(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) {
    if folded.adopt.is_empty() {
        return;
    }
    let kinds = draft.texts(folded.adopt.iter().map(|(kind, _)| &***kind));
    let keys = draft.texts(folded.adopt.iter().map(|(_, key)| &**key));
    let (spared, table) = (spared(draft, folded, RowTable::Parked), draft.table("parked"));
    draft.part(
        "adopted",
        format!(
            "update {table} t set due=least(t.due,{NOW}),token=t.token+1 from unnest({kinds}::text[],{keys}::text[]) \
         w(kind,key) where {} and t.key=w.key{spared}",
            indexed_equals("kind")
        ),
    );
}

fn retries(draft: &mut StatementBuilder<'_>, folded: &FoldedBatch<'_>) -> Result<()> {
    let rows = &folded.retries;
    if rows.is_empty() {
        return Ok(());
    }
    let endpoint = draft.sql.bind(&*draft.owner.endpoint);
    let handlers = draft.texts(rows.iter().map(|row| &**row.handler));
    let shards = shards(draft, rows.iter().map(|row| (row.key, row.message)));
    let delays = draft.sql.bind(rows.iter().map(|row| micros(row.delay)).collect::<Vec<_>>());
    let keys = draft.maybe_texts(rows.iter().map(|row| row.key));
    let attempts = draft.sql.bind(rows.iter().map(|row| number(row.attempts)).collect::<Vec<_>>());
    let reasons = draft.texts(rows.iter().map(|row| row.reason));
    let (headers, bodies) = envelopes(draft, rows.iter().map(|row| row.message))?;
    let table = draft.table("retry");
    draft.part(
        "deferred",
        format!(
            "insert into {table} (endpoint,handler,shard,due,order_key,attempts,reason,headers,body) select \
         {endpoint},w.handler,w.shard,{NOW}+w.delay,w.key,w.attempts,w.reason,w.headers,w.body from \
         unnest({handlers}::text[],{shards}::smallint[],{delays}::bigint[],{keys}::text[],{attempts}::int[],\
         {reasons}::text[],{headers}::text[],{bodies}::bytea[]) \
         w(handler,shard,delay,key,attempts,reason,headers,body)"
        ),
    );
    Ok(())
}

fn park(draft: &mut StatementBuilder<'_>, rows: &[ParkedRow<'_>]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let endpoint = draft.sql.bind(&*draft.owner.endpoint);
    let handlers = draft.texts(rows.iter().map(|row| &**row.handler));
    let shards = shards(draft, rows.iter().map(|row| (row.blocked_key, row.message)));
    let delays = draft.sql.bind(rows.iter().map(|row| micros(row.delay)).collect::<Vec<_>>());
    let blocked_keys = draft.maybe_texts(rows.iter().map(|row| row.blocked_key));
    let kinds = draft.maybe_texts(rows.iter().map(|row| row.saga.map(|saga| &**saga.0)));
    let keys = draft.maybe_texts(rows.iter().map(|row| row.saga.map(|saga| saga.1)));
    let asks = draft.sql.bind(rows.iter().map(|row| row.ask).collect::<Vec<_>>());
    let attempts = draft.sql.bind(rows.iter().map(|row| number(row.attempts)).collect::<Vec<_>>());
    let (headers, bodies) = envelopes(draft, rows.iter().map(|row| row.message))?;
    let (table, saga, alias) = (draft.table("parked"), draft.table("saga"), draft.table("saga_alias"));
    draft.part(
        "parked_new",
        format!(
            "insert into {table} (endpoint,handler,shard,due,order_key,kind,key,attempts,headers,body) select \
         {endpoint},w.handler,w.shard,{NOW}+case when w.ask and (exists(select 1 from {saga} s where \
         s.kind=w.kind and s.key=w.key and s.completed_at is null offset 0) or exists(select a.instance from {alias} a \
         where (a.alias||'='||a.value)=w.key and (a.kind=w.kind) is true offset 0)) then 0 else w.delay \
         end,w.turn,w.kind,w.key,w.attempts,w.headers,w.body from \
         unnest({handlers}::text[],{shards}::smallint[],{delays}::bigint[],{blocked_keys}::text[],{kinds}::text[],\
         {keys}::text[],{asks}::bool[],{attempts}::int[],{headers}::text[],{bodies}::bytea[]) \
         w(handler,shard,delay,turn,kind,key,ask,attempts,headers,body)"
        ),
    );
    Ok(())
}

pub(super) fn insert_dead_letters(draft: &mut StatementBuilder<'_>, rows: &[DeadLetterRow<'_>]) -> Result<()> {
    insert_dead_letters_as(draft, "buried", rows)
}

/// Dead letters, as a part of this name.
pub(super) fn insert_dead_letters_as(
    draft: &mut StatementBuilder<'_>,
    name: &str,
    rows: &[DeadLetterRow<'_>],
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let endpoint = draft.sql.bind(&*draft.owner.endpoint);
    let handlers = draft.texts(rows.iter().map(|row| &**row.handler));
    let shards = shards(draft, rows.iter().map(|row| (None, row.message)));
    let attempts = draft.sql.bind(rows.iter().map(|row| number(row.attempts)).collect::<Vec<_>>());
    let reasons = draft.texts(rows.iter().map(|row| &*row.reason));
    let details: Vec<String> = rows.iter().map(|row| serde_json::to_string(&row.detail).unwrap_or_default()).collect();
    let details = draft.sql.bind(details);
    let (headers, bodies) = envelopes(draft, rows.iter().map(|row| row.message))?;
    let table = draft.table("dead_letter");
    draft.part(
        name,
        format!(
            "insert into {table} (endpoint,handler,shard,at,attempts,reason,detail,headers,body) select \
         {endpoint},w.handler,w.shard,{NOW},w.attempts,w.reason,w.detail,w.headers,w.body from \
         unnest({handlers}::text[],{shards}::smallint[],{attempts}::int[],{reasons}::text[],{details}::text[],\
         {headers}::text[],{bodies}::bytea[]) w(handler,shard,attempts,reason,detail,headers,body)"
        ),
    );
    Ok(())
}
