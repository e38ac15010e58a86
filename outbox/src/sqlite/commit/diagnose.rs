//! Which units of a batch that did not apply are at fault, and how.

use super::super::{
    dedup_day::dedup_slot,
    sql::{self, Rows, Step},
    write_context::WriteContext,
};
use crate::fold::{LiveRow, apply_write};
use sagabus_core::{CommitBatch, Fence, Gate, InstanceId, Outcome, Result, RowTable, SagaWrite, UnitOfWork, sabotage};
use std::collections::{HashMap, HashSet};

static INBOX: Rows = Rows::new(
    "select column1 from (values ",
    "(?,?,?,?,?)",
    ") w where exists(select 1 from inbox i where i.day=column2 and i.endpoint=column3 and i.handler=column4 and \
     i.message_id=column5) or exists(select 1 from inbox_misc m where m.endpoint=column3 and m.handler=column4 and \
     m.message_id=column5)",
);

static QUEUE: Rows = Rows::new("select column1 from (values ", "(?,?,?)", ") w cross join queue t on t.id=w.column2");

macro_rules! present {
    ($table:literal) => {
        Rows::new(
            "select column1 from (values ",
            "(?,?,?)",
            concat!(") w cross join ", $table, " t on t.id=w.column2 and t.token=w.column3"),
        )
    };
}

static TIMER: Rows = present!("timer");
static RETRY: Rows = present!("retry");
static PARKED: Rows = present!("parked");
static DEAD_LETTER: Rows = present!("dead_letter");

static FENCES: Rows = Rows::new(
    "select column1 from (values ",
    "(?,?,?,?)",
    ") w cross join shard s on s.grp=w.column2 and s.shard=w.column3 and s.epoch=w.column4",
);

static SAGAS: Rows = Rows::new(
    "select column1,s.instance,s.version from (values ",
    "(?,?,?)",
    ") w cross join saga s on s.kind=w.column2 and s.key=w.column3 where s.completed_at is null",
);

/// The units that cannot apply, with their outcomes.
pub(super) async fn diagnose(
    context: &mut WriteContext<'_>,
    batch: &CommitBatch,
    live: &[usize],
) -> Result<Vec<(usize, Outcome)>> {
    let units: Vec<(usize, &UnitOfWork)> =
        live.iter().filter_map(|index| batch.units.get(*index).map(|unit| (*index, unit))).collect();
    let claimed = claimed(context, batch, &units).await?;
    let held = held(context, &units).await?;
    let mut sagas = sagas(context, &units).await?;
    let mut broken: HashSet<(&str, &str)> = HashSet::new();
    let mut found = Vec::new();
    for (index, unit) in units {
        let key = unit.saga.as_ref().map(|write| (&*write.kind, write.key.as_str()));
        let outcome = if claimed.contains(&index) {
            Some(Outcome::Duplicate)
        } else if (unit.fence.is_some() && !held.contains(&index)) || key.is_some_and(|key| broken.contains(&key)) {
            Some(Outcome::Stale)
        } else {
            let write = unit.saga.as_ref().zip(key);
            let fits = write.is_none_or(|(write, key)| apply_write(sagas.entry(key).or_default(), write));
            (!fits).then_some(Outcome::Stale)
        };
        if let Some(outcome) = outcome {
            // what the later units of its chain were built on has not happened
            broken.extend(key);
            found.push((index, outcome));
        }
    }
    Ok(found)
}

/// The units whose gate is claimed already.
async fn claimed(
    context: &mut WriteContext<'_>,
    batch: &CommitBatch,
    units: &[(usize, &UnitOfWork)],
) -> Result<HashSet<usize>> {
    let mut claimed = HashSet::new();
    let inbox: Vec<_> = units.iter().filter(|(_, unit)| unit.gate == Gate::Inbox).collect();
    if !sabotage::active("skip-inbox-check") {
        let steps = Step::rows(
            &INBOX,
            &inbox,
            |_| {},
            |args, (index, unit)| {
                args.int(number(*index));
                args.maybe_int(
                    dedup_slot(unit.message_id, context.now, context.shared.options.horizon).day.map(i64::from),
                );
                args.shared(&batch.owner.endpoint);
                args.shared(&unit.handler);
                args.id(unit.message_id.0);
                Ok(())
            },
        )?;
        collect(context, steps, &mut claimed).await?;
    }
    let mut tables: HashMap<RowTable, Vec<(usize, i64, i64)>> = HashMap::new();
    for (index, unit) in units {
        if let Gate::Row(row) = unit.gate {
            tables.entry(row.table).or_default().push((*index, row.id, row.token));
        }
    }
    for (table, rows) in tables {
        if table == RowTable::Timer && sabotage::active("timer-delete-early") {
            continue;
        }
        let statement = match table {
            RowTable::Timer => &TIMER,
            RowTable::Retry => &RETRY,
            RowTable::Parked => &PARKED,
            RowTable::DeadLetter => &DEAD_LETTER,
            _ => &QUEUE,
        };
        let steps = Step::rows(
            statement,
            &rows,
            |_| {},
            |args, (index, id, token)| {
                args.int(number(*index));
                args.int(*id);
                args.int(*token);
                Ok(())
            },
        )?;
        let mut present = HashSet::new();
        collect(context, steps, &mut present).await?;
        claimed.extend(rows.iter().map(|(index, _, _)| *index).filter(|index| !present.contains(index)));
    }
    Ok(claimed)
}

/// The units whose fence holds.
async fn held(context: &mut WriteContext<'_>, units: &[(usize, &UnitOfWork)]) -> Result<HashSet<usize>> {
    let fenced: Vec<(usize, &Fence)> =
        units.iter().filter_map(|(index, unit)| unit.fence.as_ref().map(|fence| (*index, fence))).collect();
    let steps = Step::rows(
        &FENCES,
        &fenced,
        |_| {},
        |args, (index, fence)| {
            args.int(number(*index));
            args.shared(&fence.group);
            args.int(i64::from(fence.shard));
            args.int(fence.epoch);
            Ok(())
        },
    )?;
    let mut held = HashSet::new();
    collect(context, steps, &mut held).await?;
    Ok(held)
}

/// The live sagas that the units write.
async fn sagas<'u>(
    context: &mut WriteContext<'_>,
    units: &[(usize, &'u UnitOfWork)],
) -> Result<HashMap<(&'u str, &'u str), LiveRow>> {
    let writes: Vec<&SagaWrite> = units.iter().filter_map(|(_, unit)| unit.saga.as_ref()).collect();
    let mut index = 0usize;
    let steps = Step::rows(
        &SAGAS,
        &writes,
        |_| {},
        |args, write| {
            args.int(number(index));
            index += 1;
            args.shared(&write.kind);
            args.text(&write.key);
            Ok(())
        },
    )?;
    let mut sagas = HashMap::new();
    for step in steps {
        for row in step.fetch(context.connection, "look at sagas in sqlite").await? {
            if let Some(write) = writes.get(sql::position(&row, 0)?) {
                let found = (InstanceId(sql::uuid(&row, 1)?), sql::column::<i64>(&row, 2)?);
                sagas.insert((&*write.kind, write.key.as_str()), Some(found));
            }
        }
    }
    Ok(sagas)
}

async fn collect(context: &mut WriteContext<'_>, steps: Vec<Step>, found: &mut HashSet<usize>) -> Result<()> {
    for step in steps {
        for row in step.fetch(context.connection, "look at gates in sqlite").await? {
            found.insert(sql::position(&row, 0)?);
        }
    }
    Ok(())
}

fn number(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
