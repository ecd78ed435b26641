//! Many at once: one winner for each window, no request lost; and the proof that these tests would see a mistake.

use std::{sync::Arc, time::Duration};

use kubecamp::{
    core::{Code, Problem, Problems},
    hub::{
        desk::{Caller, Desk, Edit, Roster, WeeklyRequest},
        domain::{Booking, BookingId, GroupId, Health, Mode, Person, PersonId, ServerId, State, Weekly},
        store::{Listing, Store},
    },
};
use tokio::{sync::Barrier, task::JoinHandle};

use super::world::{NOW, camp, clerk, generous, healthy, person, server, who, window, wish};

const CLIENTS: usize = 64;
const ROUNDS: i64 = 8;

/// What a round may take at most, so that one that hangs says so instead of holding up everything.
const LIMIT: Duration = Duration::from_secs(120);

/// What everybody got.
///
/// Nobody is waited for in vain: whoever does not come to an end is counted.
pub(super) async fn all_of<T>(what: &str, tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    let each: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
    let Ok(answers) = tokio::time::timeout(LIMIT, futures::future::join_all(tasks)).await else {
        let open = each.iter().filter(|t| !t.is_finished()).count();
        panic!("{what}: {open} of {} do not come to an end", each.len());
    };
    answers.into_iter().map(Result::unwrap).collect()
}

pub(super) async fn crowd(desk: &Desk) {
    camp(desk, &generous()).await;
    for n in 0..CLIENTS {
        person(desk, &format!("s{n}"), Some("red")).await;
    }
}

async fn round(desks: Vec<Desk>, n: i64) -> (usize, usize) {
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (desk, barrier) = (desks[client % desks.len()].clone(), barrier.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                // Windows of different lengths that all have the hour's middle in common.
                let from = n * 240 + (client as i64 % 3) * 30;
                desk.book(&who(&format!("s{client}")), NOW, None, &wish(Some("one"), from, from + 120)).await
            })
        })
        .collect();
    let (mut won, mut lost) = (0, 0);
    for answer in all_of("a round", tasks).await {
        match answer {
            Ok(booking) => {
                assert_eq!(booking.state, State::Booked);
                won += 1;
            }
            Err(refusal) => {
                assert_eq!(refusal.problem.code, Code::BookConflict, "{}", refusal.problem);
                lost += 1;
            }
        }
    }
    (won, lost)
}

pub async fn one_winner_per_window(desk: &Desk) {
    crowd(desk).await;
    for n in 0..ROUNDS {
        assert_eq!(round(vec![desk.clone()], n).await, (1, CLIENTS - 1), "round {n}");
    }
    healthy(desk).await;
}

pub async fn two_hubs(one: &Desk, other: &Desk) {
    crowd(one).await;
    for n in 0..ROUNDS {
        assert_eq!(round(vec![one.clone(), other.clone()], n).await, (1, CLIENTS - 1), "round {n}");
    }
    healthy(one).await;
}

/// A yes that is said several times at once, by clicks or through two hubs, is one yes.
pub async fn a_yes_at_once_is_one(one: &Desk, other: &Desk) {
    camp(one, &generous()).await;
    for n in 1..=ROUNDS {
        let wanted = wish(Some("one"), n * 120, n * 120 + 60);
        let taken = one.book(&who("dan"), NOW, None, &wanted).await.unwrap();
        let waits = one.wait(&who("amy"), NOW, None, &wanted).await.unwrap();
        one.cancel(&who("dan"), NOW, None, &taken.id, &Edit::default()).await.unwrap();
        assert_eq!(clerk(one).settle(NOW).await.unwrap().offered, 1, "round {n}");
        let barrier = Arc::new(Barrier::new(8));
        let tasks: Vec<_> = (0..8)
            .map(|client| {
                let desk = if client % 2 == 0 { one.clone() } else { other.clone() };
                let (id, barrier) = (waits.id.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    desk.accept(&who("amy"), NOW, None, &id).await
                })
            })
            .collect();
        for answer in all_of("a yes", tasks).await {
            let booking = answer.unwrap_or_else(|problem| panic!("round {n}: {problem}"));
            assert_eq!((booking.state, booking.version), (State::Booked, 3), "round {n}");
        }
    }
    healthy(one).await;
}

