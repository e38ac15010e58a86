use super::{CASES, Fixture, StoreHarness};
use crate::suite::{Case, Run, Suite};
use async_trait::async_trait;
use sagabus_core::Runtime;
use std::sync::Arc;

#[async_trait(?Send)]
impl Suite for dyn StoreHarness {
    type Fixture = Fixture;
    const CASES: &'static [Case<Fixture>] = CASES;

    fn clock(&self) -> Runtime {
        self.runtime()
    }

    async fn with_fixture(self: Arc<Self>, run: Run<Fixture>) {
        let store = self.open().await;
        run(Fixture::new(self.clone(), store.clone())).await;
        self.close(store).await;
    }
}
