//! Slots that are given away, and given back, while their server begins them.

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, Report, Step, Taken},
        domain::{Booking, Health, PersonId, State},
    },
};

use super::{acknowledge, state};
use crate::hub::world::{NOW, agent, at, book, camp, generous, healthy, who, wish};

/// A report that says for whose account it is, as agents' do.
async fn report_for(desk: &Desk, account: &str, number: i64, booking: &Booking, step: Step, minute: i64) -> Taken {
    let (id, account, one) = (booking.id.clone(), Some(account.to_owned()), "one".parse().unwrap());
    let report = Report { number, booking: id, account, step, moment: at(minute), note: None };
    desk.report(&agent("one"), at(minute), &one, &[report]).await.unwrap()[0].taken
}

pub async fn what_is_given_away_while_its_agent_begins_takes_place(desk: Desk) {
    camp(&desk, &generous()).await;
    let (first, second) = (book(&desk, "amy", 60, 120).await, book(&desk, "cem", 180, 240).await);
    let given = async |booking: &Booking, to: &str, minute: i64| {
        let (from, to) = (who(booking.person.as_str()), to.parse().unwrap());
        desk.give(&from, at(minute), None, &booking.id, &to, &Edit::default()).await.unwrap();
    };
    // The agent is at work for her already, but the hub has not heard of it yet.
    given(&first, "bob", 56).await;
    for (step, number) in [Step::Arming, Step::Ending, Step::Resetting, Step::Done].into_iter().zip(1..) {
        assert_eq!(report_for(&desk, "amy", number, &first, step, 57).await, Taken::SetAside, "{step:?}");
        assert_eq!(state(&desk, &first).await, State::Booked, "{step:?}");
    }
    for (step, number) in [Step::Arming, Step::Active, Step::LoggedIn].into_iter().zip(5..) {
        assert_eq!(report_for(&desk, "bob", number, &first, step, 60).await, Taken::Applied, "{step:?}");
    }
    let after = desk.booking(&Caller::Console, at(60), &first.id).await.unwrap();
    assert_eq!((after.state, after.came, after.charged), (State::Active, Some(at(60)), 3600));
    for (step, number) in [Step::Ending, Step::Saving, Step::Resetting, Step::Done].into_iter().zip(8..) {
        assert_eq!(report_for(&desk, "bob", number, &first, step, 120).await, Taken::Applied, "{step:?}");
    }

    // A place that cannot be proven clean is nobody's, and its agent hears by this booking that it was looked after.
    given(&second, "dan", 176).await;
    assert_eq!(report_for(&desk, "cem", 12, &second, Step::Arming, 177).await, Taken::SetAside);
    assert_eq!(report_for(&desk, "cem", 13, &second, Step::Quarantined, 178).await, Taken::Applied);
    assert_eq!(state(&desk, &second).await, State::Quarantined);
    let one = "one".parse().unwrap();
    assert_eq!(desk.server(&Caller::Console, at(178), &one).await.unwrap().health, Health::Quarantined);
    let told = desk.events(&who("dan"), at(178), 0, 1000).await.unwrap();
    assert!(told.iter().any(|e| e.kind == "booking.stranded" && e.person == "dan".parse().ok()), "{told:#?}");
    healthy(&desk).await;
}

/// A teacher's word to who had a slot, and why it was refused to them, are not for who has it now.
pub async fn what_was_told_to_who_had_a_slot_goes_with_them(desk: Desk) {
    camp(&desk, &generous()).await;
    let reason = Some("amy's second try".to_owned());
    let hers = BookRequest { person: "amy".parse().ok(), reason, ..wish(Some("one"), 60, 120) };
    let booking = desk.book(&who("tea"), NOW, None, &hers).await.unwrap();
    let (one, id, note) = ("one".parse().unwrap(), booking.id.clone(), Some("amy has no account".to_owned()));
    let told = Report { number: 1, booking: id, account: None, step: Step::Refused, moment: at(55), note };
    assert_eq!(desk.report(&agent("one"), at(55), &one, &[told]).await.unwrap()[0].taken, Taken::Applied);
    let before = desk.booking(&who("amy"), at(55), &booking.id).await.unwrap();
    assert!(before.note.is_some() && before.refused.is_some(), "{before:?}");
    let bob = "bob".parse().unwrap();
    let given = desk.give(&who("amy"), at(56), None, &booking.id, &bob, &Edit::default()).await.unwrap();
    assert_eq!((given.person.as_str(), given.note, given.refused), ("bob", None, None));
    healthy(&desk).await;
}

