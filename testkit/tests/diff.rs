//! The comparison of stores finds no difference where there is none, and finds defects.

use sagabus_core::{Runtime, Store};
use sagabus_outbox::memory::MemoryStore;
use sagabus_testkit::{
    diff::{Counts, Difference, Settings, compare},
    store::broken::{Broken, Defect},
};
use std::sync::Arc;

const SETTINGS: Settings = Settings { seed: 5, ops: 2500, dump_every: 250 };

/// One or two of each sort, each of which a thousand operations show.
const PLANTED: &[Defect] = &[
    Defect::DropsSends,
    Defect::ReversesSends,
    Defect::DropsCancels,
    Defect::DropsAliases,
    Defect::IgnoresInbox,
    Defect::IgnoresTokens,
    Defect::IgnoresVersion,
    Defect::IgnoresInstance,
    Defect::IgnoresFence,
    Defect::ChainsGoOn,
    Defect::AdoptsNothing,
    Defect::OrphansStay,
    Defect::KeepsSent,
    Defect::EnqueuesTwice,
    Defect::LosesEnlisted,
    Defect::MovesNothing,
];

fn run(settings: Settings, defect: Option<Defect>) -> (Counts, Option<Difference>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    runtime.block_on(async {
        let memory = || -> Arc<dyn Store> { Arc::new(MemoryStore::new(Runtime::system())) };
        let other = match defect {
            None => memory(),
            Some(defect) => Arc::new(Broken::new(memory(), defect)),
        };
        compare(vec![("memory".into(), memory()), ("other".into(), other)], settings).await.expect("both tell the time")
    })
}

#[test]
fn equal_stores_do_not_differ_and_are_asked_everything() {
    let (counts, difference) = run(SETTINGS, None);
    if let Some(difference) = difference {
        panic!("{difference}");
    }
    assert_eq!(counts.ops.values().sum::<u64>(), SETTINGS.ops);
    for outcome in ["applied", "duplicate", "stale"] {
        assert!(counts.outcomes.get(outcome).is_some_and(|count| *count > 20), "{counts:?}");
    }
    assert!(counts.dumps >= 10 && counts.rows > 500, "{counts:?}");
}

#[test]
fn defects_are_found() {
    let settings = Settings { dump_every: 50, ..SETTINGS };
    for defect in PLANTED {
        let found = run(settings, Some(*defect)).1;
        assert!(found.is_some(), "{defect:?} makes no difference");
    }
}
