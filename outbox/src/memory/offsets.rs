use super::{faults::Operation, handle::MemoryStore, model::Model};
use async_trait::async_trait;
use sagabus_core::{AuditEntry, LogPartition, OffsetStore, POSITION_RESET, Position, PositionReset, Result, Timestamp};

impl Model {
    fn claim(&mut self, endpoint: &str, partition: &LogPartition) -> Position {
        let unknown =
            || Position { partition: partition.clone(), handled_below: 0, epoch: 0, fingerprint: String::new() };
        let position = self.positions.entry((endpoint.to_string(), partition.clone())).or_insert_with(unknown);
        position.epoch += 1;
        position.clone()
    }

    fn raise(&mut self, endpoint: &str, raised: &Position) -> bool {
        let position = self.positions.get_mut(&(endpoint.to_string(), raised.partition.clone()));
        let Some(position) = position.filter(|position| position.epoch == raised.epoch) else { return false };
        if raised.handled_below >= position.handled_below {
            position.clone_from(raised);
        }
        true
    }

    pub(super) fn positions_of(&self, endpoint: &str) -> Vec<Position> {
        self.positions.iter().filter(|((of, _), _)| of == endpoint).map(|(_, position)| position.clone()).collect()
    }

    pub(super) fn reset_positions(&mut self, endpoint: &str, reset: &PositionReset, now: Timestamp) -> u64 {
        let mut found = Vec::new();
        for ((of, partition), position) in &mut self.positions {
            if of != endpoint
                || *partition.log != *reset.log
                || reset.partition.is_some_and(|n| n != partition.partition)
            {
                continue;
            }
            let before = position.handled_below;
            *position = Position {
                handled_below: before.min(reset.to),
                epoch: position.epoch + 1,
                fingerprint: String::new(),
                ..position.clone()
            };
            found.push((partition.to_string(), before, position.handled_below));
        }
        for (subject, before, after) in &found {
            let entry = AuditEntry {
                id: self.next_id(),
                at: now,
                by: reset.by.clone(),
                action: POSITION_RESET.to_string(),
                subject: subject.clone(),
                before: before.to_string(),
                after: after.to_string(),
                why: reset.why.clone(),
            };
            self.audit.push((endpoint.to_string(), entry));
        }
        found.len() as u64
    }
}

#[async_trait]
impl OffsetStore for MemoryStore {
    async fn claim(&self, endpoint: &str, partitions: &[LogPartition]) -> Result<Vec<Position>> {
        self.run(Operation::Position, |model, _| {
            partitions.iter().map(|partition| model.claim(endpoint, partition)).collect()
        })
        .await
    }

    async fn advance(&self, endpoint: &str, positions: &[Position]) -> Result<Vec<bool>> {
        self.run(Operation::Position, |model, _| positions.iter().map(|p| model.raise(endpoint, p)).collect()).await
    }
}
