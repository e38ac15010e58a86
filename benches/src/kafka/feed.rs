//! Sends the baseline's inputs, the saga's key being the record's: a partition has keys of its own. What was not taken is
//! missed by the audit.

use super::publisher::{Publisher, Record};
use crate::{
    feed::Sender,
    payload::{Input, key_of},
};
use anyhow::Result;

pub(super) struct Feeder {
    pub(super) publisher: Publisher,
    pub(super) keys: u64,
}

impl Sender for Feeder {
    async fn send(&self, inputs: &[(u64, u64)]) -> Result<()> {
        let mut records = Vec::with_capacity(inputs.len());
        for (seq, at) in inputs {
            let input = Input::new(key_of(*seq, self.keys), *seq, *at);
            let body = serde_json::to_vec(&input)?;
            records.push(Record { key: input.key.to_be_bytes(), id: uuid::Uuid::now_v7(), body });
        }
        self.publisher.send(&records).await?;
        Ok(())
    }
}
