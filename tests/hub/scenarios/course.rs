//! What happens around the slots: the waitlist, people, webhooks.

use std::{fs, process::Command};

use kubecamp::{
    core::{Code, Problem},
    hub::{
        desk::{BookRequest, Caller, Desk, Edit, NewPerson, Roster, Step, Taken},
        domain::{Mode, Policy, Role, State},
        gate::HubKey,
        store::TokenKind,
    },
};

use super::{acknowledge, state};
use crate::hub::{
    camp::key_pair,
    world::{
        NOW, agent, at, book, camp, clerk, generous, healthy, person, report, reports, server, server_with, who,
        window, wish,
    },
};

pub async fn the_waitlist_is_fair_and_offers_lapse(desk: Desk) {
    camp(&desk, &generous()).await;
    // Amy used an hour yesterday; the clerk counts what is past, so it is booked before and played by the agent.
    let past = desk.book(&who("amy"), at(-1440), None, &wish(Some("one"), -1440, -1380)).await.unwrap();
    reports(
        &desk,
        1,
        &past,
        &[Step::Arming, Step::Active, Step::Ending, Step::Saving, Step::Resetting, Step::Done],
        -1440,
    )
    .await;
    let taken = book(&desk, "dan", 240, 300).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let bob = desk.wait(&who("bob"), at(1), None, &wish(Some("one"), 240, 300)).await.unwrap();
    assert_eq!(desk.wait(&who("bob"), at(1), None, &wish(None, 240, 300)).await.unwrap_err().code, Code::BookOwn);
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 0, "nothing is free");

    let refused = desk.extend(&who("dan"), NOW, None, &taken.id, at(330), &Edit::default()).await;
    assert!(refused.is_ok(), "nobody waits for the half hour after");
    desk.cancel(&who("dan"), NOW, None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk.settle(at(3)).await.unwrap().offered, 1);
    assert_eq!(state(&desk, &bob).await, State::Offered, "bob used least");
    assert_eq!(state(&desk, &amy).await, State::Waitlisted);
    assert!(
        desk.book(&who("cem"), at(4), None, &wish(Some("one"), 240, 300)).await.is_err(),
        "an offer holds the place"
    );

    assert_eq!(clerk.settle(at(12)).await.unwrap().settled, 0);
    let ticked = clerk.settle(at(13)).await.unwrap();
    assert_eq!((ticked.settled, ticked.offered), (1, 1));
    assert_eq!((state(&desk, &bob).await, state(&desk, &amy).await), (State::Waitlisted, State::Offered));
    assert_eq!(desk.accept(&who("bob"), at(14), None, &amy.id).await.unwrap_err().code, Code::HubDenied);
    let accepted = desk.accept(&who("amy"), at(14), None, &amy.id).await.unwrap();
    assert_eq!((accepted.state, accepted.place), (State::Booked, Some(0)));
    clerk.settle(at(240)).await.unwrap();
    assert_eq!(state(&desk, &bob).await, State::Cancelled, "its start has come");
    healthy(&desk).await;
}

