//! What is refused at once because it can never be, and what the answer says.

use kubecamp::{
    core::Code,
    hub::{
        desk::{BookRequest, Caller, ClassRequest, Desk, Edit, FreeRequest, Misfits, NewServer},
        domain::{Booking, Epoch, Free, Health, Mode, NEVER_BEGAN, Policy, State},
    },
};

use super::acknowledge;
use crate::hub::world::{
    NOW, agent, at, book, camp, clerk, generous, healthy, new_server, server, server_with, weekly, who, window, wish,
};

/// What a wish of amy's is refused with; each of it can be had as it is offered.
async fn offered(desk: &Desk, now: Epoch, want: &BookRequest, code: Code) -> Vec<Free> {
    let refusal = desk.book(&who("amy"), now, None, want).await.unwrap_err();
    assert_eq!((refusal.problem.code, refusal.alternatives.len()), (code, 3), "{refusal:?}");
    for free in &refusal.alternatives {
        let this = BookRequest { window: free.window, server: Some(free.server.clone()), ..want.clone() };
        let booked = desk.book(&who("amy"), now, None, &this).await;
        let booked = booked.unwrap_or_else(|refusal| panic!("{free:?}: {}", refusal.problem));
        desk.cancel(&who("amy"), now, None, &booked.id, &Edit::default()).await.unwrap();
    }
    refusal.alternatives
}

pub async fn shorter_hours_tell_what_they_leave_outside(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let (inside, outside) = (book(&desk, "amy", 60, 120).await, book(&desk, "bob", 150, 210).await);
    let over = book(&desk, "cem", 300, 360).await;
    desk.cancel(&who("cem"), NOW, None, &over.id, &Edit::default()).await.unwrap();
    let left = async |caller: &Caller| desk.misfits(caller, NOW, &one).await;
    assert_eq!(left(&console).await.unwrap(), Misfits { outside: 0, foreign: 0 });
    let hours = "mon-fri 08:00-10:30".parse().unwrap();
    let new = NewServer { opening: hours, ..new_server("one", Mode::Exclusive, 8, 32) };
    let seen = desk.server(&console, NOW, &one).await.unwrap().version;
    desk.put_server(&console, NOW, &new, Some(seen)).await.unwrap();
    assert_eq!(left(&console).await.unwrap(), Misfits { outside: 1, foreign: 0 });
    assert_eq!(left(&who("tea")).await.unwrap_err().code, Code::HubDenied);
    let notes = desk.doctor(&console, NOW).await.unwrap().notes.join("\n");
    assert!(notes.contains("1 booking lies outside of the opening hours of server one"), "{notes}");
    clerk(&desk).settle(at(1)).await.unwrap();
    for booking in [inside, outside] {
        assert_eq!(desk.booking(&console, at(1), &booking.id).await.unwrap(), booking, "what is booked stays");
    }
    healthy(&desk).await;
}

pub async fn a_server_given_to_another_course_tells_what_it_leaves_there(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console, net) = ("one".parse().unwrap(), Caller::Console, "net".parse().unwrap());
    desk.put_course(&console, NOW, &net, "Networks", &generous(), None).await.unwrap();
    let ahead = [book(&desk, "amy", 60, 120).await, book(&desk, "bob", 150, 210).await];
    let over = book(&desk, "cem", 300, 360).await;
    desk.cancel(&who("cem"), NOW, None, &over.id, &Edit::default()).await.unwrap();
    let given = async |course: Option<&str>| {
        let seen = desk.server(&console, NOW, &one).await.unwrap().version;
        let course = course.map(|name| name.parse().unwrap());
        let new = NewServer { course, ..new_server("one", Mode::Exclusive, 8, 32) };
        desk.put_server(&console, NOW, &new, Some(seen)).await.unwrap();
        let left = desk.misfits(&console, NOW, &one).await.unwrap();
        assert_eq!(left.outside, 0);
        left.foreign
    };
    assert_eq!((given(Some("net")).await, given(Some("k8s")).await, given(None).await), (2, 0, 0));
    assert_eq!(given(Some("net")).await, 2);
    assert_eq!(desk.misfits(&who("tea"), NOW, &one).await.unwrap_err().code, Code::HubDenied);
    clerk(&desk).settle(at(1)).await.unwrap();
    for booking in ahead {
        assert_eq!(desk.booking(&console, at(1), &booking.id).await.unwrap(), booking, "what is booked stays");
    }
    healthy(&desk).await;
}

