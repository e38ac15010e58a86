//! Diagnosis of a batch that did not apply: its gates, fences and sagas as the database has them. The outcomes follow as if
//! the units ran one after another.

use super::super::{
    sql::{Reader, Sql, Texts},
    text::escape,
};
use crate::{
    dedup::DedupSlot,
    fold::{LiveRow, apply_write},
};
use sagabus_core::{CommitBatch, Fence, Gate, Outcome, Result, RowTable, SagaWrite, UnitOfWork, sabotage};
use sqlx::postgres::PgRow;
use std::collections::{HashMap, HashSet};

const INBOX: i16 = 0;
const ROW: i16 = 1;
const FENCE: i16 = 2;
const SAGA: i16 = 3;

/// The statement that reads the gates, fences and sagas of units. Its rows name units, or entries of `sagas`.
pub(super) struct ConflictQuery<'b> {
    pub(super) sql: Sql,
    sagas: Vec<&'b SagaWrite>,
}

/// The gates, fences and sagas of units, as the database has them.
#[derive(Default)]
pub(super) struct Conflicts<'b> {
    /// Units whose message is in the inbox.
    seen: HashSet<usize>,
    /// Units whose row is there.
    present: HashSet<usize>,
    /// Units whose fence holds.
    held: HashSet<usize>,
    sagas: HashMap<(&'b str, &'b str), LiveRow>,
}

/// Builds the query for units, given by their indices.
pub(super) fn query<'b>(
    s: &str,
    batch: &'b CommitBatch,
    units: &[usize],
    slots: &HashMap<usize, DedupSlot>,
) -> ConflictQuery<'b> {
    let mut sql = Sql::default();
    let mut parts = Vec::new();
    let chosen: Vec<(usize, &UnitOfWork)> =
        units.iter().filter_map(|index| batch.units.get(*index).map(|unit| (*index, unit))).collect();
    inbox(&mut sql, &mut parts, s, batch, &chosen, slots);
    rows(&mut sql, &mut parts, s, &chosen);
    fences(&mut sql, &mut parts, s, &chosen);
    let sagas: Vec<&SagaWrite> = chosen.iter().filter_map(|(_, unit)| unit.saga.as_ref()).collect();
    if !sagas.is_empty() {
        let kinds = sql.bind(sagas.iter().map(|write| &*write.kind).collect::<Vec<_>>());
        let keys = sql.bind(sagas.iter().map(|write| escape(&write.key)).collect::<Texts<'_>>());
        parts.push(format!(
            "select {SAGA}::smallint,w.ord,x.instance,x.version from unnest({kinds}::text[],{keys}::text[]) with \
             ordinality w(kind,key,ord),lateral (select t.instance,t.version from {s}saga t where t.kind=w.kind and \
             t.key=w.key and t.completed_at is null offset 0) x"
        ));
    }
    sql.text = if parts.is_empty() {
        "select 0::smallint,0::bigint,null::uuid,0::bigint where false".into()
    } else {
        parts.join(" union all ")
    };
    ConflictQuery { sql, sagas }
}

