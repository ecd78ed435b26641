//! What the page of a booking says of it, by where it stands; and where the week of the first page begins.

use super::*;

/// The page of a booking for its holder.
fn shown(booking: &Booking, lang: Lang) -> String {
    let (policy, caller, civil, one) = (Policy::default(), amy(), civil("UTC", lang), server("one"));
    let look = Look { caller: &caller, now: at("2026-11-23T08:00:00Z"), civil: &civil, labs: &[] };
    let slot = Slot::new(booking, Some(&one), &policy, &look);
    let one = bare(slot);
    page(lang, Some("Amy"), &one, "booking.html")
}

#[test]
fn only_what_lets_somebody_in_says_how_to_connect() {
    for state in State::ALL {
        let booking = Booking { state, ..booking(1, "amy", at("2026-11-23T09:00:00Z"), 60) };
        let text = shown(&booking, Lang::En);
        let opens = matches!(state, State::Booked | State::Delayed | State::Arming | State::Active);
        for told in ["Connect:", "How to connect", "kubecamp book ssh"] {
            assert_eq!(text.contains(told), opens, "{state}: {told}");
        }
    }
}

#[test]
fn why_a_slot_was_moved_is_told_in_the_viewers_language() {
    let note = Some("server two is away: fan; moved to one".into());
    let moved = Booking { note, moves: 1, ..booking(1, "amy", at("2026-11-23T09:00:00Z"), 60) };
    for (lang, told) in [
        (Lang::En, "Note: server two is away: fan; moved to one<"),
        (Lang::Zh, "备注： 服务器 two 目前不可用：fan；已移至 one。<"),
    ] {
        let text = shown(&moved, lang);
        assert!(text.contains(told), "{text}");
    }
}

#[test]
fn who_let_an_offer_lapse_reads_when_they_are_asked_again() {
    let told = |state, lapses, lang| {
        let waits = Booking { state, lapses, ..booking(1, "amy", at("2026-11-23T09:00:00Z"), 60) };
        let text = shown(&waits, lang);
        text.contains("You are asked again only when") || text.contains("才会再次询问您")
    };
    for lang in [Lang::En, Lang::Zh] {
        assert!(told(State::Waitlisted, 1, lang));
        assert!(!told(State::Waitlisted, 0, lang) && !told(State::Booked, 1, lang));
    }
}

#[test]
fn a_slot_on_a_server_that_nobody_enrolled_says_so() {
    let (policy, caller, now) = (Policy::default(), amy(), at("2026-11-23T08:00:00Z"));
    let ahead = booking(1, "amy", at("2026-11-23T09:00:00Z"), 60);
    for (lang, told) in [(Lang::En, "this slot opens to nobody"), (Lang::Zh, "此时段不会向任何人开放")] {
        let civil = civil("UTC", lang);
        let look = Look { caller: &caller, now, civil: &civil, labs: &[] };
        let says = |booking: &Booking, server: &Server| {
            let slot = Slot::new(booking, Some(server), &policy, &look);
            page(lang, Some("Amy"), &bare(slot), "booking.html").contains(told)
        };
        let strange = Server { issued: 0, ..server("one") };
        assert!(says(&ahead, &strange) && !says(&ahead, &server("one")), "its agent has a plan");
        assert!(!says(&ahead, &Server { seen: Some(now), ..strange.clone() }));
        assert!(!says(&Booking { state: State::Cancelled, ..ahead.clone() }, &strange));
    }
}

#[test]
fn a_slot_where_no_labs_are_made_is_called_a_login() {
    let (policy, caller, now) = (Policy::default(), amy(), at("2026-11-23T08:00:00Z"));
    let ahead = booking(1, "amy", at("2026-11-23T09:00:00Z"), 60);
    for (lang, told) in [(Lang::En, "a login, no lab"), (Lang::Zh, "仅登录，无实验环境")] {
        let civil = civil("UTC", lang);
        let look = Look { caller: &caller, now, civil: &civil, labs: &[] };
        for (makes_labs, is_login) in [(Some(false), true), (Some(true), false), (None, false)] {
            let slot = Slot::new(&ahead, Some(&Server { makes_labs, ..server("one") }), &policy, &look);
            assert_eq!(slot.layout == told, is_login, "{}", slot.layout);
        }
    }
}

#[test]
fn a_server_that_nobody_enrolled_is_not_called_healthy() {
    let now = at("2026-11-23T08:00:00Z");
    for (lang, told) in [(Lang::En, "not enrolled"), (Lang::Zh, "未接入")] {
        let (caller, civil, frame) = (Caller::Console, civil("UTC", lang), Frame::open(lang, "/teacher", now));
        let visit = Visit { caller, person: None, civil, now, frame };
        let badge = |server: &Server| {
            let shown = teacher::machine(server, &[], &visit);
            (shown.badge, shown.health_text == told)
        };
        let strange = Server { issued: 0, ..server("one") };
        assert_eq!((badge(&strange), badge(&server("one"))), (("warn", true), ("healthy", false)));
        assert_eq!(badge(&Server { health: Health::Away, ..strange }), ("away", false));
    }
}

#[test]
fn what_was_ended_unheard_says_so() {
    let ended_by = Some(Who::Holder);
    let ended = Booking { ended_by, ..booking(1, "amy", at("2026-11-23T07:00:00Z"), 60) };
    for (lang, told) in [(Lang::En, "ended while its server was not heard"), (Lang::Zh, "收不到服务器消息时被结束")]
    {
        assert!(shown(&ended, lang).contains(told));
        assert!(!shown(&Booking { ended_by: None, ..ended.clone() }, lang).contains(told));
    }
}

#[test]
fn the_days_of_this_week_that_are_over_are_folded() {
    let civil = civil("UTC", Lang::En);
    // A Monday has none yet, and of a week that is over none is more than the others.
    for (now, folded) in [("2026-11-23T08:00:00Z", 0), ("2026-11-28T08:00:00Z", 5), ("2026-11-29T08:00:00Z", 6)] {
        let text = page(Lang::En, Some("Amy"), &home(&civil, at(now), vec![], &[]), "home.html");
        let fold = text.split_once("<details").and_then(|(_, rest)| rest.split_once("</details>"));
        let days = |text: &str| text.matches("<section class=\"day").count();
        assert_eq!(fold.map_or(0, |(fold, _)| days(fold)), folded, "{text}");
        assert!(days(&text) == 7 && text.contains("href=\"/#today\""), "{text}");
        assert!(fold.map_or(text.as_str(), |(_, rest)| rest).contains("class=\"day today\" id=\"today\""), "{text}");
    }
    let (_, window) = window_of(&civil, civil.zone.date(at("2026-11-18T08:00:00Z")));
    let (week, own) = (Week { window, servers: vec![], waiting: vec![] }, "amy".parse().unwrap());
    let seen = WeekView::new(&week, &eyes(&civil, at("2026-11-28T08:00:00Z"), &own, &[])).unwrap();
    assert!(!seen.folds && seen.days.iter().all(|day| day.over));
}
