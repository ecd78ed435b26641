use super::sim::{Post, T0, slot};
use crate::{
    core::Code,
    hub::gate::{Plan, Reason, ReportKind, SlotState, Wanted, agent::Kept},
};

pub(super) const WHOLE: [SlotState; 6] =
    [SlotState::Arming, SlotState::Active, SlotState::Ending, SlotState::Saving, SlotState::Resetting, SlotState::Done];

/// A slot whose door never opened.
pub(super) const UNOPENED: [SlotState; 4] =
    [SlotState::Arming, SlotState::Ending, SlotState::Resetting, SlotState::Done];

#[tokio::test]
async fn two_slots_one_after_the_other() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 210, 300)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    assert!(!post.is_open("kct-a") && post.sim.at().labs.contains_key("kct-a"), "armed before the start, and shut");
    post.until(100).await.unwrap();
    assert_eq!(post.sim.at().doors["kct-a"], "expiry-time=\"20260921141640Z\" slot-1-kct-a");
    post.until(199).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.until(201).await.unwrap();
    assert!(!post.is_open("kct-a") && post.sim.at().processes.is_empty() && post.sim.at().cron.is_empty());
    assert!(post.sim.at().files.is_empty());
    post.until(400).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1"), WHOLE);
    assert_eq!(post.states("2"), WHOLE);
    assert!(post.told.contains(&ReportKind::Seen { booking: "1".into(), account: Some("kct-a".into()) }));
    assert!(post.told.contains(&ReportKind::Accepted { revision: 1 }));
    let server = post.sim.at();
    let order: Vec<_> =
        server.did.iter().filter(|d| d.ends_with("kct-a")).map(|d| d.split(' ').next().unwrap()).collect();
    let ends = ["shut", "evict", "clear", "cut", "cut", "save", "reset", "prove"];
    assert_eq!((&order[..4], &order[4..]), (&["account", "arm", "account", "open"][..], &ends[..]));
    drop(server);
    post.right();
}

#[tokio::test]
async fn warnings_once_each_and_again_after_an_extension() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 2000)]).unwrap().unwrap();
    post.until(1990).await.unwrap();
    let minutes = |post: &Post| -> Vec<String> {
        post.sim
            .at()
            .warned
            .iter()
            .map(|w| w.split(" in ").nth(1).unwrap().split(" m").next().unwrap().into())
            .collect()
    };
    assert_eq!(minutes(&post), ["15", "5", "1"]);
    post.reborn(None).unwrap();
    post.until(1992).await.unwrap();
    assert_eq!(minutes(&post).len(), 3, "a restarted agent does not say it again");
    post.plan(2, &[slot("1", "kct-a", 0, 2300)]).unwrap().unwrap();
    post.until(2299).await.unwrap();
    assert_eq!(minutes(&post), ["15", "5", "1", "15", "5", "1"]);
    assert!(post.is_open("kct-a"));
    assert!(post.sim.at().warned.iter().all(|told| told.ends_with("; your lab is saved.")));
    // As on a server that makes no labs.
    post.sim.at().labs.clear();
    post.plan(3, &[slot("1", "kct-a", 0, 2400)]).unwrap().unwrap();
    post.until(2399).await.unwrap();
    let last = post.sim.at().warned.last().cloned().unwrap_or_default();
    assert!(last.ends_with("; your home stays."), "{last}");
    post.right();
}

#[tokio::test]
async fn what_the_hub_takes_back_ends_at_once() {
    for (wanted, reason) in [
        (Wanted::Cancelled, Reason::Cancelled),
        (Wanted::Released, Reason::Released),
        (Wanted::NoShow, Reason::NoShow),
        (Wanted::Overridden, Reason::Overridden),
    ] {
        let mut post = Post::new();
        let mut one = slot("1", "kct-a", 0, 1000);
        post.plan(1, std::slice::from_ref(&one)).unwrap().unwrap();
        post.until(50).await.unwrap();
        assert!(post.is_open("kct-a"));
        one.wanted = wanted;
        post.plan(2, &[one]).unwrap().unwrap();
        post.until(52).await.unwrap();
        assert!(!post.is_open("kct-a"));
        post.until(60).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.states("1"), WHOLE);
        let told = post.told.iter().any(|k| matches!(k, ReportKind::State { reason: Some(r), .. } if *r == reason));
        assert!(told, "{:?}", post.told);
    }
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 1000)]).unwrap().unwrap();
    post.until(50).await.unwrap();
    post.plan(2, &[]).unwrap().unwrap();
    post.until(60).await.unwrap();
    assert!(!post.is_open("kct-a") && post.sim.at().processes.is_empty());
}

