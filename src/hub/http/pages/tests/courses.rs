//! What of a week is free, for whom: by room, and by the rules of each of the viewer's courses.

use super::*;

#[test]
fn a_shared_server_is_free_only_where_a_lab_has_room() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let midnight = at("2026-11-24T00:00:00Z");
    // Its lab of 16 GiB leaves 14 GiB of 30, which is one more lab, or 10 GiB of 26, which is none.
    let bob = booking(1, "bob", at("2026-11-23T10:00:00Z"), 110);
    let both = vec![(at("2026-11-23T08:00:00Z"), at("2026-11-23T09:50:00Z")), (at("2026-11-23T12:00:00Z"), midnight)];
    for (gib, want) in [(32, vec![(now, midnight)]), (28, both)] {
        let mut one = open(&civil, now, vec![bob.clone()]);
        (one.server.mode, one.server.memory) = (Mode::Shared, Bytes::gib(gib));
        one.places = places(&one.server);
        assert_eq!(one.places, 2, "a place is left in any case");
        let view = view(&civil, now, vec![one]);
        let free = view.days[0].rows[0].items.iter().filter(|item| item.kind == "free");
        let free: Vec<(Epoch, Epoch)> =
            free.map(|item| (Epoch(item.starts.unwrap()), Epoch(item.ends.unwrap()))).collect();
        assert_eq!(free, want, "{gib} GiB");
    }
}

fn course(id: &str, grid: u16, longest: u32) -> Course {
    let policy = Policy { grid: grid.try_into().unwrap(), longest, ..Policy::default() };
    Course { id: id.parse().unwrap(), title: id.to_uppercase(), policy, version: 1 }
}

#[test]
fn a_row_of_another_course_says_so() {
    let (now, own) = (at("2026-11-23T08:00:00Z"), "amy".parse().unwrap());
    for (lang, told) in [(Lang::En, "for another course"), (Lang::Zh, "供其他课程使用")] {
        let civil = civil("UTC", lang);
        let text = |courses: &[Course]| {
            let mut theirs = open(&civil, now, vec![]);
            theirs.server.course = "net".parse().ok();
            let (_, window) = window_of(&civil, civil.zone.date(now));
            let week = Week { window, servers: vec![theirs], waiting: vec![] };
            let week = WeekView::new(&week, &eyes(&civil, now, &own, courses)).unwrap();
            page(lang, Some("Amy"), &Home { week, ..home(&civil, now, vec![], &[]) }, "home.html")
        };
        // It stands in the row's name, by which readers of screens call the row.
        let name = format!("one <small>{told}</small></span>");
        assert_eq!(text(&[course("k8s", 30, 240)]).matches(&name).count(), 7);
        for theirs in [&[course("k8s", 30, 240), course("net", 30, 240)][..], &[]] {
            assert!(!text(theirs).contains(told));
        }
    }
}

#[test]
fn free_time_is_told_by_the_raster_of_each_course() {
    let (civil, now, own) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"), "amy".parse().unwrap());
    let courses = [course("k8s", 30, 240), course("net", 15, 60)];
    let (_, window) = window_of(&civil, civil.zone.date(now));
    // Free from 10:15 with the clean-up, then for a quarter of an hour only, then from 11:40.
    let taken = |n, from: &str, minutes| booking(n, "bob", at(from), minutes);
    let bookings = vec![
        taken(1, "2026-11-23T07:00:00Z", 185),
        taken(2, "2026-11-23T10:45:00Z", 5),
        taken(3, "2026-11-23T11:25:00Z", 5),
    ];
    let row = |of: &str| {
        let mut there = open(&civil, now, bookings.clone());
        there.server.course = of.parse().ok();
        let week = Week { window, servers: vec![there], waiting: vec![] };
        let view = WeekView::new(&week, &eyes(&civil, now, &own, &courses)).unwrap();
        view.days[0].rows[0].clone()
    };
    let firsts = |row: &Row| -> Vec<(i64, Option<String>)> {
        let free = row.items.iter().filter(|item| item.kind == "free");
        free.map(|item| (item.starts.unwrap(), item.lines.clone())).collect()
    };
    let first = |time: &str| at(&format!("2026-11-23T{time}:00Z")).0;
    let both = row("");
    assert_eq!(both.grids, "15 30");
    let lines = |one: i64, other: i64| (one, Some(format!("{one} {other}")));
    assert_eq!(
        firsts(&both),
        [lines(first("10:15"), 0), lines(first("11:00"), 0), lines(first("11:45"), first("12:00"))],
        "what is too short for one course is free for the other"
    );
    assert!(both.html.contains(&format!("data-lines=\"{} {}\"", first("11:45"), first("12:00"))), "{}", both.html);
    let one = row("k8s");
    assert_eq!((one.grids.as_str(), firsts(&one)), ("30", vec![(first("12:00"), None)]));
    assert!(!one.html.contains("data-lines"), "{}", one.html);
}

