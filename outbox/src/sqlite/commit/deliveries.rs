//! Timers, retries, parked messages, dead letters, attempts, and outbox rows that are done.

use super::{
    super::{
        sql::{Args, Rows, Step},
        write_context::WriteContext,
    },
    statements::StatementBatch,
};
use crate::fold::{DeadLetterRow, FoldedBatch, shard_of_row};
use sagabus_core::{CommitBatch, Due, Envelope, Result, RowTable};
use std::{collections::BTreeSet, sync::Arc};

static CANCEL: Rows = Rows::new(
    "delete from timer where id in (select t.id from (values ",
    "(?,?,?)",
    ") w cross join timer t on t.timer_id=w.column3 where t.kind=w.column1 and t.key=w.column2)",
);

static CANCEL_TYPE: Rows = Rows::new(
    "delete from timer where id in (select t.id from (values ",
    "(?,?,?,?)",
    ") w cross join timer t on t.kind=w.column1 and t.key=w.column2 where t.kind is not null and \
     t.instance=w.column3 and t.message_type=w.column4)",
);

static END_TIMERS: Rows = Rows::new(
    "delete from timer where id in (select t.id from (values ",
    "(?,?,?)",
    ") w cross join timer t on t.kind=w.column1 and t.key=w.column2 where t.kind is not null and t.instance=w.column3)",
);

static SET: Rows = Rows::new(
    "insert or fail into timer(endpoint,handler,shard,due,timer_id,kind,key,instance,message_type,headers,body) select \
     column1,column2,column3,column4,column5,column6,column7,column8,column9,column10,column11 from (values ",
    "(?,?,?,?,?,?,?,?,?,?,?)",
    ") w where column1 is not null on conflict(timer_id,endpoint) do update set token=token+1,handler=excluded.handler,\
     shard=excluded.shard,due=excluded.due,kind=excluded.kind,key=excluded.key,instance=excluded.instance,\
     message_type=excluded.message_type,headers=excluded.headers,body=excluded.body",
);

static ADOPT: Rows = Rows::new(
    "update parked set due=min(due,?),token=token+1 from (values ",
    "(?,?)",
    ") w where parked.kind=w.column1 and parked.key=w.column2 and parked.kind is not null",
);

static DEFER: Rows = Rows::new(
    "insert or fail into retry(endpoint,handler,shard,due,order_key,attempts,reason,headers,body) select \
     column1,column2,column3,column4,column5,column6,column7,column8,column9 from (values ",
    "(?,?,?,?,?,?,?,?,?)",
    ") w where column1 is not null",
);

static INSERT_DEAD_LETTER: Rows = Rows::new(
    "insert or fail into dead_letter(at,endpoint,handler,shard,attempts,reason,detail,headers,body) select \
     ?,column1,column2,column3,column4,column5,column6,column7,column8 from (values ",
    "(?,?,?,?,?,?,?,?)",
    ") w where column1 is not null",
);

// one that waits for a saga which exists by now, under its key or under an alias, is due at once
static PARK: Rows = Rows::new(
    "insert or fail into parked(due,endpoint,handler,shard,order_key,kind,key,attempts,headers,body) select \
     case when exists(select 1 from saga s where s.kind=column5 and s.key=column6 and s.completed_at is null) or \
     exists(select 1 from saga_alias a where a.kind=column5 and a.alias=column11 and a.value=column12) then ? \
     else column10 end,column1,column2,column3,column4,column5,column6,column7,column8,column9 from (values ",
    "(?,?,?,?,?,?,?,?,?,?,?,?)",
    ") w where column1 is not null",
);

// in each line the first one is due as soon as nothing of the line is being retried
static ADVANCE: Rows = Rows::new(
    "update parked set due=? where due is null and id in (select (select min(q.id) from parked q where \
     q.endpoint=column1 and q.handler=column2 and q.order_key=column3) from (values ",
    "(?,?,?)",
    ") w where not exists(select 1 from retry r where r.endpoint=column1 and r.handler=column2 and \
     r.order_key=column3))",
);

static FORGET_ATTEMPT: Rows =
    Rows::new("delete from attempt where (endpoint,handler,message_id) in (values ", "(?,?,?)", ")");

pub(crate) static DELETE_SENT: Rows = Rows::new("delete from outbox where id in (values ", "(?)", ")");

/// Writes all of it.
pub(super) fn write(
    context: &mut WriteContext<'_>,
    batch: &CommitBatch,
    folded: &FoldedBatch<'_>,
    lines: &BTreeSet<(Arc<str>, String)>,
    statements: &mut StatementBatch<'_>,
) -> Result<()> {
    let endpoint = &batch.owner.endpoint;
    timers(context, endpoint, folded, statements)?;
    disposition_rows(context, endpoint, folded, statements)?;
    statements.add_any(Step::rows(
        &ADVANCE,
        &lines.iter().collect::<Vec<_>>(),
        |args| args.time(context.now),
        |args, line| {
            args.shared(endpoint);
            args.shared(&line.0);
            args.text(&line.1);
            Ok(())
        },
    )?);
    statements.add_any(Step::rows(
        &FORGET_ATTEMPT,
        &folded.attempt_rows,
        |_| {},
        |args, (handler, id)| {
            args.shared(endpoint);
            args.shared(handler);
            args.id(id.0);
            Ok(())
        },
    )?);
    statements.add_any(Step::rows(
        &DELETE_SENT,
        &batch.sent,
        |_| {},
        |args, id| {
            args.int(id.0);
            Ok(())
        },
    )?);
    context.announcements.deleted_sent |= !batch.sent.is_empty();
    let moves = folded.rows.keys().any(|table| *table != RowTable::Queue);
    let rows = folded.retries.len() + folded.dead_letters.len() + folded.parked.len();
    if moves || rows > 0 || !(folded.timers.is_empty() && folded.adopt.is_empty()) {
        context.announcements.due(endpoint);
    }
    Ok(())
}