#[tokio::test]
async fn a_slot_given_up_while_armed_is_reset_and_never_open() {
    let released = crate::hub::gate::Slot { wanted: Wanted::Released, ..slot("1", "kct-a", 100, 101) };
    for then in [vec![], vec![released]] {
        let mut post = Post::new();
        post.plan(1, &[slot("1", "kct-a", 100, 200)]).unwrap().unwrap();
        post.until(90).await.unwrap();
        post.plan(2, &then).unwrap().unwrap();
        post.until(150).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.states("1"), UNOPENED);
        let server = post.sim.at();
        assert!(server.labs.is_empty() && server.saved.is_empty(), "the lab saved before is not overwritten");
        assert!(!server.did.contains(&"open kct-a".to_owned()));
    }
}

#[tokio::test]
async fn an_old_plan_is_refused_and_an_expired_one_closes_everything() {
    let mut post = Post::new();
    let mut plan = Plan::new("s1", 5, T0, T0 + 100);
    plan.slots = vec![slot("1", "kct-a", 0, 1000)];
    post.give(&plan).unwrap().unwrap();
    let mut old = Plan::new("s1", 4, T0, T0 + 1000);
    old.slots = plan.slots.clone();
    assert_eq!(post.give(&old).unwrap().unwrap_err().code, Code::GatePlan);
    let other = Plan::new("s1", 5, T0, T0 + 5000);
    assert_eq!(post.give(&other).unwrap().unwrap_err().code, Code::GatePlan, "the same revision with other slots");
    post.sim.at().rights = plan.slots.clone();
    post.until(99).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.until(101).await.unwrap();
    assert!(!post.is_open("kct-a") && post.sim.at().processes.is_empty());
    post.until(110).await.unwrap();
    post.hear().unwrap();
    let reasons = |k: &ReportKind| matches!(k, ReportKind::State { reason: Some(Reason::PlanExpired), .. });
    assert!(post.told.iter().any(reasons), "{:?}", post.told);
    let mut late = Plan::new("s1", 6, T0, T0 + 105);
    late.slots = plan.slots.clone();
    assert_eq!(post.give(&late).unwrap().unwrap_err().code, Code::GatePlan);
}

/// Nobody books or cancels anything for days: the revision stays, and the plan goes along with time.
#[tokio::test]
async fn a_plan_signed_anew_reaches_slots_that_were_too_far_ahead() {
    let mut post = Post::new();
    post.give(&Plan::new("s1", 5, T0, T0 + 100)).unwrap().unwrap();
    post.until(50).await.unwrap();
    let mut further = Plan::new("s1", 5, T0 + 50, T0 + 150);
    further.slots = vec![slot("1", "kct-a", 110, 140)];
    post.give(&further).unwrap().unwrap();
    let bare = Plan::new("s1", 5, T0 + 50, T0 + 5000);
    assert_eq!(post.give(&bare).unwrap().unwrap_err().code, Code::GatePlan, "of one moment there is one list");
    post.sim.at().rights = further.slots.clone();
    post.until(111).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.reborn(None).unwrap();
    post.until(300).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1"), WHOLE);
    post.right();
}

#[tokio::test]
async fn a_plan_signed_anew_may_tell_more_of_its_people_and_nothing_else() {
    let mut post = Post::new();
    let mut plan = Plan::new("s1", 5, T0, T0 + 100);
    plan.slots = vec![slot("1", "kct-a", 0, 1000)];
    post.give(&plan).unwrap().unwrap();
    plan.expires_at = T0 + 200;
    (plan.slots[0].person, plan.slots[0].more_keys) = ("Amy".into(), vec!["ssh-ed25519 AAAA".into()]);
    post.give(&plan).unwrap().unwrap();
    plan.expires_at = T0 + 300;
    plan.slots[0].ends -= 1;
    assert_eq!(post.give(&plan).unwrap().unwrap_err().code, Code::GatePlan);
}

