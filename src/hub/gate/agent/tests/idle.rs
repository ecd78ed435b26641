use super::sim::{KEEP, Post, T0, slot};
use crate::hub::gate::{Plan, ReportKind, agent::Kept};

/// A server that keeps the lab of `kct-a`, who has a slot until second 200.
fn post() -> Post {
    let mut post = Post::new();
    let kept = Kept { lab: "gate-kct-a".into(), layout: "2x4c8g".into() };
    post.sim.at().kept.insert("kct-a".into(), Some(kept));
    post.plan(1, &[slot("1", "kct-a", 100, 200)]).unwrap().unwrap();
    post
}

fn tries(post: &Post) -> usize {
    post.sim.at().did.iter().filter(|did| *did == "retire kct-a").count()
}

#[tokio::test]
async fn a_lab_goes_when_nobody_had_it_for_as_long_as_labs_are_kept() {
    let mut post = post();
    post.until(195 + KEEP).await.unwrap();
    assert!(tries(&post) == 0 && post.sim.at().kept.contains_key("kct-a"));
    post.reborn(None).unwrap();
    post.until(220 + KEEP).await.unwrap();
    post.hear().unwrap();
    assert!(tries(&post) == 1 && post.sim.at().kept.is_empty());
    assert_eq!(post.told.last(), Some(&ReportKind::LabDropped { account: "kct-a".into() }));
    let ledger = post.agent.ledger();
    assert!(ledger.labs.is_empty() && ledger.idle.is_empty());
    post.until(300 + 2 * KEEP).await.unwrap();
    assert_eq!(tries(&post), 1);
    post.right();
}

#[tokio::test]
async fn who_has_a_slot_or_comes_back_keeps_the_lab() {
    let mut post = post();
    post.until(KEEP).await.unwrap();
    let next = slot("2", "kct-a", KEEP + 100, KEEP + 200);
    let later = slot("3", "kct-a", 2 * KEEP + 300, 2 * KEEP + 400);
    post.plan(2, &[next, later]).unwrap().unwrap();
    post.until(2 * KEEP + 240).await.unwrap();
    assert_eq!(tries(&post), 0, "there is a slot ahead all the time");
    post.plan(3, &[]).unwrap().unwrap();
    post.until(3 * KEEP).await.unwrap();
    assert_eq!(tries(&post), 0, "it counts from the moment at which there is none");
    post.until(3 * KEEP + 300).await.unwrap();
    assert_eq!(tries(&post), 1);
}

#[tokio::test]
async fn who_gives_a_slot_up_to_book_another_keeps_the_lab() {
    let mut post = post();
    post.until(KEEP).await.unwrap();
    post.plan(2, &[slot("2", "kct-a", 2 * KEEP, 2 * KEEP + 100)]).unwrap().unwrap();
    post.until(KEEP + 500).await.unwrap();
    post.plan(3, &[]).unwrap().unwrap();
    post.until(2 * KEEP + 450).await.unwrap();
    assert_eq!(tries(&post), 0, "it counts from the moment at which there is none");
    post.until(2 * KEEP + 520).await.unwrap();
    assert_eq!(tries(&post), 1);
}

#[tokio::test]
async fn who_has_a_booking_that_is_too_far_ahead_for_the_plan_keeps_the_lab() {
    let mut post = post();
    post.until(100 + KEEP).await.unwrap();
    let mut plan = Plan::new("s1", 2, T0 + 100 + KEEP, T0 + 72 * 3600);
    plan.later = vec!["kct-a".into()];
    post.give(&plan).unwrap().unwrap();
    post.until(2 * KEEP).await.unwrap();
    assert_eq!(tries(&post), 0);
    post.plan(3, &[]).unwrap().unwrap();
    post.until(3 * KEEP + 20).await.unwrap();
    assert_eq!(tries(&post), 1);
}

#[tokio::test]
async fn a_removal_that_fails_is_tried_again_after_an_hour() {
    let mut post = post();
    post.sim.at().broken.insert("retire kct-a".into());
    post.until(KEEP + 1000).await.unwrap();
    assert!(tries(&post) == 1 && post.agent.troubles().contains_key("the lab of kct-a"));
    post.sim.at().broken.clear();
    post.until(KEEP + 4500).await.unwrap();
    assert!(tries(&post) == 2 && post.agent.troubles().is_empty() && post.sim.at().kept.is_empty());
}

#[tokio::test]
async fn a_clock_that_shows_another_year_throws_nothing_away() {
    let mut post = post();
    post.until(300).await.unwrap();
    // As a clock without a battery, or one that somebody set while the machine was off.
    for ahead in [90, -90] {
        post.sim.restart(1000);
        post.sim.at().wall_ahead = ahead * 86_400_000;
        post.reborn(None).unwrap();
        let second = post.sim.at().truth() / 1000 - T0;
        post.until(second + 20).await.unwrap();
        assert_eq!(tries(&post), 0, "{ahead} days ahead");
    }
    assert!(post.sim.at().kept.contains_key("kct-a"));
}
