use crate::suite::suite_cases;

/// The one list of cases: calls `$callback!` with the arguments in brackets and then `area: case, case, …;` for each area.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_transport_case {
    ($callback:path, [$($arguments:tt)*]) => {
        $callback! {
            [$($arguments)*]
            roundtrip:
                empty_body, one_byte, binary_body, large_body, largest_body, too_large_is_refused, unicode_headers,
                empty_header_value, many_headers, large_headers, every_field, conversations, foreign_ids_are_kept,
                a_redelivery_is_as_sent;
            routing:
                send_reaches_its_queue_only, unroutable_is_told, an_empty_batch_is_fine, publish_to_nobody_is_done,
                publish_to_one, publish_to_three, several_topics_of_one_queue, topics_are_no_queues,
                consumers_share_a_copy, provisioning_again_is_harmless, provisioning_at_once_is_harmless,
                dropped_subscriptions_end, messages_wait_for_a_consumer, bad_names_are_refused,
                send_only_needs_no_queue;
            settling:
                done_removes, unsettled_stays, any_order, a_crash_redelivers_as_suspect, return_redelivers_at_once, mixed_settlements,
                random_settlements_lose_nothing, settling_twice_is_harmless, a_made_up_token_is_ignored,
                a_returned_token_is_spent, settling_at_once;
            window:
                it_bounds_what_is_out, next_hands_out_at_most_max, of_one, settling_opens_it, a_waiting_next_wakes,
                each_consumer_has_its_own;
            sharing:
                two_share_without_duplicates, five_share_without_duplicates, a_clean_leave_hands_over,
                a_survivor_takes_over, a_latecomer_gets_a_share, coming_and_going_loses_nothing;
            order:
                one_consumer, two_consumers, a_key_is_with_one_consumer, across_a_clean_take_over, across_a_crash,
                return_keeps_it, returning_several_keeps_it, no_key_no_order;
            leases:
                gates_are_rows_of_the_queue, fences_change_with_the_owner, stale_tokens_are_ignored, a_node_recovers;
            lifecycle:
                stop_ends_next, stop_wakes_next, settling_after_stop_counts, what_was_not_handed_out_goes_back,
                twice_is_harmless, closing_stops, fifty_cycles, next_is_cancel_safe, a_closed_transport_refuses,
                reply_queues;
            load:
                a_backlog, concurrent_publishers, waking_up_is_prompt, a_trickle, late_messages_at_rest,
                late_messages_under_load, long_handlers_keep_their_messages;
            ids:
                sent_again, sent_again_after_it_was_handled, twice_in_a_batch, to_two_queues, published_again;
            hostile:
                undecodable_headers_are_delivered_as_such, neighbours_go_on, they_are_settled_like_any_other;
            missing:
                capabilities_are_constant, order_is_kept_or_refused, topics_are_there_or_refused,
                reply_queues_are_there_or_refused, subscriptions_need_a_queue;
        }
    };
}

for_each_transport_case!(suite_cases, []);

/// How many cases there are. Whoever adds or removes one says so here.
pub const EXPECTED: usize = 94;

/// Expands to a module with one test per case, named `area::case`, for the transport that the
/// [`TransportHarness`](crate::transport::TransportHarness) brings. The expression is evaluated once per case. The module
/// is called `transport_conformance`, or as the first argument says: `transport_conformance!(RabbitHarness::new());` or
/// `transport_conformance!(sqlite, SqliteHarness::new());` at the top of a test file.
#[macro_export]
macro_rules! transport_conformance {
    ($module:ident, $harness:expr) => {
        $crate::for_each_transport_case!($crate::__suite_tests, [$module transport TransportHarness $harness]);
    };
    ($harness:expr) => {
        $crate::transport_conformance!(transport_conformance, $harness);
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_case_that_is_written_is_in_the_list() {
        let sources = [
            include_str!("cases/roundtrip.rs"),
            include_str!("cases/routing.rs"),
            include_str!("cases/settling.rs"),
            include_str!("cases/window.rs"),
            include_str!("cases/sharing.rs"),
            include_str!("cases/order.rs"),
            include_str!("cases/leases.rs"),
            include_str!("cases/lifecycle.rs"),
            include_str!("cases/load.rs"),
            include_str!("cases/ids.rs"),
            include_str!("cases/hostile.rs"),
            include_str!("cases/missing.rs"),
        ];
        let written: usize = sources.iter().map(|s| s.matches("\npub async fn ").count()).sum();
        assert_eq!((written, super::CASES.len()), (super::EXPECTED, super::EXPECTED));
    }
}