pub async fn a_server_that_nobody_enrolled_is_told(desk: Desk) {
    camp(&desk, &generous()).await;
    let told = async || {
        let notes = desk.doctor(&Caller::Console, NOW).await.unwrap().notes;
        notes.iter().any(|note| note.starts_with("server one is not enrolled yet"))
    };
    assert!(told().await);
    desk.plan_for(&agent("one"), NOW, &"one".parse().unwrap()).await.unwrap();
    assert!(!told().await, "its agent has a plan");
    healthy(&desk).await;
}

pub async fn what_opened_to_nobody_is_told_to_its_holder(desk: Desk) {
    camp(&desk, &generous()).await;
    let clerk = clerk(&desk);
    let (first, second) = (book(&desk, "amy", 0, 60).await, book(&desk, "bob", 90, 150).await);
    clerk.settle(at(60)).await.unwrap();
    let now = async |b: &Booking| desk.booking(&Caller::Console, NOW, &b.id).await.unwrap();
    let passed = now(&first).await;
    let why = "no agent of server one was ever heard, so it opened to nobody; it does not count";
    assert_eq!((passed.state, passed.note.as_deref()), (State::Cancelled, Some(why)));
    assert!(passed.is_lost(at(60)) && passed.is_lost(at(23 * 60)) && !passed.is_lost(at(26 * 60)), "told for a day");
    // An agent that is heard, and never told of it.
    acknowledge(&desk, 151).await;
    clerk.settle(at(152)).await.unwrap();
    let passed = now(&second).await;
    assert_eq!((passed.state, passed.note.as_deref()), (State::Cancelled, Some(NEVER_BEGAN)));
    assert!(passed.is_lost(at(152)));
    healthy(&desk).await;
}

pub async fn who_wants_any_server_gets_one_that_is_enrolled(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    let any = async |login: &str, from| {
        let booked = desk.book(&who(login), NOW, None, &wish(None, from, from + 60)).await.unwrap();
        booked.server.unwrap().to_string()
    };
    assert_eq!(any("amy", 0).await, "one", "by name");
    desk.plan_for(&agent("two"), NOW, &"two".parse().unwrap()).await.unwrap();
    assert_eq!(any("bob", 120).await, "two");
    assert_eq!(any("cem", 120).await, "one", "it can be booked ahead of its enrolment");
    healthy(&desk).await;
}

pub async fn an_agent_that_takes_no_newer_plan_is_told(desk: Desk) {
    camp(&desk, &generous()).await;
    let told = async || {
        let notes = desk.doctor(&Caller::Console, at(1)).await.unwrap().notes;
        notes.iter().any(|note| note.starts_with("the agent of server one carries out revision"))
    };
    acknowledge(&desk, 0).await;
    assert!(!told().await, "it has the newest");
    book(&desk, "amy", 60, 120).await;
    assert!(!told().await, "it has not heard of the newer one yet");
    desk.plan_for(&agent("one"), at(1), &"one".parse().unwrap()).await.unwrap();
    assert!(told().await, "it was given it, and goes on with the older one");
    acknowledge(&desk, 1).await;
    assert!(!told().await);
    // The same revision signed with other keys: only the agent knows that it does not take it.
    let refuses = async || {
        let notes = desk.doctor(&Caller::Console, at(1)).await.unwrap().notes;
        notes.into_iter().filter(|note| note.contains("does not take the plan that it is given")).collect::<Vec<_>>()
    };
    let (caller, one) = (agent("one"), "one".parse().unwrap());
    for why in [Some("it is not signed by the hub"), Some("it is not signed by the hub"), None, None] {
        desk.plan_refused(&caller, at(1), &one, why).await.unwrap();
        let notes = refuses().await;
        assert_eq!(notes.len(), usize::from(why.is_some()), "{notes:?}");
        assert!(notes.iter().all(|note| note.contains(why.unwrap())), "{notes:?}");
    }
    let audit = desk.audit(&Caller::Console, at(1), Some("server:one".into()), None, 100).await.unwrap();
    assert_eq!(audit.iter().filter(|row| row.action.starts_with("agent.plan-")).count(), 2, "once for each change");
    assert_eq!(desk.plan_refused(&agent("two"), at(1), &one, None).await.unwrap_err().code, Code::HubDenied);
    healthy(&desk).await;
}

