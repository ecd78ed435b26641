//! Weeks and pages from made-up servers: what is shown, escaped, and how fast.

mod courses;
mod plans;
mod slots;

use super::{
    actions::Instead,
    draw,
    entry::{self, Entry},
    home::{Home, One},
    slot::Slot,
    visit::{Frame, Visit},
    *,
};
use crate::{
    core::Bytes,
    hub::{
        desk::{Caller, Week, WeekServer},
        domain::*,
    },
};

fn at(text: &str) -> Epoch {
    text.parse().unwrap()
}

fn server(id: &str) -> Server {
    Server {
        id: id.parse().unwrap(),
        address: "[2001:db8::1]:2222".into(),
        course: None,
        cores: 8,
        memory: Bytes::gib(32),
        disk: None,
        labels: [].into(),
        opening: OpeningHours::always(),
        zone: Zone::utc(),
        buffer: 600,
        mode: Mode::Exclusive,
        health: Health::Healthy,
        health_note: None,
        occupant: None,
        revision: 1,
        issued: 1,
        acked: 1,
        seen: None,
        clock_offset: 0,
        makes_labs: None,
        version: 1,
    }
}

fn booking(n: u64, person: &str, starts: Epoch, minutes: i64) -> Booking {
    let window = Window { starts, ends: starts + minutes * 60 };
    Booking {
        id: BookingId::from_random(n.to_be_bytes()),
        server: Some("one".parse().unwrap()),
        place: Some(0),
        person: person.parse().unwrap(),
        course: "k8s".parse().unwrap(),
        group: None,
        layout: "2x4c8g".parse().unwrap(),
        window,
        busy_until: window.ends + 600,
        state: State::Booked,
        since: starts,
        version: 1,
        created: starts,
        updated: starts,
        offer_until: None,
        came: None,
        charged: minutes * 60,
        lapses: 0,
        series: None,
        wished: None,
        note: None,
        refused: None,
        stranded: None,
        moves: 0,
        labels: [].into(),
        ended_by: None,
    }
}

fn civil(zone: &str, lang: Lang) -> Civil {
    Civil { zone: zone.parse().unwrap(), lang }
}

fn amy() -> Caller {
    Caller::Person { id: "amy".parse().unwrap(), role: Role::Student }
}

fn view(civil: &Civil, now: Epoch, servers: Vec<WeekServer>) -> WeekView {
    let (_, window) = window_of(civil, civil.zone.date(now));
    let week = Week { window, servers, waiting: vec![] };
    WeekView::new(&week, &eyes(civil, now, &"amy".parse().unwrap(), &[])).unwrap()
}

fn eyes<'a>(clock: &'a Civil, now: Epoch, own: &'a PersonId, courses: &'a [Course]) -> Eyes<'a> {
    let (grid, earliest, horizon) = (Grid::HALF_HOURS, Policy::default().earliest(now), now + 28 * 86_400);
    Eyes { clock, now, own: Some(own), teacher: false, grid, courses, earliest, horizon }
}

fn open(civil: &Civil, now: Epoch, bookings: Vec<Booking>) -> WeekServer {
    let (_, window) = window_of(civil, civil.zone.date(now));
    WeekServer { server: server("one"), places: 1, open: vec![window], maintenance: vec![], bookings: bookings.into() }
}

fn home(civil: &Civil, now: Epoch, servers: Vec<WeekServer>, own: &[Booking]) -> Home {
    let (policy, caller) = (Policy::default(), amy());
    let look = Look { caller: &caller, now, civil, labs: &[] };
    let (one, form) = (server("one"), WishForm::fresh(civil, &policy, now, None, None));
    Home {
        slots: own.iter().map(|b| Slot::new(b, Some(&one), &policy, &look)).collect(),
        lost: vec![],
        choices: Choices::new(std::slice::from_ref(&one), &[], &form, civil),
        form,
        week: view(civil, now, servers),
        waiting: vec![],
        people: vec![],
    }
}

