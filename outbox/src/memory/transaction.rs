use super::{
    faults::{Fault, Operation},
    handle::{MemoryStore, failed_after, failed_before},
    scratch::ScratchRows,
};
use async_trait::async_trait;
use sagabus_core::{CommitBatch, CommitReply, Error, ErrorKind, Result, Timestamp, Transaction};
use std::{any::Any, time::Duration};

/// Own transactions come one after another, as where a database has one writer; one that is held too long loses the lock.
#[derive(Default)]
pub(super) struct WriteLock {
    holder: Option<(i64, Timestamp)>,
}

const WRITE_LOCK_KEY: &str = "write-lock";

pub(super) struct MemoryTransaction {
    store: MemoryStore,
    id: i64,
    rows: Option<ScratchRows>,
    none: (),
}

impl MemoryStore {
    pub(super) async fn open_transaction(&self) -> Result<Box<dyn Transaction>> {
        loop {
            let transaction_limit = self.shared.transaction_limit;
            let write_lock = self.now_run(|model, now| {
                if let Some((_, since)) = model.write_lock.holder
                    && since.plus(transaction_limit) > now
                {
                    return Err(since.plus(transaction_limit).since(now));
                }
                let id = model.next_id();
                model.write_lock.holder = Some((id, now));
                Ok((id, ScratchRows::new(model.scratch.clone())))
            });
            match write_lock {
                Ok((id, rows)) => {
                    return Ok(Box::new(MemoryTransaction { store: self.clone(), id, rows: Some(rows), none: () }));
                }
                Err(left) => self.wait_for(WRITE_LOCK_KEY, left.max(Duration::from_millis(1))).await,
            }
            self.open()?;
        }
    }
}

impl MemoryTransaction {
    fn apply(&mut self, batch: &CommitBatch) -> CommitReply {
        let (Some(rows), [unit]) = (self.rows.take(), batch.units.as_slice()) else {
            let error = Error::invalid("finishing a transaction takes exactly one unit");
            return CommitReply::failed(batch.units.len(), &error);
        };
        let (id, transaction_limit) = (self.id, self.store.shared.transaction_limit);
        self.store.now_run(|model, now| {
            let held = matches!(model.write_lock.holder, Some((holder, since)) if holder == id && since.plus(transaction_limit) > now);
            if !held {
                let error = Error::new(
                    ErrorKind::Transient,
                    format!("the transaction was held longer than {transaction_limit:?} and was rolled back"),
                );
                return CommitReply::failed(1, &error);
            }
            if let Some(refusal) = model.refusal(&batch.owner.endpoint, unit, now) {
                return CommitReply { outcomes: vec![refusal], cleaned: false };
            }
            let mut rows = rows;
            // they were recorded while the handler ran: before the unit, which is what came of it
            for (owner, joined, sends) in std::mem::take(&mut rows.enlisted) {
                model.sends(&owner, joined, &sends, false, now);
            }
            let outcome = model.apply(&batch.owner, batch.joined, unit, now);
            model.forget_sent(&batch.sent);
            rows.apply(&mut model.scratch);
            CommitReply { outcomes: vec![outcome], cleaned: true }
        })
    }
}

#[async_trait]
impl Transaction for MemoryTransaction {
    fn raw(&mut self) -> &mut (dyn Any + Send) {
        match &mut self.rows {
            Some(rows) => rows,
            None => &mut self.none,
        }
    }

    async fn finish(mut self: Box<Self>, batch: CommitBatch) -> CommitReply {
        let failed = |error: Error| CommitReply::failed(batch.units.len(), &error);
        if let Err(error) = self.store.open() {
            return failed(error);
        }
        match self.store.fault(Operation::Finish).await {
            Some(Fault::Before) => failed(failed_before(Operation::Finish)),
            Some(Fault::After) => {
                self.apply(&batch);
                failed(failed_after(Operation::Finish))
            }
            None => self.apply(&batch),
        }
    }
}

impl Drop for MemoryTransaction {
    fn drop(&mut self) {
        let id = self.id;
        self.store.now_run(|model, _| {
            if matches!(model.write_lock.holder, Some((holder, _)) if holder == id) {
                model.write_lock.holder = None;
                model.wakes.insert(WRITE_LOCK_KEY.to_string());
            }
        });
    }
}
