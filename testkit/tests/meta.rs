//! The suite finds every defect: a store that is broken on purpose fails at least one case.

use async_trait::async_trait;
use sagabus_core::{DatabaseId, Runtime, Store};
use sagabus_outbox::memory::{MemoryStore, ScratchRows};
use sagabus_testkit::store::{
    CASES, Case, StoreHarness,
    broken::{BrokenHarness, DEFECTS, Defect},
    run_case,
};
use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

/// The memory store under virtual time.
struct Simulated {
    runtime: Runtime,
    open: Mutex<HashMap<DatabaseId, MemoryStore>>,
}

impl Simulated {
    fn new() -> Self {
        Self { runtime: Runtime::simulated(7), open: Mutex::default() }
    }
}

#[async_trait]
impl StoreHarness for Simulated {
    async fn open(&self) -> Arc<dyn Store> {
        let store = MemoryStore::new(self.runtime.clone());
        self.open.lock().expect("lock").insert(Store::database(&store).clone(), store.clone());
        Arc::new(store)
    }

    async fn again(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(self.open.lock().expect("lock")[store.database()].open_again())
    }

    fn own_sql(&self) -> bool {
        true
    }

    async fn own_put(&self, connection: &mut (dyn Any + Send), key: &str, value: &str) {
        connection.downcast_mut::<ScratchRows>().expect("scratch rows").put(key, value);
    }

    async fn own_get(&self, connection: &mut (dyn Any + Send), key: &str) -> Option<String> {
        let rows = connection.downcast_mut::<ScratchRows>().expect("scratch rows");
        rows.get(key).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    async fn close(&self, store: Arc<dyn Store>) {
        store.close().await;
    }

    fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }
}

/// Whether the case passes; a hang is a failure.
fn passes(case: Case, defect: Option<Defect>) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a tokio runtime");
    catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let inner = Simulated::new();
            let time = inner.runtime();
            let harness: Arc<dyn StoreHarness> = match defect {
                None => Arc::new(inner),
                Some(defect) => Arc::new(BrokenHarness::new(inner, defect)),
            };
            let done = time.timeout(Duration::from_secs(60), run_case(harness, case)).await;
            done.expect("the case hangs");
        });
    }))
    .is_ok()
}

#[test]
fn every_defect_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut finders = BTreeMap::<String, usize>::new();
    let mut table = Vec::new();
    let good: Vec<_> = CASES.iter().filter(|case| !passes(**case, None)).map(|case| case.name).collect();
    for defect in DEFECTS {
        let failed: Vec<&Case> = CASES.iter().filter(|case| !passes(**case, Some(*defect))).collect();
        for case in &failed {
            *finders.entry(format!("{}::{}", case.area, case.name)).or_default() += 1;
        }
        let first = failed.first().map(|case| format!("{}::{}", case.area, case.name));
        table.push((defect, failed.len(), first));
    }
    std::panic::set_hook(hook);

    assert_eq!(good, Vec::<&str>::new(), "cases that the sound store fails");
    for (defect, count, first) in &table {
        println!("{:<20} {count:>4} cases  {}", format!("{defect:?}"), first.clone().unwrap_or_default());
    }
    let blind: Vec<_> = CASES.iter().map(|case| format!("{}::{}", case.area, case.name)).collect();
    let blind: Vec<_> = blind.into_iter().filter(|name| !finders.contains_key(name)).collect();
    println!("{} defects; {} of {} cases find one", DEFECTS.len(), finders.len(), CASES.len());
    let missed: Vec<_> = table.iter().filter(|(_, count, _)| *count == 0).map(|(defect, ..)| defect).collect();
    assert!(missed.is_empty(), "nobody notices: {missed:?}");
    assert!(blind.is_empty(), "these cases notice nothing: {blind:?}");
}
