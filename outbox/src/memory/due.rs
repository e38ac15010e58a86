use super::{
    model::Model,
    rows::{More, Row},
};
use sagabus_core::{DuePage, DueQuery, DueRow, RowGate, RowTable, Timestamp, sabotage};
use std::collections::{BTreeMap, BTreeSet};

/// (handler, order key) of an endpoint.
type Line = (String, String);

impl Model {
    pub(super) fn due_page(&mut self, query: &DueQuery, now: Timestamp) -> DuePage {
        let next_in_lines = self.next_in_lines(&query.endpoint);
        let mut waiting: Vec<(Timestamp, i64, &Row)> = self
            .due
            .get(&query.table)
            .into_iter()
            .flatten()
            .filter(|(_, row)| row.endpoint == query.endpoint && query.shards.contains(&row.shard))
            .filter(|(id, row)| match &row.more {
                More::DeadLetter { retrying, .. } => *retrying,
                More::ParkedForKey => next_in_lines.get(&line(row)) == Some(*id),
                More::Timer(_) | More::Retry | More::ParkedForSaga(..) => true,
            })
            .map(|(id, row)| (row.due, *id, row))
            .filter(|(due, id, _)| query.after.is_none_or(|after| (*due, *id) > after))
            .collect();
        waiting.sort_by_key(|(due, id, _)| (*due, *id));
        let ready = waiting.iter().take_while(|(due, _, _)| *due <= now).count();
        let taken = ready.min(query.limit);
        let rows: Vec<DueRow> = waiting[..taken].iter().map(|(_, id, row)| due_row(query.table, *id, row)).collect();
        let next = waiting.get(taken).map(|(due, _, _)| due.since(now));
        if query.table == RowTable::Timer && sabotage::active("timer-delete-early") {
            for row in &rows {
                self.table(RowTable::Timer).remove(&row.gate.id);
            }
        }
        DuePage { rows, next }
    }

    /// The message of each line that may go on: the first one parked, if no earlier one is being retried.
    fn next_in_lines(&self, endpoint: &str) -> BTreeMap<Line, i64> {
        let rows = |table| self.due.get(&table).into_iter().flatten();
        let here = |row: &Row| *row.endpoint == *endpoint;
        let retried: BTreeSet<Line> =
            rows(RowTable::Retry).filter(|(_, row)| here(row)).map(|(_, row)| line(row)).collect();
        let mut first = BTreeMap::new();
        for (id, row) in rows(RowTable::Parked) {
            if here(row) && matches!(row.more, More::ParkedForKey) && !retried.contains(&line(row)) {
                first.entry(line(row)).or_insert(*id);
            }
        }
        first
    }
}

fn line(row: &Row) -> Line {
    (row.handler.to_string(), row.key.clone().unwrap_or_default())
}

fn due_row(table: RowTable, id: i64, row: &Row) -> DueRow {
    DueRow {
        gate: RowGate { table, id, token: row.token },
        due: row.due,
        shard: row.shard,
        handler: row.handler.clone(),
        attempts: row.attempts,
        key: row.key.clone(),
        message: row.message.clone(),
    }
}
