//! What a class plan gives to whom.

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, ClassRequest, Desk, NewPerson, StudentWishes},
        domain::{PersonId, Policy, Role, Wish},
        store::Listing,
    },
};

use crate::hub::world::{NOW, at, because, camp, generous, healthy, person, who, window, wish};

pub async fn a_class_is_planned_and_booked(desk: Desk) {
    camp(&desk, &Policy { person_hours: 1, open_ahead: 1, ..Policy::default() }).await;
    let wishes =
        |login: &str| StudentWishes { person: login.parse().unwrap(), wishes: vec![Wish { within: window(60, 120) }] };
    let want = ClassRequest {
        course: "k8s".parse().unwrap(),
        layout: "1x4c12g".parse().unwrap(),
        minutes: 60,
        slots: 2,
        within: window(-1440, 1440),
        wishes: vec![wishes("bob"), wishes("amy")],
        reason: Some("the exam".into()),
        seen: None,
    };
    assert_eq!(desk.plan_class(&who("amy"), NOW, &want).await.unwrap_err().code, Code::HubDenied);
    let twice = ClassRequest { wishes: vec![wishes("bob"), wishes("amy"), wishes("bob")], ..want.clone() };
    let refused = desk.plan_class(&who("tea"), NOW, &twice).await.unwrap_err();
    assert_eq!((refused.code, refused.what.as_str()), (Code::HubInvalid, "bob is in the class plan twice"));
    let fay: PersonId = "fay".parse().unwrap();
    person(&desk, "fay", Some("blue")).await;
    let out = NewPerson {
        id: fay.clone(),
        name: "Fay".into(),
        role: Role::Student,
        active: Some(false),
        zone: None,
        keys: vec![],
    };
    desk.put_person(&Caller::Console, NOW, &out, Some(1)).await.unwrap();
    let away = ClassRequest { wishes: vec![wishes("fay")], ..want.clone() };
    let refused = desk.plan_class(&who("tea"), NOW, &away).await.unwrap_err();
    assert_eq!((refused.code, refused.what.as_str()), (Code::HubInvalid, "fay is not active"));
    let plan = desk.plan_class(&who("tea"), NOW, &want).await.unwrap();
    assert!(plan.rows.iter().all(|row| row.person != fay), "who is out and not named is left out");
    assert_eq!((plan.given, plan.wished), (8, 1));
    assert!(
        plan.rows.iter().filter_map(|r| r.given.as_ref()).all(|g| g.window.starts >= NOW),
        "nothing that has begun"
    );
    let plain = ClassRequest { reason: None, ..want.clone() };
    let allowed = desk.plan_class(&who("tea"), NOW, &plain).await.unwrap();
    assert_eq!(allowed.given, 4, "each may have one ahead");
    let last = allowed.rows.last().unwrap();
    assert!(last.given.is_none() && last.why.contains("as many bookings ahead as are allowed, 1"), "{last:?}");
    let mute = ClassRequest { reason: Some(" ".into()), ..want.clone() };
    assert_eq!(desk.plan_class(&who("tea"), NOW, &mute).await.unwrap_err().code, Code::HubReason);
    let over = ClassRequest { within: window(-1440, 0), ..want.clone() };
    assert_eq!(desk.plan_class(&who("tea"), NOW, &over).await.unwrap_err().code, Code::BookNotice);
    assert_eq!(plan, desk.plan_class(&who("tea"), NOW, &want).await.unwrap());
    let first = plan.rows.iter().find(|r| r.person.as_str() == "amy").unwrap();
    assert_eq!(first.given.as_ref().unwrap().wish, Some(1));
    let made = desk.book_class(&who("tea"), NOW, Some("k"), &want).await.unwrap();
    assert_eq!(made.len(), 8);
    assert_eq!(desk.book_class(&who("tea"), NOW, Some("k"), &want).await.unwrap().len(), 8);
    assert_eq!(made[0].note.as_deref(), Some("the exam"));
    // The same once more, as a request of its own: everybody has their slots, and only what was given up is missing.
    assert_eq!(desk.book_class(&who("tea"), at(1), Some("l"), &want).await.unwrap(), []);
    desk.cancel(&who("tea"), at(2), None, &made[0].id, &because("ill")).await.unwrap();
    let again = desk.book_class(&who("tea"), at(3), None, &want).await.unwrap();
    assert_eq!(again.iter().map(|b| &b.person).collect::<Vec<_>>(), [&made[0].person]);
    assert_eq!(desk.bookings(&who("tea"), NOW, &Listing { open: true, ..Listing::default() }).await.unwrap().len(), 8);
    healthy(&desk).await;
}

