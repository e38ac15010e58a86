use super::{
    model::Model,
    rows::{More, OutboxEntry, Row},
};
use sagabus_core::{NodeId, OutboxId, OutboxRow, Outcome, Outgoing, Owner, RowTable, Timestamp};
use std::sync::Arc;

impl Model {
    /// The sends of a unit: into queues of this database, or into the outbox.
    pub(super) fn sends(
        &mut self,
        owner: &Owner,
        joined: bool,
        sends: &[Outgoing],
        fresh_ids: bool,
        now: Timestamp,
    ) -> Outcome {
        let mut outbox = Vec::new();
        let mut blocked_by_predecessor = false;
        for outgoing in sends {
            if joined {
                if let Err(reason) = self.enqueue_one(outgoing, fresh_ids, now) {
                    self.dead_letter(&owner.endpoint, outgoing, reason, now);
                }
                continue;
            }
            let id = self.next_id();
            let entry = OutboxEntry { endpoint: owner.endpoint.clone(), node: owner.node, outgoing: outgoing.clone() };
            blocked_by_predecessor |= self.is_blocked_by_predecessor(id, &entry);
            self.outbox.insert(id, entry);
            outbox.push(OutboxId(id));
        }
        Outcome::Applied { outbox, blocked_by_predecessor }
    }

    /// Whether an earlier unsent row of the same order key belongs to another node.
    fn is_blocked_by_predecessor(&self, id: i64, entry: &OutboxEntry) -> bool {
        let key = |entry: &OutboxEntry| entry.outgoing.message.headers.order_key.clone();
        let mut earlier = self.outbox.range(..id).map(|(_, earlier)| earlier);
        key(entry).is_some()
            && earlier.any(|e| e.endpoint == entry.endpoint && e.node != entry.node && key(e) == key(entry))
    }

    pub(super) fn forget_sent(&mut self, sent: &[OutboxId]) {
        for id in sent {
            self.outbox.remove(&id.0);
        }
    }

    pub(super) fn orphans(&mut self, owner: &Owner, limit: usize, now: Timestamp) -> Vec<OutboxRow> {
        let ids: Vec<i64> = self
            .outbox
            .iter()
            .filter(|(_, entry)| entry.endpoint == owner.endpoint && entry.node != owner.node)
            .filter(|(_, entry)| self.may_inherit(&owner.endpoint, owner.node, entry.node, now))
            .map(|(id, _)| *id)
            .take(limit)
            .collect();
        ids.into_iter().filter_map(|id| self.take_over(id, owner.node)).collect()
    }

    fn take_over(&mut self, id: i64, node: NodeId) -> Option<OutboxRow> {
        let entry = self.outbox.get_mut(&id)?;
        entry.node = node;
        Some(OutboxRow { id: OutboxId(id), outgoing: entry.outgoing.clone() })
    }

    pub(super) fn own(&self, owner: &Owner, after: OutboxId, limit: usize) -> Vec<OutboxRow> {
        self.outbox
            .range(after.0.saturating_add(1)..)
            .filter(|(_, entry)| entry.endpoint == owner.endpoint && entry.node == owner.node)
            .filter(|(id, entry)| !self.is_blocked_by_predecessor(**id, entry))
            .take(limit)
            .map(|(id, entry)| OutboxRow { id: OutboxId(*id), outgoing: entry.outgoing.clone() })
            .collect()
    }

    pub(super) fn dead_letter_rows(&mut self, owner: &Owner, rows: &[(OutboxId, String)], now: Timestamp) {
        for (id, reason) in rows {
            if let Some(entry) = self.outbox.remove(&id.0) {
                self.dead_letter(&owner.endpoint, &entry.outgoing, reason.clone(), now);
            }
        }
    }

    /// A message that can never be sent is a dead letter of its sender, without a handler.
    fn dead_letter(&mut self, endpoint: &Arc<str>, outgoing: &Outgoing, reason: String, now: Timestamp) {
        let row = Row {
            endpoint: endpoint.clone(),
            handler: "".into(),
            due: now,
            token: 1,
            shard: super::commit::shard(None, &outgoing.message),
            attempts: 0,
            key: None,
            message: outgoing.message.clone(),
            more: More::DeadLetter { at: now, reason, detail: vec![format!("to {:?}", outgoing.to)], retrying: false },
        };
        self.insert(RowTable::DeadLetter, row);
    }
}
