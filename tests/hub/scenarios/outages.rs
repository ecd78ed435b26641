//! What is done here while hub and agent do not hear of each other, or do not agree on what time it is.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, Edit, Heartbeat, Report, Step},
        domain::State,
    },
};

use super::{acknowledge, acknowledge_at, state};
use crate::hub::world::{NOW, agent, at, book, camp, clerk, generous, healthy, reports, who, window, wish};

pub async fn what_is_cancelled_while_it_may_run_counts_as_far_as_it_ran(desk: Desk) {
    camp(&desk, &generous()).await;
    let (clerk, plain, one) = (clerk(&desk), Edit::default(), "one".parse().unwrap());
    let used = book(&desk, "amy", 0, 60).await;
    let unused = book(&desk, "bob", 90, 150).await;
    let heard = book(&desk, "cem", 180, 240).await;
    acknowledge(&desk, 0).await;
    // Hub and agent lose each other. Amy is at work, and gives it up shortly before its end.
    let after = desk.cancel(&who("amy"), at(50), None, &used.id, &plain).await.unwrap();
    assert_eq!((after.state, after.window, after.charged), (State::Booked, window(0, 50), 3000));
    for minute in [51, 61] {
        let again = desk.cancel(&who("amy"), at(minute), None, &used.id, &plain).await.unwrap_err();
        assert_eq!(again.code, Code::BookState, "{minute}");
    }
    clerk.settle(at(61)).await.unwrap();
    assert_eq!(state(&desk, &used).await, State::Booked, "its agent has not told");
    acknowledge(&desk, 62).await;
    let again = desk.cancel(&who("amy"), at(62), None, &used.id, &plain).await.unwrap_err();
    assert_eq!(again.code, Code::BookState, "it is heard, and has not told yet");
    let steps = [
        (Step::Arming, 0),
        (Step::Active, 0),
        (Step::LoggedIn, 1),
        (Step::Ending, 62),
        (Step::Saving, 62),
        (Step::Resetting, 63),
        (Step::Done, 64),
    ];
    for ((step, minute), number) in steps.into_iter().zip(1..) {
        let told = Report { number, booking: used.id.clone(), step, moment: at(minute), note: None, account: None };
        desk.report(&agent("one"), at(65), &one, &[told]).await.unwrap();
    }
    let after = desk.booking(&Caller::Console, at(65), &used.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Done, 3000));

    // What did not take place counts as nothing, as soon as that is known.
    desk.cancel(&who("bob"), at(100), None, &unused.id, &plain).await.unwrap();
    assert_eq!(state(&desk, &unused).await, State::Booked);
    acknowledge(&desk, 101).await;
    clerk.settle(at(102)).await.unwrap();
    assert_eq!(state(&desk, &unused).await, State::Cancelled);
    // An agent that is heard would have told that it began.
    acknowledge(&desk, 191).await;
    let after = desk.cancel(&who("cem"), at(191) + 15, None, &heard.id, &plain).await.unwrap();
    assert_eq!((after.state, after.window), (State::Cancelled, heard.window));
    healthy(&desk).await;
}

/// An outage that has just begun is one: nobody has the rest of a slot for nothing by a cancel in its first minutes.
pub async fn what_is_cancelled_as_an_outage_begins_counts_as_far_as_it_ran(desk: Desk) {
    camp(&desk, &generous()).await;
    let (clerk, plain, one) = (clerk(&desk), Edit::default(), "one".parse().unwrap());
    let (used, unused) = (book(&desk, "amy", 0, 60).await, book(&desk, "bob", 90, 150).await);
    acknowledge(&desk, 0).await;
    let after = desk.cancel(&who("amy"), at(1), None, &used.id, &plain).await.unwrap();
    assert_eq!((after.state, after.window, after.charged), (State::Booked, window(0, 1), 60));
    let steps = [
        (Step::Arming, 0),
        (Step::Active, 0),
        (Step::LoggedIn, 1),
        (Step::Ending, 5),
        (Step::Saving, 5),
        (Step::Resetting, 6),
        (Step::Done, 7),
    ];
    for ((step, minute), number) in steps.into_iter().zip(1..) {
        let told = Report { number, booking: used.id.clone(), step, moment: at(minute), note: None, account: None };
        desk.report(&agent("one"), at(8), &one, &[told]).await.unwrap();
    }
    let after = desk.booking(&Caller::Console, at(8), &used.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Done, 60));
    // What its agent has not begun counts as nothing as soon as it is heard.
    acknowledge(&desk, 90).await;
    let after = desk.cancel(&who("bob"), at(90) + 16, None, &unused.id, &plain).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Booked, 16));
    acknowledge(&desk, 91).await;
    clerk.settle(at(92)).await.unwrap();
    assert_eq!(state(&desk, &unused).await, State::Cancelled);
    healthy(&desk).await;
}

pub async fn what_a_clock_that_is_off_makes_due_is_left_as_it_is(desk: Desk) {
    camp(&desk, &generous()).await;
    let (clerk, one) = (clerk(&desk), "one".parse().unwrap());
    let (unbegun, open) = (book(&desk, "amy", 0, 60).await, book(&desk, "bob", 90, 180).await);
    acknowledge(&desk, 0).await;
    reports(&desk, 1, &open, &[Step::Arming, Step::Active], 90).await;
    let states = async || (state(&desk, &unbegun).await, state(&desk, &open).await);
    // The hub's clock is hours ahead, and by its time the agent is heard right now.
    let beat = Heartbeat { revision: 0, clock: at(1), tick_age: None };
    let heard = desk.heartbeat(&agent("one"), at(130), &one, &beat).await.unwrap();
    assert!(!heard.may_arm && heard.clock_offset == -129 * 60, "{heard:?}");
    clerk.settle(at(130) + 4).await.unwrap();
    assert_eq!(states().await, (State::Booked, State::Active));
    let beat = Heartbeat { clock: at(131), ..beat };
    assert!(desk.heartbeat(&agent("one"), at(131), &one, &beat).await.unwrap().may_arm);
    clerk.settle(at(131) + 4).await.unwrap();
    assert_eq!(states().await, (State::Cancelled, State::NoShow));
    healthy(&desk).await;
}

