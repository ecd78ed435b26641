use super::sim::{Post, T0, slot};
use crate::{
    core::Code,
    hub::gate::{Plan, Reason, ReportKind, Slot, Wanted},
};

#[tokio::test]
async fn what_a_plan_ends_ends_also_where_the_disk_does_not_take_it() {
    let first = slot("1", "kct-a", 0, 1000);
    for (then, reason) in [
        (Some(Slot { wanted: Wanted::Cancelled, ..first.clone() }), Reason::Cancelled),
        (Some(Slot { wanted: Wanted::Released, ..first.clone() }), Reason::Released),
        (Some(slot("1", "kct-a", 0, 60)), Reason::Over),
        (Some(slot("1", "kct-b", 0, 1000)), Reason::Cancelled),
        (None, Reason::Cancelled),
    ] {
        let mut post = Post::new();
        post.plan(1, std::slice::from_ref(&first)).unwrap().unwrap();
        post.until(50).await.unwrap();
        assert!(post.is_open("kct-a"));
        post.refuse_plans(true);
        let slots: Vec<Slot> = then.into_iter().collect();
        assert_eq!(post.plan(2, &slots).unwrap().unwrap_err().code, Code::GateState);
        post.until(70).await.unwrap();
        post.hear().unwrap();
        assert!(!post.is_open("kct-a") && post.sim.at().processes.is_empty(), "{reason:?}");
        let ended = |k: &ReportKind| matches!(k, ReportKind::State { reason: Some(r), .. } if *r == reason);
        assert!(post.told.iter().any(ended), "{reason:?}: {:?}", post.told);
        assert_eq!(post.agent.ledger().revision, 1, "it is not acknowledged");
        assert!(!post.is_open("kct-b"), "a start waits");
        post.refuse_plans(false);
        post.plan(2, &slots).unwrap().unwrap();
        post.until(120).await.unwrap();
        assert_eq!(post.agent.ledger().revision, 2);
        assert_eq!(post.is_open("kct-b"), slots.first().is_some_and(|slot| slot.account == "kct-b"));
        post.right();
    }
}

#[tokio::test]
async fn what_a_plan_begins_or_lengthens_waits_until_the_disk_has_it() {
    let mut post = Post::new();
    let (first, other) = (slot("1", "kct-a", 0, 100), slot("2", "kct-b", 200, 400));
    post.plan(1, &[first, other.clone()]).unwrap().unwrap();
    post.until(50).await.unwrap();
    post.refuse_plans(true);
    let longer = [slot("1", "kct-a", 0, 150), other];
    assert_eq!(post.plan(2, &longer).unwrap().unwrap_err().code, Code::GateState);
    post.until(90).await.unwrap();
    assert!(post.is_open("kct-a"), "it does not end it");
    post.until(101).await.unwrap();
    assert!(!post.is_open("kct-a"), "the plan that is kept counts");
    post.until(250).await.unwrap();
    assert!(!post.is_open("kct-b"), "nobody knows what else is in a plan that may be lost");
    post.refuse_plans(false);
    post.plan(2, &longer).unwrap().unwrap();
    post.until(260).await.unwrap();
    assert!(post.is_open("kct-b"));
    post.right();
}

#[tokio::test]
async fn an_agent_that_begins_anew_on_a_full_disk_goes_on_with_its_plan() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 1000)]).unwrap().unwrap();
    post.until(50).await.unwrap();
    post.refuse_plans(true);
    post.reborn(None).unwrap();
    post.until(70).await.unwrap();
    assert!(post.is_open("kct-a"));
    post.right();
}

#[tokio::test]
async fn a_newer_plan_of_a_hub_whose_clock_was_set_back_takes_the_place_of_one_that_was_not_kept() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 1000)]).unwrap().unwrap();
    post.until(50).await.unwrap();
    post.refuse_plans(true);
    assert_eq!(post.plan(2, &[]).unwrap().unwrap_err().code, Code::GateState);
    post.until(70).await.unwrap();
    assert!(!post.is_open("kct-a"));
    post.refuse_plans(false);
    let mut plan = Plan::new("s1", 3, T0 - 600, T0 + 72 * 3600);
    plan.slots = vec![slot("2", "kct-b", 100, 1000)];
    post.give(&plan).unwrap().unwrap();
    post.until(150).await.unwrap();
    assert!(post.is_open("kct-b"));
    post.right();
}
