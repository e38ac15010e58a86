//! The conformance suite in virtual time: a sound transport passes it, and each of the known defects is found by a case.
#![allow(clippy::unwrap_used, reason = "a test should panic where it fails")]

use async_trait::async_trait;
use bytes::Bytes;
use sagabus_core::{Capabilities, Envelope, Headers, Intent, MessageId, NodeId, Runtime, Transport};
use sagabus_testkit::transport::{
    CASES, Case, Promises, TransportHarness,
    broken::{Broken, Defect},
    run_case,
};
use sagabus_transports::memory::MemoryBroker;
use std::sync::Arc;

struct Simulated {
    broker: MemoryBroker,
    runtime: Runtime,
    defect: Option<Defect>,
}

impl Simulated {
    fn new(defect: Option<Defect>, capabilities: Capabilities) -> Self {
        let runtime = Runtime::simulated(7);
        Self { broker: MemoryBroker::with_capabilities(runtime.clone(), capabilities), runtime, defect }
    }
}

#[async_trait]
impl TransportHarness for Simulated {
    async fn open(&self) -> Arc<dyn Transport> {
        self.again().await
    }

    async fn again(&self) -> Arc<dyn Transport> {
        let sound: Arc<dyn Transport> = Arc::new(self.broker.transport());
        match self.defect {
            Some(defect) => Arc::new(Broken::new(sound, defect, self.runtime.clone())),
            None => sound,
        }
    }

    async fn depth(&self, queue: &str) -> u64 {
        self.broker.depth(queue).unwrap_or(0) as u64
    }

    async fn inject(&self, queue: &str, id: MessageId, _headers: Bytes, body: Bytes) -> bool {
        let headers = Headers::new(id, "kit.garbled", Intent::Command, self.runtime.now());
        self.broker.inject(queue, Envelope::new(headers, body), "not a message".into()).unwrap();
        true
    }

    async fn cut(&self, node: NodeId) -> bool {
        self.broker.cut(node) > 0
    }

    fn promises(&self) -> Promises {
        Promises { deduplicates: false, removes_reply_queues: true }
    }

    fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }
}

fn bare() -> Capabilities {
    let mut capabilities = Capabilities::all();
    capabilities.ordered = false;
    capabilities.topics = false;
    capabilities.reply_queues = false;
    capabilities
}

/// Whether the case passes, in virtual time.
fn passes(case: Case, defect: Option<Defect>, capabilities: Capabilities) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let run = || {
        runtime.block_on(async {
            let harness = Arc::new(Simulated::new(defect, capabilities));
            let limit = std::time::Duration::from_secs(120);
            harness
                .runtime()
                .timeout(limit, run_case(harness.clone() as Arc<dyn TransportHarness>, case))
                .await
                .expect("the case hangs");
        });
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok()
}

#[test]
fn a_sound_transport_passes() {
    for case in CASES {
        for capabilities in [Capabilities::all(), bare()] {
            assert!(passes(*case, None, capabilities), "{}::{} in virtual time", case.area, case.name);
        }
    }
}

#[test]
fn every_defect_is_found() {
    // big ones that find nothing which the others do not
    let slow = |case: &Case| case.area == "load" && case.name != "waking_up_is_prompt" && case.name != "a_trickle";
    for defect in Defect::ALL {
        let capabilities = if *defect == Defect::AcceptsAnything { bare() } else { Capabilities::all() };
        let found: Vec<String> = CASES
            .iter()
            .filter(|case| !slow(case) && !passes(**case, Some(*defect), capabilities))
            .map(|case| format!("{}::{}", case.area, case.name))
            .collect();
        assert!(!found.is_empty(), "no case finds {defect:?}");
        println!("{defect:?}: {} cases, {}", found.len(), found.join(" "));
    }
}
