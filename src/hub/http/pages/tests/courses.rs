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
