//! The cases. A new one is one line here.

macro_rules! setup {
    ($setup:ident, $($area:ident: $($case:ident)+;)+) => {
        mod $setup {
            $(mod $area {
                $(#[test]
                fn $case() {
                    crate::fixture::Fixture::run(crate::environment::Setup::$setup(), crate::$area::$case);
                })+
            })+
        }
    };
}

macro_rules! every_case_on {
    ($($setup:ident)+) => {
        $(setup! { $setup,
            fanout:
                each_handler_of_an_event_has_its_own_unit
                the_same_message_id_is_handled_once
                a_duplicate_that_nothing_gives_away_takes_effect_once
                every_endpoint_that_subscribed_gets_the_event;
            requests:
                a_request_is_answered
                a_request_without_an_answer_is_unknown
                a_timeout_replies_to_the_originator
                a_later_message_replies_to_the_originator
                a_reply_goes_to_the_saga_that_asked_and_to_no_other
                a_reply_for_an_ended_saga_is_not_its_successors;
            retries:
                immediate_retries_are_counted_then_it_succeeds
                a_delayed_retry_survives_a_restart
                a_failed_attempt_leaves_nothing_behind
                attempts_survive_a_restart
                a_dead_letter_says_everything
                a_dead_letter_is_retried_once_when_the_cause_is_gone
                a_dead_letter_is_discarded
                a_panic_is_retried_then_dead_lettered
                a_permanent_error_is_not_retried
                a_handler_may_choose_its_delay
                an_endpoint_where_everything_fails_slows_down;
            starts:
                a_starter_of_a_running_saga_meets_its_policy
                a_completed_saga_is_kept_and_takes_nothing;
            parking:
                a_parked_message_is_adopted_when_its_saga_starts
                a_parked_message_is_dead_lettered_after_its_time
                not_found_policies_dead_letter_or_discard
                an_alias_finds_its_saga
                a_message_is_parked_by_its_alias
                a_parked_message_survives_a_restart;
            timeouts:
                a_late_timeout_is_dropped_and_counted
                a_cancelled_timeout_never_fires
                a_timeout_is_moved_by_the_admin
                a_timer_of_an_earlier_instance_is_harmless
                a_completed_saga_starts_anew
                a_timeout_comes_due_while_no_instance_runs
                of_two_timeouts_due_at_once_the_first_to_complete_its_saga_is_the_last;
            ordered:
                a_failing_message_blocks_its_key_only
                a_dead_letter_lets_its_key_go_on
                a_blocked_key_keeps_its_order_through_a_restart
                two_instances_keep_the_order_through_failures_and_a_stop
                a_saga_takes_the_messages_of_a_key_in_their_order;
            bad_input:
                an_expired_message_is_dropped_and_counted
                an_unknown_type_is_dead_lettered
                an_undecodable_body_is_dead_lettered
                what_is_over_the_limits_is_dead_lettered
                a_timeout_over_the_transport_is_dead_lettered
                what_cannot_be_sent_is_refused_at_the_sender
                a_dead_lettered_unknown_type_is_handled_by_a_later_program
                a_message_for_a_missing_queue_is_dead_lettered_and_sent_again;
            headers:
                user_headers_propagate_when_marked
                causation_and_conversation_are_kept;
            formats:
                a_custom_codec_carries_messages
                an_older_state_is_upgraded;
            lifecycle:
                a_pause_takes_nothing_new
                a_stop_under_load_loses_and_doubles_nothing
                two_instances_share_the_work
                a_send_only_endpoint_sends
                one_of_two_instances_stops_under_load
                a_stop_that_runs_out_of_time_says_so_and_loses_nothing
                instances_that_meet_at_the_same_sagas_lose_no_update
                endpoints_that_are_named_by_urls_meet;
            config:
                what_is_wrong_fails_at_build_with_the_fix;
        })+
    };
}

/// What needs SQL of one's own.
macro_rules! every_own_sql_case_on {
    ($($setup:ident)+) => {
        mod own {
            $(setup! { $setup,
                send_in:
                    a_send_of_a_rolled_back_transaction_never_leaves
                    a_send_of_a_committed_transaction_leaves_soon;
                own_sql:
                    rows_and_saga_agree_under_conflicts
                    rows_of_a_function_are_written_once
                    a_conflict_in_own_rows_is_the_handlers_failure
                    a_handler_that_holds_its_transaction_is_failed_and_others_go_on;
            })+
        }
    };
}

/// The same where the queues lie in another place than the store.
macro_rules! every_split_own_sql_case_on {
    ($($setup:ident)+) => {
        mod held {
            $(setup! { $setup,
                own_sql:
                    nothing_leaves_before_the_commit;
            })+
        }
    };
}