/// Nobody can take what is offered on a server that is silent, so who is asked then has had no turn.
pub async fn what_could_not_be_taken_is_offered_again_when_its_server_is_back(desk: Desk) {
    camp(&desk, &generous()).await;
    let clerk = clerk(&desk);
    let taken = book(&desk, "dan", 30, 60).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wish(Some("one"), 30, 60)).await.unwrap();
    acknowledge(&desk, 0).await;
    desk.cancel(&who("dan"), at(1), None, &taken.id, &Edit::default()).await.unwrap();
    acknowledge(&desk, 1).await;
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 1);
    let yes = async |minute| desk.accept(&who("amy"), at(minute), None, &amy.id).await;
    assert_eq!(yes(11).await.unwrap_err().code, Code::ServerSilent);
    let lapsed = clerk.settle(at(12)).await.unwrap();
    assert_eq!((lapsed.settled, lapsed.offered), (1, 0));
    let waits = desk.booking(&who("amy"), at(12), &amy.id).await.unwrap();
    assert_eq!((waits.state, waits.lapses), (State::Waitlisted, 0));
    acknowledge(&desk, 15).await;
    assert_eq!(clerk.settle(at(15)).await.unwrap().offered, 1);
    assert_eq!(yes(16).await.unwrap().state, State::Booked);
    healthy(&desk).await;
}

pub async fn what_nobody_can_take_is_taken_back_and_offered_anew_for_its_full_time(desk: Desk) {
    camp(&desk, &generous()).await;
    let clerk = clerk(&desk);
    let taken = book(&desk, "dan", 30, 60).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wish(Some("one"), 30, 60)).await.unwrap();
    acknowledge(&desk, 0).await;
    desk.cancel(&who("dan"), at(1), None, &taken.id, &Edit::default()).await.unwrap();
    acknowledge(&desk, 1).await;
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 1);
    assert_eq!(clerk.settle(at(3)).await.unwrap().settled, 0, "it was heard two minutes ago");
    let back = clerk.settle(at(3) + 1).await.unwrap();
    assert_eq!((back.settled, back.offered), (1, 0));
    let waits = desk.booking(&who("amy"), at(4), &amy.id).await.unwrap();
    assert_eq!((waits.state, waits.lapses, waits.place), (State::Waitlisted, 0, None));
    // Heard two seconds before the first offer would have lapsed.
    let heard = at(12) - 2;
    acknowledge_at(&desk, heard).await;
    assert_eq!(clerk.settle(heard).await.unwrap().offered, 1);
    let anew = desk.booking(&who("amy"), heard, &amy.id).await.unwrap();
    assert_eq!((anew.state, anew.offer_until, anew.lapses), (State::Offered, Some(heard + 600), 0));
    assert_eq!(clerk.settle(at(12)).await.unwrap().settled, 0);
    assert_eq!(desk.accept(&who("amy"), at(13), None, &amy.id).await.unwrap().state, State::Booked);
    healthy(&desk).await;
}

pub async fn an_offer_that_is_taken_back_leaves_the_turns_as_they_were(desk: Desk) {
    camp(&desk, &generous()).await;
    let (clerk, plain, wanted) = (clerk(&desk), Edit::default(), wish(Some("one"), 60, 120));
    let taken = book(&desk, "dan", 60, 120).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wanted).await.unwrap();
    acknowledge(&desk, 0).await;
    desk.cancel(&who("dan"), at(1), None, &taken.id, &plain).await.unwrap();
    acknowledge(&desk, 1).await;
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 1);
    acknowledge(&desk, 12).await;
    assert_eq!(clerk.settle(at(12)).await.unwrap().settled, 1, "she had her turn");
    let again = desk.book(&who("cem"), at(13), None, &wanted).await.unwrap();
    acknowledge(&desk, 13).await;
    desk.cancel(&who("cem"), at(14), None, &again.id, &plain).await.unwrap();
    acknowledge(&desk, 14).await;
    assert_eq!(clerk.settle(at(14)).await.unwrap().offered, 1);
    let back = clerk.settle(at(17)).await.unwrap();
    assert_eq!((back.settled, back.offered), (1, 0), "its server is silent");
    let waits = desk.booking(&who("amy"), at(17), &amy.id).await.unwrap();
    assert_eq!((waits.state, waits.lapses), (State::Waitlisted, 1), "her first turn was one");
    // What cem gave up is still hers to be asked about.
    acknowledge(&desk, 18).await;
    assert_eq!(clerk.settle(at(18)).await.unwrap().offered, 1);
    acknowledge(&desk, 28).await;
    let lapsed = clerk.settle(at(28)).await.unwrap();
    assert_eq!((lapsed.settled, lapsed.offered), (1, 0));
    let waits = desk.booking(&who("amy"), at(28), &amy.id).await.unwrap();
    assert_eq!((waits.state, waits.lapses), (State::Waitlisted, 2));
    healthy(&desk).await;
}
