use super::{Case, cases};

/// The one list of cases: calls `$callback!` with the arguments in brackets and then `area: case, case, …;` for each area.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_store_case {
    ($callback:path, [$($arguments:tt)*]) => {
        $callback! {
            [$($arguments)*]
            atomicity:
                applied_leaves_every_effect, stale_leaves_nothing, duplicate_leaves_nothing_more,
                lost_fence_leaves_nothing, split_leaves_every_effect, split_stale_leaves_nothing,
                own_row_gate_and_effects_are_one, no_effects_still_open_the_gate;
            gates:
                inbox_opens_once, inbox_is_per_handler, inbox_is_per_endpoint, inbox_is_seen_by_other_processes,
                one_of_many_racers_wins, queue_row_opens_once, timer_row_opens_once, retry_row_opens_once,
                parked_row_opens_once, dead_letter_row_opens_once, another_token_opens_nothing,
                a_row_that_never_was_opens_nothing, a_row_gate_leaves_the_inbox_alone, old_and_foreign_ids_open_once,
                no_gate_always_opens, probes_answer_in_order, duplicate_comes_before_stale,
                handlers_of_one_message_share_a_batch;
        }
    };
}

macro_rules! cases {
    ([] $($area:ident: $($case:ident),+;)+) => {
        /// Every case of the suite, in order.
        pub const CASES: &[Case] = &[$($(Case {
            area: stringify!($area),
            name: stringify!($case),
            run: |bed| Box::pin(cases::$area::$case(bed)),
        }),+),+];
    };
}

for_each_store_case!(cases, []);

/// How many cases there are. Whoever adds or removes one says so here.
pub const EXPECTED: usize = 26;

#[doc(hidden)]
#[macro_export]
macro_rules! __store_tests {
    ([$harness:expr] $($area:ident: $($case:ident),+;)+) => {
        mod store_conformance {
            #[allow(unused_imports, reason = "the harness may need them or not")]
            use super::*;

            fn harness() -> std::sync::Arc<dyn $crate::store::StoreHarness> {
                std::sync::Arc::new($harness)
            }

            #[test]
            fn every_case_is_here() {
                let here = [$($(stringify!($case)),+),+].len();
                assert_eq!((here, $crate::store::CASES.len()), ($crate::store::EXPECTED, $crate::store::EXPECTED));
            }

            $(mod $area {
                $(#[test]
                fn $case() {
                    $crate::store::run_named(super::harness(), stringify!($area), stringify!($case));
                })+
            })+
        }
    };
}

/// Expands to a module `store_conformance` with one test per case, named `area::case`, for the backend that the
/// [`StoreHarness`](crate::store::StoreHarness) brings.
///
/// ```ignore
/// sagabus_testkit::store_conformance!(SqliteHarness::new());
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($harness:expr) => {
        $crate::for_each_store_case!($crate::__store_tests, [$harness]);
    };
}