#[tokio::test]
async fn who_cannot_be_let_in_costs_the_slot_and_not_the_server() {
    for what in ["account", "fit"] {
        let mut post = Post::new();
        post.sim.at().broken.insert(format!("{what} kct-a"));
        post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 210, 300)]).unwrap().unwrap();
        post.until(400).await.unwrap();
        post.hear().unwrap();
        assert!(post.states("1").is_empty(), "nothing was begun");
        assert!(!post.sim.at().did.iter().any(|d| d.ends_with("kct-a") && !d.starts_with("account")));
        assert_eq!(
            post.told.iter().filter(|k| matches!(k, ReportKind::Refused { booking, .. } if booking == "1")).count(),
            1
        );
        assert!(post.told.contains(&ReportKind::Missed { booking: "1".into() }));
        assert_eq!(post.states("2"), WHOLE);
        post.right();
    }
}

#[tokio::test]
async fn a_lab_that_does_not_come_up_costs_its_slot_and_not_the_server() {
    let mut post = Post::new();
    post.sim.at().broken.insert("arm kct-a".into());
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 210, 300)]).unwrap().unwrap();
    post.until(105).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1"), UNOPENED, "over at once, and proven clean");
    let why = |k: &ReportKind| match k {
        ReportKind::State { state: SlotState::Ending, reason: Some(Reason::NotOpened), detail, .. } => detail.clone(),
        _ => vec![],
    };
    assert!(post.told.iter().any(|k| why(k).concat().contains("arm is broken")), "{:?}", post.told);
    post.until(400).await.unwrap();
    post.hear().unwrap();
    let did = post.sim.at().did.clone();
    assert_eq!(did.iter().filter(|d| *d == "arm kct-a").count(), 1, "a slot that is over is not begun again");
    assert!(!did.contains(&"open kct-a".to_owned()) && !did.contains(&"save kct-a".to_owned()), "{did:?}");
    assert_eq!(post.states("2"), WHOLE);
    post.right();
}

#[tokio::test]
async fn a_server_that_cannot_be_cleaned_after_a_failed_lab_is_quarantined() {
    for what in ["reset", "prove"] {
        let mut post = Post::new();
        post.sim.at().broken.extend(["arm kct-a".to_owned(), format!("{what} kct-a")]);
        post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 210, 300)]).unwrap().unwrap();
        post.until(250).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.states("1").last(), Some(&SlotState::Quarantined));
        assert!(post.states("2").is_empty() && !post.is_open("kct-b"), "nobody gets a dirty server");
        post.right();
    }
}

/// Its lab is up, but by the start its account has become one that could get around every slot.
#[tokio::test]
async fn an_account_that_becomes_unfit_while_its_lab_is_armed_ends_its_slot() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 210, 300)]).unwrap().unwrap();
    post.until(90).await.unwrap();
    post.sim.at().broken.insert("account kct-a".into());
    post.until(400).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Done));
    assert!(!post.states("1").contains(&SlotState::Active));
    assert!(!post.sim.at().did.contains(&"open kct-a".to_owned()));
    assert_eq!(post.states("2"), WHOLE);
    post.right();
}

#[tokio::test]
async fn a_failed_reset_is_quarantined_until_cleared() {
    for what in ["save", "reset", "prove"] {
        let mut post = Post::new();
        let slots = [slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 500)];
        post.plan(1, &slots).unwrap().unwrap();
        post.sim.at().broken.insert(format!("{what} kct-a"));
        post.until(200).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.states("1").last(), Some(&SlotState::Quarantined));
        assert!(post.states("2").is_empty() && !post.is_open("kct-b"), "nobody gets a dirty server");
        post.reborn(None).unwrap();
        post.until(210).await.unwrap();
        assert!(!post.is_open("kct-b"));
        post.sim.at().broken.clear();
        let mut plan = Plan::new("s1", 2, T0, T0 + 10_000);
        (plan.slots, plan.cleared) = (slots.to_vec(), vec!["1".into()]);
        post.give(&plan).unwrap().unwrap();
        post.until(220).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.states("1").last(), Some(&SlotState::Done));
        assert!(post.is_open("kct-b"));
        post.right();
    }
}

#[tokio::test]
async fn processes_that_cannot_be_ended_quarantine_the_slot() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 500)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    post.sim.at().broken.insert("evict kct-a".into());
    post.until(150).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Quarantined));
    assert!(!post.is_open("kct-a") && !post.is_open("kct-b"));
}

