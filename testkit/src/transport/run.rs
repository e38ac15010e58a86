use super::{CASES, Fixture, TransportHarness};
use crate::suite::{Case, Run, Suite};
use async_trait::async_trait;
use sagabus_core::Runtime;
use std::sync::Arc;

#[async_trait(?Send)]
impl Suite for dyn TransportHarness {
    type Fixture = Fixture;
    const CASES: &'static [Case<Fixture>] = CASES;

    fn clock(&self) -> Runtime {
        self.runtime()
    }

    async fn with_fixture(self: Arc<Self>, run: Run<Fixture>) {
        let transport = self.open().await;
        run(Fixture::new(self.clone(), transport.clone())).await;
        transport.close().await;
        self.close().await;
    }
}
