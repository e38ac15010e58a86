//! Inputs that come before the clock runs, or while somebody works.

use crate::{
    args::{Feed, Spec},
    latency::{Clock, Pace},
};
use anyhow::Result;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Sends inputs, given by their numbers and moments.
pub(crate) trait Sender: Send + Sync {
    fn send(&self, inputs: &[(u64, u64)]) -> impl Future<Output = Result<()>> + Send;
}

/// Sends what the spec says, as fast as it says; `seen` counts what has come out.
pub(crate) async fn feed(sender: impl Sender, spec: Spec, clock: Clock, seen: Arc<AtomicU64>) -> Result<()> {
    match spec.feed {
        Feed::Preloaded => {}
        Feed::Rate(rate) => {
            let mut pace = Pace::new(clock, rate, spec.messages);
            loop {
                let inputs = pace.due().await;
                if inputs.is_empty() {
                    break;
                }
                sender.send(&inputs).await?;
            }
        }
        Feed::Single => {
            for seq in 1..=spec.messages {
                // long enough for everyone to fall asleep
                tokio::time::sleep(Duration::from_millis(10)).await;
                sender.send(&[(seq, clock.micros())]).await?;
                while seen.load(Ordering::Acquire) < seq {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        }
    }
    Ok(())
}

/// Sends all of it, before the clock runs.
pub(crate) async fn preload(sender: &impl Sender, messages: u64) -> Result<()> {
    let all: Vec<(u64, u64)> = (1..=messages).map(|seq| (seq, 0)).collect();
    for chunk in all.chunks(1000) {
        sender.send(chunk).await?;
    }
    Ok(())
}
