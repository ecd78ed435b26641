//! Changing and losing a slot: longer, shorter, given away, given back, cancelled.

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, NewServer, Report, Step, Taken},
        domain::{Health, Mode, Policy, State, Who},
    },
};

use crate::hub::world::{
    NOW, agent, at, because, book, camp, generous, healthy, new_server, report, reports, who, window, wish,
};

pub async fn a_holder_extends_gives_away_and_gives_back(desk: Desk) {
    camp(&desk, &Policy { person_hours: 3, ..Policy::default() }).await;
    let booking = book(&desk, "amy", 60, 120).await;
    let later = book(&desk, "bob", 180, 240).await;
    let edit = Edit::default();
    let far = desk.extend(&who("amy"), NOW, None, &booking.id, at(240), &edit).await.unwrap_err();
    assert_eq!(far.code, Code::BookConflict);
    assert!(far.all_hints()[0].contains(&format!("until {}", at(150))), "how far it goes: {far:?}");
    let longer = desk.extend(&who("amy"), NOW, None, &booking.id, at(150), &edit).await.unwrap();
    assert_eq!((longer.window, longer.version, longer.charged), (window(60, 150), 2, 90 * 60));
    let into = desk.extend(&who("amy"), NOW, None, &booking.id, at(180), &edit).await.unwrap_err();
    assert_eq!(into.code, Code::BookConflict, "the buffer would reach into bob's");
    assert!(into.all_hints()[0].contains(&at(150).to_string()), "that is the last end: {into:?}");
    let stale = Edit { version: Some(1), reason: None };
    assert_eq!(desk.cancel(&who("amy"), NOW, None, &booking.id, &stale).await.unwrap_err().code, Code::BookStale);

    let given = desk.give(&who("bob"), NOW, None, &later.id, &"cem".parse().unwrap(), &edit).await.unwrap();
    assert_eq!(given.person.as_str(), "cem");
    assert_eq!(
        desk.give(&who("bob"), NOW, None, &later.id, &"amy".parse().unwrap(), &edit).await.unwrap_err().code,
        Code::HubDenied
    );
    let own = desk.give(&who("cem"), NOW, None, &later.id, &"tea".parse().unwrap(), &edit).await;
    assert!(own.is_ok(), "a teacher may have a slot");

    let give = async |minute: i64| {
        let refused = desk.give(&who("amy"), at(minute), None, &booking.id, &"dan".parse().unwrap(), &edit).await;
        let refused = refused.unwrap_err();
        (refused.code, refused.what)
    };
    let begun = (Code::BookState, format!("booking {} has begun and can no longer be given away", booking.id));
    assert_eq!(give(61).await, begun, "its server is late");
    report(&desk, 1, &longer, Step::Arming, 60).await;
    assert_eq!(give(60).await, begun);
    report(&desk, 2, &longer, Step::Active, 60).await;
    assert_eq!(desk.cancel(&who("amy"), at(70), None, &booking.id, &edit).await.unwrap_err().code, Code::BookState);
    let released = desk.release(&who("amy"), at(75), None, &booking.id, &edit).await.unwrap();
    assert_eq!((released.window.ends, released.busy_until, released.charged), (at(75), at(85), 15 * 60));
    assert_eq!(desk.release(&who("amy"), at(76), None, &booking.id, &edit).await.unwrap_err().code, Code::BookState);
    let gone = book(&desk, "bob", 300, 360).await;
    desk.cancel(&who("bob"), NOW, None, &gone.id, &edit).await.unwrap();
    let over = desk.give(&who("bob"), NOW, None, &gone.id, &"cem".parse().unwrap(), &edit).await.unwrap_err();
    assert!(over.what.contains("is cancelled and starts"), "{over}");
    healthy(&desk).await;
}

