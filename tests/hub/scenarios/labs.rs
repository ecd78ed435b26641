//! Labs that stay on the server where they were saved: whoever has one is offered that server first, and told.

use kubecamp::{
    core::Code,
    hub::{
        desk::{Caller, ClassRequest, Desk, Edit, Step, StudentWishes, Taken},
        domain::{Beginning, Booking, Free, Health, Mode, State, Wish},
    },
};

use crate::hub::world::{
    NOW, agent, at, camp, clerk, generous, healthy, new_server, report, reports, search, server, who, window, wish,
};

/// The camp with a second server like the first.
async fn two_servers(desk: &Desk) {
    camp(desk, &generous()).await;
    server(desk, "two", Mode::Exclusive, 8, 32).await;
}

/// What a server's agent tells of somebody's lab there.
async fn keeps(desk: &Desk, name: &str, number: i64, login: &str, layout: Option<&str>) {
    let (of, server) = (agent(name), name.parse().unwrap());
    desk.lab(&of, NOW, &server, number, login, layout.map(|layout| ("gate-lab", layout))).await.unwrap();
}

async fn anywhere(desk: &Desk, login: &str, from: i64, to: i64) -> String {
    desk.book(&who(login), NOW, None, &wish(None, from, to)).await.unwrap().server.unwrap().to_string()
}

fn places(found: &[Free]) -> Vec<(String, Option<Beginning>)> {
    found.iter().map(|free| (free.server.to_string(), free.lab.clone())).collect()
}

pub async fn who_has_a_saved_lab_gets_its_server_first(desk: Desk) {
    two_servers(&desk).await;
    keeps(&desk, "two", 1, "amy", Some("1x4c12g")).await;
    let want = |layout: Option<&str>| search(None, layout, window(300, 600), 2);
    let on_two = Some(Beginning::Fresh { saved_on: "two".parse().unwrap() });
    let both = [("two".to_owned(), Some(Beginning::Saved)), ("one".to_owned(), on_two)];
    for layout in [Some("1x4c12g"), None] {
        let found = desk.free(&who("amy"), NOW, &want(layout)).await.unwrap();
        assert_eq!((places(&found), found[0].window), (both.to_vec(), found[1].window), "{layout:?}");
    }
    let others = desk.free(&who("bob"), NOW, &want(None)).await.unwrap();
    assert_eq!(places(&others), [("one".to_owned(), None), ("two".to_owned(), None)]);
    assert_eq!(anywhere(&desk, "amy", 0, 60).await, "two");
    assert_eq!(anywhere(&desk, "bob", 0, 60).await, "one");

    // Who is refused gets it first among what is as near.
    for (login, name) in [("cem", "one"), ("dan", "two")] {
        desk.book(&who(login), NOW, None, &wish(Some(name), 300, 360)).await.unwrap();
    }
    let refusal = desk.book(&who("amy"), NOW, None, &wish(None, 300, 360)).await.unwrap_err();
    assert_eq!(refusal.problem.code, Code::BookConflict);
    assert_eq!(places(&refusal.alternatives[..2]), both);
    assert_eq!(refusal.alternatives[0].window, refusal.alternatives[1].window);
    healthy(&desk).await;
}

pub async fn a_lab_of_another_layout_is_not_thrown_away_unasked(desk: Desk) {
    two_servers(&desk).await;
    keeps(&desk, "one", 1, "amy", Some("2x4c8g")).await;
    // The other server first; where no layout is named, the saved one's is meant.
    assert_eq!(anywhere(&desk, "amy", 0, 60).await, "two");
    let mut any = wish(None, 120, 180);
    any.layout = None;
    let booked = desk.book(&who("amy"), NOW, None, &any).await.unwrap();
    assert_eq!((booked.server.unwrap().as_str(), booked.layout.to_string().as_str()), ("one", "2x4c8g"));
    keeps(&desk, "one", 2, "amy", None).await;
    assert_eq!(desk.labs(&who("amy"), NOW, None).await.unwrap(), []);
    assert_eq!(anywhere(&desk, "amy", 240, 300).await, "one");
    healthy(&desk).await;
}