pub async fn only_the_plan_that_was_seen_is_booked(desk: Desk) {
    camp(&desk, &generous()).await;
    let want = ClassRequest {
        course: "k8s".parse().unwrap(),
        layout: "1x4c12g".parse().unwrap(),
        minutes: 60,
        slots: 1,
        within: window(60, 1440),
        wishes: vec![],
        reason: None,
        seen: None,
    };
    let shown = desk.plan_class(&who("tea"), NOW, &want).await.unwrap();
    assert_eq!(shown.stamp, desk.plan_class(&who("tea"), at(1), &want).await.unwrap().stamp);
    let taken = shown.rows[0].given.clone().unwrap();
    let first = BookRequest { window: taken.window, ..wish(Some(taken.server.as_str()), 0, 60) };
    desk.book(&who(shown.rows[3].person.as_str()), at(1), None, &first).await.unwrap();
    let book = async |seen: &str| {
        let want = ClassRequest { seen: Some(seen.into()), ..want.clone() };
        desk.book_class(&who("tea"), at(2), Some("k"), &want).await
    };
    assert_eq!(book(&shown.stamp).await.unwrap_err().code, Code::BookStale);
    let all = Listing { open: true, ..Listing::default() };
    assert_eq!(desk.bookings(&who("tea"), at(2), &all).await.unwrap().len(), 1, "nothing of it was booked");
    let fresh = desk.plan_class(&who("tea"), at(2), &want).await.unwrap();
    assert_eq!(book(&fresh.stamp).await.unwrap().len(), 3);
    assert_eq!(book(&fresh.stamp).await.unwrap().len(), 3, "the same answer");
    healthy(&desk).await;
}

pub async fn a_class_is_given_what_its_notice_allows(desk: Desk) {
    camp(&desk, &Policy { notice: 120, ..generous() }).await;
    let want = ClassRequest {
        course: "k8s".parse().unwrap(),
        layout: "1x4c12g".parse().unwrap(),
        minutes: 60,
        slots: 1,
        within: window(-60, 1440),
        wishes: vec![],
        reason: None,
        seen: None,
    };
    let first = async |want: &ClassRequest| {
        let plan = desk.plan_class(&who("tea"), at(10), want).await.unwrap();
        plan.rows.into_iter().filter_map(|r| r.given).map(|g| g.window.starts).min()
    };
    assert_eq!(first(&want).await, Some(at(150)), "two hours ahead, on the raster");
    assert_eq!(first(&ClassRequest { reason: Some("exam".into()), ..want }).await, Some(at(30)));
    healthy(&desk).await;
}

/// Somebody's hours of another lab are no less than those that the plan would give.
pub async fn what_somebody_has_ahead_counts_when_a_class_chooses(desk: Desk) {
    camp(&desk, &generous()).await;
    // One hour within the plan's time, and one after it.
    for from in [300, 2880] {
        let other = BookRequest { layout: Some("3x2c4g".parse().unwrap()), ..wish(Some("one"), from, from + 60) };
        desk.book(&who("amy"), NOW, None, &other).await.unwrap();
    }
    let wishes =
        |login: &str| StudentWishes { person: login.parse().unwrap(), wishes: vec![Wish { within: window(60, 120) }] };
    let want = ClassRequest {
        course: "k8s".parse().unwrap(),
        layout: "1x4c12g".parse().unwrap(),
        minutes: 60,
        slots: 1,
        within: window(60, 1440),
        wishes: vec![wishes("amy"), wishes("dan")],
        reason: None,
        seen: None,
    };
    let row = async |now, login: &str| {
        let plan = desk.plan_class(&who("tea"), now, &want).await.unwrap();
        plan.rows.into_iter().find(|row| row.person.as_str() == login).unwrap()
    };
    assert_eq!(row(NOW, "dan").await.given.unwrap().window, window(60, 120));
    // In the midst of the first slot its first half is in the recent use, and counts once.
    for now in [NOW, at(330)] {
        let amy = row(now, "amy").await;
        assert!(amy.why.starts_with("had 2.0 h before"), "{}", amy.why);
    }
    healthy(&desk).await;
}