pub async fn what_its_server_ends_before_its_time_counts_until_then(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, edit) = ("one".parse().unwrap(), Edit::default());
    let booking = book(&desk, "amy", 60, 120).await;
    reports(&desk, 1, &booking, &[Step::Arming, Step::Active, Step::LoggedIn], 60).await;
    let extend = async |now| desk.extend(&who("amy"), now, None, &booking.id, at(150), &edit).await;
    let late = extend(at(120) - 9).await.unwrap_err();
    assert_eq!(late.code, Code::BookState);
    assert!(late.all_hints()[0].contains("would not hear of it"), "{late}");
    assert_eq!(extend(at(120) - 10).await.unwrap().charged, 90 * 60);
    // Its agent did not hear of it all the same.
    assert_eq!(report(&desk, 4, &booking, Step::Ending, 120).await, Taken::Applied);
    let after = desk.booking(&who("amy"), at(120), &booking.id).await.unwrap();
    assert_eq!((after.state, after.window, after.busy_until), (State::Ending, window(60, 120), at(130)));
    assert_eq!(after.charged, 3600);
    reports(&desk, 5, &booking, &[Step::Saving, Step::Resetting, Step::Done], 121).await;
    let next = desk.book(&who("bob"), at(122), None, &wish(Some("one"), 150, 210)).await.unwrap();

    // By its own clock it may be at the end already.
    reports(&desk, 8, &next, &[Step::Arming, Step::Active, Step::LoggedIn], 150).await;
    let ending =
        |number, id, moment| Report { number, booking: id, step: Step::Ending, moment, note: None, account: None };
    let told = ending(11, next.id.clone(), at(210) - 3);
    assert_eq!(desk.report(&agent("one"), at(210), &one, &[told]).await.unwrap()[0].taken, Taken::Applied);
    let after = desk.booking(&who("bob"), at(210), &next.id).await.unwrap();
    assert_eq!((after.window, after.charged), (window(150, 210), 3600));
    reports(&desk, 12, &next, &[Step::Saving, Step::Resetting, Step::Done], 211).await;

    // What its holder gave back counts until then, whenever its server hears of it.
    let given = desk.book(&who("cem"), at(212), None, &wish(Some("one"), 240, 300)).await.unwrap();
    reports(&desk, 15, &given, &[Step::Arming, Step::Active], 240).await;
    desk.release(&who("cem"), at(255), None, &given.id, &edit).await.unwrap();
    let told = ending(17, given.id.clone(), at(250));
    assert_eq!(desk.report(&agent("one"), at(256), &one, &[told]).await.unwrap()[0].taken, Taken::Applied);
    let after = desk.booking(&who("cem"), at(256), &given.id).await.unwrap();
    assert_eq!((after.window, after.charged), (window(240, 255), 15 * 60));
    healthy(&desk).await;
}

pub async fn a_teacher_extends_past_the_rules_but_past_nobody(desk: Desk) {
    camp(&desk, &Policy { person_hours: 1, ..Policy::default() }).await;
    let hours = "mon-fri 08:00-10:00".parse().unwrap();
    let new = NewServer { opening: hours, ..new_server("two", Mode::Exclusive, 8, 32) };
    desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
    let booking = desk.book(&who("amy"), NOW, None, &wish(Some("two"), 60, 120)).await.unwrap();
    let extend =
        async |login: &str, to: i64, edit: Edit| desk.extend(&who(login), NOW, None, &booking.id, at(to), &edit).await;
    assert_eq!(extend("amy", 150, because("exam")).await.unwrap_err().code, Code::BookClosed, "she is no teacher");
    assert_eq!(extend("tea", 150, Edit::default()).await.unwrap_err().code, Code::HubReason);
    let longer = extend("tea", 150, because("exam")).await.unwrap();
    assert_eq!((longer.window, longer.charged, longer.note.as_deref()), (window(60, 150), 90 * 60, Some("exam")));

    let theirs = BookRequest { reason: Some("exam".into()), ..wish(Some("two"), 240, 300) };
    desk.book(&who("tea"), NOW, None, &BookRequest { person: Some("bob".parse().unwrap()), ..theirs }).await.unwrap();
    let into = extend("tea", 240, because("exam")).await.unwrap_err();
    assert_eq!(into.code, Code::BookConflict, "never past another");
    assert!(into.all_hints()[0].contains(&format!("until {}", at(210))), "{into:?}");
    let endless = extend("tea", 330, because("exam")).await.unwrap_err();
    assert_eq!(endless.code, Code::BookWindow, "nor past the longest");
    desk.add_maintenance(&Caller::Console, NOW, None, &new.id, window(200, 230), "new disk").await.unwrap();
    assert_eq!(extend("tea", 210, because("exam")).await.unwrap_err().code, Code::BookMaintenance);
    healthy(&desk).await;
}