fn timers(
    context: &WriteContext<'_>,
    endpoint: &Arc<str>,
    folded: &FoldedBatch<'_>,
    statements: &mut StatementBatch<'_>,
) -> Result<()> {
    statements.add_any(Step::rows(
        &CANCEL,
        &folded.cancels,
        |_| {},
        |args, (kind, key, id)| {
            args.shared(kind);
            args.text(key);
            args.id(id.0);
            Ok(())
        },
    )?);
    statements.add_any(Step::rows(
        &CANCEL_TYPE,
        &folded.cancel_types,
        |_| {},
        |args, (kind, key, instance, name)| {
            args.shared(kind);
            args.text(key);
            args.id(instance.0);
            args.text(name);
            Ok(())
        },
    )?);
    statements.add_any(Step::rows(
        &END_TIMERS,
        &folded.ended,
        |_| {},
        |args, (kind, key, instance)| {
            args.shared(kind);
            args.text(key);
            args.id(instance.0);
            Ok(())
        },
    )?);
    statements.add_any(Step::rows(
        &SET,
        &folded.timers,
        |_| {},
        |args, timer| {
            let headers = &timer.message.headers;
            args.shared(endpoint);
            args.shared(timer.handler);
            args.int(i64::from(shard_of_row(None, timer.message)));
            args.time(match timer.due {
                Due::After(delay) => context.now.plus(delay),
                Due::At(time) => time,
            });
            args.id(timer.id.0);
            args.maybe_text(headers.saga.as_ref().map(|saga| saga.kind.as_str()));
            args.maybe_text(headers.saga.as_ref().map(|saga| saga.key.as_str()));
            args.maybe_blob(headers.saga.as_ref().map(|saga| saga.instance.0.as_bytes().as_slice()));
            args.text(&headers.message_type);
            envelope(args, timer.message)
        },
    )?);
    Ok(())
}

fn disposition_rows(
    context: &WriteContext<'_>,
    endpoint: &Arc<str>,
    folded: &FoldedBatch<'_>,
    statements: &mut StatementBatch<'_>,
) -> Result<()> {
    statements.add_any(Step::rows(
        &ADOPT,
        &folded.adopt,
        |args| args.time(context.now),
        |args, (kind, key)| {
            args.shared(kind);
            args.text(key);
            Ok(())
        },
    )?);
    statements.add_any(Step::rows(
        &DEFER,
        &folded.retries,
        |_| {},
        |args, row| {
            owner_columns(args, endpoint, row.handler, row.key, row.message);
            args.time(context.now.plus(row.delay));
            args.maybe_text(row.key);
            args.int(i64::from(row.attempts));
            args.text(row.reason);
            envelope(args, row.message)
        },
    )?);
    statements.add_any(dead_letter_steps(context, endpoint, &folded.dead_letters)?);
    statements.add_any(Step::rows(
        &PARK,
        &folded.parked,
        |args| args.time(context.now),
        |args, row| {
            owner_columns(args, endpoint, row.handler, row.blocked_key, row.message);
            args.maybe_text(row.blocked_key);
            args.maybe_text(row.saga.map(|(kind, _)| &**kind));
            args.maybe_text(row.saga.map(|(_, key)| key));
            args.int(i64::from(row.attempts));
            envelope(args, row.message)?;
            args.maybe_int(row.saga.map(|_| context.now.plus(row.delay).0));
            // an alias's key is name=value (`alias_key`), and a name has no equals sign
            let alias = row.saga.and_then(|(_, key)| key.split_once('='));
            args.maybe_text(alias.map(|(name, _)| name));
            args.maybe_text(alias.map(|(_, value)| value));
            Ok(())
        },
    )?);
    Ok(())
}

/// Rows of `dead_letter`.
pub(super) fn dead_letter_steps(
    context: &WriteContext<'_>,
    endpoint: &Arc<str>,
    dead: &[DeadLetterRow<'_>],
) -> Result<Vec<Step>> {
    Step::rows(
        &INSERT_DEAD_LETTER,
        dead,
        |args| args.time(context.now),
        |args, row| {
            owner_columns(args, endpoint, row.handler, None, row.message);
            args.int(i64::from(row.attempts));
            args.text(&row.reason);
            args.text(&serde_json::Value::from(&*row.detail).to_string());
            envelope(args, row.message)
        },
    )
}

fn owner_columns(args: &mut Args, endpoint: &Arc<str>, handler: &Arc<str>, key: Option<&str>, message: &Envelope) {
    args.shared(endpoint);
    args.shared(handler);
    args.int(i64::from(shard_of_row(key, message)));
}

pub(super) fn envelope(args: &mut Args, message: &Envelope) -> Result<()> {
    args.headers(&message.headers)?;
    args.blob(&message.body);
    Ok(())
}
