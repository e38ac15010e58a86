//! The loop that receives deliveries from the transport.

use super::Event;
use sagabus_core::{Backoff, Receiver, Runtime};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};

/// The pauses before a receiver that failed is asked again.
const RECEIVE_BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(2560));

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
                runtime.sleep(RECEIVE_BACKOFF.pause(failures, &runtime)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}
