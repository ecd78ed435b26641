//! What becomes of who waits and does not come.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Desk, Edit, Step, Taken},
        domain::{Mode, Policy, State},
    },
};

use super::{acknowledge, state};
use crate::hub::world::{NOW, at, book, camp, clerk, generous, healthy, report, server, who, window, wish};

pub async fn who_lets_an_offer_lapse_keeps_the_time_from_nobody(desk: Desk) {
    camp(&desk, &generous()).await;
    let (clerk, plain, wanted) = (clerk(&desk), Edit::default(), wish(Some("one"), 240, 300));
    let taken = book(&desk, "dan", 240, 300).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wanted).await.unwrap();
    desk.cancel(&who("dan"), at(1), None, &taken.id, &plain).await.unwrap();
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 1);
    let lapsed = clerk.settle(at(12)).await.unwrap();
    assert_eq!((lapsed.settled, lapsed.offered, state(&desk, &amy).await), (1, 0, State::Waitlisted));
    // She is absent: whoever wants the time has it, by a booking and by a longer one.
    let before = book(&desk, "dan", 150, 210).await;
    let longer = desk.extend(&who("dan"), at(13), None, &before.id, at(270), &plain).await.unwrap();
    assert_eq!(longer.window, window(150, 270));
    desk.cancel(&who("dan"), at(14), None, &before.id, &plain).await.unwrap();

    // What is given up after that is offered to her once more, and no more than once.
    assert_eq!(clerk.settle(at(15)).await.unwrap().offered, 1);
    assert_eq!(state(&desk, &amy).await, State::Offered);
    assert_eq!(clerk.settle(at(25)).await.unwrap().offered, 0);
    let cem = desk.book(&who("cem"), at(26), None, &wanted).await.unwrap();
    assert_eq!((cem.state, state(&desk, &amy).await), (State::Booked, State::Waitlisted));
    // Who was not asked yet comes first.
    let bob = desk.wait(&who("bob"), at(27), None, &wanted).await.unwrap();
    desk.cancel(&who("cem"), at(28), None, &cem.id, &plain).await.unwrap();
    assert_eq!(clerk.settle(at(28)).await.unwrap().offered, 1);
    assert_eq!((state(&desk, &bob).await, state(&desk, &amy).await), (State::Offered, State::Waitlisted));
    healthy(&desk).await;
}

pub async fn an_offer_of_any_server_that_lapses_is_made_once(desk: Desk) {
    camp(&desk, &generous()).await;
    let clerk = clerk(&desk);
    let taken = book(&desk, "dan", 240, 300).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    desk.cancel(&who("dan"), at(1), None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 1);
    let lapsed = clerk.settle(at(12)).await.unwrap();
    assert_eq!((lapsed.settled, lapsed.offered, state(&desk, &amy).await), (1, 0, State::Waitlisted));
    assert_eq!(clerk.settle(at(13)).await.unwrap().offered, 0, "that it lapsed gives up nothing");
    healthy(&desk).await;
}

/// Who had their turn is asked again also when a slot that runs is ended early.
pub async fn what_is_left_early_is_offered_to_who_let_an_offer_lapse(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let (clerk, plain, wanted) = (clerk(&desk), Edit::default(), wish(Some("one"), 180, 240));
    let taken = book(&desk, "cem", 180, 240).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wanted).await.unwrap();
    desk.cancel(&who("cem"), at(1), None, &taken.id, &plain).await.unwrap();
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 1);
    assert_eq!(clerk.settle(at(12)).await.unwrap().offered, 0);
    let long = desk.book(&who("dan"), at(13), None, &wish(Some("one"), 60, 240)).await.unwrap();
    // She named a server: what is given up on another one is nothing to her.
    let other = desk.book(&who("bob"), at(13), None, &wish(Some("two"), 180, 240)).await.unwrap();
    acknowledge(&desk, 50).await;
    for (number, step, minute) in [(1, Step::Arming, 55), (2, Step::Active, 60), (3, Step::LoggedIn, 61)] {
        assert_eq!(report(&desk, number, &long, step, minute).await, Taken::Applied);
    }
    desk.release(&who("dan"), at(90), None, &long.id, &plain).await.unwrap();
    acknowledge(&desk, 91).await;
    assert_eq!(clerk.settle(at(92)).await.unwrap().offered, 1);
    assert_eq!(state(&desk, &amy).await, State::Offered);
    acknowledge(&desk, 102).await;
    assert_eq!(clerk.settle(at(102)).await.unwrap().offered, 0);
    desk.cancel(&who("bob"), at(103), None, &other.id, &plain).await.unwrap();
    acknowledge(&desk, 104).await;
    assert_eq!(clerk.settle(at(104)).await.unwrap().offered, 0);
    let again = desk.book(&who("cem"), at(104), None, &wanted).await.unwrap();
    desk.cancel(&who("cem"), at(105), None, &again.id, &plain).await.unwrap();
    acknowledge(&desk, 106).await;
    assert_eq!(clerk.settle(at(106)).await.unwrap().offered, 1);
    // What is given up right after it lapsed counts, in the same second too.
    acknowledge(&desk, 116).await;
    assert_eq!(clerk.settle(at(116)).await.unwrap().offered, 0);
    let again = desk.book(&who("cem"), at(116), None, &wanted).await.unwrap();
    desk.cancel(&who("cem"), at(116), None, &again.id, &plain).await.unwrap();
    acknowledge(&desk, 117).await;
    assert_eq!(clerk.settle(at(117)).await.unwrap().offered, 1);
    healthy(&desk).await;
}

pub async fn who_waits_is_told_what_keeps_it_from_them(desk: Desk) {
    camp(&desk, &Policy { open_ahead: 1, group_hours: 2, ..generous() }).await;
    let taken = book(&desk, "dan", 240, 300).await;
    let (wanted, free) = (wish(Some("one"), 240, 300), wish(Some("one"), 600, 660));
    let amy = desk.wait(&who("amy"), NOW, None, &wanted).await.unwrap();
    assert_eq!(desk.elsewhere(&who("amy"), NOW, &amy.id).await.unwrap().why, None);
    let own = book(&desk, "amy", 60, 120).await;
    assert_eq!(desk.wait(&who("amy"), NOW, None, &free).await.unwrap_err().code, Code::BookAhead, "it is free");
    let why = async |minute| desk.elsewhere(&who("amy"), at(minute), &amy.id).await.unwrap().why.unwrap();
    assert!(why(0).await.starts_with("amy has 1 bookings ahead"));
    desk.cancel(&who("amy"), NOW, None, &own.id, &Edit::default()).await.unwrap();
    desk.book(&who("bob"), NOW, None, &wish(Some("one"), 60, 180)).await.unwrap();
    assert!(why(0).await.starts_with("group red would have 3.0 h"), "{}", why(0).await);
    desk.cancel(&who("dan"), at(1), None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk(&desk).settle(at(2)).await.unwrap().offered, 0, "she is passed over");
    assert_eq!(desk.wait(&who("cem"), at(2), None, &wanted).await.unwrap_err().code, Code::BookGroupQuota);
    healthy(&desk).await;
}
