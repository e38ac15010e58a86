//! The wait of a receiver's `next`.

use sagabus_core::{Delivery, Result, Runtime};
use std::time::Duration;
use tokio::sync::Notify;

/// The shortest wait for a due time: the granularity of a timer. A shorter one would spin through the last millisecond.
const TIMER_GRANULARITY: Duration = Duration::from_millis(1);

/// Waits until `take` has deliveries or fails. It is called again after each notification of `arrived`, and after the
/// pause that it returns.
pub(crate) async fn next(
    runtime: &Runtime,
    arrived: &Notify,
    mut take: impl FnMut() -> Result<(Vec<Delivery>, Option<Duration>)>,
) -> Result<Vec<Delivery>> {
    loop {
        let notified = arrived.notified();
        tokio::pin!(notified);
        // registered before the look, so that no arrival after it is missed
        notified.as_mut().enable();
        let (deliveries, pause) = take()?;
        if !deliveries.is_empty() {
            return Ok(deliveries);
        }
        match pause {
            Some(pause) => {
                tokio::select! {
                    biased;
                    () = notified => {}
                    () = runtime.sleep(pause.max(TIMER_GRANULARITY)) => {}
                }
            }
            None => notified.await,
        }
    }
}