pub async fn nobody_is_quicker_than_who_waits(desk: Desk) {
    camp(&desk, &generous()).await;
    let week = 7 * 1440;
    let (soon, later) = (book(&desk, "dan", 240, 300).await, book(&desk, "dan", 240 + week, 300 + week).await);
    let bob = desk.wait(&who("bob"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let amy = desk.wait(&who("amy"), NOW, None, &wish(None, 240 + week, 300 + week)).await.unwrap();
    desk.cancel(&who("dan"), at(1), None, &soon.id, &Edit::default()).await.unwrap();
    // No clerk came by since.
    let quick = desk.book(&who("cem"), at(1), None, &wish(Some("one"), 240, 300)).await.unwrap_err();
    assert_eq!(quick.problem.code, Code::BookConflict);
    assert_eq!(state(&desk, &bob).await, State::Offered);
    // What nobody waits for can be had beside it.
    desk.book(&who("cem"), at(1), None, &wish(Some("one"), 330, 390)).await.unwrap();

    desk.cancel(&who("dan"), at(2), None, &later.id, &Edit::default()).await.unwrap();
    // Who is next herself takes it by booking, also for longer than she waited for.
    let own = desk.book(&who("amy"), at(2), None, &wish(None, 210 + week, 300 + week)).await.unwrap();
    assert_eq!((own.state, state(&desk, &amy).await), (State::Booked, State::Waitlisted));
    assert_eq!(clerk(&desk).settle(at(3)).await.unwrap().offered, 0);
    healthy(&desk).await;
}

pub async fn who_waits_for_something_else_goes_past_nobody(desk: Desk) {
    camp(&desk, &generous()).await;
    let (first, second) = (book(&desk, "dan", 240, 300).await, book(&desk, "dan", 330, 390).await);
    let cem = desk.wait(&who("cem"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let bob = desk.wait(&who("bob"), at(1), None, &wish(None, 330, 390)).await.unwrap();
    for taken in [first, second] {
        desk.cancel(&who("dan"), at(2), None, &taken.id, &Edit::default()).await.unwrap();
    }
    let refused = desk.book(&who("cem"), at(2), None, &wish(Some("one"), 330, 390)).await.unwrap_err();
    assert_eq!(refused.problem.code, Code::BookConflict, "{}", refused.problem);
    assert_eq!(state(&desk, &bob).await, State::Offered);
    clerk(&desk).settle(at(3)).await.unwrap();
    assert_eq!(state(&desk, &cem).await, State::Offered);
    healthy(&desk).await;
}

pub async fn offers_keep_to_labels_and_quotas(desk: Desk) {
    camp(&desk, &Policy { person_hours: 2, ..generous() }).await;
    server_with(&desk, "gpu", Mode::Exclusive, 8, 32, &["gpu"]).await;
    let mut want = wish(None, 240, 300);
    want.labels = ["gpu".to_owned()].into();
    let taken = desk.book(&who("dan"), NOW, None, &want).await.unwrap();
    let amy = desk.wait(&who("amy"), NOW, None, &want).await.unwrap();
    let bob = desk.wait(&who("bob"), at(1), None, &want).await.unwrap();
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(2)).await.unwrap().offered, 0, "the server that is free has no such label");
    book(&desk, "amy", 600, 720).await;
    desk.cancel(&who("dan"), at(3), None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk.settle(at(4)).await.unwrap().offered, 1);
    assert_eq!(state(&desk, &amy).await, State::Waitlisted, "her hours of the week are used up");
    let offer = desk.booking(&who("bob"), at(4), &bob.id).await.unwrap();
    assert_eq!((offer.state, offer.server.unwrap().as_str()), (State::Offered, "gpu"));
    let accepted = desk.accept(&who("bob"), at(5), None, &bob.id).await.unwrap();
    assert_eq!(desk.accept(&who("bob"), at(6), None, &bob.id).await.unwrap(), accepted, "a second yes changes nothing");
    healthy(&desk).await;
}

pub async fn who_left_the_course_holds_nobody_up(desk: Desk) {
    camp(&desk, &generous()).await;
    let taken = book(&desk, "dan", 240, 300).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wish(Some("one"), 240, 300)).await.unwrap();
    let bob = desk.wait(&who("bob"), at(1), None, &wish(Some("one"), 240, 300)).await.unwrap();
    let (login, group) = ("amy".parse().unwrap(), "red".parse().unwrap());
    desk.set_member(&Caller::Console, at(2), &login, &group, false).await.unwrap();
    desk.cancel(&who("dan"), at(2), None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk(&desk).settle(at(3)).await.unwrap().offered, 1);
    assert_eq!((state(&desk, &amy).await, state(&desk, &bob).await), (State::Waitlisted, State::Offered));
    // Nor does who was asked before he left get anything in it.
    desk.set_member(&Caller::Console, at(4), &"bob".parse().unwrap(), &group, false).await.unwrap();
    assert_eq!(desk.accept(&who("bob"), at(4), None, &bob.id).await.unwrap_err().code, Code::HubDenied);
    assert_eq!(state(&desk, &bob).await, State::Offered, "it lapses");
    healthy(&desk).await;
}

pub async fn who_declines_an_offer_leaves_it_to_the_next_at_once(desk: Desk) {
    camp(&desk, &generous()).await;
    let taken = book(&desk, "dan", 240, 300).await;
    let amy = desk.wait(&who("amy"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let bob = desk.wait(&who("bob"), at(1), None, &wish(None, 240, 300)).await.unwrap();
    acknowledge(&desk, 1).await;
    desk.cancel(&who("dan"), at(2), None, &taken.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk(&desk).settle(at(2)).await.unwrap().offered, 0, "its agent knows of dan's yet");
    acknowledge(&desk, 3).await;
    assert_eq!(clerk(&desk).settle(at(3)).await.unwrap().offered, 1);
    assert_eq!(state(&desk, &amy).await, State::Offered);
    // Of what is only offered no agent has ever heard.
    desk.cancel(&who("amy"), at(4), None, &amy.id, &Edit::default()).await.unwrap();
    assert_eq!(clerk(&desk).settle(at(4)).await.unwrap().offered, 1);
    assert_eq!(state(&desk, &bob).await, State::Offered);
    healthy(&desk).await;
}

pub async fn nobody_waits_for_everything(desk: Desk) {
    camp(&desk, &Policy { waits: 2, ..generous() }).await;
    for from in [240, 330, 420] {
        book(&desk, "dan", from, from + 60).await;
    }
    let free = desk.wait(&who("amy"), NOW, None, &wish(None, 60, 120)).await.unwrap_err();
    assert_eq!(free.code, Code::BookState);
    assert!(free.what.ends_with("is free now") && free.all_hints()[0].contains("book new"), "{free:?}");
    let wait = |from: i64| {
        let desk = desk.clone();
        async move { desk.wait(&who("amy"), NOW, None, &wish(None, from, from + 60)).await }
    };
    let first = wait(240).await.unwrap();
    wait(330).await.unwrap();
    assert_eq!(wait(420).await.unwrap_err().code, Code::BookAhead);
    desk.cancel(&who("amy"), NOW, None, &first.id, &Edit::default()).await.unwrap();
    wait(420).await.unwrap();
    healthy(&desk).await;
}

pub async fn a_wait_keeps_to_the_notice_and_its_offer_need_not(desk: Desk) {
    camp(&desk, &Policy { notice: 1440, ..generous() }).await;
    let clerk = clerk(&desk);
    let refused = async |now, wanted: &BookRequest| {
        let booked = desk.book(&who("amy"), now, None, wanted).await.unwrap_err().problem;
        let waited = desk.wait(&who("amy"), now, None, wanted).await.unwrap_err();
        assert_eq!((booked.code, waited.code), (Code::BookNotice, Code::BookNotice));
        assert_eq!(booked.what, waited.what);
    };
    for server in [Some("one"), None] {
        refused(NOW, &wish(server, 120, 180)).await;
    }
    assert_eq!(clerk.settle(at(1)).await.unwrap().offered, 0);

    // Who waited in time is asked later than others may book.
    let taken = book(&desk, "dan", 1500, 1560).await;
    let bob = desk.wait(&who("bob"), NOW, None, &wish(Some("one"), 1500, 1560)).await.unwrap();
    desk.cancel(&who("dan"), at(1440), None, &taken.id, &Edit::default()).await.unwrap();
    refused(at(1440), &wish(Some("one"), 1500, 1560)).await;
    assert_eq!(clerk.settle(at(1440)).await.unwrap().offered, 1);
    assert_eq!(desk.accept(&who("bob"), at(1441), None, &bob.id).await.unwrap().state, State::Booked);

    // A teacher who says why goes past it, as with a booking.
    let late = BookRequest {
        person: Some("cem".parse().unwrap()),
        reason: Some("was ill".into()),
        ..wish(Some("one"), 1500, 1560)
    };
    assert_eq!(desk.wait(&who("tea"), at(1442), None, &late).await.unwrap().state, State::Waitlisted);
    healthy(&desk).await;
}

pub async fn links_work_once_and_signatures_sign_in(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let amy = "amy".parse().unwrap();
    let link = desk.make_link(&who("tea"), NOW, &amy).await.unwrap();
    assert_eq!(desk.make_link(&who("bob"), NOW, &amy).await.unwrap_err().code, Code::HubDenied);
    assert_eq!(desk.caller_of(NOW, &link.text).await.unwrap_err().code, Code::HubSignIn, "a link is no token");
    let session = desk.use_link(at(1), &link.text, "browser").await.unwrap();
    assert_eq!(desk.use_link(at(1), &link.text, "browser").await.unwrap_err().code, Code::HubSignIn);
    assert_eq!(desk.caller_of(at(2), &session.text).await.unwrap(), who("amy"));
    assert_eq!(desk.caller_of(at(13 * 60), &session.text).await.unwrap_err().code, Code::HubSignIn, "it ends");
    let late = desk.make_link(&who("tea"), NOW, &amy).await.unwrap();
    assert_eq!(desk.use_link(at(16), &late.text, "browser").await.unwrap_err().code, Code::HubSignIn);
    desk.sign_out(&who("amy"), at(3), &session.text).await.unwrap();
    assert_eq!(desk.caller_of(at(3), &session.text).await.unwrap_err().code, Code::HubSignIn);
    let feed = desk.make_token(&who("amy"), NOW, TokenKind::Feed, "phone").await.unwrap();
    assert_eq!(desk.feed_of(NOW, &feed.text).await.unwrap(), amy);
    assert!(desk.caller_of(NOW, &feed.text).await.is_err());
    let machine = desk.make_agent_token(&Caller::Console, NOW, &"one".parse().unwrap()).await.unwrap();
    assert_eq!(desk.caller_of(NOW, &machine.text).await.unwrap(), agent("one"));
    let next = desk.make_agent_token(&Caller::Console, at(1), &"one".parse().unwrap()).await.unwrap();
    assert!(desk.caller_of(at(1), &machine.text).await.is_ok(), "until the new one is used");
    assert_eq!(desk.caller_of(at(2), &next.text).await.unwrap(), agent("one"));
    assert_eq!(desk.caller_of(at(2), &machine.text).await.unwrap_err().code, Code::HubSignIn);

    let folder = tempfile::tempdir().unwrap();
    let (key, public) = key_pair(folder.path(), "key");
    let known = NewPerson {
        id: amy.clone(),
        name: "Amy".into(),
        role: Role::Student,
        active: None,
        zone: None,
        keys: vec![public],
    };
    desk.put_person(&who("tea"), NOW, &known, Some(1)).await.unwrap();
    let sign = |text: &str, namespace: &str| {
        let file = folder.path().join("text");
        fs::write(&file, text).unwrap();
        let _ = fs::remove_file(file.with_extension("sig"));
        let out = Command::new("ssh-keygen")
            .args(["-Y", "sign", "-n", namespace, "-f"])
            .arg(&key)
            .arg(&file)
            .output()
            .unwrap();
        assert!(out.status.success());
        fs::read_to_string(file.with_extension("sig")).unwrap()
    };
    let challenge = desk.challenge(NOW, &amy, Some("https://hub.example")).await.unwrap();
    assert!(challenge.text.ends_with(" https://hub.example"), "{}", challenge.text);
    let good = sign(&challenge.text, "kubecamp-login");
    let token = desk.answer(at(1), &challenge.text, &good, "laptop", "192.0.2.1").await.unwrap();
    assert_eq!(desk.caller_of(at(1), &token.text).await.unwrap(), who("amy"));
    assert_eq!(
        desk.answer(at(1), &challenge.text, &good, "laptop", "192.0.2.1").await.unwrap_err().code,
        Code::HubSignIn,
        "once"
    );
    for n in 0..6 {
        let challenge = desk.challenge(NOW, &amy, None).await.unwrap();
        let other = sign(&challenge.text, "kubecamp-plan");
        let expected = if n < 5 { Code::HubSignIn } else { Code::HubLocked };
        assert_eq!(
            desk.answer(at(2), &challenge.text, &other, "x", "192.0.2.1").await.unwrap_err().code,
            expected,
            "try {n}"
        );
    }
    // Who fails on purpose keeps nobody out who has the key, not even from the same address.
    let challenge = desk.challenge(NOW, &amy, None).await.unwrap();
    let good = sign(&challenge.text, "kubecamp-login");
    desk.answer(at(2), &challenge.text, &good, "class", "192.0.2.1").await.unwrap();
    for n in 0..50 {
        let challenge = desk.challenge(NOW, &amy, None).await.unwrap();
        let tried = desk.answer(at(3), &challenge.text, "none", "x", &format!("198.51.100.{}", n / 4)).await;
        assert_eq!(tried.unwrap_err().code, Code::HubSignIn, "try {n}");
    }
    for (minute, code) in [(4, Code::HubLocked), (19, Code::HubSignIn)] {
        let challenge = desk.challenge(at(minute), &amy, None).await.unwrap();
        let tried = desk.answer(at(minute), &challenge.text, "none", "home", "192.0.2.2").await;
        assert_eq!(tried.unwrap_err().code, code, "minute {minute}");
    }
    let stranger = desk.challenge(NOW, &"nobody1".parse().unwrap(), None).await.unwrap();
    let signed = sign(&stranger.text, "kubecamp-login");
    assert_eq!(desk.answer(NOW, &stranger.text, &signed, "x", "192.0.2.1").await.unwrap_err().code, Code::HubSignIn);
    let audit = serde_json::to_string(&desk.audit(&Caller::Console, NOW, None, None, 1000).await.unwrap()).unwrap();
    for secret in [&link.text, &session.text, &token.text, &feed.text] {
        assert!(!audit.contains(secret.expose()), "a token stands in the audit");
    }
    healthy(&desk).await;
}

pub async fn keys_are_ones_own_matter(desk: Desk) {
    camp(&desk, &generous()).await;
    book(&desk, "amy", 60, 120).await;
    let one = "one".parse().unwrap();
    let before = desk.plan_for(&agent("one"), NOW, &one).await.unwrap().revision;
    let line = |comment: &str| HubKey::generate(comment).unwrap().public_line().unwrap();
    let mine = [line("me@laptop"), line("me@desk")];
    let keys = [mine[0].clone(), mine[1].clone(), format!(" {} again ", mine[0])];
    let after = desk.set_own_keys(&who("amy"), NOW, &keys, Some(1), None).await.unwrap();
    assert_eq!((after.keys.len(), after.version, after.name.as_str()), (2, 2, "AMY"));
    assert_eq!(after.keys, mine, "people know their keys by what stands behind them");
    let long = [format!("ssh-rsa {}", "A".repeat(5000))];
    let refused = desk.set_own_keys(&who("amy"), NOW, &long, None, None).await.err().unwrap();
    assert!(refused.code == Code::HubInvalid && refused.what.contains("longer than 4096"), "{refused}");
    assert!(desk.plan_for(&agent("one"), NOW, &one).await.unwrap().revision > before, "the agent hears of it");
    let code = async |caller: &Caller, keys: &[String], version| {
        desk.set_own_keys(caller, NOW, keys, version, None).await.err().map(|p| p.code)
    };
    assert_eq!(code(&who("amy"), &mine, Some(1)).await, Some(Code::BookStale));
    assert_eq!(code(&who("amy"), &["ssh-ed25519 nonsense".into()], None).await, Some(Code::HubInvalid));
    assert_eq!(code(&who("amy"), &vec![mine[0].clone(); 21], None).await, Some(Code::HubInvalid));
    assert_eq!(code(&Caller::Console, &mine, None).await, Some(Code::HubDenied));
    assert_eq!(desk.person(&who("amy"), NOW, &"amy".parse().unwrap()).await.unwrap().keys, after.keys);
    assert_eq!(code(&who("amy"), &[], None).await, None);
    healthy(&desk).await;
}

pub async fn servers_and_groups_go_when_nobody_needs_them(desk: Desk) {
    camp(&desk, &generous()).await;
    let (one, red, console) = ("one".parse().unwrap(), "red".parse().unwrap(), Caller::Console);
    let booking = book(&desk, "amy", 60, 120).await;
    let machine = desk.make_agent_token(&console, NOW, &one).await.unwrap();
    let code = |outcome: Result<(), Problem>| outcome.err().map(|p| p.code);
    assert_eq!(code(desk.remove_server(&who("tea"), NOW, &one, None).await), Some(Code::HubDenied));
    assert_eq!(code(desk.remove_server(&console, NOW, &one, Some(7)).await), Some(Code::BookStale));
    assert_eq!(code(desk.remove_server(&console, NOW, &one, None).await), Some(Code::BookState));
    assert_eq!(code(desk.remove_group(&who("tea"), NOW, &red).await), Some(Code::BookState));
    desk.cancel(&who("amy"), NOW, None, &booking.id, &Edit::default()).await.unwrap();
    desk.remove_group(&who("tea"), NOW, &red).await.unwrap();
    assert_eq!(desk.groups(&console, NOW).await.unwrap().len(), 1);
    let amy = desk.person(&who("amy"), NOW, &"amy".parse().unwrap()).await.unwrap();
    assert!(amy.groups.is_empty());
    let old = desk.booking(&who("amy"), NOW, &booking.id).await.unwrap();
    assert_eq!((old.group, old.state), (None, State::Cancelled));

    desk.add_maintenance(&console, NOW, None, &one, window(600, 700), "disk").await.unwrap();
    let same = desk.add_maintenance(&console, NOW, None, &one, window(600, 700), "fan").await.unwrap_err();
    assert_eq!(same.code, Code::HubExists, "the very same time: {same}");
    desk.remove_server(&console, NOW, &one, None).await.unwrap();
    assert_eq!(code(desk.remove_server(&console, NOW, &one, None).await), Some(Code::HubUnknown));
    assert!(desk.servers(&console, NOW).await.unwrap().is_empty());
    assert!(desk.maintenance(&console, NOW, window(0, 1000)).await.unwrap().is_empty());
    assert_eq!(desk.caller_of(NOW, &machine.text).await.unwrap_err().code, Code::HubSignIn, "its agent is out");
    let refusal = desk.book(&who("dan"), NOW, None, &wish(Some("one"), 60, 120)).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::HubUnknown);
    assert_eq!(desk.booking(&who("amy"), NOW, &booking.id).await.unwrap().server, Some(one), "history keeps its name");
    // Nothing can be done with it any more, and that is said of it, not of its server.
    assert_eq!(desk.elsewhere(&who("amy"), NOW, &booking.id).await.unwrap().why, None);
    let again = desk.cancel(&who("amy"), NOW, None, &booking.id, &Edit::default()).await.unwrap_err();
    assert_eq!(again.code, Code::BookState);
    // One of the same name begins anew, with an agent that counts from one again.
    server(&desk, "one", Mode::Shared, 16, 64).await;
    let again = desk.book(&who("dan"), NOW, None, &wish(Some("one"), 60, 120)).await.unwrap();
    assert_eq!(report(&desk, 1, &again, Step::Arming, 60).await, Taken::Applied);
    healthy(&desk).await;
}

pub async fn a_roster_is_imported_whole_or_not(desk: Desk) {
    camp(&desk, &Policy::default()).await;
    let course = "k8s".parse().unwrap();
    let import = |text: &'static str| {
        let (desk, course) = (desk.clone(), "k8s".parse().unwrap());
        async move {
            let roster = Roster { course: &course, file: "roster.csv", text };
            desk.import_roster(&who("tea"), NOW, None, roster, None).await
        }
    };
    let wrong = import("eve,Eve,green\nBAD,x,green\n,y,green\n").await.unwrap_err();
    assert_eq!(wrong.iter().map(|p| p.at.as_ref().unwrap().line).collect::<Vec<_>>(), [2, 3]);
    assert!(desk.people(&who("tea"), NOW).await.unwrap().iter().all(|p| p.id.as_str() != "eve"));
    let teacher = import("eve,Eve,green\ntea,Tea,green\n").await.unwrap_err();
    assert_eq!(teacher.iter().next().unwrap().code, Code::HubRoster);
    assert!(desk.people(&who("tea"), NOW).await.unwrap().iter().all(|p| p.id.as_str() != "eve"), "all or nothing");
    let text = "login,name,group,zone\neve,Eve,green,Asia/Shanghai\namy,Amy,red\n";
    let done = import(text).await.unwrap();
    assert_eq!((done.added, done.changed, done.same), (1, 1, 0));
    let done = import(text).await.unwrap();
    assert_eq!((done.added, done.changed, done.same), (0, 0, 2));
    // Who is in another group by it leaves the one before; a group of another course is none of its business.
    desk.put_course(&Caller::Console, NOW, &"net".parse().unwrap(), "Nets", &generous(), None).await.unwrap();
    desk.put_group(&Caller::Console, NOW, &"wire".parse().unwrap(), &"net".parse().unwrap()).await.unwrap();
    desk.set_member(&Caller::Console, NOW, &"amy".parse().unwrap(), &"wire".parse().unwrap(), true).await.unwrap();
    for (done, wanted) in [((0, 1, 0), ["white", "wire"]), ((0, 0, 1), ["white", "wire"])] {
        let moved = import("amy,Amy,white\n").await.unwrap();
        assert_eq!((moved.added, moved.changed, moved.same), done);
        let groups = desk.person(&who("amy"), NOW, &"amy".parse().unwrap()).await.unwrap().groups;
        assert_eq!(groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(), wanted);
    }
    let roster = Roster { course: &course, file: "r", text };
    assert!(desk.import_roster(&who("amy"), NOW, None, roster, None).await.is_err());
    person(&desk, "fay", Some("green")).await;
    healthy(&desk).await;
}

pub async fn webhooks_are_signed_and_tried_again(desk: Desk) {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::method};
    let receiver = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(500)).up_to_n_times(1).mount(&receiver).await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(204)).mount(&receiver).await;
    camp(&desk, &Policy::default()).await;
    for bad in [
        "ftp://x",
        "http://user:pw@x/",
        "http://user@x/",
        "file:///etc/passwd",
        "x",
        "http://x/\r\nX: y",
        "http://x/\ty",
        " http://x/",
        "http://x/a b",
        "javascript:alert(1)",
    ] {
        assert_eq!(desk.add_hook(&Caller::Console, NOW, None, bad).await.unwrap_err().code, Code::HubInvalid, "{bad}");
    }
    let (host, url) = (receiver.address().to_string(), format!("{}/in?key=t0psecret", receiver.uri()));
    let (_, secret) = desk.add_hook(&Caller::Console, NOW, None, &url).await.unwrap();
    let audit = serde_json::to_string(&desk.audit(&who("tea"), NOW, None, None, 1000).await.unwrap()).unwrap();
    assert!(audit.contains(&host) && !audit.contains("t0psecret"), "teachers read the audit, and no webhooks");
    book(&desk, "amy", 60, 120).await;
    let clerk = clerk(&desk);
    assert_eq!(clerk.send_hooks(NOW).await.unwrap(), 0, "it answered 500");
    assert_eq!(clerk.send_hooks(NOW + 9).await.unwrap(), 0, "not yet");
    assert_eq!(clerk.send_hooks(NOW + 10).await.unwrap(), 1);
    assert_eq!(clerk.send_hooks(NOW + 3600).await.unwrap(), 0, "once is enough");
    let requests = receiver.received_requests().await.unwrap();
    assert_eq!(requests.len(), 2);
    let last = requests.last().unwrap();
    let body = String::from_utf8(last.body.clone()).unwrap();
    let expected = kubecamp::hub::clerk::signature(&secret, NOW + 10, &body);
    assert_eq!(last.headers["kubecamp-signature"].to_str().unwrap(), expected);
    assert_eq!(last.headers["kubecamp-event"], "booking.booked");
    healthy(&desk).await;
}