#[tokio::test]
async fn files_that_cannot_be_removed_quarantine_the_slot() {
    let mut post = Post::new();
    post.sim.at().broken.insert("files kct-a".into());
    post.plan(1, &[slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 500)]).unwrap().unwrap();
    post.until(150).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Quarantined));
    let told = |k: &ReportKind| match k {
        ReportKind::State { detail, .. } => detail.iter().any(|line| line.contains("/tmp/kct-a")),
        _ => false,
    };
    assert!(post.told.iter().any(told) && !post.is_open("kct-b"), "{:?}", post.told);
}

#[tokio::test]
async fn a_lost_clock_shuts_the_doors_before_anything_else() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 100)]).unwrap().unwrap();
    post.until(90).await.unwrap();
    assert!(post.is_open("kct-a"));
    // Over meanwhile, which the clock does not show.
    post.sim.at().wall_ahead = -182_000;
    post.sim.restart(84_000);
    post.reborn(None).unwrap();
    post.agent.tick().await.unwrap();
    post.right();
    assert!(!post.is_open("kct-a"));
}

#[tokio::test]
async fn a_lab_is_reached_while_its_slot_is_open() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 210, 300)]).unwrap().unwrap();
    let reaching = |post: &Post| post.sim.at().reaching.iter().cloned().collect::<Vec<_>>();
    post.until(99).await.unwrap();
    assert!(post.sim.at().labs.contains_key("kct-a") && reaching(&post).is_empty(), "it is up, and nobody's yet");
    post.until(100).await.unwrap();
    assert_eq!(reaching(&post), ["kct-a"]);
    post.reborn(None).unwrap();
    post.until(199).await.unwrap();
    assert_eq!(reaching(&post), ["kct-a"], "a restarted agent knows it");
    post.until(200).await.unwrap();
    assert!(reaching(&post).is_empty());
    post.until(250).await.unwrap();
    assert_eq!(reaching(&post), ["kct-b"]);
    // A way that cannot be closed is no clean end.
    post.sim.at().broken.insert("reach".into());
    post.until(320).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Done));
    assert_eq!(post.states("2").last(), Some(&SlotState::Quarantined));
}

#[tokio::test]
async fn skew_is_refused_beyond_thirty_seconds() {
    for (ahead, opens) in [(29_000, true), (-29_000, true), (31_000, false), (-31_000, false)] {
        let mut post = Post::new();
        post.plan(1, &[slot("1", "kct-a", 100, 200)]).unwrap().unwrap();
        let reading = post.agent.clocks();
        post.agent.measured(&reading, ahead);
        post.until(150).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.is_open("kct-a"), opens, "{ahead}");
        let refused = post.told.iter().filter(|k| matches!(k, ReportKind::Refused { .. })).count();
        assert_eq!(refused, usize::from(!opens), "told once");
        let reading = post.agent.clocks();
        post.agent.measured(&reading, 0);
        post.until(152).await.unwrap();
        assert!(post.is_open("kct-a"), "a mended clock opens");
    }
}

#[tokio::test]
async fn a_clock_set_back_by_an_hour_lengthens_nothing() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-a", 4000, 4100)]).unwrap().unwrap();
    post.until(150).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.sim.at().wall_ahead = -3_600_000;
    post.until(151).await.unwrap();
    assert!(post.is_open("kct-a"), "what is open stays so");
    post.reborn(None).unwrap();
    post.until(201).await.unwrap();
    assert!(!post.is_open("kct-a") && post.sim.at().processes.is_empty());
    post.until(4050).await.unwrap();
    assert!(!post.is_open("kct-a"), "nothing is opened by a clock that is in doubt");
    post.sim.at().wall_ahead = 0;
    post.until(4052).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.right();
}

#[tokio::test]
async fn a_clock_set_ahead_ends_early_and_starts_nothing() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 100), slot("2", "kct-b", 1000, 1100)]).unwrap().unwrap();
    post.until(50).await.unwrap();
    post.sim.at().wall_ahead = 1_020_000;
    post.until(60).await.unwrap();
    assert!(!post.is_open("kct-a") && !post.is_open("kct-b"));
    post.right();
}

#[tokio::test]
async fn a_restart_of_the_machine_midslot_and_late_after_it() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 1000)]).unwrap().unwrap();
    post.until(100).await.unwrap();
    post.sim.restart(20_000);
    post.reborn(None).unwrap();
    post.until(130).await.unwrap();
    assert!(post.is_open("kct-a"), "the slot goes on");
    // Three hours late: shut and cleaned before anything else.
    post.sim.restart(3 * 3600 * 1000);
    post.reborn(None).unwrap();
    post.sim.at().rights = vec![slot("1", "kct-a", 0, 20_000)];
    post.agent.tick().await.unwrap();
    assert!(!post.is_open("kct-a"));
    post.until(11_000).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1"), WHOLE);
}