/// The page of a booking of which nothing is known besides.
fn bare(slot: Slot) -> One {
    One {
        slot,
        once: "x".into(),
        people: vec![],
        held_up: None,
        stuck: false,
        instead: vec![],
        series: None,
        entry: None,
    }
}

fn page(lang: Lang, name: Option<&str>, values: &impl serde::Serialize, template: &str) -> String {
    let frame =
        Frame { name: name.map(ToOwned::to_owned), csrf: "c5rf".into(), ..Frame::open(lang, "/?a=1&b", Epoch(0)) };
    draw::draw(template, Words::of(lang), &frame, values).unwrap_or_else(|p| panic!("{p}"))
}

#[test]
fn where_no_lab_fits_nothing_is_free() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let mut tiny = open(&civil, now, vec![]);
    tiny.server.memory = Bytes::gib(8);
    assert!(Choices::new(std::slice::from_ref(&tiny.server), &[], &WishForm::default(), &civil).servers.is_empty());
    let view = view(&civil, now, vec![tiny]);
    assert!(view.days.iter().all(|day| day.rows[0].items.iter().all(|item| item.kind != "free")));
}

#[test]
fn what_the_viewer_may_not_book_is_not_free() {
    let (civil, now, own) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"), "amy".parse().unwrap());
    let mut theirs = open(&civil, now, vec![]);
    theirs.server.course = "net".parse().ok();
    let (policy, server) = (Policy { notice: 120, ..Policy::default() }, theirs.server.clone());
    let (_, window) = window_of(&civil, civil.zone.date(now));
    let week = Week { window, servers: vec![theirs], waiting: vec![] };
    let seen = |course: &str| {
        let (id, title, version) = (course.parse().unwrap(), course.to_owned(), 1);
        let courses = [Course { id, title, policy: policy.clone(), version }];
        let eyes = Eyes { earliest: policy.earliest(now), ..eyes(&civil, now, &own, &courses) };
        let view = WeekView::new(&week, &eyes).unwrap();
        let mut items = view.days.into_iter().flat_map(|day| day.rows).flat_map(|row| row.items);
        let first = items.find(|item| item.kind == "free").and_then(|item| item.starts);
        (first, Choices::new(std::slice::from_ref(&server), &courses, &WishForm::default(), &civil).servers.len())
    };
    assert_eq!(seen("net"), (Some(at("2026-11-23T10:00:00Z").0), 1), "after the notice of two hours");
    assert_eq!(seen("k8s"), (None, 0), "of another course");
}

#[test]
fn of_several_courses_each_has_its_own_notice() {
    let (civil, now, own) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"), "amy".parse().unwrap());
    let course = |id: &str, notice| {
        let policy = Policy { notice, ..Policy::default() };
        Course { id: id.parse().unwrap(), title: id.to_owned(), policy, version: 1 }
    };
    let courses = [course("net", 120), course("k8s", 0)];
    for (of, first) in [("net", "10:00"), ("k8s", "08:00"), ("", "08:00")] {
        let mut there = open(&civil, now, vec![]);
        there.server.course = of.parse().ok();
        let (_, window) = window_of(&civil, civil.zone.date(now));
        let eyes = Eyes { earliest: courses[0].policy.earliest(now), ..eyes(&civil, now, &own, &courses) };
        let view = WeekView::new(&Week { window, servers: vec![there], waiting: vec![] }, &eyes).unwrap();
        let items = view.days.into_iter().flat_map(|day| day.rows).flat_map(|row| row.items);
        let starts: Vec<i64> = items.filter(|item| item.kind == "free").filter_map(|item| item.starts).collect();
        assert_eq!(starts[0], at(&format!("2026-11-23T{first}:00Z")).0, "{of:?}");
    }
}