pub async fn a_week_that_clocks_make_too_long_is_explained(desk: Desk) {
    camp(&desk, &Policy { horizon: 366, ..generous() }).await;
    let weekly = |starts: &str, ends: &str| weekly("Europe/Berlin", starts, ends, 2);
    // Clocks are set back on 2027-10-31: what shows four hours lasts five, and four are allowed.
    let long = weekly("2027-10-23T23:00:00", "2027-10-24T03:00:00");
    let refusal = desk.book_weekly(&who("amy"), NOW, None, &long).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::BookWindow);
    let told = refusal.problem.to_string();
    assert!(told.contains("clocks change") && told.contains("lasts 300 minutes, not 240"), "{told}");
    let made = desk.book_weekly(&who("amy"), NOW, None, &weekly("2027-10-24T02:30:00", "2027-10-24T03:30:00")).await;
    let charged: Vec<i64> = made.as_ref().unwrap().iter().map(|p| p.booking.charged / 60).collect();
    assert_eq!(charged, [60, 120]);
    assert!(made.unwrap()[1].note.as_ref().unwrap().contains("120 minutes, not 60"));
    healthy(&desk).await;
}

pub async fn what_can_never_be_had_says_why(desk: Desk) {
    camp(&desk, &generous()).await;
    for (name, label) in [("fast", "gpu"), ("large", "ssd")] {
        server_with(&desk, name, Mode::Exclusive, 8, 32, &[label]).await;
    }
    server(&desk, "small", Mode::Exclusive, 2, 14).await;
    let course = "net".parse().unwrap();
    desk.put_course(&Caller::Console, NOW, &course, "Networks", &Policy::default(), None).await.unwrap();
    let theirs = NewServer { course: Some(course), ..new_server("theirs", Mode::Exclusive, 8, 32) };
    desk.put_server(&Caller::Console, NOW, &theirs, None).await.unwrap();
    let told = async |server: Option<&str>, labels: &[&str], layout: Option<&str>| {
        let mut want = wish(server, 60, 120);
        want.labels = labels.iter().map(|l| (*l).to_owned()).collect();
        want.layout = layout.map(|l| l.parse().unwrap());
        let problem = desk.book(&who("amy"), NOW, None, &want).await.unwrap_err().problem;
        assert_eq!(desk.wait(&who("amy"), NOW, None, &want).await.unwrap_err().what, problem.what);
        (problem.code, format!("{}. {}", problem.what, problem.all_hints()[0]))
    };
    let label = (Code::HubInvalid, "no server has the label `tpu`. There are: gpu, ssd.".to_owned());
    assert_eq!(told(None, &["tpu"], None).await, label);
    let both = (Code::HubInvalid, "no server has all of these labels. There are: gpu, ssd.".to_owned());
    assert_eq!(told(None, &["gpu", "ssd"], None).await, both);
    let named = (Code::HubInvalid, "server one has no label `gpu`. It has no labels.".to_owned());
    assert_eq!(told(Some("one"), &["gpu"], None).await, named);
    let (code, what) = told(Some("theirs"), &[], None).await;
    assert!(code == Code::HubInvalid && what.starts_with("server theirs is not for course k8s"), "{what}");
    let (code, what) = told(Some("small"), &[], Some("2x4c8g")).await;
    assert!(code == Code::BookLayout && what.starts_with("server small cannot hold 2x4c8g"), "{what}");
    // The first would fit; but no agent makes it.
    for odd in ["2x4c10g", "3x8c16g", "1x2c4g"] {
        let want = format!("no server makes a lab of {odd}. Choose one of these layouts: 1x4c12g, 2x4c8g, 3x2c4g.");
        assert_eq!(told(None, &[], Some(odd)).await, (Code::BookLayout, want));
    }

    let plan = ClassRequest {
        course: "k8s".parse().unwrap(),
        layout: "1x4c12g".parse().unwrap(),
        minutes: 17,
        slots: 1,
        within: window(0, 1440),
        wishes: vec![],
        reason: None,
        seen: None,
    };
    let code = async |want: &ClassRequest| desk.plan_class(&who("tea"), NOW, want).await.unwrap_err().code;
    assert_eq!(code(&plan).await, Code::BookGrid);
    assert_eq!(code(&ClassRequest { minutes: 300, ..plan.clone() }).await, Code::BookWindow);
    let odd = ClassRequest { minutes: 60, layout: "2x4c10g".parse().unwrap(), ..plan };
    assert_eq!(code(&odd).await, Code::BookLayout);
    healthy(&desk).await;
}

