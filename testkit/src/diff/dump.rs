//! Everything that can be seen of a store, and the removal of most of it.

use super::{
    ALIASES, ENDPOINTS, GROUPS, KEYS, KINDS, QUEUES,
    answer::{self, Lines},
    kind, node,
    store_under_test::StoreUnderTest,
};
use sagabus_core::{
    DueQuery, LoadRequest, MessageId, OutboxId, Owner, Result, RowTable, SHARDS, SagaLookup, counted_tables,
};
use std::sync::Arc;

/// More than there ever is.
const ALL: usize = 1_000_000;

/// What cannot be listed and has to be asked for.
#[derive(Clone, Default)]
pub(super) struct Asked {
    /// (handler, message).
    pub(super) probes: Vec<(Arc<str>, MessageId)>,
    /// (handler, order key).
    pub(super) turns: Vec<(Arc<str>, String)>,
    /// How many nodes each group had.
    pub(super) nodes: [u64; GROUPS.len()],
}

impl StoreUnderTest {
    pub(super) async fn dump(&mut self, asked: &Asked) -> Result<Lines> {
        let counts = self.store.admin().counts().await?;
        let mut lines = Vec::new();
        // members that left may be kept for a while, or not
        for name in counted_tables().into_iter().filter(|name| *name != "node") {
            lines.push(format!("{:?} rows of {name}", counts.get(name)));
        }
        for (group, endpoint) in ENDPOINTS.iter().enumerate() {
            let shared: Arc<str> = (*endpoint).into();
            lines.extend(self.sagas(endpoint).await?);
            lines.extend(self.load(&shared, asked).await?);
            for n in 0..asked.nodes[group] {
                let owner = Owner { endpoint: shared.clone(), node: node(group, n) };
                let rows = self.store.outbox_own(&owner, OutboxId(0), ALL).await?;
                lines.extend(self.outbox_rows(&shared, &rows));
            }
            lines.extend(self.timers(endpoint, ALL).await?);
            lines.extend(self.dead_letters(endpoint, 1000).await?);
            for table in RowTable::DUE {
                let shards = (0..SHARDS).collect();
                let query = DueQuery { endpoint: shared.clone(), table, shards, after: None, limit: ALL };
                lines.extend(match table {
                    RowTable::DeadLetter | RowTable::Parked => self.due_lines(query).await?,
                    _ => self.due(&query).await?,
                });
            }
        }
        for queue in QUEUES {
            lines.push(format!("queue {queue} depth {}", self.queues.depth(queue).await?));
            lines.extend(self.queue_lines(queue).await?);
        }
        Ok(lines)
    }

    async fn queue_lines(&mut self, queue: &str) -> Result<Lines> {
        let shards: Vec<u16> = (0..SHARDS).collect();
        let rows = self.queues.read(queue, &shards, 0, ALL).await?;
        Ok(self.queue_rows(queue, &rows))
    }

    async fn sagas(&mut self, endpoint: &str) -> Result<Lines> {
        let (mut lines, admin) = (Vec::new(), self.store.admin());
        for saga in KINDS {
            let kind = kind(endpoint, saga);
            for key in admin.saga_keys(&kind, "", ALL).await? {
                lines.push(answer::saga(admin.saga(&kind, &key).await?.as_ref()));
            }
        }
        Ok(lines)
    }

    /// Sagas once more, in the way in which handlers find them; aliases, the inbox, turns.
    async fn load(&mut self, endpoint: &Arc<str>, asked: &Asked) -> Result<Lines> {
        let mut sagas = Vec::new();
        for saga in KINDS {
            let kind: Arc<str> = kind(endpoint, saga).into();
            sagas.extend(KEYS.map(|key| SagaLookup::Key { kind: kind.clone(), key: key.into() }));
            for alias in ALIASES {
                sagas.extend(KEYS.map(|value| SagaLookup::Alias {
                    kind: kind.clone(),
                    alias: alias.into(),
                    value: value.into(),
                }));
            }
        }
        let (probes, turns) = (asked.probes.clone(), asked.turns.clone());
        let request = LoadRequest { endpoint: endpoint.clone(), probes, sagas, blocked_keys: turns };
        let reply = self.store.load(request).await?;
        let mut lines: Lines = reply.sagas.iter().map(|row| answer::saga(row.as_ref())).collect();
        lines.extend(asked.probes.iter().zip(&reply.probes).map(|(probe, seen)| format!("inbox {probe:?} {seen}")));
        lines.extend(
            asked.turns.iter().zip(&reply.blocked_keys).map(|(turn, blocked)| format!("turn {turn:?} {blocked}")),
        );
        Ok(lines)
    }

    /// See [`Op::Tidy`](super::op::Op::Tidy).
    pub(super) async fn tidy(&mut self) -> Result<Lines> {
        let (admin, mut lines) = (self.store.admin(), Vec::new());
        for endpoint in ENDPOINTS {
            let timers = admin.timers(endpoint, None, ALL).await?;
            for timer in timers.iter().filter(|timer| timer.due > self.start) {
                lines.push(format!("cancelled {} {}", timer.id, admin.cancel_timer(endpoint, timer.id).await?));
            }
            let dead: Vec<i64> = admin.dead_letters(endpoint, 0, ALL).await?.iter().map(|dead| dead.id).collect();
            lines.push(format!("discarded {}", admin.discard_dead_letters(endpoint, &dead).await?));
        }
        for queue in QUEUES {
            let shards: Vec<u16> = (0..SHARDS).collect();
            let ids: Vec<i64> = self.queues.read(queue, &shards, 0, ALL).await?.iter().map(|row| row.id).collect();
            self.queues.delete(queue, &ids).await?;
            lines.push(format!("deleted {}", ids.len()));
        }
        let rows: Vec<OutboxId> = (0..self.outbox.len()).map(|row| self.outbox.name(row)).collect();
        let last = &rows[rows.len().saturating_sub(5000)..];
        self.store.outbox_delete(last).await?;
        Ok(lines)
    }
}