pub async fn who_is_out_loses_tokens_and_slots(desk: Desk) {
    camp(&desk, &generous()).await;
    let running = book(&desk, "amy", 0, 60).await;
    reports(&desk, 1, &running, &[Step::Arming, Step::Active], 0).await;
    let ahead = book(&desk, "amy", 120, 180).await;
    book(&desk, "dan", 240, 300).await;
    let waits = desk.wait(&who("amy"), NOW, None, &wish(None, 240, 300)).await.unwrap();
    let token = desk.make_token(&who("amy"), NOW, TokenKind::Api, "x").await.unwrap();
    let out = NewPerson {
        id: "amy".parse().unwrap(),
        name: "Amy".into(),
        role: Role::Student,
        active: Some(false),
        zone: None,
        keys: vec![],
    };
    desk.put_person(&who("tea"), at(10), &out, Some(1)).await.unwrap();
    assert_eq!(desk.caller_of(at(10), &token.text).await.unwrap_err().code, Code::HubSignIn);
    assert_eq!((state(&desk, &ahead).await, state(&desk, &waits).await), (State::Cancelled, State::Cancelled));
    assert_eq!(desk.booking(&Caller::Console, at(10), &running.id).await.unwrap().window.ends, at(10));
    assert_eq!(
        desk.book(&who("amy"), at(10), None, &wish(Some("one"), 300, 330)).await.unwrap_err().problem.code,
        Code::HubDenied
    );
    healthy(&desk).await;
}
