use super::{
    commit::shard,
    model::Model,
    rows::{More, Row},
};
use sagabus_core::{Due, InstanceId, RowTable, SagaAddress, TimerChange, TimerId, Timestamp};
use std::sync::Arc;

impl Model {
    pub(super) fn change_timer(
        &mut self,
        endpoint: &Arc<str>,
        handler: &Arc<str>,
        change: &TimerChange,
        now: Timestamp,
    ) {
        match change {
            TimerChange::Set { id, due, message } => {
                self.table(RowTable::Timer).retain(|_, row| row.endpoint != *endpoint || !is(row, *id));
                let due = match due {
                    Due::After(time) => now.plus(*time),
                    Due::At(time) => *time,
                };
                let row = Row {
                    endpoint: endpoint.clone(),
                    handler: handler.clone(),
                    due,
                    token: 1,
                    shard: shard(None, message),
                    attempts: 0,
                    key: None,
                    message: (**message).clone(),
                    more: More::Timer(*id),
                };
                self.insert(RowTable::Timer, row);
            }
            TimerChange::Cancel { kind, key, id } => {
                self.table(RowTable::Timer)
                    .retain(|_, row| !(is(row, *id) && of(row, |saga| *saga.kind == **kind && saga.key == *key)));
            }
            TimerChange::CancelType { kind, key, instance, message_type } => {
                self.table(RowTable::Timer).retain(|_, row| {
                    let same = of(row, |s| *s.kind == **kind && s.key == *key && s.instance == *instance);
                    !(same && row.message.headers.message_type == *message_type)
                });
            }
        }
    }

    /// Drops the timers of an instance that has ended.
    pub(super) fn drop_timers(&mut self, kind: &str, key: &str, instance: InstanceId) {
        self.table(RowTable::Timer)
            .retain(|_, row| !of(row, |s| s.kind == kind && s.key == key && s.instance == instance));
    }
}

pub(super) fn is(row: &Row, id: TimerId) -> bool {
    matches!(row.more, More::Timer(own) if own == id)
}

fn of(row: &Row, test: impl Fn(&SagaAddress) -> bool) -> bool {
    row.message.headers.saga.as_ref().is_some_and(test)
}
