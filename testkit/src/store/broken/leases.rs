use super::{Broken, Defect};
use async_trait::async_trait;
use sagabus_core::{Lease, LeaseRequest, Leases, NodeId, Owner, Result, SHARDS};

#[async_trait]
impl Leases for Broken {
    async fn heartbeat(&self, request: &LeaseRequest) -> Result<Lease> {
        let mut request = request.clone();
        if self.is(Defect::MixesGroups) {
            request.group = "all".into();
        }
        let mut lease = self.inner.leases().heartbeat(&request).await?;
        match self.defect {
            Defect::SharesNothing => lease.shards = (0..SHARDS).map(|shard| (shard, 1)).collect(),
            Defect::NoSurplus => lease.surplus.clear(),
            Defect::HidesInheritance => lease.inherited.clear(),
            Defect::HidesLapse => lease.lapsed = false,
            Defect::RestlessEpochs => {
                let beats = i64::try_from(self.beat()).expect("small");
                lease.shards.iter_mut().for_each(|shard| shard.1 += beats);
            }
            Defect::FrozenEpochs => lease.shards.iter_mut().for_each(|shard| shard.1 = 1),
            _ => {}
        }
        Ok(lease)
    }

    async fn leave(&self, group: &str, node: NodeId) -> Result<()> {
        if self.is(Defect::NeverLeaves) {
            return Ok(());
        }
        let group = if self.is(Defect::MixesGroups) { "all" } else { group };
        self.inner.leases().leave(group, node).await
    }
}

impl Broken {
    /// Counts heartbeats, in the list of owners for want of a better place.
    fn beat(&self) -> usize {
        let mut owners = self.owners.lock().expect("lock");
        owners.push(Owner { endpoint: "".into(), node: NodeId(uuid::Uuid::nil()) });
        owners.len()
    }
}
