use super::model::Model;
use sagabus_core::Timestamp;
use std::time::Duration;

impl Model {
    /// Drops what is older than the horizon, and kept sagas whose time is up. Returns how many rows.
    pub(super) fn prune(&mut self, horizon: Duration, now: Timestamp) -> u64 {
        let old = |at: Timestamp| at.plus(horizon) <= now;
        let mut dropped = 0u64;
        let mut keep = |keep: bool| {
            dropped += u64::from(!keep);
            keep
        };
        self.inbox.retain(|_, row| keep(!old(row.at)));
        self.attempts.retain(|_, (_, last)| keep(!old(*last)));
        self.sagas.retain(|_, entry| keep(entry.keep.is_none_or(|until| until > now)));
        for queue in self.queues.values_mut() {
            // an id that still waits in the queue is in the rows too
            let waiting: std::collections::BTreeSet<_> = queue.rows.values().map(|row| row.message_id).collect();
            queue.seen.retain(|id, at| keep(!old(*at) || waiting.contains(id)));
        }
        for group in self.groups.values_mut() {
            group.forget(now, horizon);
        }
        dropped
    }
}