#[test]
fn a_day_shows_what_is_taken_free_and_kept_for_clean_up() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let all =
        vec![booking(1, "amy", at("2026-11-23T10:00:00Z"), 120), booking(2, "bob", at("2026-11-23T14:00:00Z"), 60)];
    let view = view(&civil, now, vec![open(&civil, now, all)]);
    let items = &view.days[0].rows[0].items;
    let seen: Vec<(&str, i64, i64)> = items.iter().map(|i| (i.kind, i.from, i.to)).collect();
    let want = [
        ("free", 90, 118),
        ("own", 120, 144),
        ("buffer", 144, 146),
        ("free", 146, 166),
        ("taken", 168, 180),
        ("buffer", 180, 182),
        ("free", 182, 288),
    ];
    // The free time before now is the step of the raster that runs; the first column depends on it.
    assert_eq!(seen[1..], want[1..]);
    assert_eq!(items[3].starts, Some(at("2026-11-23T12:30:00Z").0), "on the raster, after the clean-up");
    assert_eq!(items[1].text, "You");
    assert!(items[1].href.is_some() && items[4].href.is_none(), "another's booking is no link for a student");
}

#[test]
fn days_of_23_and_25_hours_are_as_long_as_they_are() {
    let berlin = civil("Europe/Berlin", Lang::En);
    for (now, units, hours, note) in [
        ("2026-03-25T08:00:00Z", 23 * 12, 23, "23 hours: clocks change"),
        ("2026-10-20T08:00:00Z", 25 * 12, 25, "25 hours: clocks change"),
    ] {
        let view = view(&berlin, at(now), vec![open(&berlin, at(now), vec![])]);
        let sunday = &view.days[6];
        assert_eq!((sunday.units, sunday.hours.len()), (units, hours));
        assert_eq!(sunday.note.as_deref(), Some(note));
        assert!(view.days[..6].iter().all(|d| d.units == 288 && d.note.is_none()));
        let twos = sunday.hours.iter().filter(|h| h.local == "02").count();
        assert_eq!(twos, if units > 288 { 2 } else { 0 });
    }
    let lord_howe = civil("Australia/Lord_Howe", Lang::En);
    let view = view(&lord_howe, at("2026-03-31T00:00:00Z"), vec![]);
    assert_eq!(view.days[6].units, 294, "clocks go back by half an hour");
}

#[test]
fn foreign_text_is_escaped() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let bad = "<script>alert('x')</script>\"><b>";
    let mut one = open(&civil, now, vec![]);
    one.maintenance = vec![Maintenance {
        id: 1,
        server: "one".parse().unwrap(),
        window: Window { starts: now, ends: now + 7200 },
        reason: bad.into(),
    }];
    let mut sick = open(&civil, now, vec![]);
    (sick.server.health, sick.server.health_note) = (Health::Quarantined, Some(bad.into()));
    let own = Booking { refused: Some(bad.into()), ..booking(1, "amy", now + 3600, 60) };
    let mut home = home(&civil, now, vec![one, sick], &[own]);
    home.form.person = bad.into();
    let text = page(Lang::En, Some(bad), &home, "home.html");
    assert!(!text.contains("<script>alert") && !text.contains("\"><b>"));
    assert!(text.matches("&lt;script&gt;").count() >= 4 && text.contains("does not take this slot"), "{text}");
    assert_eq!(text.matches("c5rf").count(), text.matches("method=\"post\"").count());
}

#[test]
fn a_slot_that_was_moved_says_so_once() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let (policy, caller, one) = (Policy::default(), amy(), server("one"));
    let look = Look { caller: &caller, now, civil: &civil, labs: &[] };
    let note = "server two is in maintenance 2026-11-24T08:00:00Z to 2026-11-24T10:00:00Z: fan; moved to one";
    let own = Booking { note: Some(note.into()), moves: 1, ..booking(1, "amy", now + 3600, 60) };
    let slot = Slot::new(&own, Some(&one), &policy, &look);
    let shown = bare(slot);
    let home = page(Lang::En, Some("Amy"), &home(&civil, now, vec![], &[own]), "home.html");
    for text in [home, page(Lang::En, Some("Amy"), &shown, "booking.html")] {
        assert_eq!(text.matches("2026-11-24 08:00–10:00 (UTC): fan; moved to one").count(), 1, "{text}");
    }
}

