//! A queue takes a message id once within the horizon, from wherever it comes. New ids need no looking after.

use super::{
    super::{
        dedup_day::dedup_slot,
        sql::{self, Rows, Step},
        write_context::WriteContext,
    },
    queue_row::{QueueInsert, Routed},
};
use sagabus_core::{MessageId, Result};
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
    ") w where column1 is not null and not exists(select 1 from queue_dedup_misc m where m.queue=column2 and \
     m.message_id=column3)",
);

static REMEMBER_MISC: Rows = Rows::new(
    "insert or ignore into queue_dedup_misc(at,queue,message_id) select ?,column2,column3 from (values ",
    "(?,?,?)",
    ") w where column2 is not null and not exists(select 1 from queue_dedup d where d.day=column1 and \
     d.queue=column2 and d.message_id=column3)",
);

/// Takes out the rows whose id their queue has seen before, or that come twice.
pub(super) async fn drop_seen(context: &mut WriteContext<'_>, routed: &mut Routed<'_>) -> Result<()> {
    let seen = seen(context, &routed.rows).await?;
    let mut here: HashSet<(Arc<str>, MessageId)> = HashSet::new();
    let mut index = 0;
    routed.rows.retain(|row| {
        index += 1;
        let id = row.outgoing.message.headers.message_id;
        row.fresh_id || !seen.contains(&(index - 1)) && here.insert((Arc::clone(&row.queue), id))
    });
    Ok(())
}

/// The inserts that remember the ids, with how many rows each must add.
pub(super) fn remember(context: &WriteContext<'_>, rows: &[QueueInsert<'_>]) -> Result<[(Vec<Step>, usize); 2]> {
    let (mut dated, mut misc) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| !row.fresh_id) {
        let id = row.outgoing.message.headers.message_id;
        let slot = dedup_slot(id, context.now, context.shared.options.horizon);
        let list = if slot.misc { &mut misc } else { &mut dated };
        list.push((slot.day.map(i64::from), &row.queue, id));
    }
    let first = Step::rows(
        &REMEMBER,
        &dated,
        |_| {},
        |args, (day, queue, id)| {
            args.maybe_int(*day);
            args.shared(queue);
            args.id(id.0);
            Ok(())
        },
    )?;
    let second = Step::rows(
        &REMEMBER_MISC,
        &misc,
        |args| args.time(context.now),
        |args, (day, queue, id)| {
            args.maybe_int(*day);
            args.shared(queue);
            args.id(id.0);
            Ok(())
        },
    )?;
    Ok([(first, dated.len()), (second, misc.len())])
}

/// The rows that their queue has seen before.
async fn seen(context: &mut WriteContext<'_>, rows: &[QueueInsert<'_>]) -> Result<HashSet<usize>> {
    let mut index = 0i64;
    let (now, horizon) = (context.now, context.shared.options.horizon);
    let steps = Step::rows(
        &SEEN,
        rows,
        |_| {},
        |args, row| {
            let id = row.outgoing.message.headers.message_id;
            args.int(index);
            index += 1;
            args.maybe_int(dedup_slot(id, now, horizon).day.map(i64::from));
            args.shared(&row.queue);
            args.id(id.0);
            Ok(())
        },
    )?;
    let mut seen = HashSet::new();
    for step in steps {
        for row in step.fetch(context.connection, "look for repeated messages in sqlite").await? {
            seen.insert(sql::position(&row, 0)?);
        }
    }
    Ok(seen)
}