pub async fn what_is_released_while_armed_never_opens(desk: Desk) {
    camp(&desk, &generous()).await;
    let (mine, edit) = (book(&desk, "amy", 60, 120).await, Edit::default());
    report(&desk, 1, &mine, Step::Arming, 56).await;
    let released = desk.release(&who("amy"), at(57), None, &mine.id, &edit).await.unwrap();
    assert_eq!((released.ended_by, released.charged), (Some(Who::Holder), 0));
    let plan = desk.plan_for(&agent("one"), at(57), &"one".parse().unwrap()).await.unwrap();
    assert_eq!(plan.slots[0].ended_by, Some(Who::Holder));
    let more = desk.extend(&who("amy"), at(58), None, &mine.id, at(150), &edit).await.unwrap_err();
    assert_eq!(more.code, Code::BookState, "what was given up is not taken back");
    assert_eq!(desk.release(&who("amy"), at(58), None, &mine.id, &edit).await.unwrap_err().code, Code::BookState);
    reports(&desk, 2, &mine, &[Step::Ending, Step::Resetting, Step::Done], 59).await;
    desk.book(&who("bob"), at(59), None, &wish(Some("one"), 90, 150)).await.unwrap();
    healthy(&desk).await;
}

pub async fn others_bookings_need_a_teacher_with_a_reason(desk: Desk) {
    camp(&desk, &Policy { person_hours: 1, ..Policy::default() }).await;
    let booking = book(&desk, "amy", 60, 120).await;
    let denied = desk.cancel(&who("bob"), NOW, None, &booking.id, &because("mine!")).await.unwrap_err();
    assert_eq!(denied.code, Code::HubDenied);
    let mute = desk.cancel(&who("tea"), NOW, None, &booking.id, &Edit::default()).await.unwrap_err();
    assert_eq!(mute.code, Code::HubReason);
    desk.cancel(&who("tea"), NOW, None, &booking.id, &because("exam")).await.unwrap();
    let mut over = wish(Some("one"), 60, 240);
    over.person = Some("amy".parse().unwrap());
    assert_eq!(desk.book(&who("bob"), NOW, None, &over).await.unwrap_err().problem.code, Code::HubDenied);
    assert_eq!(desk.book(&who("tea"), NOW, None, &over).await.unwrap_err().problem.code, Code::BookQuota);
    for bad in [String::new(), " \n".into(), "x".repeat(501)] {
        let (why, booking) = (because(&bad), book(&desk, "cem", 600, 630).await);
        over.reason = Some(bad.clone());
        let codes = [
            desk.book(&who("tea"), NOW, None, &over).await.unwrap_err().problem.code,
            desk.wait(&who("tea"), NOW, None, &over).await.unwrap_err().code,
            desk.cancel(&who("tea"), NOW, None, &booking.id, &why).await.unwrap_err().code,
            desk.extend(&who("tea"), NOW, None, &booking.id, at(660), &why).await.unwrap_err().code,
            desk.give(&who("tea"), NOW, None, &booking.id, &"dan".parse().unwrap(), &why).await.unwrap_err().code,
            desk.set_health(&Caller::Console, NOW, None, &"one".parse().unwrap(), Health::Away, &bad)
                .await
                .unwrap_err()
                .code,
        ];
        assert_eq!(codes, [Code::HubReason; 6], "{} characters", bad.len());
        desk.cancel(&who("tea"), NOW, None, &booking.id, &because(" exam ")).await.unwrap();
    }
    over.reason = Some(" exam\n".into());
    let made = desk.book(&who("tea"), NOW, None, &over).await.unwrap();
    assert_eq!((made.person.as_str(), made.note.as_deref()), ("amy", Some("exam")));
    assert_eq!(desk.booking(&who("bob"), NOW, &made.id).await.unwrap().note, None, "reasons are not for everybody");
    let rows = desk.audit(&Caller::Console, NOW, None, Some("person:tea".into()), 10).await.unwrap();
    assert!(!rows.is_empty() && rows.iter().all(|r| r.reason.as_deref() == Some("exam")), "{rows:?}");
    for student in ["amy", "bob"] {
        assert_eq!(desk.people(&who(student), NOW).await.unwrap_err().code, Code::HubDenied);
        let health = desk.set_health(&who(student), NOW, None, &"one".parse().unwrap(), Health::Away, "x").await;
        assert_eq!(health.unwrap_err().code, Code::HubDenied);
    }
    healthy(&desk).await;
}