#[test]
fn a_slot_that_its_server_does_not_take_says_why_and_where_it_can_go() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let (policy, caller, mut one) = (Policy::default(), amy(), server("one"));
    (one.health, one.health_note) = (Health::Quarantined, Some("a process is left".into()));
    let look = Look { caller: &caller, now, civil: &civil, labs: &[] };
    let slot = Slot::new(&booking(1, "amy", now + 3600, 60), Some(&one), &policy, &look);
    let free = Instead {
        server: "two".into(),
        when: "later".into(),
        utc: "later (UTC)".into(),
        starts: now.0 + 7200,
        ends: now.0 + 10_800,
        lab: None,
        once: "x".into(),
    };
    let mut shown = One { stuck: true, instead: vec![free], ..bare(slot) };
    let text = page(Lang::En, Some("Amy"), &shown, "booking.html");
    assert!(text.contains("one: quarantined a process is left") && text.contains("two: later"), "{text}");
    assert!(text.contains("/move\"") && text.contains(&format!("value=\"{}\"", now.0 + 7200)), "{text}");
    shown.instead.clear();
    let text = page(Lang::En, Some("Amy"), &shown, "booking.html");
    assert!(!text.contains("/move\"") && text.contains("No other slot is free"), "{text}");
    let refused = Some("a key is good from 2026-11-24T08:00:00Z".into());
    let told = Booking { refused, ..booking(2, "amy", now + 3600, 60) };
    let berlin = Civil { zone: "Europe/Berlin".parse().unwrap(), lang: Lang::En };
    let slot = Slot::new(&told, Some(&server("one")), &policy, &Look { civil: &berlin, ..look });
    assert!(slot.trouble.unwrap().contains("from 2026-11-24 09:00 (Europe/Berlin)"));
}

#[test]
fn a_slot_says_whether_the_saved_lab_is_on_its_server() {
    let (civil, now) = (civil("UTC", Lang::En), at("2026-11-23T08:00:00Z"));
    let (policy, caller, one) = (Policy::default(), amy(), server("one"));
    let shown = |server: &str, whose: &str, layout: &str, state: State| {
        let lab = SavedLab {
            server: server.parse().unwrap(),
            person: whose.parse().unwrap(),
            name: "gate-amy".into(),
            layout: layout.parse().unwrap(),
            since: now,
        };
        let look = Look { caller: &caller, now, civil: &civil, labs: std::slice::from_ref(&lab) };
        let booking = Booking { state, ..booking(1, "amy", now + 3600, 60) };
        let slot = Slot::new(&booking, Some(&one), &policy, &look);
        let shown = bare(slot);
        page(Lang::En, Some("Amy"), &shown, "booking.html")
    };
    let there = shown("one", "amy", "2x4c8g", State::Booked);
    assert!(there.contains("begins with the saved lab"), "{there}");
    let elsewhere = shown("two", "amy", "2x4c8g", State::Booked);
    assert!(elsewhere.contains("saved lab is on two; here a fresh one begins"), "{elsewhere}");
    let anew = shown("one", "amy", "1x4c12g", State::Booked);
    assert!(anew.contains("in place of the saved one, a 1x4c12g"), "{anew}");
    for other in [shown("one", "bob", "2x4c8g", State::Booked), shown("two", "amy", "2x4c8g", State::Active)] {
        assert!(!other.contains("saved lab"), "{other}");
    }
}

#[test]
fn both_languages_render_without_words_of_the_other() {
    let now = at("2026-11-23T08:00:00Z");
    for lang in Lang::ALL {
        let civil = civil("Asia/Shanghai", lang);
        let own = booking(1, "amy", now + 3600, 120);
        let home = home(&civil, now, vec![open(&civil, now, vec![own.clone()])], std::slice::from_ref(&own));
        let text = page(lang, Some("Amy"), &home, "home.html");
        assert!(text.contains(&format!("<html lang=\"{}\">", lang.tag())));
        assert_eq!(text.contains("Your slots"), lang == Lang::En);
        assert_eq!(text.contains("我的时段"), lang == Lang::Zh);
        assert!(text.contains("kubecamp book ssh b") && text.contains("09:00"), "own slot, and UTC");
        assert!(!text.contains("{left}</p>"), "a gap was not filled");
    }
}