/// Half of them have their saved lab on one server and half on the other, so they look at the two in opposite orders.
pub async fn opposite_preferences(desk: &Desk) {
    crowd(desk).await;
    server(desk, "two", Mode::Exclusive, 8, 32).await;
    let servers: [ServerId; 2] = ["one", "two"].map(|name| name.parse().unwrap());
    for client in 0..CLIENTS {
        let (server, login) = (&servers[client % 2], format!("s{client}"));
        let agent = Caller::Agent(server.clone());
        let kept = Some(("gate-lab", "1x4c12g"));
        desk.lab(&agent, NOW, server, client as i64 + 1, &login, kept).await.unwrap();
    }
    for n in 0..ROUNDS {
        let barrier = Arc::new(Barrier::new(CLIENTS));
        let tasks: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (desk, barrier) = (desk.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    let from = n * 240;
                    desk.book(&who(&format!("s{client}")), NOW, None, &wish(None, from, from + 120)).await
                })
            })
            .collect();
        let mut won = vec![];
        for answer in all_of("a round of opposites", tasks).await {
            match answer {
                Ok(booking) => won.extend(booking.server),
                Err(refusal) => assert_eq!(refusal.problem.code, Code::BookConflict, "{}", refusal.problem),
            }
        }
        won.sort();
        assert_eq!(won, servers, "round {n}");
    }
    healthy(desk).await;
}

/// Those of one group who begin on one server and go on upon the other, beside those who want that other only.
pub async fn weeks_of_one_group(desk: &Desk) {
    crowd(desk).await;
    server(desk, "two", Mode::Exclusive, 8, 32).await;
    let hours = 9..23;
    for hour in hours.clone() {
        // In the second week the first server is taken.
        let from = 7 * 1440 + (hour - 8) * 60;
        desk.book(&who("dan"), NOW, None, &wish(Some("one"), from, from + 30)).await.unwrap();
    }
    let barrier = Arc::new(Barrier::new(hours.clone().count()));
    let tasks: Vec<_> = hours
        .map(|hour| {
            let (desk, barrier) = (desk.clone(), barrier.clone());
            let weekly = Weekly {
                zone: "UTC".parse().unwrap(),
                starts: format!("2026-11-23T{hour:02}:00:00").parse().unwrap(),
                ends: format!("2026-11-23T{hour:02}:30:00").parse().unwrap(),
                weeks: 2,
            };
            let on = (hour % 2 == 0).then_some("two");
            let request = WeeklyRequest { first: wish(on, 60, 90), weekly };
            tokio::spawn(async move {
                barrier.wait().await;
                (on, desk.book_weekly(&who(&format!("s{hour}")), NOW, None, &request).await.unwrap())
            })
        })
        .collect();
    for (on, placed) in all_of("weeks", tasks).await {
        let servers: Vec<_> = placed.into_iter().map(|p| p.booking.server.unwrap().to_string()).collect();
        assert_eq!(servers, [on.unwrap_or("one"), "two"]);
    }
    healthy(desk).await;
}

/// A group is removed while its only member books: one of both happens.
pub async fn groups_go_while_members_book(desk: &Desk) {
    camp(desk, &generous()).await;
    let course = "k8s".parse().unwrap();
    for n in 0..2 * ROUNDS {
        let (login, name) = (format!("m{n}"), format!("g{n}"));
        let group = name.parse().unwrap();
        desk.put_group(&Caller::Console, NOW, &group, &course).await.unwrap();
        person(desk, &login, Some(&name)).await;
        let (from, member) = (n * 120, who(&login));
        let wanted = wish(Some("one"), from, from + 60);
        // What is over of it is shown on that server too.
        let over = desk.book(&member, NOW, None, &wanted).await.unwrap().id;
        desk.cancel(&member, NOW, None, &over, &Edit::default()).await.unwrap();
        let (books, goes) =
            tokio::join!(desk.book(&member, NOW, None, &wanted), desk.remove_group(&Caller::Console, NOW, &group));
        assert_ne!(books.is_ok(), goes.is_ok(), "round {n}");
        let why = books.map_err(|refusal| refusal.problem).map(drop).and(goes).unwrap_err().code;
        let one = matches!(why, Code::BookState | Code::HubInvalid | Code::HubUnknown | Code::HubDenied);
        assert!(one, "round {n}: {why:?}");
    }
    healthy(desk).await;
}

