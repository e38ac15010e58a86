use super::{Bed, CASES, TransportHarness};
use futures::future::LocalBoxFuture;
use std::{sync::Arc, time::Duration};

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is about.
    pub area: &'static str,
    /// Its name within the area.
    pub name: &'static str,
    /// Runs it; panics if the transport does not conform.
    pub run: fn(Bed) -> LocalBoxFuture<'static, ()>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("area", &self.area).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Runs a case of [`CASES`] by name, on a runtime of its own. What
/// [`transport_conformance!`](crate::transport_conformance) expands to.
///
/// # Panics
/// If the transport does not conform, or after a minute.
pub fn run_named(harness: Arc<dyn TransportHarness>, area: &str, name: &str) {
    let case = CASES.iter().find(|case| case.area == area && case.name == name);
    let case = case.expect("the macro and the list are one");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a tokio runtime");
    runtime.block_on(async {
        let limit = Duration::from_secs(60);
        let done = harness.runtime().timeout(limit, run_case(harness.clone(), *case)).await;
        done.expect("the case hangs");
    });
}

/// Runs a case on the current runtime.
pub async fn run_case(harness: Arc<dyn TransportHarness>, case: Case) {
    let transport = harness.open().await;
    (case.run)(Bed::new(harness.clone(), transport.clone())).await;
    transport.close().await;
    harness.close().await;
}
