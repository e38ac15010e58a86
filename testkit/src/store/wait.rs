use sagabus_core::Runtime;
use std::{future::Future, time::Duration};

/// Asks again until there is an answer: the suite's only way of waiting.
///
/// # Panics
/// When there is none after ten seconds; `what` says what was waited for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    runtime: &Runtime,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let start = runtime.elapsed();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(runtime.elapsed() - start < Duration::from_secs(10), "waited in vain for: {what}");
        runtime.sleep(Duration::from_millis(5)).await;
    }
}