#[test]
fn hours_are_shown_in_utc_too_only_where_that_is_another_zone() {
    let now = at("2026-11-23T08:00:00Z");
    for lang in Lang::ALL {
        for (zone, label) in [("UTC", "UTC"), ("Europe/Berlin", "Europe/Berlin<br>UTC")] {
            let civil = civil(zone, lang);
            let home = home(&civil, now, vec![open(&civil, now, vec![])], &[]);
            let text = page(lang, Some("Amy"), &home, "home.html");
            assert_eq!(text.matches(&format!("<span class=\"name\">{label}</span>")).count(), 7, "{text}");
            assert_eq!(text.matches("<br><small>").count(), if zone == "UTC" { 0 } else { 7 * 24 }, "{text}");
        }
    }
}

#[test]
fn a_server_whose_agent_was_never_heard_says_so() {
    let now = at("2026-11-23T08:00:00Z");
    for (lang, none, clock) in
        [(Lang::En, "no agent was heard yet", "clock 3 s"), (Lang::Zh, "尚未收到任何代理的上报", "时钟偏差 3 s")]
    {
        let (caller, civil, frame) = (Caller::Console, civil("UTC", lang), Frame::open(lang, "/teacher", now));
        let visit = Visit { caller, person: None, civil, now, frame };
        let shown = |server: &Server| {
            let servers = vec![teacher::machine(server, &[], &visit)];
            let values = teacher::Teacher { people: vec![], groups: vec![], no_shows: vec![], servers };
            page(lang, Some("Tea"), &values, "teacher.html")
        };
        let text = shown(&server("one"));
        assert!(text.contains(none) && !text.contains(" 0 s</small>") && !text.contains("badge warn"), "{text}");
        let text = shown(&Server { seen: Some(now - 600), clock_offset: 3, ..server("two") });
        assert!(text.contains(clock) && text.contains("badge warn") && !text.contains(none), "{text}");
    }
}

#[test]
fn a_class_plan_renders_in_both_languages() {
    let civil = civil("Asia/Shanghai", Lang::En);
    let window = Window { starts: at("2026-11-24T06:00:00Z"), ends: at("2026-11-24T08:00:00Z") };
    let line = |person: &str, when: Option<String>, lang| class::Line {
        round: 1,
        person: person.into(),
        utc: when.as_ref().map(|_| civil.utc(window)),
        server: when.as_ref().map(|_| "one".into()),
        when,
        why: reasons::reasons("had 1.5 h before; by <lot>", lang),
    };
    let form = class::ClassForm { wishes: "amy: </textarea><script>".into(), ..class::ClassForm::default() };
    let values = |lang| class::ClassView {
        form: form.clone(),
        courses: vec!["k8s".into()],
        layouts: vec!["1x4c12g".into()],
        rows: vec![line("amy", Some(civil.span(window)), lang), line("bob", None, lang)],
        ..class::ClassView::default()
    };
    let chinese = "此前已有 1.5 小时；<span lang=\"en\">by &lt;lot&gt;</span>";
    for (lang, left, zone, why) in [
        (Lang::En, "gets no slot", "Times are in UTC.", "had 1.5 h before; by &lt;lot&gt;"),
        (Lang::Zh, "未分到时段", "时间所用时区：UTC。", chinese),
    ] {
        let values = values(lang);
        let text = page(lang, Some("Tea"), &values, "class.html");
        assert!(
            text.contains(left)
                && text.contains(zone)
                && text.contains("06:00–08:00 UTC")
                && text.contains("14:00–16:00"),
            "{text}"
        );
        assert!(text.contains("value=\"book\"") && text.contains("amy: &lt;/textarea&gt;&lt;script&gt;"), "{text}");
        assert!(!text.contains("<script>") && text.contains(&format!("<td class=\"long\">{why}</td>")), "{text}");
    }
}

