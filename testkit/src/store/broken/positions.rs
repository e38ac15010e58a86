use super::{Broken, Defect};
use async_trait::async_trait;
use sagabus_core::{Error, LogPartition, OffsetStore, Position, PositionReset, Result};
use std::sync::Arc;

impl Broken {
    pub(super) fn whose<'a>(&self, endpoint: &'a str) -> &'a str {
        if self.is(Defect::MixesPositions) { "all" } else { endpoint }
    }

    fn positions(&self) -> Result<Arc<dyn OffsetStore>> {
        self.inner.offsets().ok_or_else(|| Error::unsupported("the store keeps no positions"))
    }
}

#[async_trait]
impl OffsetStore for Broken {
    async fn claim(&self, endpoint: &str, places: &[LogPartition]) -> Result<Vec<Position>> {
        let mut claimed = self.positions()?.claim(self.whose(endpoint), places).await?;
        if self.is(Defect::ClaimsNothing) {
            claimed.iter_mut().for_each(|position| position.epoch = 1);
        }
        Ok(claimed)
    }

    async fn advance(&self, endpoint: &str, positions: &[Position]) -> Result<Vec<bool>> {
        let endpoint = self.whose(endpoint);
        let mut positions = positions.to_vec();
        let there = self.inner.admin().positions(endpoint).await?;
        for position in &mut positions {
            let Some(there) = there.iter().find(|there| there.partition == position.partition) else { continue };
            if self.is(Defect::ForgetsMarks) {
                position.fingerprint.clear();
            }
            if self.is(Defect::RaisesForAnybody) {
                position.epoch = there.epoch;
            }
            if self.is(Defect::LowersPositions)
                && there.epoch == position.epoch
                && there.handled_below > position.handled_below
            {
                let (log, partition) = (there.partition.log.to_string(), Some(there.partition.partition));
                let reset =
                    PositionReset { log, partition, to: position.handled_below, by: String::new(), why: String::new() };
                self.inner.admin().reset_positions(endpoint, &reset).await?;
                return Ok(vec![true; positions.len()]);
            }
        }
        self.positions()?.advance(endpoint, &positions).await
    }
}