pub async fn offers_moves_and_class_plans_go_by_saved_labs_too(desk: Desk) {
    two_servers(&desk).await;
    server(&desk, "six", Mode::Exclusive, 8, 32).await;
    keeps(&desk, "two", 1, "amy", Some("1x4c12g")).await;
    let mut taken: Vec<(&str, Booking)> = vec![];
    for (login, name) in [("bob", "one"), ("cem", "two"), ("dan", "six")] {
        let booked = desk.book(&who(login), NOW, None, &wish(Some(name), 300, 360)).await.unwrap();
        taken.push((login, booked));
    }
    let waiting = desk.wait(&who("amy"), NOW, None, &wish(None, 300, 360)).await.unwrap();
    for (login, booked) in &taken {
        desk.cancel(&who(login), NOW, None, &booked.id, &Edit::default()).await.unwrap();
    }
    let clerk = clerk(&desk);
    assert_eq!(clerk.settle(at(1)).await.unwrap().offered, 1);
    let offer = desk.booking(&who("amy"), NOW, &waiting.id).await.unwrap();
    assert_eq!((offer.state, offer.server.unwrap().as_str()), (State::Offered, "two"));

    let booked = desk.book(&who("amy"), NOW, None, &wish(Some("one"), 60, 120)).await.unwrap();
    desk.set_health(&Caller::Console, NOW, None, &"one".parse().unwrap(), Health::Away, "a disk is changed")
        .await
        .unwrap();
    assert_eq!(clerk.settle(at(2)).await.unwrap().moved, 1);
    let moved = desk.booking(&who("amy"), NOW, &booked.id).await.unwrap();
    assert_eq!(moved.server.unwrap().as_str(), "two", "and not six, which comes first by name");

    // She has two slots ahead and chooses last: by then both servers are free again.
    let wishes = vec![Wish { within: window(900, 960) }];
    let want = ClassRequest {
        course: "k8s".parse().unwrap(),
        layout: "1x4c12g".parse().unwrap(),
        minutes: 60,
        slots: 1,
        within: window(600, 1440),
        wishes: vec![StudentWishes { person: "amy".parse().unwrap(), wishes }],
        reason: None,
        seen: None,
    };
    let plan = desk.plan_class(&who("tea"), NOW, &want).await.unwrap();
    let given = plan.rows.iter().find(|row| row.person.as_str() == "amy").unwrap().given.clone().unwrap();
    assert_eq!((given.server.as_str(), given.lab), ("two", Some(Beginning::Saved)));
    healthy(&desk).await;
}

pub async fn an_agent_says_whether_it_makes_labs(desk: Desk) {
    two_servers(&desk).await;
    let one = "one".parse().unwrap();
    let known = async || desk.server(&who("amy"), NOW, &one).await.unwrap().makes_labs;
    assert_eq!(known().await, None);
    assert_eq!(desk.makes_labs(&agent("two"), NOW, &one, false).await.unwrap_err().code, Code::HubDenied);
    for makes in [false, false, true] {
        desk.makes_labs(&agent("one"), NOW, &one, makes).await.unwrap();
        assert_eq!(known().await, Some(makes));
    }
    let noted = desk.audit(&Caller::Console, NOW, Some("server:one".into()), None, 100).await.unwrap();
    assert_eq!(noted.iter().filter(|row| row.action == "server.makes-labs").count(), 2, "once for each change");
    let seen = desk.server(&Caller::Console, NOW, &one).await.unwrap().version;
    let new = new_server("one", Mode::Exclusive, 8, 64);
    assert_eq!(desk.put_server(&Caller::Console, NOW, &new, Some(seen)).await.unwrap().makes_labs, Some(true));
    healthy(&desk).await;
}

