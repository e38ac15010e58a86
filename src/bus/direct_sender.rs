use sagabus_core::{Error, Outgoing, Result, Runtime, SendOutcome, Transport};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

type QueuedSend = (Outgoing, oneshot::Sender<SendOutcome>);

/// Sends straight to the transport. Callers that send at the same time share a batch.
#[derive(Clone)]
pub(super) struct DirectSender {
    transport: Arc<dyn Transport>,
    items: mpsc::UnboundedSender<QueuedSend>,
}

/// Most messages in one batch.
const MAX_MESSAGES_PER_BATCH: usize = 500;

impl DirectSender {
    pub(super) fn new(transport: Arc<dyn Transport>, runtime: &Runtime) -> Self {
        let (sender, items) = mpsc::unbounded_channel();
        runtime.spawn(forward(transport.clone(), items));
        Self { transport, items: sender }
    }

    /// The future may be dropped; the message may then have been sent.
    pub(super) async fn send(&self, outgoing: Outgoing) -> SendOutcome {
        let (sender, receiver) = oneshot::channel();
        if self.items.send((outgoing, sender)).is_err() {
            return SendOutcome::Retry(Error::closed("the bus is closed"));
        }
        let lost = || Error::new(sagabus_core::ErrorKind::Unknown, "the sending task ended before the confirm came");
        receiver.await.unwrap_or_else(|_| SendOutcome::Unknown(lost()))
    }

    /// Refuses a delay that the transport cannot keep.
    pub(super) async fn send_delayed(&self, outgoing: Outgoing, delay: Duration) -> Result<SendOutcome> {
        self.transport.capabilities().check_delay(&outgoing, delay)?;
        let lost = || SendOutcome::Unknown(Error::new(sagabus_core::ErrorKind::Unknown, "no outcome"));
        Ok(self.transport.send_delayed(&[(outgoing, delay)]).await.pop().unwrap_or_else(lost))
    }

    pub(super) async fn send_batch(&self, outgoing: &[Outgoing]) -> Vec<SendOutcome> {
        let mut outcomes = Vec::with_capacity(outgoing.len());
        for chunk in outgoing.chunks(MAX_MESSAGES_PER_BATCH) {
            outcomes.extend(self.transport.send_batch(chunk).await);
        }
        outcomes
    }
}

async fn forward(transport: Arc<dyn Transport>, mut items: mpsc::UnboundedReceiver<QueuedSend>) {
    let mut waiting: Vec<QueuedSend> = Vec::new();
    while items.recv_many(&mut waiting, MAX_MESSAGES_PER_BATCH).await > 0 {
        let (messages, senders): (Vec<Outgoing>, Vec<_>) = waiting.drain(..).unzip();
        let outcomes = transport.send_batch(&messages).await;
        for (sender, outcome) in senders.into_iter().zip(outcomes) {
            // a caller that no longer waits does not mind
            let _ = sender.send(outcome);
        }
    }
}