/// What the server did for her before it was given away is told only when it is hers again.
pub async fn what_is_given_back_while_its_agent_begins_takes_place(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 60, 120).await;
    for (from, to, minute) in [("amy", "bob", 56), ("bob", "amy", 57)] {
        let to = to.parse().unwrap();
        desk.give(&who(from), at(minute), None, &booking.id, &to, &Edit::default()).await.unwrap();
    }
    for (number, step, taken, after) in [
        (1, Step::Arming, Taken::Applied, State::Arming),
        (2, Step::Withdrawn, Taken::Applied, State::Booked),
        (3, Step::Resetting, Taken::SetAside, State::Booked),
        (4, Step::Done, Taken::SetAside, State::Booked),
        (5, Step::Arming, Taken::Applied, State::Arming),
        (6, Step::Active, Taken::Applied, State::Active),
        (7, Step::LoggedIn, Taken::Applied, State::Active),
    ] {
        assert_eq!(report_for(&desk, "amy", number, &booking, step, 58).await, taken, "{number}: {step:?}");
        assert_eq!(state(&desk, &booking).await, after, "{number}: {step:?}");
        healthy(&desk).await;
    }
    // What is taken away while it is open ends.
    for (step, number) in [Step::Withdrawn, Step::Saving, Step::Resetting, Step::Done].into_iter().zip(8..) {
        assert_eq!(report_for(&desk, "amy", number, &booking, step, 120).await, Taken::Applied, "{step:?}");
    }
    let after = desk.booking(&Caller::Console, at(120), &booking.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Done, 3600));
    healthy(&desk).await;
}

pub async fn what_is_given_up_while_its_arming_was_taken_away_ends(desk: Desk) {
    camp(&desk, &generous()).await;
    let booking = book(&desk, "amy", 60, 120).await;
    assert_eq!(report_for(&desk, "amy", 1, &booking, Step::Arming, 58).await, Taken::Applied);
    desk.release(&who("amy"), at(58), None, &booking.id, &Edit::default()).await.unwrap();
    for (step, number) in [Step::Withdrawn, Step::Resetting, Step::Done].into_iter().zip(2..) {
        assert_eq!(report_for(&desk, "amy", number, &booking, step, 59).await, Taken::Applied, "{step:?}");
    }
    let after = desk.booking(&Caller::Console, at(59), &booking.id).await.unwrap();
    assert_eq!((after.state, after.charged), (State::Done, 0));
    healthy(&desk).await;
}

/// What begins anew holds its server only from its next arming on, whatever becomes of it before.
pub async fn what_begins_anew_and_is_given_up_leaves_its_server_to_others(desk: Desk) {
    camp(&desk, &generous()).await;
    let (first, next) = (book(&desk, "amy", 60, 120).await, book(&desk, "cem", 150, 210).await);
    for (step, number) in [Step::Arming, Step::Withdrawn].into_iter().zip(1..) {
        assert_eq!(report_for(&desk, "amy", number, &first, step, 58).await, Taken::Applied, "{step:?}");
    }
    let one = "one".parse().unwrap();
    let occupant = async || desk.server(&Caller::Console, at(58), &one).await.unwrap().occupant;
    assert_eq!(occupant().await, None);
    desk.give(&who("amy"), at(58), None, &first.id, &"bob".parse().unwrap(), &Edit::default()).await.unwrap();
    desk.cancel(&who("bob"), at(58), None, &first.id, &Edit::default()).await.unwrap();
    for (step, number) in [Step::Resetting, Step::Done].into_iter().zip(3..) {
        assert_eq!(report_for(&desk, "amy", number, &first, step, 59).await, Taken::SetAside, "{step:?}");
    }
    assert_eq!(report_for(&desk, "cem", 5, &next, Step::Arming, 149).await, Taken::Applied);
    assert_eq!(occupant().await, Some(next.id));
    healthy(&desk).await;
}

/// Its agent has it for who had it in its plan, and would let them in.
pub async fn what_begins_soon_is_not_given_away_on_a_silent_server(desk: Desk) {
    camp(&desk, &generous()).await;
    let (soon, later) = (book(&desk, "amy", 60, 90).await, book(&desk, "amy", 180, 210).await);
    acknowledge(&desk, 0).await;
    let bob: PersonId = "bob".parse().unwrap();
    let edit = Edit::default();
    let give =
        async |minute: i64, booking: &Booking| desk.give(&who("amy"), at(minute), None, &booking.id, &bob, &edit).await;
    let refused = give(3, &soon).await.unwrap_err();
    assert_eq!(refused.code, Code::ServerSilent, "{refused}");
    assert!(refused.what.ends_with("would open it for amy"), "{refused}");
    assert_eq!(give(3, &later).await.unwrap().person, bob, "it may be heard again by then");
    acknowledge(&desk, 4).await;
    assert_eq!(give(4, &soon).await.unwrap().person, bob);
    healthy(&desk).await;
}
