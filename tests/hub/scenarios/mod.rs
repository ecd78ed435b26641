//! What the desk promises, one scenario each; every one begins with an empty database and ends with a healthy one.

mod agent;
mod answers;
mod booking;
mod changes;
mod classes;
mod course;
mod gifts;
mod labs;
mod no_shows;
mod outages;
mod people;
mod places;
mod quarantine;
mod recurrence;
mod refused;
mod shared;
mod silence;
mod waits;

use std::{future::Future, pin::Pin};

use kubecamp::hub::{
    desk::{Caller, Desk, Heartbeat},
    domain::{Booking, Epoch, State},
};

use super::world::{self, NOW, at};

type Scenario = fn(Desk) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! scenarios {
    ($($group:ident { $($name:ident),* $(,)? })*) => {
        pub fn all() -> Vec<(&'static str, Scenario)> {
            vec![$($((stringify!($name), |desk| Box::pin($group::$name(desk)))),*),*]
        }
    };
}

scenarios! {
    booking {
        a_taken_slot_is_refused_with_three_alternatives,
        what_is_offered_instead_can_be_had,
        who_holds_the_slot_themselves_is_told_so,
        what_is_kept_of_a_server_is_what_it_holds,
        a_repeated_key_books_once,
        quotas_hold,
        rules_of_time_hold,
        a_week_is_shown_as_it_is_by_now,
        a_server_in_another_zone_keeps_nobody_from_the_others,
    }
    changes {
        a_holder_extends_gives_away_and_gives_back,
        what_its_server_ends_before_its_time_counts_until_then,
        a_teacher_extends_past_the_rules_but_past_nobody,
        what_is_released_while_armed_never_opens,
        others_bookings_need_a_teacher_with_a_reason,
    }
    recurrence {
        weekly_is_all_or_nothing,
        weeks_that_cannot_be_had_are_named_with_slots_near_the_first,
        a_recurrence_is_cancelled_as_one,
    }
    shared {
        shared_servers_hold_as_many_labs_as_fit,
        a_disk_that_holds_what_is_ahead_can_be_told_any_time,
        an_overrun_reset_on_a_shared_server_delays_its_place_only,
    }
    answers {
        what_can_never_be_had_says_why,
        a_week_that_clocks_make_too_long_is_explained,
        shorter_hours_tell_what_they_leave_outside,
        a_server_given_to_another_course_tells_what_it_leaves_there,
        a_server_that_nobody_enrolled_is_told,
        what_opened_to_nobody_is_told_to_its_holder,
        who_wants_any_server_gets_one_that_is_enrolled,
        an_agent_that_takes_no_newer_plan_is_told,
        where_only_a_buffer_is_in_the_way_it_is_named,
        nobody_waits_for_hours_that_never_open,
        work_that_has_just_ended_is_not_offered_again,
        what_is_offered_has_room_for_the_lab_that_would_run_there,
        a_free_slot_says_which_limit_keeps_it_from_whom,
        who_waits_for_what_a_server_has_not_keeps_nobody_from_extending_there,
    }
    classes {
        a_class_is_planned_and_booked,
        only_the_plan_that_was_seen_is_booked,
        a_class_is_given_what_its_notice_allows,
        what_somebody_has_ahead_counts_when_a_class_chooses,
    }
    course {
        the_waitlist_is_fair_and_offers_lapse,
        nobody_is_quicker_than_who_waits,
        who_waits_for_something_else_goes_past_nobody,
        offers_keep_to_labels_and_quotas,
        who_left_the_course_holds_nobody_up,
        who_declines_an_offer_leaves_it_to_the_next_at_once,
        nobody_waits_for_everything,
        a_wait_keeps_to_the_notice_and_its_offer_need_not,
        links_work_once_and_signatures_sign_in,
        keys_are_ones_own_matter,
        servers_and_groups_go_when_nobody_needs_them,
        a_roster_is_imported_whole_or_not,
        webhooks_are_signed_and_tried_again,
        who_is_out_loses_tokens_and_slots,
    }
    agent {
        a_slot_lives_from_booked_to_done,
        a_slot_that_cannot_be_opened_ends_and_does_not_count,
        an_overrun_reset_delays_the_next_and_is_not_charged,
        a_buffer_that_is_too_short_is_told,
        who_has_a_later_booking_is_named_in_the_plan,
        an_agent_that_was_enrolled_anew_is_heard_from_number_one,
        a_hub_that_went_back_goes_on_above_what_its_agents_have,
        what_took_place_while_the_hub_was_away_counts,
    }
    no_shows {
        a_no_show_is_released_but_not_resold_before_the_agent_knows,
        a_no_show_that_its_agent_forgot_keeps_nobody_out,
        a_no_show_is_found_while_its_agent_is_heard_again_and_again,
        who_is_at_work_is_no_no_show_though_the_report_is_late,
    }
    silence {
        clocks_that_are_off_arm_nothing,
        an_agent_that_hangs_is_not_heard,
        what_begins_soon_is_not_sold_on_a_silent_server,
        what_is_open_counts_whatever_its_arming_was_worth,
    }
    quarantine {
        a_quarantined_server_loses_its_bookings_to_another,
        what_an_agent_forgot_is_quarantined_and_its_server_comes_back,
        a_quarantined_server_comes_back_by_way_of_out_of_use,
        a_server_that_is_gone_in_the_midst_of_a_slot_can_be_removed,
        a_slot_that_passed_on_a_server_that_is_gone_keeps_nobody_from_removing_it,
    }
    gifts {
        what_is_given_away_while_its_agent_begins_takes_place,
        what_was_told_to_who_had_a_slot_goes_with_them,
        what_is_given_back_while_its_agent_begins_takes_place,
        what_is_given_up_while_its_arming_was_taken_away_ends,
        what_begins_anew_and_is_given_up_leaves_its_server_to_others,
        what_begins_soon_is_not_given_away_on_a_silent_server,
    }
    labs {
        who_has_a_saved_lab_gets_its_server_first,
        a_lab_of_another_layout_is_not_thrown_away_unasked,
        offers_moves_and_class_plans_go_by_saved_labs_too,
        an_agent_says_whether_it_makes_labs,
        labs_that_went_with_a_gate_are_promised_to_nobody,
        what_an_agent_tells_of_labs_counts_once_and_for_its_own_server,
    }
    outages {
        what_is_cancelled_while_it_may_run_counts_as_far_as_it_ran,
        what_is_cancelled_as_an_outage_begins_counts_as_far_as_it_ran,
        what_a_clock_that_is_off_makes_due_is_left_as_it_is,
        what_could_not_be_taken_is_offered_again_when_its_server_is_back,
        what_nobody_can_take_is_taken_back_and_offered_anew_for_its_full_time,
        an_offer_that_is_taken_back_leaves_the_turns_as_they_were,
    }
    people {
        the_last_admin_stays,
        who_is_added_twice_under_one_key_keeps_what_they_hold,
        who_joins_another_group_of_a_course_leaves_the_one_before,
        who_takes_a_key_away_ends_what_it_signed_in,
        a_sign_in_that_has_ended_changes_nobody,
        a_sign_in_that_has_ended_adds_nobody,
        a_sign_in_that_has_ended_imports_no_roster,
        a_sign_in_that_has_ended_makes_no_link,
        of_too_many_tokens_the_one_ends_that_was_out_of_use_longest,
        of_several_links_for_somebody_the_last_one_counts,
        nobody_is_called_as_what_every_server_has,
    }
    places {
        a_server_that_is_heard_is_not_removed_in_the_midst_of_a_slot,
        a_place_that_is_proven_clean_leaves_the_plan,
        what_an_agent_found_is_for_teachers,
        who_is_at_work_on_a_server_that_an_admin_quarantines_goes_on,
        what_is_not_there_is_not_made_by_a_change,
    }
    refused {
        what_an_agent_refuses_is_told_and_can_be_moved,
        a_refused_slot_is_tried_on_one_other_server_only,
        what_is_moved_away_is_offered_to_who_let_an_offer_lapse,
        what_a_server_out_of_use_strands_is_told_once,
        what_strands_nobody_any_more_is_taken_back,
        bookings_leave_a_server_in_maintenance,
        work_that_is_announced_moves_all_of_that_time_at_once,
        who_booked_first_is_moved_first,
        a_missed_slot_is_over_and_a_stray_is_told_to_teachers,
    }
    waits {
        who_lets_an_offer_lapse_keeps_the_time_from_nobody,
        an_offer_of_any_server_that_lapses_is_made_once,
        what_is_left_early_is_offered_to_who_let_an_offer_lapse,
        who_waits_is_told_what_keeps_it_from_them,
    }
}

/// The revision of a server's plan.
async fn revision(desk: &Desk, server: &str) -> i64 {
    desk.server(&Caller::Console, NOW, &server.parse().unwrap()).await.unwrap().revision
}

async fn state(desk: &Desk, booking: &Booking) -> State {
    desk.booking(&Caller::Console, NOW, &booking.id).await.unwrap().state
}

/// Lets the agent of the server one confirm the plan that there is at this minute.
async fn acknowledge(desk: &Desk, minute: i64) {
    acknowledge_at(desk, at(minute)).await;
}

async fn acknowledge_at(desk: &Desk, now: Epoch) {
    let server = "one".parse().unwrap();
    let plan = desk.plan_for(&world::agent("one"), now, &server).await.unwrap();
    let beat = Heartbeat { revision: plan.revision, clock: now, tick_age: None };
    desk.heartbeat(&world::agent("one"), now, &server, &beat).await.unwrap();
}