#[test]
fn free_time_reaches_as_far_as_any_course_allows() {
    let (civil, now, own) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"), "amy".parse().unwrap());
    let mut courses = [course("k8s", 30, 240), course("net", 30, 240)];
    (courses[0].policy.horizon, courses[1].policy.horizon) = (1, 3);
    let (_, window) = window_of(&civil, civil.zone.date(now));
    for (of, days) in [("k8s", 1), ("net", 3), ("", 3)] {
        let mut there = open(&civil, now, vec![]);
        there.server.course = of.parse().ok();
        let week = Week { window, servers: vec![there], waiting: vec![] };
        let view = WeekView::new(&week, &eyes(&civil, now, &own, &courses)).unwrap();
        let items = view.days.iter().flat_map(|day| &day.rows).flat_map(|row| &row.items);
        assert_eq!(items.filter_map(|item| item.ends).max(), Some((now + days * 86_400).0), "{of:?}");
    }
}

#[test]
fn the_form_takes_what_any_of_the_courses_does() {
    let civil = civil("UTC", Lang::En);
    let courses = [course("k8s", 30, 240), course("net", 20, 60)];
    let form = |start: &str, end: &str| WishForm {
        start: format!("2026-11-23T{start}"),
        end: format!("2026-11-23T{end}"),
        ..WishForm::default()
    };
    let steps = |zone: &str, form: &WishForm| {
        let servers = [Server { zone: zone.parse().unwrap(), ..server("one") }];
        let all = Choices::new(&servers, &courses, form, &civil);
        let one = Choices::new(&servers, &courses[..1], form, &civil);
        assert!(one.courses.is_empty() && one.longest.ends_with("is 4 h."), "{}", one.longest);
        (all.step, all.courses.iter().map(|c| c.step).collect::<Vec<_>>(), one.step)
    };
    assert_eq!(steps("UTC", &form("10:00", "11:00")), (600, vec![1800, 1200], 1800));
    // What stands in the fields is where browsers count from, be it on a raster or not.
    assert_eq!(steps("UTC", &form("10:15", "11:15")), (300, vec![900, 300], 900));
    assert_eq!(steps("UTC", &form("10:07", "11:07")), (60, vec![60, 60], 60));
    // The lines of a raster there are at :15 and :45 of this clock.
    assert_eq!(steps("Asia/Kathmandu", &form("10:00", "11:00")), (300, vec![900, 300], 900));
    assert_eq!(steps("UTC", &WishForm::default()), (600, vec![1800, 1200], 1800));

    let now = at("2026-11-23T08:00:00Z");
    for (lang, longest) in [
        (Lang::En, "The longest slot is 4 h (K8S) · 1 h (NET)."),
        (Lang::Zh, "最长时段：4 小时 (K8S) · 1 小时 (NET)。"),
    ] {
        let civil = Civil { lang, ..civil.clone() };
        let mut home = home(&civil, now, vec![], &[]);
        home.choices = Choices::new(&[server("one")], &courses, &home.form, &civil);
        home.form.course = "net".into();
        let text = page(lang, Some("Amy"), &home, "home.html");
        assert!(text.contains(longest), "{text}");
        assert_eq!(text.matches("step=\"600\" required").count(), 2, "{text}");
        for option in
            ["\"k8s\" data-grid=\"30\" data-step=\"1800\">", "\"net\" data-grid=\"20\" data-step=\"1200\" selected>"]
        {
            assert!(text.contains(&format!("<option value={option}")), "{option}: {text}");
        }
    }
}

#[test]
fn a_silent_server_has_nothing_free_within_the_hour_and_says_so() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    for (ago, first, health) in [(60, "08:00", None), (600, "09:00", Some("silent"))] {
        let mut there = open(&civil, now, vec![]);
        there.server.seen = Some(now - ago);
        let view = view(&civil, now, vec![there]);
        let row = &view.days[0].rows[0];
        let free = row.items.iter().find(|item| item.kind == "free").and_then(|item| item.starts);
        assert_eq!((free, row.health.as_deref()), (Some(at(&format!("2026-11-23T{first}:00Z")).0), health));
    }
}
