//! From the transport to the engine.

use super::Event;
use sagabus_core::{Receiver, Runtime};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// Hands deliveries on while the endpoint is not paused, until the receiver is stopped. The receiver's window is the
/// back-pressure: it hands out no more than the engine has settled.
pub(crate) async fn receive_loop(
    receiver: Arc<dyn Receiver>,
    events: mpsc::UnboundedSender<Event>,
    mut paused: watch::Receiver<bool>,
    runtime: Runtime,
) {
    let mut failures = 0u32;
    loop {
        if paused.wait_for(|paused| !*paused).await.is_err() {
            return;
        }
        // a pause ends the waiting too: what comes then must not be taken
        let received = tokio::select! {
            biased;
            pause = paused.wait_for(|paused| *paused) => match pause {
                Ok(_) => continue,
                Err(_) => return,
            },
            received = receiver.next(256) => received,
        };
        match received {
            Ok(deliveries) => {
                failures = 0;
                tracing::debug!(messages = deliveries.len(), "received");
                if events.send(Event::Deliveries(deliveries)).is_err() {
                    return;
                }
            }
            Err(error) if error.is_closed() => return,
            Err(error) => {
                tracing::warn!(%error, "receiving failed, trying again");
                let pause = Duration::from_millis(20 << failures.min(7));
                failures += 1;
                runtime.sleep(pause / 2 + runtime.jitter(pause / 2)).await;
            }
        }
    }
}