pub async fn where_only_a_buffer_is_in_the_way_it_is_named(desk: Desk) {
    camp(&desk, &generous()).await;
    // Room for one small lab at a time.
    server(&desk, "big", Mode::Shared, 8, 20).await;
    for (name, login, taken) in [("one", "amy", "is taken at"), ("big", "cem", "has no room for 1x4c12g at")] {
        desk.book(&who(login), NOW, None, &wish(Some(name), 120, 180)).await.unwrap();
        for (from, to, near) in [(60, 120, true), (180, 240, true), (60, 150, false), (150, 240, false)] {
            let refusal = desk.book(&who("bob"), NOW, None, &wish(Some(name), from, to)).await.unwrap_err();
            assert_eq!((refusal.problem.code, refusal.alternatives.len()), (Code::BookConflict, 3));
            let when = window(from, to);
            let want = match near {
                true => format!("server {name} keeps 10 minutes between two slots, and another is nearer to {when}"),
                false => format!("server {name} {taken} {when}"),
            };
            assert_eq!(refusal.problem.what, want);
        }
    }
    healthy(&desk).await;
}

pub async fn nobody_waits_for_hours_that_never_open(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, console) = ("one".parse().unwrap(), Caller::Console);
    let hours = "mon-fri 08:00-18:00".parse().unwrap();
    let new = NewServer { opening: hours, ..new_server("two", Mode::Exclusive, 8, 32) };
    desk.put_server(&console, NOW, &new, None).await.unwrap();
    let saturday = 5 * 1440 + 60;
    let wait =
        async |server: Option<&str>, from: i64| desk.wait(&who("amy"), NOW, None, &wish(server, from, from + 60)).await;
    let closed = wait(Some("two"), saturday).await.unwrap_err();
    assert_eq!(closed.code, Code::BookClosed);
    assert!(closed.what.contains("mon-fri 08:00-18:00") && closed.all_hints()[0].contains("open"), "{closed:?}");
    book(&desk, "bob", saturday, saturday + 60).await;
    assert_eq!(wait(None, saturday).await.unwrap().state, State::Waitlisted, "one is open then");

    desk.add_maintenance(&console, NOW, None, &one, window(60, 200), "new disk").await.unwrap();
    let shut = wait(Some("one"), 120).await.unwrap_err();
    assert_eq!(shut.code, Code::BookMaintenance);
    assert_eq!(wait(Some("one"), 145).await.unwrap_err().code, Code::BookGrid, "off the raster");
    desk.set_health(&console, NOW, None, &"two".parse().unwrap(), Health::Away, "new disk").await.unwrap();
    let away = wait(None, 120).await.unwrap();
    assert_eq!(clerk(&desk).settle(at(1)).await.unwrap().offered, 0, "nothing is free");
    desk.set_health(&console, at(2), None, &"two".parse().unwrap(), Health::Healthy, "done").await.unwrap();
    assert_eq!(clerk(&desk).settle(at(3)).await.unwrap().offered, 1, "what is out of use may come back in time");
    let offer = desk.booking(&who("amy"), at(3), &away.id).await.unwrap();
    assert_eq!((offer.state, offer.server.unwrap().as_str()), (State::Offered, "two"));
    healthy(&desk).await;
}

pub async fn work_that_has_just_ended_is_not_offered_again(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "two", Mode::Exclusive, 8, 32).await;
    desk.add_maintenance(&Caller::Console, NOW, None, &"two".parse().unwrap(), window(-60, 10), "new disk")
        .await
        .unwrap();
    book(&desk, "bob", 30, 90).await;
    desk.book(&who("cem"), NOW, None, &wish(Some("two"), 90, 150)).await.unwrap();
    // The half hour that runs is the nearest that is free on two; but work was done there in its first ten minutes.
    let found = offered(&desk, at(20), &wish(None, 30, 90), Code::BookConflict).await;
    assert!(found.iter().all(|free| free.window.starts >= at(30)), "{found:?}");
    healthy(&desk).await;
}

