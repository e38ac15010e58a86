//! No committed offset passes unfinished work: every record below it has left its trace in the database.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use super::offset_auditor::{Record, Sample};
use crate::checks::fixture::db::Db;

/// What the database has, seen in one snapshot.
#[derive(Debug, Default)]
pub struct Traces {
    /// (kind of effect, id of the message), from the ledger that handlers write.
    effects: BTreeSet<(String, String)>,
    /// (kind of saga, number), from the lists in their states.
    told: BTreeSet<(String, i64)>,
    /// Ids of messages that wait to be tried again, or are dead.
    waiting: BTreeSet<String>,
    /// Ids that the inbox knows.
    inbox: BTreeSet<String>,
}

impl Traces {
    /// Reads them, in one statement: what moves from one table to another is in one of them.
    pub fn read(store: &mut Db) -> Result<Self> {
        let id = if store.is_postgres() { "message_id::text" } else { "hex(message_id)" };
        let state = store.text("state");
        let rows: Vec<(String, String, String)> = store.rows(&format!(
            "select 'effect', kind, message from effect
             union all select 'saga', kind, {state} from saga
             union all select 'waiting', '', headers from retry
             union all select 'waiting', '', headers from parked
             union all select 'waiting', '', headers from dead_letter
             union all select 'inbox', '', {id} from inbox
             union all select 'inbox', '', {id} from inbox_misc"
        ))?;
        let mut traces = Self::default();
        for (what, kind, text) in rows {
            match what.as_str() {
                // a note says behind the colon whose it is
                "effect" => {
                    let kind = kind.split(':').next().unwrap_or_default().to_owned();
                    traces.effects.insert((kind, plain(&text)));
                }
                "inbox" => {
                    traces.inbox.insert(plain(&text));
                }
                "waiting" => {
                    let headers: Value = serde_json::from_str(&text).unwrap_or_default();
                    traces.waiting.extend(headers["id"].as_str().map(plain));
                }
                _ => {
                    let state: Value = serde_json::from_str(&text).unwrap_or_default();
                    let numbers = state["seen"].as_array().into_iter().flatten().filter_map(Value::as_i64);
                    traces.told.extend(numbers.map(|n| (kind.clone(), n)));
                }
            }
        }
        Ok(traces)
    }

    /// Whether all that a message of this type does is there.
    fn has(&self, record: &Record) -> bool {
        let id = plain(record.id.as_deref().unwrap_or_default());
        let n = record.n.unwrap_or(-1);
        let effect = |kind: &str| self.effects.contains(&(kind.to_owned(), id.clone()));
        let told = |saga: &str| self.told.contains(&(format!("chaos/{saga}"), n));
        self.waiting.contains(&id)
            || match record.kind.as_deref().unwrap_or_default() {
                "chaos.add" => told("tally"),
                "chaos.add-own" => effect("own") && told("tally"),
                "chaos.happened" => effect("heard") && told("tally") && told("watcher"),
                "chaos.remind" => effect("asked"),
                "chaos.flaky" => effect("flaky"),
                "chaos.step" => effect("step"),
                "chaos.note" => effect("note"),
                // a saga that is completed leaves nothing else behind
                "chaos.half" => self.inbox.contains(&id),
                _ => false,
            }
    }
}

/// How many records lie below the committed offsets, and those of them that have left no trace.
pub fn passed(records: &[Record], sample: &Sample, traces: &Traces) -> (u64, Vec<String>) {
    let committed = |record: &&Record| {
        let offsets = sample.groups.values().flat_map(|group| &group.offsets);
        let mut here =
            offsets.filter(|(topic, partition, ..)| *topic == record.topic && *partition == record.partition);
        here.any(|(.., committed, _)| record.offset < *committed)
    };
    let below: Vec<&Record> = records.iter().filter(committed).collect();
    let without = below.iter().filter(|record| !traces.has(record));
    (below.len() as u64, without.map(|record| format!("passed and not finished: {record:?}")).collect())
}

/// Databases write ids in several ways.
fn plain(id: &str) -> String {
    id.replace('-', "").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::offset_auditor::Group;
    use super::*;

    fn record(offset: i64, kind: &str, id: &str) -> Record {
        let text = |text: &str| Some(text.to_owned());
        Record { topic: "t".into(), partition: 1, offset, key: None, id: text(id), kind: text(kind), n: Some(offset) }
    }

    fn sample(committed: i64) -> Sample {
        let group = Group { members: 1, state: String::new(), offsets: vec![("t".into(), 1, committed, 9)] };
        Sample { began: 0, groups: BTreeMap::from([("g".into(), group)]) }
    }

    #[test]
    fn only_what_is_below_must_have_left_a_trace() {
        let records = [record(0, "chaos.step", "A-1"), record(1, "chaos.add", "b"), record(2, "chaos.step", "c")];
        let mut traces = Traces::default();
        assert_eq!(passed(&records, &sample(0), &traces), (0, vec![]));
        assert_eq!(passed(&records, &sample(2), &traces).1.len(), 2);
        traces.effects.insert(("step".into(), "a1".into()));
        traces.told.insert(("chaos/tally".into(), 1));
        assert_eq!(passed(&records, &sample(2), &traces), (2, vec![]));
        assert_eq!(passed(&records, &sample(3), &traces).1.len(), 1);
        traces.waiting.insert("c".into());
        assert_eq!(passed(&records, &sample(3), &traces), (3, vec![]));
        assert_eq!(passed(&records, &sample(-1), &traces), (0, vec![]));
    }

    #[test]
    fn a_part_of_what_a_message_does_is_not_enough() {
        let (records, mut traces) = ([record(0, "chaos.happened", "a")], Traces::default());
        traces.effects.insert(("heard".into(), "a".into()));
        traces.told.insert(("chaos/tally".into(), 0));
        assert_eq!(passed(&records, &sample(1), &traces).1.len(), 1);
        traces.told.insert(("chaos/watcher".into(), 0));
        assert_eq!(passed(&records, &sample(1), &traces).1.len(), 0);
        assert_eq!(passed(&[record(0, "what.is-this", "a")], &sample(1), &traces).1.len(), 1);
    }
}
