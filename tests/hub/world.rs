//! A small camp: one course, two groups, servers as asked.

use kubecamp::{
    core::Bytes,
    hub::{
        clerk::Clerk,
        desk::{
            BookRequest, Caller, Desk, Edit, FreeRequest, NewPerson, NewServer, Report, Step, Taken, WeeklyRequest,
        },
        domain::{Booking, Epoch, Mode, OpeningHours, Policy, Role, Weekly, Window, Zone},
    },
};

pub const NOW: Epoch = Epoch(1_795_420_800); // 2026-11-23T08:00:00Z, a Monday

pub fn at(minutes: i64) -> Epoch {
    NOW + minutes * 60
}

pub fn window(from: i64, to: i64) -> Window {
    Window { starts: at(from), ends: at(to) }
}

pub fn who(login: &str) -> Caller {
    let role = if login == "tea" { Role::Teacher } else { Role::Student };
    Caller::Person { id: login.parse().unwrap(), role }
}

pub fn agent(server: &str) -> Caller {
    Caller::Agent(server.parse().unwrap())
}

pub fn wish(server: Option<&str>, from: i64, to: i64) -> BookRequest {
    BookRequest {
        person: None,
        course: None,
        server: server.map(|s| s.parse().unwrap()),
        labels: [].into(),
        layout: Some("1x4c12g".parse().unwrap()),
        window: window(from, to),
        reason: None,
    }
}

/// A search for an hour on this server or any, inside of this window.
pub fn search(server: Option<&str>, layout: Option<&str>, within: Window, most: usize) -> FreeRequest {
    FreeRequest {
        person: None,
        course: None,
        server: server.map(|name| name.parse().unwrap()),
        labels: [].into(),
        layout: layout.map(|layout| layout.parse().unwrap()),
        minutes: 60,
        within,
        running: false,
        most,
    }
}

/// A wish for the server one in so many weeks, from and to what the clocks of this zone show in the first.
pub fn weekly(zone: &str, starts: &str, ends: &str, weeks: u16) -> WeeklyRequest {
    let (zone, starts, ends) = (zone.parse().unwrap(), starts.parse().unwrap(), ends.parse().unwrap());
    WeeklyRequest { first: wish(Some("one"), 0, 30), weekly: Weekly { zone, starts, ends, weeks } }
}

pub fn because(reason: &str) -> Edit {
    Edit { version: None, reason: Some(reason.into()) }
}

pub fn generous() -> Policy {
    Policy { person_hours: 168, group_hours: 10_000, open_ahead: 1000, ..Policy::default() }
}

pub async fn person(desk: &Desk, login: &str, group: Option<&str>) {
    let role = if login == "tea" { Role::Teacher } else { Role::Student };
    let id = login.parse().unwrap();
    let new = NewPerson { id, name: login.to_uppercase(), role, active: None, zone: None, keys: vec![] };
    desk.put_person(&Caller::Console, NOW, &new, None).await.unwrap();
    if let Some(group) = group {
        desk.set_member(&Caller::Console, NOW, &new.id, &group.parse().unwrap(), true).await.unwrap();
    }
}

pub async fn server(desk: &Desk, name: &str, mode: Mode, cores: u32, gib: u64) {
    server_with(desk, name, mode, cores, gib, &[]).await;
}

pub async fn server_with(desk: &Desk, name: &str, mode: Mode, cores: u32, gib: u64, labels: &[&str]) {
    let labels = labels.iter().map(|l| (*l).to_owned()).collect();
    let new = NewServer { labels, ..new_server(name, mode, cores, gib) };
    desk.put_server(&Caller::Console, NOW, &new, None).await.unwrap();
}

pub fn new_server(name: &str, mode: Mode, cores: u32, gib: u64) -> NewServer {
    NewServer {
        id: name.parse().unwrap(),
        address: "192.0.2.1".into(),
        course: None,
        cores,
        memory: Bytes::gib(gib),
        disk: None,
        labels: [].into(),
        opening: OpeningHours::always(),
        zone: Zone::utc(),
        buffer: 600,
        mode,
    }
}

pub async fn camp(desk: &Desk, policy: &Policy) {
    let course = "k8s".parse().unwrap();
    desk.put_course(&Caller::Console, NOW, &course, "Kubernetes", policy, None).await.unwrap();
    for group in ["red", "blue"] {
        desk.put_group(&Caller::Console, NOW, &group.parse().unwrap(), &course).await.unwrap();
    }
    person(desk, "tea", None).await;
    for (login, group) in [("amy", "red"), ("bob", "red"), ("cem", "red"), ("dan", "blue")] {
        person(desk, login, Some(group)).await;
    }
    server(desk, "one", Mode::Exclusive, 8, 32).await;
}

pub async fn book(desk: &Desk, login: &str, from: i64, to: i64) -> Booking {
    desk.book(&who(login), NOW, None, &wish(Some("one"), from, to)).await.unwrap()
}

/// Reports one step at this minute, with this number.
pub async fn report(desk: &Desk, number: i64, booking: &Booking, step: Step, minute: i64) -> Taken {
    let one = Report { number, booking: booking.id.clone(), step, moment: at(minute), note: None, account: None };
    let server = booking.server.clone().unwrap();
    desk.report(&Caller::Agent(server.clone()), at(minute), &server, &[one]).await.unwrap()[0].taken
}

/// The steps of a slot that takes place from its start to its end.
pub const WHOLE: [Step; 7] =
    [Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving, Step::Resetting, Step::Done];

/// Reports these steps at this minute, numbered from the first on; the hub takes each of them.
pub async fn reports(desk: &Desk, first: i64, booking: &Booking, steps: &[Step], minute: i64) {
    for (step, number) in steps.iter().zip(first..) {
        assert_eq!(report(desk, number, booking, *step, minute).await, Taken::Applied, "{step:?}");
    }
}

/// What must hold after everything.
pub async fn healthy(desk: &Desk) {
    let found = desk.doctor(&Caller::Console, NOW).await.unwrap();
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong);
}

pub fn clerk(desk: &Desk) -> Clerk {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Clerk::new(desk.clone(), reqwest::Client::new())
}
