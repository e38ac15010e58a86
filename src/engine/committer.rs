//! The queue of one stream of commits, and its batches.

use super::keys::UnitId;
use foldhash::HashSet;
use sagabus_core::{Gate, RowTable, SagaChange, UnitOfWork};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// The longest that a batch which is not full waits while what was committed before it is still being sent.
const MAX_LINGER: Duration = Duration::from_millis(10);

/// One stream of commits: takes what queued up while its last one was under way.
#[derive(Default)]
pub(super) struct Committer {
    pub(super) queue: VecDeque<UnitId>,
    pub(super) busy: bool,
    /// Until when its next batch waits for company.
    linger: Option<Duration>,
}

/// The decision whether the next batch waits for company.
pub(super) enum Linger {
    No,
    Begins(Duration),
    GoesOn,
}

impl Committer {
    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.queue.is_empty()
    }

    /// Whether the next batch waits; `pays` is whether waiting could make it larger at no cost.
    pub(super) fn linger(&mut self, pays: bool, now: Duration) -> Linger {
        match self.linger {
            _ if !pays => {}
            Some(until) if until <= now => {}
            Some(_) => return Linger::GoesOn,
            None => {
                self.linger = Some(now + MAX_LINGER);
                return Linger::Begins(MAX_LINGER);
            }
        }
        self.linger = None;
        Linger::No
    }
}

/// The length of the next batch: whatever there is, but nothing of a saga behind the unit that completes it, and no timer
/// of a saga behind a unit that changes its timers. A store claims all gates of a batch before it does anything else: in
/// the same batch a timeout would take effect that the unit before it has cancelled.
pub(super) fn batch_len<'a>(queue: impl Iterator<Item = &'a UnitOfWork>, max_units: usize) -> usize {
    let mut completed: HashSet<(&Arc<str>, &str)> = HashSet::default();
    let mut retimed: HashSet<(&Arc<str>, &str)> = HashSet::default();
    let mut len = 0;
    for work in queue.take(max_units) {
        if let Some(saga) = &work.saga {
            let key = (&saga.kind, saga.key.as_str());
            let timer = matches!(&work.gate, Gate::Row(row) if row.table == RowTable::Timer);
            if completed.contains(&key) || (timer && retimed.contains(&key)) {
                break;
            }
            if matches!(saga.change, SagaChange::Complete { .. }) {
                completed.insert(key);
            } else if !work.timers.is_empty() {
                retimed.insert(key);
            }
        }
        len += 1;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use sagabus_core::{InstanceId, MessageId, RowGate, SagaWrite, TimerChange};
    use uuid::Uuid;

    fn unit(key: &str, gate: Gate, cancels: bool) -> UnitOfWork {
        let mut unit = UnitOfWork::new("order".into(), MessageId(Uuid::nil()), gate);
        let kind: Arc<str> = "shop/order".into();
        let change =
            SagaChange::Update { instance: InstanceId(Uuid::nil()), version: 1, state: "{}".into(), schema: 1 };
        if cancels {
            let (kind, key, id) = (kind.clone(), key.to_owned(), sagabus_core::TimerId(Uuid::nil()));
            unit.timers.push(TimerChange::Cancel { kind, key, id });
        }
        unit.saga = Some(SagaWrite { kind, key: key.into(), change, aliases: Vec::new() });
        unit
    }

    /// The lengths of the batches that these units become.
    fn batches(units: Vec<UnitOfWork>) -> Vec<usize> {
        let mut rest = units.as_slice();
        let next = || {
            let len = batch_len(rest.iter(), 100);
            rest = &rest[len..];
            Some(len).filter(|len| *len > 0)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_timeout_is_not_in_one_batch_with_its_cancellation() {
        let timer = || Gate::Row(RowGate { table: RowTable::Timer, id: 1, token: 0 });
        let paid = |key| unit(key, Gate::Inbox, true);
        let late = |key| unit(key, timer(), false);
        assert_eq!(batches(vec![paid("a"), late("a"), paid("b")]), [1, 2], "it finds its row gone in the next one");
        assert_eq!(batches(vec![paid("a"), late("b"), late("a")]), [2, 1]);
        assert_eq!(batches(vec![late("a"), paid("a"), unit("a", Gate::Inbox, false)]), [3]);
    }
}