pub async fn what_is_offered_has_room_for_the_lab_that_would_run_there(desk: Desk) {
    camp(&desk, &generous()).await;
    server(&desk, "a", Mode::Exclusive, 8, 32).await;
    server(&desk, "big", Mode::Shared, 8, 32).await;
    // Without a layout it is the saved lab's: a small one on the first server, a large one on the second.
    for (name, layout) in [("a", "1x4c12g"), ("big", "2x4c8g")] {
        desk.lab(&agent(name), NOW, &name.parse().unwrap(), 1, "amy", Some(("gate-amy", layout))).await.unwrap();
    }
    for (login, server, layout) in [("bob", "a", "1x4c12g"), ("cem", "one", "2x4c8g"), ("dan", "big", "2x4c8g")] {
        let lab = BookRequest { layout: Some(layout.parse().unwrap()), ..wish(Some(server), 60, 120) };
        desk.book(&who(login), NOW, None, &lab).await.unwrap();
    }
    let any = BookRequest { layout: None, ..wish(None, 60, 120) };
    for server in [None, Some("big")] {
        let want = BookRequest { server: server.map(|s| s.parse().unwrap()), ..any.clone() };
        let found = offered(&desk, NOW, &want, Code::BookConflict).await;
        assert!(found.iter().all(|free| free.window != want.window), "it has room for a smaller lab only: {found:?}");
    }
    let small = BookRequest { layout: Some("1x4c12g".parse().unwrap()), ..wish(Some("one"), 60, 120) };
    let found = offered(&desk, NOW, &small, Code::BookConflict).await;
    assert_eq!((found[0].server.as_str(), found[0].window), ("big", small.window), "which can be had by its name");
    healthy(&desk).await;
}

pub async fn who_waits_for_what_a_server_has_not_keeps_nobody_from_extending_there(desk: Desk) {
    camp(&desk, &generous()).await;
    server_with(&desk, "gpu", Mode::Exclusive, 8, 32, &["gpu"]).await;
    let own = book(&desk, "amy", 60, 120).await;
    let gpu = BookRequest { labels: ["gpu".to_owned()].into(), ..wish(None, 120, 180) };
    desk.book(&who("bob"), NOW, None, &gpu).await.unwrap();
    desk.wait(&who("cem"), NOW, None, &gpu).await.unwrap();
    let extend = async |minute: i64| desk.extend(&who("amy"), NOW, None, &own.id, at(minute), &Edit::default()).await;
    assert_eq!(extend(150).await.unwrap().window, window(60, 150));
    // Of any server, and so of this one, somebody else is asked first.
    desk.wait(&who("dan"), NOW, None, &wish(None, 150, 180)).await.unwrap();
    assert_eq!(extend(180).await.unwrap_err().code, Code::BookWaiting);
    healthy(&desk).await;
}

/// What is free and kept from somebody by their own limits says so, as a booking of it would.
pub async fn a_free_slot_says_which_limit_keeps_it_from_whom(desk: Desk) {
    camp(&desk, &Policy { open_ahead: 2, person_hours: 3, group_hours: 4, ..Policy::default() }).await;
    let day = 1440;
    let free = async |login: &str, minutes: u32, from: i64| {
        let want = FreeRequest {
            person: None,
            course: None,
            server: None,
            labels: [].into(),
            layout: Some("1x4c12g".parse().unwrap()),
            minutes,
            within: window(from, from + 240),
            running: false,
            most: 1,
        };
        let found = desk.free(&who(login), NOW, &want).await.unwrap().remove(0);
        let named = BookRequest { window: found.window, ..wish(Some(found.server.as_str()), 0, 30) };
        let refused = desk.wait(&who(login), NOW, None, &named).await.unwrap_err();
        match &found.limit {
            // It is not waited for: it is free, or kept by that very limit.
            Some(limit) => assert_eq!(refused.what, *limit),
            None => assert_eq!(refused.code, Code::BookState),
        }
        found.limit.unwrap_or_default()
    };
    let first = book(&desk, "amy", 60, 180).await;
    assert_eq!(free("amy", 60, 240).await, "");
    assert_eq!(free("amy", 120, 240).await, "amy would have 4.0 h in seven days, and 3 are allowed");
    assert_eq!(free("amy", 120, 8 * day).await, "", "that is another week");
    assert_eq!(free("bob", 180, 240).await, "group red would have 5.0 h in seven days, and 4 are allowed");
    assert_eq!(free("dan", 180, 240).await, "", "he is in another group");
    book(&desk, "amy", 8 * day, 8 * day + 30).await;
    assert_eq!(free("amy", 30, 240).await, "amy has 2 bookings ahead, and 2 are allowed");
    desk.cancel(&who("amy"), NOW, None, &first.id, &Edit::default()).await.unwrap();
    assert_eq!(free("amy", 120, 240).await, "");
    healthy(&desk).await;
}