pub async fn labs_that_went_with_a_gate_are_promised_to_nobody(desk: Desk) {
    two_servers(&desk).await;
    let two = "two".parse().unwrap();
    for (number, login) in [(1, "amy"), (2, "cem")] {
        keeps(&desk, "two", number, login, Some("1x4c12g")).await;
    }
    keeps(&desk, "one", 1, "amy", Some("1x4c12g")).await;
    let book = async |login: &str, on: &str, from: i64| {
        desk.book(&who(login), NOW, None, &wish(Some(on), from, from + 60)).await.unwrap()
    };
    let hers = book("amy", "two", 300).await;
    let others = [book("bob", "two", 390).await, book("amy", "one", 510).await];
    assert_eq!(desk.forget_labs(&who("tea"), NOW, &two).await.unwrap_err().code, Code::HubDenied);
    assert_eq!(desk.forget_labs(&Caller::Console, NOW, &two).await.unwrap(), 2);
    let left = desk.labs(&who("amy"), NOW, None).await.unwrap();
    assert_eq!(left.iter().map(|lab| lab.server.as_str()).collect::<Vec<_>>(), ["one"]);
    let now = async |b: &Booking| desk.booking(&Caller::Console, NOW, &b.id).await.unwrap();
    let why = "the lab that was saved on two is gone: it begins with a fresh one";
    assert_eq!(now(&hers).await.note.as_deref(), Some(why));
    for other in &others {
        assert_eq!(now(other).await, *other, "it begins as it was booked");
    }
    assert_eq!(desk.forget_labs(&Caller::Console, NOW, &two).await.unwrap(), 0);
    healthy(&desk).await;
}

pub async fn what_an_agent_tells_of_labs_counts_once_and_for_its_own_server(desk: Desk) {
    two_servers(&desk).await;
    keeps(&desk, "two", 5, "amy", Some("1x4c12g")).await;
    keeps(&desk, "two", 5, "amy", None).await;
    keeps(&desk, "two", 6, "a-stranger", Some("1x4c12g")).await;
    let labs = desk.labs(&who("amy"), NOW, None).await.unwrap();
    assert_eq!(labs.len(), 1, "a number that is known changes nothing");
    assert_eq!((labs[0].server.as_str(), labs[0].name.as_str(), labs[0].since), ("two", "gate-lab", NOW));
    let two = "two".parse().unwrap();
    let denied = desk.lab(&agent("one"), NOW, &two, 7, "amy", None).await.unwrap_err();
    assert_eq!(denied.code, Code::HubDenied);
    let amy = "amy".parse().unwrap();
    assert_eq!(desk.labs(&who("bob"), NOW, Some(&amy)).await.unwrap_err().code, Code::HubDenied);
    assert_eq!(desk.labs(&who("tea"), NOW, Some(&amy)).await.unwrap(), labs);

    // Each save makes it the newest; a slot that is not saved does not.
    let booking = desk.book(&who("amy"), NOW, None, &wish(Some("two"), 0, 60)).await.unwrap();
    reports(&desk, 8, &booking, &[Step::Arming, Step::Active, Step::LoggedIn, Step::Ending, Step::Saving], 30).await;
    assert_eq!(desk.labs(&who("amy"), NOW, None).await.unwrap()[0].since, NOW);
    assert_eq!(report(&desk, 20, &booking, Step::Resetting, 61).await, Taken::Applied);
    assert_eq!(desk.labs(&who("amy"), NOW, None).await.unwrap()[0].since, at(61));

    // An agent that begins tells all of its labs once more, which makes none of them newer; another lab is a new one.
    for (number, layout, since) in [(21, "1x4c12g", at(61)), (22, "2x4c8g", at(90))] {
        desk.lab(&agent("two"), at(90), &two, number, "amy", Some(("gate-lab", layout))).await.unwrap();
        let lab = desk.labs(&who("amy"), NOW, None).await.unwrap().remove(0);
        assert_eq!((lab.layout.to_string().as_str(), lab.since), (layout, since));
    }
    healthy(&desk).await;
}
