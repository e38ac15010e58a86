use super::{Broken, Defect};
use bytes::Bytes;
use sagabus_core::{
    CommitBatch, CommitReply, Disposition, Due, Gate, InstanceId, Outcome, ParkedUntil, RowTable, SagaChange,
    SagaWrite, TimerChange, Timestamp, UnitOfWork,
};
use std::time::Duration;

impl Broken {
    pub(super) async fn broken_commit(&self, mut batch: CommitBatch) -> CommitReply {
        for unit in &mut batch.units {
            self.spoil(&batch.owner.endpoint, unit).await;
        }
        match self.defect {
            Defect::KeepsSent => batch.sent.clear(),
            Defect::ChainsGoOn => return self.one_by_one(batch).await,
            _ => {}
        }
        let mut reply = self.inner.commit(batch.clone()).await;
        match self.defect {
            Defect::SendsGhosts | Defect::AppliesHalf => self.haunt(&batch, &reply).await,
            Defect::FailsWholeBatch if batch.units.len() > 1 && !reply.outcomes.iter().all(Outcome::is_applied) => {
                reply.outcomes.fill(Outcome::Stale);
            }
            Defect::NeverBehind => {
                for outcome in &mut reply.outcomes {
                    if let Outcome::Applied { blocked_by_predecessor: behind, .. } = outcome {
                        *behind = false;
                    }
                }
            }
            _ => {}
        }
        reply
    }

    /// Without the memory of a chain.
    async fn one_by_one(&self, batch: CommitBatch) -> CommitReply {
        let mut all = CommitReply { outcomes: Vec::new(), cleaned: true };
        for unit in &batch.units {
            let one = CommitBatch { units: vec![unit.clone()], sent: Vec::new(), ..batch.clone() };
            all.outcomes.extend(self.inner.commit(one).await.outcomes);
        }
        self.inner.outbox_delete(&batch.sent).await.expect("delete");
        all
    }

    /// Lets part of what did not apply happen all the same.
    async fn haunt(&self, batch: &CommitBatch, reply: &CommitReply) {
        for (unit, outcome) in batch.units.iter().zip(&reply.outcomes) {
            if outcome.is_applied() {
                continue;
            }
            let mut ghost = UnitOfWork::new(unit.handler.clone(), unit.message_id, Gate::None);
            match self.defect {
                Defect::SendsGhosts => ghost.sends = unit.sends.clone(),
                _ => ghost.timers = unit.timers.clone(),
            }
            self.inner.commit(CommitBatch { units: vec![ghost], sent: Vec::new(), ..batch.clone() }).await;
        }
    }

    pub(super) async fn spoil(&self, endpoint: &str, unit: &mut UnitOfWork) {
        match self.defect {
            Defect::DropsSends => unit.sends.clear(),
            Defect::ReversesSends => unit.sends.reverse(),
            Defect::DropsTimers => unit.timers.clear(),
            Defect::DropsCancels => unit.timers.retain(|change| matches!(change, TimerChange::Set { .. })),
            Defect::DropsSaga => unit.saga = None,
            Defect::DropsDisposition => unit.disposition = Disposition::Handled,
            Defect::IgnoresInbox if unit.gate == Gate::Inbox => unit.gate = Gate::None,
            Defect::InboxWithoutHandler if unit.gate == Gate::Inbox => unit.handler = "all".into(),
            Defect::IgnoresRowGates if matches!(unit.gate, Gate::Row(_)) => unit.gate = Gate::None,
            Defect::IgnoresTokens => self.current_token(endpoint, unit).await,
            Defect::IgnoresFence => unit.fence = None,
            Defect::KeepsAttempts => unit.has_attempt_row = false,
            _ => {}
        }
        for change in &mut unit.timers {
            if let (Defect::FiresEarly, TimerChange::Set { due, .. }) = (self.defect, change) {
                *due = early(*due);
            }
        }
        spoil_disposition(self.defect, &mut unit.disposition);
        if let Some(write) = &mut unit.saga {
            self.spoil_saga(write).await;
        }
    }

    /// Looks up the row's present token, so that any reading of it opens the gate.
    async fn current_token(&self, endpoint: &str, unit: &mut UnitOfWork) {
        let Gate::Row(gate) = &mut unit.gate else { return };
        if gate.table == RowTable::Queue {
            return;
        }
        let query = sagabus_core::DueQuery {
            endpoint: endpoint.into(),
            table: gate.table,
            shards: (0..sagabus_core::SHARDS).collect(),
            after: None,
            limit: usize::MAX >> 1,
        };
        let rows = self.inner.due(&query).await.expect("due").rows;
        if let Some(row) = rows.iter().find(|row| row.gate.id == gate.id) {
            gate.token = row.gate.token;
        }
    }

    async fn spoil_saga(&self, write: &mut SagaWrite) {
        match self.defect {
            Defect::DropsAliases => write.aliases.clear(),
            Defect::FoldsKeys => write.key = write.key.to_lowercase(),
            Defect::FoldsKinds => write.kind = "shop/order".into(),
            _ => {}
        }
        let row = self.inner.admin().saga(&write.kind, &write.key).await.ok().flatten();
        let live = row.filter(|row| !row.completed).map(|row| (row.instance, row.version));
        match (self.defect, &mut write.change, live) {
            (
                Defect::IgnoresVersion,
                SagaChange::Update { version, .. } | SagaChange::Complete { version, .. },
                Some((_, now)),
            ) if *version > 0 => *version = now,
            (
                Defect::IgnoresInstance,
                SagaChange::Update { instance, .. } | SagaChange::Complete { instance, .. },
                Some((now, _)),
            ) => *instance = now,
            (Defect::RevivesSagas, SagaChange::Update { instance, state, schema, .. }, None) => {
                let (instance, state, schema) = (*instance, state.clone(), *schema);
                write.change = SagaChange::Create { instance, state, schema, origin: None };
            }
            (Defect::CreatesOver, SagaChange::Create { state, schema, .. }, Some((instance, version))) => {
                let (state, schema) = (state.clone(), *schema);
                write.change = SagaChange::Update { instance, version, state, schema };
            }
            (Defect::CompletesNothing, SagaChange::Complete { instance, version, .. }, _) if *version > 0 => {
                write.change = untouched(*instance, *version);
            }
            (Defect::CutsStates, SagaChange::Create { state, .. } | SagaChange::Update { state, .. }, _) => {
                state.truncate(255);
            }
            _ => {}
        }
    }
}

fn untouched(instance: InstanceId, version: i64) -> SagaChange {
    SagaChange::Update { instance, version, state: Bytes::from_static(b"done"), schema: 1 }
}

fn early(due: Due) -> Due {
    let hour = Duration::from_secs(3600);
    match due {
        Due::After(time) => Due::After(time.saturating_sub(hour)),
        Due::At(time) => Due::At(Timestamp(time.0 - 3_600_000_000)),
    }
}

fn spoil_disposition(defect: Defect, disposition: &mut Disposition) {
    match (defect, disposition) {
        (Defect::DropsReason, Disposition::DeadLettered { reason, detail, .. }) => {
            reason.clear();
            detail.clear();
        }
        (Defect::IgnoresDelay, Disposition::Deferred { delay, .. }) => *delay = Duration::ZERO,
        (Defect::AdoptsNothing, Disposition::Parked { until: ParkedUntil::Saga { key, .. }, .. }) => key.push('?'),
        (Defect::JumpsTheQueue, Disposition::Parked { until: ParkedUntil::KeyUnblocked { key }, message, .. }) => {
            key.push_str(&message.headers.message_id.to_string());
        }
        _ => {}
    }
}