fn ordinal(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn inbox(
    sql: &mut Sql,
    parts: &mut Vec<String>,
    s: &str,
    batch: &CommitBatch,
    units: &[(usize, &UnitOfWork)],
    slots: &HashMap<usize, DedupSlot>,
) {
    let gated = |index: &usize, unit: &UnitOfWork| {
        matches!(unit.gate, Gate::Inbox).then(|| slots.get(index).copied()).flatten()
    };
    let all: Vec<(usize, &UnitOfWork, DedupSlot)> =
        units.iter().filter_map(|(index, unit)| gated(index, unit).map(|slot| (*index, *unit, slot))).collect();
    if all.is_empty() {
        return;
    }
    let endpoint = sql.bind(&*batch.owner.endpoint);
    let in_days: Vec<_> =
        all.iter().filter_map(|(index, unit, slot)| slot.day.map(|day| (*index, *unit, day))).collect();
    let in_misc: Vec<_> = all.iter().filter(|(_, _, slot)| slot.misc).collect();
    if !in_days.is_empty() {
        let ords = sql.bind(in_days.iter().map(|(index, _, _)| ordinal(*index)).collect::<Vec<_>>());
        let days = sql.bind(in_days.iter().map(|(_, _, day)| *day).collect::<Vec<_>>());
        let ids = sql.bind(in_days.iter().map(|(_, unit, _)| unit.message_id.0).collect::<Vec<_>>());
        let handlers = sql.bind(in_days.iter().map(|(_, unit, _)| &*unit.handler).collect::<Vec<_>>());
        parts.push(format!(
            "select {INBOX}::smallint,w.ord,null::uuid,0::bigint from \
             unnest({ords}::bigint[],{days}::int[],{ids}::uuid[],{handlers}::text[]) w(ord,day,id,handler),lateral \
             (select 1 from {s}inbox i where i.day=w.day and i.message_id=w.id and i.handler=w.handler and \
             i.endpoint={endpoint} offset 0) x"
        ));
    }
    if !in_misc.is_empty() {
        let ords = sql.bind(in_misc.iter().map(|(index, _, _)| ordinal(*index)).collect::<Vec<_>>());
        let ids = sql.bind(in_misc.iter().map(|(_, unit, _)| unit.message_id.0).collect::<Vec<_>>());
        let handlers = sql.bind(in_misc.iter().map(|(_, unit, _)| &*unit.handler).collect::<Vec<_>>());
        parts.push(format!(
            "select {INBOX}::smallint,w.ord,null::uuid,0::bigint from \
             unnest({ords}::bigint[],{ids}::uuid[],{handlers}::text[]) w(ord,id,handler),lateral (select 1 from \
             {s}inbox_misc i where i.message_id=w.id and i.handler=w.handler and i.endpoint={endpoint} offset 0) x"
        ));
    }
}

fn rows(sql: &mut Sql, parts: &mut Vec<String>, s: &str, units: &[(usize, &UnitOfWork)]) {
    for table in [RowTable::Queue].into_iter().chain(RowTable::DUE) {
        let gates: Vec<(i64, i64, i64)> = units
            .iter()
            .filter_map(|(index, unit)| match unit.gate {
                Gate::Row(row) if row.table == table => Some((ordinal(*index), row.id, row.token)),
                _ => None,
            })
            .collect();
        if gates.is_empty() {
            continue;
        }
        let ords = sql.bind(gates.iter().map(|gate| gate.0).collect::<Vec<_>>());
        let ids = sql.bind(gates.iter().map(|gate| gate.1).collect::<Vec<_>>());
        let tokens = sql.bind(gates.iter().map(|gate| gate.2).collect::<Vec<_>>());
        // a queue row is never moved, so its id says it all
        let token = if table == RowTable::Queue { "" } else { " and t.token=w.token" };
        parts.push(format!(
            "select {ROW}::smallint,w.ord,null::uuid,0::bigint from \
             unnest({ords}::bigint[],{ids}::bigint[],{tokens}::bigint[]) w(ord,id,token),lateral (select 1 from {s}{} t \
             where t.id=w.id{token} offset 0) x",
            table.name()
        ));
    }
}

fn fences(sql: &mut Sql, parts: &mut Vec<String>, s: &str, units: &[(usize, &UnitOfWork)]) {
    let fenced: Vec<(i64, &Fence)> =
        units.iter().filter_map(|(index, unit)| unit.fence.as_ref().map(|fence| (ordinal(*index), fence))).collect();
    if fenced.is_empty() {
        return;
    }
    let ords = sql.bind(fenced.iter().map(|(ord, _)| *ord).collect::<Vec<_>>());
    let groups = sql.bind(fenced.iter().map(|(_, fence)| &*fence.group).collect::<Vec<_>>());
    let shards = sql.bind(fenced.iter().map(|(_, fence)| i16::try_from(fence.shard).unwrap_or(-1)).collect::<Vec<_>>());
    let epochs = sql.bind(fenced.iter().map(|(_, fence)| fence.epoch).collect::<Vec<_>>());
    parts.push(format!(
        "select {FENCE}::smallint,w.ord,null::uuid,0::bigint from \
         unnest({ords}::bigint[],{groups}::text[],{shards}::smallint[],{epochs}::bigint[]) w(ord,grp,shard,epoch) join \
         {s}shard t on t.grp=w.grp and t.shard=w.shard and t.epoch=w.epoch"
    ));
}

impl<'b> Conflicts<'b> {
    pub(super) fn read(sagas: &ConflictQuery<'b>, rows: &[PgRow]) -> Result<Self> {
        let mut conflicts = Self::default();
        for write in &sagas.sagas {
            conflicts.sagas.insert((&write.kind, &write.key), None);
        }
        for row in rows {
            let mut row = Reader::new(row);
            let (what, ord): (i16, i64) = (row.get()?, row.get()?);
            let index = usize::try_from(ord).unwrap_or(usize::MAX);
            match what {
                INBOX => drop(conflicts.seen.insert(index)),
                ROW => drop(conflicts.present.insert(index)),
                FENCE => drop(conflicts.held.insert(index)),
                _ => {
                    // these count from 1
                    if let Some(write) = sagas.sagas.get(index.saturating_sub(1)) {
                        let live = (row.instance()?, row.get()?);
                        conflicts.sagas.insert((&write.kind, &write.key), Some(live));
                    }
                }
            }
        }
        Ok(conflicts)
    }

    /// The outcome of the unit that is next in line; none if it would apply. `broken` are the keys of which an earlier unit
    /// of the batch did not apply.
    pub(super) fn outcome(
        &mut self,
        index: usize,
        unit: &'b UnitOfWork,
        broken: &mut HashSet<(&'b str, &'b str)>,
    ) -> Option<Outcome> {
        let claimed = match unit.gate {
            Gate::None => false,
            Gate::Inbox => self.seen.contains(&index) && !sabotage::active("skip-inbox-check"),
            Gate::Row(row) if row.table == RowTable::Timer && sabotage::active("timer-delete-early") => false,
            Gate::Row(_) => !self.present.contains(&index),
        };
        let key = unit.saga.as_ref().map(|write| (&*write.kind, write.key.as_str()));
        let outcome = if claimed {
            Some(Outcome::Duplicate)
        } else if key.is_some_and(|key| broken.contains(&key))
            || (unit.fence.is_some() && !self.held.contains(&index))
            || !unit
                .saga
                .as_ref()
                .is_none_or(|write| apply_write(self.sagas.entry((&write.kind, &write.key)).or_default(), write))
        {
            Some(Outcome::Stale)
        } else {
            None
        };
        if let (Some(_), Some(key)) = (&outcome, key) {
            broken.insert(key);
        }
        outcome
    }
}