#[tokio::test]
async fn doors_that_others_open_are_shut_and_strays_ended() {
    let mut post = Post::new();
    post.plan(1, &[]).unwrap().unwrap();
    post.until(5).await.unwrap();
    post.sim.at().doors.insert("kct-b".into(), "slot-9".into());
    post.sim.at().processes.insert("kct-a".into(), 2);
    post.agent.tick().await.unwrap();
    assert!(!post.is_open("kct-b") && post.sim.at().processes.is_empty());
    post.until(7).await.unwrap();
    post.hear().unwrap();
    assert!(post.told.contains(&ReportKind::Stray { account: "kct-a".into() }));
}

#[tokio::test]
async fn a_slot_nobody_could_open_is_missed() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", -100, -50), slot("2", "kct-a", -10, 50)]).unwrap().unwrap();
    post.until(2).await.unwrap();
    post.hear().unwrap();
    assert!(post.told.contains(&ReportKind::Missed { booking: "1".into() }));
    assert!(post.is_open("kct-a"), "a late start is a start");
    post.until(100).await.unwrap();
    post.hear().unwrap();
    post.plan(2, &[]).unwrap().unwrap();
    let ledger = post.agent.ledger();
    assert!(ledger.slots.is_empty() && ledger.missed.is_empty(), "what is over and told is forgotten");
}

#[tokio::test]
async fn after_a_restart_with_a_clock_far_behind_every_door_is_shut() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 1000)]).unwrap().unwrap();
    post.until(200).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.sim.restart(60_000);
    post.sim.at().wall_ahead = -7_200_000;
    post.reborn(None).unwrap();
    post.until(270).await.unwrap();
    assert!(!post.is_open("kct-a"));
    post.sim.at().wall_ahead = 0;
    let reading = post.agent.clocks();
    post.agent.measured(&reading, 0);
    post.until(272).await.unwrap();
    assert!(post.is_open("kct-a"), "the hub said what time it is");
}

#[tokio::test]
async fn labs_that_the_server_keeps_are_told_at_the_start_and_when_work_changed_them() {
    let mut post = Post::new();
    let kept = |layout: &str| Some(Kept { lab: "gate-kct-a".into(), layout: layout.into() });
    let told = |post: &mut Post| -> Vec<ReportKind> {
        post.hear().unwrap();
        let of_lab = |kind: &ReportKind| matches!(kind, ReportKind::LabKept { .. } | ReportKind::LabDropped { .. });
        post.told.drain(..).filter(of_lab).collect()
    };
    let keeps =
        |layout: &str| ReportKind::LabKept { account: "kct-a".into(), lab: "gate-kct-a".into(), layout: layout.into() };
    post.sim.at().kept.insert("kct-a".into(), kept("2x4c8g"));
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-a", 300, 400)]).unwrap().unwrap();
    post.until(50).await.unwrap();
    assert_eq!(told(&mut post), [keeps("2x4c8g")]);
    post.until(150).await.unwrap();
    assert!(told(&mut post).is_empty(), "armed, and it is the same lab");
    post.sim.at().kept.insert("kct-a".into(), kept("1x4c12g"));
    post.until(250).await.unwrap();
    assert_eq!(told(&mut post), [keeps("1x4c12g")]);
    post.reborn(None).unwrap();
    post.until(260).await.unwrap();
    assert_eq!(told(&mut post), [keeps("1x4c12g")], "the hub may know nothing of it any more");
    for second in [262, 264, 266] {
        post.reborn(None).unwrap();
        post.until(second).await.unwrap();
    }
    assert_eq!(told(&mut post), [keeps("1x4c12g")], "once, however often it began before the hub heard of it");
    post.sim.at().kept.insert("kct-a".into(), None);
    post.reborn(None).unwrap();
    post.until(350).await.unwrap();
    assert!(told(&mut post).is_empty(), "it cannot be read, and is there");
    post.sim.at().kept.clear();
    post.until(450).await.unwrap();
    assert_eq!(told(&mut post), [ReportKind::LabDropped { account: "kct-a".into() }]);
    post.right();
}
