//! The same slot week after week.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, Desk, Edit, Step},
        domain::{Policy, State},
        store::Listing,
    },
};

use crate::hub::world::{NOW, at, because, book, camp, generous, healthy, report, weekly, who, window};

pub async fn weekly_is_all_or_nothing(desk: Desk) {
    camp(&desk, &Policy { open_ahead: 1, ..Policy::default() }).await;
    let request = |weeks| weekly("Europe/Berlin", "2026-11-24T10:00:00", "2026-11-24T12:00:00", weeks);
    let far = desk.book_weekly(&who("amy"), NOW, None, &request(6)).await.unwrap_err();
    assert_eq!(far.problem.code, Code::BookHorizon);
    assert!(desk.bookings(&who("amy"), NOW, &Listing::default()).await.unwrap().is_empty());
    let made = desk.book_weekly(&who("amy"), NOW, None, &request(4)).await.unwrap();
    assert_eq!(made.len(), 4);
    assert!(made.iter().all(|p| p.booking.series == made[0].booking.series && p.booking.series.is_some()));
    let one_more = weekly("Europe/Berlin", "2026-11-24T14:00:00", "2026-11-24T15:00:00", 1);
    let more = desk.book_weekly(&who("amy"), NOW, None, &one_more).await;
    assert_eq!(more.unwrap_err().problem.code, Code::BookAhead, "a recurrence counts as one, but it counts");
    healthy(&desk).await;
}

pub async fn weeks_that_cannot_be_had_are_named_with_slots_near_the_first(desk: Desk) {
    camp(&desk, &generous()).await;
    let (week, first) = (7 * 1440, 1440 + 60);
    for taken in [1, 3] {
        book(&desk, "bob", taken * week + first + 60, taken * week + first + 120).await;
    }
    let request = weekly("Europe/Berlin", "2026-11-24T10:00:00", "2026-11-24T12:00:00", 4);
    let refusal = desk.book_weekly(&who("amy"), NOW, None, &request).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::BookConflict);
    let named = |n: i64| window(n * week + first, n * week + first + 120).to_string();
    let lines = &refusal.problem.detail;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with(&named(1)) && lines[1].starts_with(&named(3)), "{lines:?}");
    assert_eq!(refusal.alternatives.len(), 3);
    for free in &refusal.alternatives {
        assert!((free.window.starts - at(week + first)).abs() <= 4 * 3600 && free.window.length() == 7200, "{free:?}");
    }
    assert!(refusal.problem.all_hints()[0].contains("weeks"), "another slot for one week is not all of the answer");
    let amy = Listing { person: Some("amy".parse().unwrap()), ..Listing::default() };
    assert!(desk.bookings(&who("amy"), NOW, &amy).await.unwrap().is_empty());
    healthy(&desk).await;
}

pub async fn a_recurrence_is_cancelled_as_one(desk: Desk) {
    camp(&desk, &generous()).await;
    let request = weekly("UTC", "2026-11-23T08:00:00", "2026-11-23T10:00:00", 4);
    let made = desk.book_weekly(&who("amy"), NOW, None, &request).await.unwrap();
    let id = made[0].booking.series.clone().unwrap();
    desk.give(&who("amy"), NOW, None, &made[3].booking.id, &"bob".parse().unwrap(), &Edit::default()).await.unwrap();
    report(&desk, 1, &made[0].booking, Step::Arming, 0).await;
    let code = async |login: &str, edit: Edit| {
        desk.cancel_series(&who(login), at(1), None, &id, &edit).await.err().map(|p| p.code)
    };
    assert_eq!(code("dan", because("mine")).await, Some(Code::HubDenied));
    assert_eq!(code("tea", Edit::default()).await, Some(Code::HubReason));
    assert_eq!(code("amy", Edit { version: Some(1), reason: None }).await, Some(Code::HubInvalid));
    let gone = desk.cancel_series(&who("amy"), at(1), Some("k"), &id, &Edit::default()).await.unwrap();
    assert_eq!(
        gone.iter().map(|b| b.id.clone()).collect::<Vec<_>>(),
        [1, 2].map(|n: usize| made[n].booking.id.clone())
    );
    assert!(gone.iter().all(|b| b.state == State::Cancelled));
    assert_eq!(desk.cancel_series(&who("amy"), at(2), Some("k"), &id, &Edit::default()).await.unwrap(), gone);
    assert_eq!(code("amy", Edit::default()).await, Some(Code::BookState), "nothing is ahead");
    for (n, left) in [(0, State::Arming), (3, State::Booked)] {
        let booking = desk.booking(&Caller::Console, at(2), &made[n].booking.id).await.unwrap();
        assert_eq!(booking.state, left, "what runs, and what was given away, stays");
    }
    healthy(&desk).await;
}