/// An account is closed, or a group is left, while its owner books: what is written by then is seen, and what comes after
/// waits.
///
/// Here the other one holds the person's row when the booking, which has found everything well, comes to it.
pub async fn who_is_out_while_booking_gets_nothing(desk: &Desk, url: &str) {
    camp(desk, &generous()).await;
    let store = Store::open(url).await.unwrap();
    let red: GroupId = "red".parse().unwrap();
    // So long it takes at most to look, to find the slot free, and to come to the row.
    let a_while = Duration::from_millis(300);
    for (login, leaves) in [("amy", false), ("bob", true)] {
        let id: PersonId = login.parse().unwrap();
        let mut tx = store.write("console", NOW).await.unwrap();
        tx.lock_person(&id).await.unwrap();
        let (booking, member) = (desk.clone(), who(login));
        let booking = tokio::spawn(async move { booking.book(&member, NOW, None, &wish(Some("one"), 60, 120)).await });
        tokio::time::sleep(a_while).await;
        assert!(!booking.is_finished(), "{login}");
        if leaves {
            tx.set_member(&id, &red, false).await.unwrap();
        } else {
            let there = tx.person(&id).await.unwrap();
            tx.change_person(&Person { active: false, ..there }).await.unwrap();
        }
        store.settle(tx, Ok(()), &mut 0).await.unwrap().unwrap();
        let why = booking.await.unwrap().unwrap_err().problem;
        // Which of the two it is depends on when the database let it look.
        assert!(matches!(why.code, Code::HubDenied | Code::HubInvalid), "{login}: {why}");
    }
    let cem: PersonId = "cem".parse().unwrap();
    let mut tx = store.write("console", NOW).await.unwrap();
    tx.lock_person(&cem).await.unwrap();
    let leaving = desk.clone();
    let leaving = tokio::spawn(async move { leaving.set_member(&Caller::Console, NOW, &cem, &red, false).await });
    tokio::time::sleep(a_while).await;
    assert!(!leaving.is_finished(), "who leaves waits for a booking that is being written");
    store.settle(tx, Ok(()), &mut 0).await.unwrap().unwrap();
    leaving.await.unwrap().unwrap();
    store.close().await;
    healthy(desk).await;
}

/// Two rosters name the same people the other way round, while those book: nobody waits in a circle.
pub async fn rosters_come_while_students_book(desk: &Desk) {
    crowd(desk).await;
    server(desk, "two", Mode::Exclusive, 8, 32).await;
    for (login, name) in [("s0", "two"), ("s1", "one")] {
        desk.book(&who(login), NOW, None, &wish(Some(name), 0, 60)).await.unwrap();
    }
    let (console, course) = (Caller::Console, "k8s".parse().unwrap());
    for n in 0..ROUNDS {
        let lines =
            |logins: [usize; 4], round: &str| logins.map(|login| format!("s{login},S {round} {n},red\n")).concat();
        let (up, down) = (lines([0, 1, 2, 3], "up"), lines([3, 2, 1, 0], "down"));
        let (from, first, second) = (120 + n * 120, who("s2"), who("s3"));
        let (on_one, on_two) = (wish(Some("one"), from, from + 60), wish(Some("two"), from, from + 60));
        let all = async {
            tokio::join!(
                desk.import_roster(&console, NOW, None, Roster { course: &course, file: "r", text: &up }, None),
                desk.import_roster(&console, NOW, None, Roster { course: &course, file: "r", text: &down }, None),
                desk.book(&first, NOW, None, &on_two),
                desk.book(&second, NOW, None, &on_one),
            )
        };
        let (up, down, one, two) = tokio::time::timeout(LIMIT, all).await.unwrap();
        // Of two that change the same rows one may be overtaken: it is whole or not there.
        for problem in [up, down].into_iter().filter_map(Result::err).flat_map(Problems::into_vec) {
            assert_eq!(problem.code, Code::BookStale, "round {n}: {problem}");
        }
        for booked in [one, two] {
            assert_eq!(booked.unwrap().state, State::Booked, "round {n}");
        }
    }
    healthy(desk).await;
}

/// A server is removed while people join its waitlist: nobody is left waiting for one that is gone, which would hold
/// up the clerk.
pub async fn nobody_waits_for_a_server_that_is_gone(desk: &Desk) {
    crowd(desk).await;
    for n in 0..ROUNDS {
        let name = format!("gone{n}");
        server(desk, &name, Mode::Exclusive, 8, 32).await;
        let id: ServerId = name.parse().unwrap();
        // What is free is not waited for.
        desk.set_health(&Caller::Console, NOW, None, &id, Health::Away, "new disk").await.unwrap();
        let waits = (n * 8..n * 8 + 7).map(|client| {
            let (desk, wanted) = (desk.clone(), wish(Some(&name), 240, 300));
            tokio::spawn(async move { desk.wait(&who(&format!("s{client}")), NOW, None, &wanted).await })
        });
        let waits: Vec<_> = waits.collect();
        let removed = desk.remove_server(&Caller::Console, NOW, &id, None).await;
        let waiting = all_of("waits", waits).await.into_iter().filter(|answer| match answer {
            Ok(_) => true,
            Err(problem) => {
                assert_eq!(problem.code, Code::HubUnknown, "{problem}");
                false
            }
        });
        assert_eq!(waiting.count() == 0, removed.is_ok(), "round {n}");
        clerk(desk).settle(NOW).await.unwrap();
    }
    healthy(desk).await;
}

