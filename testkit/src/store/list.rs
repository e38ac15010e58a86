use crate::suite::suite_cases;

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
            dispositions:
                deferred_is_a_retry_row, deferred_again_replaces_the_row, deferred_waits_its_delay,
                dead_is_a_dead_letter, parked_is_a_parked_row, dropped_leaves_its_gate_only,
                a_stale_disposition_is_not_recorded, messages_survive_every_table, a_handled_dead_letter_is_gone;
            sagas:
                created_is_loaded, update_moves_the_version, create_race_has_one_winner,
                create_over_a_live_one_is_stale, a_stale_writer_runs_again, no_update_is_lost,
                the_version_is_compared, the_instance_is_compared, a_missing_saga_is_not_written,
                complete_frees_the_key, complete_and_update_conflict, the_old_life_never_touches_the_new_one,
                a_kept_one_is_read_only, start_and_complete_at_once, start_complete_and_keep_at_once,
                states_come_back_exactly, keys_are_exact, kinds_do_not_mix, lookups_answer_in_order,
                a_life_is_found_by_its_instance, aliases_lead_to_the_saga;
            chains:
                a_hundred_units_fold, a_whole_life_in_one_batch, a_stale_head_fails_the_chain, stale_in_the_middle,
                duplicate_in_the_middle, duplicate_head, chains_interleave, a_broken_chain_spares_the_others,
                racing_chains_never_mix;
            batches:
                one_bad_among_a_hundred, outcomes_are_in_order, empty_and_large_batches, sent_rows_ride_along,
                racing_batches, the_gate_tells_after_an_unknown_outcome;
            sends:
                a_message_reaches_its_queue, messages_keep_their_order, a_topic_reaches_its_subscribers,
                an_unknown_queue_is_a_dead_letter, a_queue_takes_an_id_once, new_ids_are_sent_once,
                a_queue_feeds_itself;
            outbox:
                own_rows_until_they_are_deleted, orphans_wait_for_the_lease, age_alone_orphans_nothing,
                a_clean_stop_hands_over, endpoints_do_not_mix, buried_rows_are_dead_letters, behind_another_owner,
                not_behind_oneself;
            timers:
                due_in_time_and_never_early, absolute_times, pages_in_order_of_time, every_timer_is_in_one_shard,
                the_next_one_is_announced, a_timer_stays_until_it_is_handled, cancel_by_id, cancel_by_type,
                set_and_cancel_in_one_unit, completion_takes_its_timers, a_timer_may_complete_its_saga,
                a_moved_timer_is_another_delivery;
            parked:
                park_then_create, create_then_park, park_and_create_race, parked_for_so_long_at_most,
                parked_for_an_alias, a_completed_saga_adopts_nothing, a_chain_adopts, a_short_life_adopts,
                turns_come_in_order, a_failing_turn_keeps_its_place, a_key_blocks_itself_only;
            attempts:
                counts_survive_the_process, counts_do_not_mix, a_commit_ends_the_count, a_row_gate_ends_the_count,
                racing_counts, many_counts_at_once, dropped_counts_harm_nobody, counts_end_with_the_store;
            leases:
                members_share_fairly, surplus_is_given_up_first, epochs_stay_with_the_owner, leaving_frees_at_once,
                a_silent_node_is_inherited, an_heir_waits_its_own_period, some_want_no_shards, groups_do_not_mix,
                fences_hold_until_the_take_over;
            queues:
                messages_are_read_as_they_came, outcomes_are_per_message, an_id_is_added_once, subscriptions_change,
                reading_is_by_shard_and_page, deleting_settles, waiting_ends, queues_and_store_are_one_database;
            upkeep:
                migrating_is_idempotent, nothing_young_is_pruned, nothing_unfinished_is_pruned, kept_sagas_go_in_time,
                foreign_ids_are_forgotten_in_time, every_table_is_counted, waiting_for_due_rows_ends, one_clock,
                a_closed_store_refuses, dropped_calls_leave_a_sound_store;
            operations:
                dead_letters_are_listed, a_retry_is_one_delivery, discarding_is_for_good, timers_are_listed,
                a_timer_is_cancelled, sagas_are_listed;
            positions:
                a_position_is_claimed_and_raised, a_base_never_falls, a_claim_fences_the_owner_before,
                endpoints_and_logs_have_positions_of_their_own, a_reset_allows_a_replay_and_says_who,
                positions_outlive_retention, racing_claims_leave_one_owner;
            own_sql:
                own_rows_commit_with_the_unit, dropping_rolls_back, duplicate_rolls_back, stale_rolls_back,
                sends_and_sent_rows, own_rows_are_isolated, batches_and_transactions_alternate,
                enlisted_sends_are_joined, enlisted_sends_are_recorded, a_foreign_connection_is_refused;
        }
    };
}

for_each_store_case!(suite_cases, []);

/// How many cases there are. Whoever adds or removes one says so here.
pub const EXPECTED: usize = 167;

/// Expands to a module `store_conformance` with one test per case, named `area::case`, for the backend that the
/// [`StoreHarness`](crate::store::StoreHarness) brings:
/// `sagabus_testkit::store_conformance!(SqliteHarness::new());` at the top of a test file.
#[macro_export]
macro_rules! store_conformance {
    ($harness:expr) => {
        $crate::for_each_store_case!($crate::__suite_tests, [store_conformance store StoreHarness $harness]);
    };
}
