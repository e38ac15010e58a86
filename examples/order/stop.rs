//! Stopping when asked to, between two steps and never within one.

use std::{future::Future, time::Duration};
use tokio::sync::watch;

#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Wanted as soon as the signal ends.
    pub(crate) fn on(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signal.await;
            sender.send_replace(true);
            // for the others to see
            sender.closed().await;
        });
        Self(receiver)
    }

    pub(crate) fn is_wanted(&self) -> bool {
        *self.0.borrow()
    }

    /// Sleeps, unless a stop is wanted.
    pub(crate) async fn sleep(&self, time: Duration) {
        let mut wanted = self.0.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            _ = wanted.wait_for(|wanted| *wanted) => {}
        }
    }
}