/// A server goes out of use while many book any server: its booking moves to another one, and nobody waits in a circle.
pub async fn a_server_goes_in_a_busy_hour(desk: &Desk) {
    crowd(desk).await;
    for name in ["six", "two"] {
        server(desk, name, Mode::Exclusive, 8, 32).await;
    }
    let one: ServerId = "one".parse().unwrap();
    for n in 0..ROUNDS {
        // Within a day, for which it is moved at once.
        let from = n * 120;
        desk.book(&who("dan"), NOW, None, &wish(Some("one"), from, from + 30)).await.unwrap();
        desk.set_health(&Caller::Console, NOW, None, &one, Health::Away, "new disk").await.unwrap();
        let tasks: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (desk, wanted) = (desk.clone(), wish(None, from + 60, from + 90));
                tokio::spawn(async move { desk.book(&who(&format!("s{client}")), NOW, None, &wanted).await })
            })
            .collect();
        assert_eq!(clerk(desk).settle(NOW).await.unwrap().moved, 1, "round {n}");
        let won = all_of("a busy hour", tasks).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 2, "round {n}");
        desk.set_health(&Caller::Console, NOW, None, &one, Health::Healthy, "it is in").await.unwrap();
    }
    healthy(desk).await;
}

/// The mutant: looks whether the slot is free, then inserts, in two transactions and without a lock.
async fn check_then_insert(store: &Store, client: usize, n: i64, barrier: &Barrier) -> Result<(), Code> {
    let window = window(n * 240, n * 240 + 120);
    let server = "one".parse().unwrap();
    let held = async { store.read(NOW).await?.held(&server, window).await }.await;
    // Also who failed: the others wait for everybody.
    barrier.wait().await;
    if !held.map_err(|p| p.code)?.is_empty() {
        return Err(Code::BookConflict);
    }
    let booking = Booking {
        id: BookingId::from_random(rand::random()),
        server: Some(server),
        place: Some(0),
        person: format!("s{client}").parse().unwrap(),
        course: "k8s".parse().unwrap(),
        group: None,
        layout: "1x4c12g".parse().unwrap(),
        window,
        busy_until: window.ends + 600,
        state: State::Booked,
        since: NOW,
        version: 1,
        created: NOW,
        updated: NOW,
        offer_until: None,
        came: None,
        charged: window.length(),
        lapses: 0,
        series: None,
        wished: None,
        note: None,
        refused: None,
        stranded: None,
        moves: 0,
        labels: [].into(),
        ended_by: None,
    };
    // Without a lock of the server's row two of them wait for each other at the constraint until the database ends one
    // after its deadlock time-out. Who is ended so has lost: tried again, it would meet those that still wait, and the
    // next one, for as long as there are tries.
    let mut tries = u32::MAX - 1;
    let mut tx = store.write("mutant", NOW).await.map_err(|p| p.code)?;
    let outcome = tx.add_booking(&booking, "booking.new", None).await;
    let settled = store.settle(tx, outcome, &mut tries).await;
    settled.unwrap_or_else(|| Err(Problem::new(Code::HubBusy, "it asks to be tried again"))).map_err(|p| p.code)
}

async fn mutant_round(url: &str, n: i64) -> usize {
    let store = Store::open(url).await.unwrap();
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (store, barrier) = (store.clone(), barrier.clone());
            tokio::spawn(async move { check_then_insert(&store, client, n, &barrier).await })
        })
        .collect();
    let mut won = 0;
    for answer in all_of("the mutant's round", tasks).await {
        match answer {
            Ok(()) => won += 1,
            Err(code) => assert!(matches!(code, Code::BookConflict | Code::HubBusy), "{code}"),
        }
    }
    store.close().await;
    won
}

pub async fn the_constraint_catches_check_then_insert(desk: &Desk, url: &str) {
    crowd(desk).await;
    for n in 0..3 {
        assert_eq!(mutant_round(url, n).await, 1, "the database's constraint lets one in");
    }
    healthy(desk).await;
}

pub async fn without_constraint_the_mutant_is_seen(desk: &Desk, url: &str) {
    let won = mutant_round(url, 10).await;
    assert!(won > 1, "the mutant sold the slot {won} times: the hammer would see it");
    let found = desk.doctor(&Caller::Console, NOW).await.unwrap();
    assert!(found.wrong.iter().any(|w| w.contains("overlap")), "{:#?}", found.wrong);
    let all = desk.bookings(&Caller::Console, NOW, &Listing::default()).await.unwrap();
    assert_eq!(all.len(), 3 + won);
}