#[test]
fn plain_ssh_begins_with_what_fetches_its_certificate() {
    let now = at("2026-11-23T08:00:00Z");
    let civil = civil("UTC", Lang::En);
    let home = home(&civil, now, vec![], &[booking(1, "amy", now, 60)]);
    let (slot, connect) = (&home.slots[0].id, home.slots[0].connect.as_ref().unwrap());
    let lines = format!("kubecamp book ssh {slot} --write slot.conf\nssh -F slot.conf kubecamp-{slot}");
    assert_eq!(connect.ssh, lines, "without a certificate nobody is let in");
}

#[test]
fn who_has_no_kubecamp_is_told_how_ssh_gets_in() {
    let now = at("2026-11-23T08:00:00Z");
    let (booking, one) = (booking(1, "amy", now, 60), server("one"));
    let file = format!("~/Downloads/kubecamp-{}-cert.pub", booking.id);
    let command = entry::command(&booking, &one);
    let whole = format!("ssh -i ~/.ssh/id_ed25519 -o CertificateFile={file} -p 2222 amy@2001:db8::1");
    assert_eq!(command, whole);
    let plain = Server { address: "192.0.2.7".into(), ..server("one") };
    assert!(entry::command(&booking, &plain).ends_with("-cert.pub amy@192.0.2.7"));
    let config = entry::config(&booking, &one);
    for line in
        ["HostName 2001:db8::1", "Port 2222", "User amy", "IdentitiesOnly yes", &format!("CertificateFile {file}")]
    {
        assert!(config.lines().any(|l| l == format!("    {line}")), "{line}: {config}");
    }
    let keys = vec![("ssh-ed25519 AAAA".to_owned(), "<b>laptop (SHA256:x)".to_owned())];
    let entry = Entry { keys, command, config, prints: vec!["SHA256:y".to_owned()] };
    for lang in Lang::ALL {
        let (policy, caller, civil) = (Policy::default(), amy(), civil("UTC", lang));
        let slot = Slot::new(&booking, Some(&one), &policy, &Look { caller: &caller, now, civil: &civil, labs: &[] });
        let shown = One { entry: Some(entry.clone()), ..bare(slot) };
        let text = page(lang, Some("Amy"), &shown, "booking.html");
        assert!(text.contains("/certificate\"") && text.contains("SHA256:y\n"), "{text}");
        assert!(
            text.contains(">&lt;b&gt;laptop (SHA256:x)</option>") && !text.contains("required></textarea>"),
            "{text}"
        );
        assert_eq!(text.contains("Download the certificate"), lang == Lang::En);
        assert_eq!(text.contains("下载证书"), lang == Lang::Zh);
        assert_eq!(text.matches("c5rf").count(), text.matches("method=\"post\"").count());
    }
}

/// Prints the time; the bound itself holds for a release build: `cargo test --release --lib ten_thousand -- --nocapture`.
#[test]
fn ten_thousand_bookings_render() {
    let (civil, now) = (civil("Europe/Berlin", Lang::En), at("2026-11-23T00:00:00Z"));
    let (_, window) = window_of(&civil, civil.zone.date(now));
    let one = |s: u64| {
        let bookings = (0..200).map(|n| {
            booking(s * 1000 + n, if n % 50 == 0 { "amy" } else { "bob" }, window.starts + n as i64 * 3000, 40)
        });
        let mut one = open(&civil, now, bookings.collect());
        one.server.id = format!("s{s}").parse().unwrap();
        one
    };
    let servers: Vec<WeekServer> = (0..50).map(one).collect();
    let mut best = f64::MAX;
    for _ in 0..5 {
        let all = servers.clone();
        let began = std::time::Instant::now();
        let text = page(Lang::En, Some("Amy"), &home(&civil, now, all, &[]), "home.html");
        best = best.min(began.elapsed().as_secs_f64() * 1000.0);
        assert!(text.matches("class=\"taken ").count() >= 9_800);
    }
    println_ms(best);
    if !cfg!(debug_assertions) {
        assert!(best < 50.0, "{best} ms");
    }
}

#[expect(clippy::print_stderr, reason = "a figure for whoever runs it")]
fn println_ms(ms: f64) {
    eprintln!("a week of 10,000 bookings on 50 servers: {ms:.1} ms");
}
