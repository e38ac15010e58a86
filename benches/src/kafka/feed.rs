//! Sends the twin's inputs, the saga's key being the record's: a partition has keys of its own.

use super::publisher::{Publisher, Record};
use crate::{
    args::{Feed, Spec},
    latency::{Clock, Pace},
    payload::{Input, key_of},
};
use anyhow::Result;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub(super) struct Feeder {
    pub(super) publisher: Publisher,
    pub(super) spec: Spec,
    pub(super) clock: Clock,
}

impl Feeder {
    async fn send(&self, inputs: &[(u64, u64)]) -> Result<()> {
        let mut records = Vec::with_capacity(inputs.len());
        for (seq, at) in inputs {
            let input = Input::new(key_of(*seq, self.spec.keys), *seq, *at);
            let body = serde_json::to_vec(&input)?;
            records.push(Record { key: input.key.to_be_bytes(), id: uuid::Uuid::now_v7(), body });
        }
        self.publisher.send(&records).await?;
        Ok(())
    }

    /// All of it, before the clock runs.
    pub(super) async fn preload(&self) -> Result<()> {
        let all: Vec<(u64, u64)> = (1..=self.spec.messages).map(|seq| (seq, 0)).collect();
        for chunk in all.chunks(1000) {
            self.send(chunk).await?;
        }
        tokio::task::block_in_place(|| self.publisher.flush())
    }

    /// While the others work. What was not taken is missed by the audit.
    pub(super) async fn feed(self, seen: Arc<AtomicU64>) -> Result<()> {
        match self.spec.feed {
            Feed::Preloaded => {}
            Feed::Rate(rate) => {
                let mut pace = Pace::new(self.clock, rate, self.spec.messages);
                loop {
                    let inputs = pace.due().await;
                    if inputs.is_empty() {
                        break;
                    }
                    self.send(&inputs).await?;
                }
            }
            Feed::Single => {
                for seq in 1..=self.spec.messages {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    self.send(&[(seq, self.clock.micros())]).await?;
                    while seen.load(Ordering::Acquire) < seq {
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                }
            }
        }
        Ok(())
    }
}
