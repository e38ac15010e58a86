//! What the conformance suites of the ports share: a list of cases, each of which becomes a test, and how one is run.

use async_trait::async_trait;
use futures::future::LocalBoxFuture;
use sagabus_core::Runtime;
use std::{fmt, sync::Arc, time::Duration};

/// How long a case may take.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

/// The conformance suite of a port: the cases, and what opens a fixture for one. It is implemented for the trait objects
/// of the ports' harnesses.
#[async_trait(?Send)]
pub trait Suite: Send + Sync + 'static {
    /// What a case works with.
    type Fixture: 'static;
    /// Every case, in order.
    const CASES: &'static [Case<Self::Fixture>];

    /// Where the suite takes time and ids from.
    fn clock(&self) -> Runtime;

    /// Opens a fixture, runs the case with it and closes what was opened.
    async fn with_fixture(self: Arc<Self>, run: Run<Self::Fixture>);
}

/// What a case does.
pub type Run<F> = fn(F) -> LocalBoxFuture<'static, ()>;

/// One case of a suite.
pub struct Case<F> {
    /// What it is about.
    pub area: &'static str,
    /// Its name within the area.
    pub name: &'static str,
    /// Runs it; panics if the backend does not conform.
    pub run: Run<F>,
}

impl<F> Clone for Case<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Case<F> {}

impl<F> fmt::Debug for Case<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.area, self.name)
    }
}

/// Runs a case of a suite by name, on a runtime of its own. What [`store_conformance!`](crate::store_conformance) and
/// [`transport_conformance!`](crate::transport_conformance) expand to.
///
/// # Panics
/// If the backend does not conform, or after a minute.
pub fn run_named<H: Suite + ?Sized>(harness: Arc<H>, area: &str, name: &str) {
    let case = H::CASES.iter().find(|case| case.area == area && case.name == name);
    let case = case.expect("the macro and the list are one");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a tokio runtime");
    runtime.block_on(async {
        let done = harness.clock().timeout(CASE_TIMEOUT, run_case(harness.clone(), *case)).await;
        done.expect("the case hangs");
    });
}

/// Runs a case on the current runtime.
pub async fn run_case<H: Suite + ?Sized>(harness: Arc<H>, case: Case<H::Fixture>) {
    harness.with_fixture(case.run).await;
}

/// Expands to the list of cases, from what a `for_each_…_case!` passes on.
macro_rules! suite_cases {
    ([] $($area:ident: $($case:ident),+;)+) => {
        /// Every case of the suite, in order.
        pub const CASES: &[$crate::suite::Case<super::Fixture>] = &[$($($crate::suite::Case {
            area: stringify!($area),
            name: stringify!($case),
            run: |fixture| Box::pin(super::cases::$area::$case(fixture)),
        }),+),+];
    };
}
pub(crate) use suite_cases;

#[doc(hidden)]
#[macro_export]
macro_rules! __suite_tests {
    ([$module:ident $port:ident $trait:ident $harness:expr] $($area:ident: $($case:ident),+;)+) => {
        mod $module {
            #[allow(unused_imports, reason = "the harness may need them or not")]
            use super::*;

            fn harness() -> std::sync::Arc<dyn $crate::$port::$trait> {
                std::sync::Arc::new($harness)
            }

            #[test]
            fn every_case_is_here() {
                let here = [$($(stringify!($case)),+),+].len();
                let expected = $crate::$port::EXPECTED;
                assert_eq!((here, $crate::$port::CASES.len()), (expected, expected));
            }

            $(mod $area {
                $(#[test]
                fn $case() {
                    $crate::suite::run_named(super::harness(), stringify!($area), stringify!($case));
                })+
            })+
        }
    };
}
