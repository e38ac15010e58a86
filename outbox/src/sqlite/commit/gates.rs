//! Gates, which are claimed once, and fences.

use super::{
    super::{
        op::{Op, OpError},
        sql::{self, Rows, Step},
        write_context::{Tx, WriteContext},
    },
    statements::{ExpectedRows, StatementBatch},
};
use crate::{dedup::DedupSlot, fold::FoldedBatch};
use futures::future::BoxFuture;
use sagabus_core::{MessageId, Result, RowTable, sabotage};
use std::{collections::BTreeSet, sync::Arc};

static INBOX: Rows = Rows::new(
    "insert or ignore into inbox(day,endpoint,handler,message_id) select column1,column2,column3,column4 from (values ",
    "(?,?,?,?)",
    ") w where column1 is not null and not exists(select 1 from inbox_misc m where m.endpoint=column2 and \
     m.handler=column3 and m.message_id=column4)",
);

static INBOX_MISC: Rows = Rows::new(
    "insert or ignore into inbox_misc(at,endpoint,handler,message_id) select ?,column2,column3,column4 from (values ",
    "(?,?,?,?)",
    ") w where column2 is not null and not exists(select 1 from inbox i where i.day=column1 and i.endpoint=column2 and \
     i.handler=column3 and i.message_id=column4)",
);

// a queue row is never moved: its id says it all
static QUEUE: Rows = Rows::new("delete from queue where id in (values ", "(?)", ")");

macro_rules! delete_with_token {
    ($table:literal) => {
        Rows::new(
            concat!("delete from ", $table, " where id in (select t.id from (values "),
            "(?,?)",
            concat!(") w cross join ", $table, " t on t.id=w.column1 and t.token=w.column2)"),
        )
    };
}

static TIMER: Rows = delete_with_token!("timer");
static RETRY: Rows = delete_with_token!("retry");
static PARKED: Rows = delete_with_token!("parked");
static DEAD_LETTER: Rows = delete_with_token!("dead_letter");

macro_rules! lines_of {
    ($table:literal) => {
        Rows::new(
            "select distinct t.handler,t.order_key from (values ",
            "(?)",
            concat!(") w cross join ", $table, " t on t.id=w.column1 where t.order_key is not null"),
        )
    };
}

static RETRY_LINES: Rows = lines_of!("retry");
static PARKED_LINES: Rows = lines_of!("parked");

static FENCES: Rows = Rows::new(
    "select count(*) from (values ",
    "(?,?,?)",
    ") w cross join shard s on s.grp=w.column1 and s.shard=w.column2 and s.epoch=w.column3",
);

/// (slot, handler, id)
type InboxRow<'b> = &'b (DedupSlot, &'b Arc<str>, MessageId);

/// Opens the gates: inserts the inbox rows and deletes the rows that are gates.
pub(super) fn claim(
    context: &WriteContext<'_>,
    endpoint: &Arc<str>,
    folded: &FoldedBatch<'_>,
    statements: &mut StatementBatch<'_>,
) -> Result<()> {
    let unchecked = sabotage::active("skip-inbox-check");
    let inbox = if unchecked { |_| ExpectedRows::Any } else { ExpectedRows::Exactly };
    let (usual, misc): (Vec<InboxRow<'_>>, Vec<InboxRow<'_>>) =
        folded.inbox.iter().partition(|(slot, _, _)| !slot.misc);
    let steps = Step::rows(
        &INBOX,
        &usual,
        |_| {},
        |args, (slot, handler, id)| {
            args.maybe_int(slot.day.map(i64::from));
            args.shared(endpoint);
            args.shared(handler);
            args.id(id.0);
            Ok(())
        },
    )?;
    statements.add(steps, usual.len(), inbox);
    let steps = Step::rows(
        &INBOX_MISC,
        &misc,
        |args| args.time(context.now),
        |args, (slot, handler, id)| {
            args.maybe_int(slot.day.map(i64::from));
            args.shared(endpoint);
            args.shared(handler);
            args.id(id.0);
            Ok(())
        },
    )?;
    statements.add(steps, misc.len(), inbox);
    for (table, rows) in &folded.rows {
        let steps = delete(*table, rows)?;
        // with this bug, `due` has deleted the row already
        let early = *table == RowTable::Timer && sabotage::active("timer-delete-early");
        statements.add(steps, rows.len(), if early { |_| ExpectedRows::Any } else { ExpectedRows::Exactly });
    }
    Ok(())
}

fn delete(table: RowTable, rows: &[(i64, i64)]) -> Result<Vec<Step>> {
    let statement = match table {
        RowTable::Timer => &TIMER,
        RowTable::Retry => &RETRY,
        RowTable::Parked => &PARKED,
        RowTable::DeadLetter => &DEAD_LETTER,
        _ => {
            return Step::rows(
                &QUEUE,
                rows,
                |_| {},
                |args, (id, _)| {
                    args.int(*id);
                    Ok(())
                },
            );
        }
    };
    Step::rows(
        statement,
        rows,
        |_| {},
        |args, (id, token)| {
            args.int(*id);
            args.int(*token);
            Ok(())
        },
    )
}

/// The planted bug `timer-delete-early`: rows that are deleted before their gates open.
pub(crate) struct DeleteRow(pub(crate) RowTable, pub(crate) Vec<(i64, i64)>);

impl Op for DeleteRow {
    type Answer = ();

    fn run<'a>(&'a mut self, tx: &'a mut Tx) -> BoxFuture<'a, Result<(), OpError>> {
        Box::pin(async move {
            sql::run_all(&mut tx.connection, delete(self.0, &self.1)?, "delete rows early", |_, _| true).await?;
            Ok(())
        })
    }
}

/// Whether all fences still hold.
pub(super) async fn fences_hold(context: &mut WriteContext<'_>, folded: &FoldedBatch<'_>) -> Result<bool> {
    let steps = Step::rows(
        &FENCES,
        &folded.fences,
        |_| {},
        |args, fence| {
            args.shared(&fence.group);
            args.int(i64::from(fence.shard));
            args.int(fence.epoch);
            Ok(())
        },
    )?;
    let mut held = 0i64;
    for step in steps {
        for row in step.fetch(context.connection, "compare fences in sqlite").await? {
            held += sql::column::<i64>(&row, 0)?;
        }
    }
    Ok(usize::try_from(held).is_ok_and(|held| held == folded.fences.len()))
}

/// (handler, order key) of the lines that may move on: those of the rows whose gates open, and those in which a message
/// is parked by this batch.
pub(super) async fn lines(
    context: &mut WriteContext<'_>,
    folded: &FoldedBatch<'_>,
) -> Result<BTreeSet<(Arc<str>, String)>> {
    let parked = folded.parked.iter();
    let mut lines: BTreeSet<_> =
        parked.filter_map(|row| Some((Arc::clone(row.handler), row.blocked_key?.to_owned()))).collect();
    for (table, statement) in [(RowTable::Retry, &RETRY_LINES), (RowTable::Parked, &PARKED_LINES)] {
        let Some(rows) = folded.rows.get(&table) else { continue };
        let steps = Step::rows(
            statement,
            rows,
            |_| {},
            |args, (id, _)| {
                args.int(*id);
                Ok(())
            },
        )?;
        for step in steps {
            for row in step.fetch(context.connection, "read order keys from sqlite").await? {
                lines.insert((sql::column::<&str>(&row, 0)?.into(), sql::column(&row, 1)?));
            }
        }
    }
    Ok(lines)
}
