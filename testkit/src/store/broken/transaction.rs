use super::{Broken, Defect};
use async_trait::async_trait;
use sagabus_core::{
    CommitBatch, CommitReply, Gate, MessageId, NodeId, Owner, Result, Runtime, Transaction, UnitOfWork,
};
use std::any::Any;

struct BrokenTransaction {
    broken: Broken,
    inner: Option<Box<dyn Transaction>>,
}

impl Broken {
    pub(super) async fn broken_begin(&self) -> Result<Box<dyn Transaction>> {
        let inner = self.inner.begin().await?;
        Ok(Box::new(BrokenTransaction { broken: self.clone(), inner: Some(inner) }))
    }
}

#[async_trait]
impl Transaction for BrokenTransaction {
    fn raw(&mut self) -> &mut (dyn Any + Send) {
        self.inner.as_mut().expect("open").raw()
    }

    async fn finish(mut self: Box<Self>, mut batch: CommitBatch) -> CommitReply {
        let inner = self.inner.take().expect("open");
        let broken = &self.broken;
        match broken.defect {
            Defect::LosesOwnRows => {
                drop(inner);
                return broken.inner.commit(batch).await;
            }
            Defect::LeaksOwnRows => {
                let unit = &batch.units[0];
                let nothing = UnitOfWork::new(unit.handler.clone(), unit.message_id, Gate::None);
                let alone = CommitBatch { units: vec![nothing], sent: Vec::new(), ..batch.clone() };
                inner.finish(alone).await;
                return broken.inner.commit(batch).await;
            }
            _ => {}
        }
        for unit in &mut batch.units {
            broken.spoil(&batch.owner.endpoint, unit).await;
        }
        inner.finish(batch).await
    }
}

impl Drop for BrokenTransaction {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take().filter(|_| self.broken.is(Defect::CommitsOnDrop)) else { return };
        let runtime = Runtime::system();
        let id = runtime.uuid();
        let batch = CommitBatch {
            owner: Owner { endpoint: "nobody".into(), node: NodeId(id) },
            joined: false,
            units: vec![UnitOfWork::new("".into(), MessageId(id), Gate::None)],
            sent: Vec::new(),
        };
        runtime.spawn(inner.finish(batch));
    }
}
