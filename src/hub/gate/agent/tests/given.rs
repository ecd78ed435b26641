use super::{
    sim::{Post, slot},
    slots::{UNOPENED, WHOLE},
};
use crate::hub::gate::{ReportKind, SlotState};

#[tokio::test]
async fn a_slot_given_away_while_armed_begins_anew_for_who_has_it_now() {
    let (mine, theirs) = (slot("1", "kct-a", 100, 200), slot("1", "kct-b", 100, 200));
    for killed in [false, true] {
        let mut post = Post::new();
        post.plan(1, std::slice::from_ref(&mine)).unwrap().unwrap();
        post.until(90).await.unwrap();
        post.plan(2, std::slice::from_ref(&theirs)).unwrap().unwrap();
        post.until(95).await.unwrap();
        if killed {
            post.reborn(None).unwrap();
        }
        post.until(150).await.unwrap();
        assert!(post.is_open("kct-b") && !post.is_open("kct-a"), "killed: {killed}");
        post.until(250).await.unwrap();
        post.hear().unwrap();
        let of = |account: &str| -> Vec<SlotState> {
            let state = |kind: &ReportKind| match kind {
                ReportKind::State { account: Some(of), state, .. } if of == account => Some(*state),
                _ => None,
            };
            post.told.iter().filter_map(state).collect()
        };
        assert_eq!((of("kct-a"), of("kct-b")), (UNOPENED.to_vec(), WHOLE.to_vec()), "killed: {killed}");
        assert_eq!(post.states("1").len(), UNOPENED.len() + WHOLE.len(), "each says whose it is");
        post.right();
    }
}

#[tokio::test]
async fn a_slot_that_comes_back_while_its_place_is_cleared_begins_anew() {
    let mine = slot("1", "kct-a", 100, 200);
    for killed in [false, true] {
        let mut post = Post::new();
        post.plan(1, std::slice::from_ref(&mine)).unwrap().unwrap();
        post.until(90).await.unwrap();
        post.plan(2, &[]).unwrap().unwrap();
        post.until(95).await.unwrap();
        assert!(post.agent.ledger().slots.values().all(|held| held.was_taken_away()));
        post.plan(3, std::slice::from_ref(&mine)).unwrap().unwrap();
        if killed {
            post.reborn(None).unwrap();
        }
        post.until(150).await.unwrap();
        assert!(post.is_open("kct-a"), "killed: {killed}");
        post.until(250).await.unwrap();
        post.hear().unwrap();
        assert_eq!(post.states("1"), [&UNOPENED[..], &WHOLE[..]].concat(), "killed: {killed}");
        post.right();
    }
}

/// Its lab is up, and at its start a directory of accounts does not answer.
#[tokio::test]
async fn an_account_that_cannot_be_asked_about_is_asked_about_again() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200), slot("2", "kct-b", 240, 300)]).unwrap().unwrap();
    post.until(90).await.unwrap();
    post.sim.at().broken.insert("ask kct-a".into());
    post.until(120).await.unwrap();
    assert!(!post.is_open("kct-a"));
    post.sim.at().broken.clear();
    post.until(122).await.unwrap();
    assert!(post.is_open("kct-a"));
    // To the end of the slot, where it never does.
    post.until(230).await.unwrap();
    post.sim.at().broken.insert("ask kct-b".into());
    post.until(400).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1"), WHOLE);
    assert_eq!(post.states("2").last(), Some(&SlotState::Done));
    assert!(!post.sim.at().did.contains(&"open kct-b".to_owned()));
    let told = |of: &str| {
        let refused = |k: &&ReportKind| matches!(k, ReportKind::Refused { booking, .. } if booking == of);
        post.told.iter().filter(refused).count()
    };
    assert_eq!((told("1"), told("2")), (1, 1));
    post.right();
}

#[tokio::test]
async fn who_is_given_a_slot_that_cannot_begin_hears_why_too() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 300)]).unwrap().unwrap();
    let reading = post.agent.clocks();
    post.agent.measured(&reading, 31_000);
    for (revision, account, until, count) in [(2, "kct-a", 150, 1), (3, "kct-b", 160, 2), (4, "kct-b", 170, 2)] {
        post.plan(revision, &[slot("1", account, 100, 300)]).unwrap().unwrap();
        post.until(until).await.unwrap();
        post.hear().unwrap();
        let refused = post.told.iter().filter(|k| matches!(k, ReportKind::Refused { .. })).count();
        assert_eq!(refused, count, "revision {revision}");
    }
}

/// As where the hub's clock and the server's are about as far apart as may be, while `useradd` is at work.
#[tokio::test]
async fn an_account_that_is_being_made_is_not_begun_anew_while_the_time_is_in_doubt() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 300)]).unwrap().unwrap();
    post.until(90).await.unwrap();
    post.sim.at().broken.insert("hang".into());
    post.until(105).await.unwrap();
    let asked = |post: &Post| post.sim.at().did.iter().filter(|did| *did == "account kct-a").count();
    let before = asked(&post);
    for (ahead, until) in [(31_000, 110), (0, 115)] {
        let reading = post.agent.clocks();
        post.agent.measured(&reading, ahead);
        post.until(until).await.unwrap();
        assert!(post.agent.asking.contains_key("1"), "{ahead}");
        assert_eq!(asked(&post), before, "{ahead}");
    }
    // The plan takes the slot away.
    post.plan(2, &[]).unwrap().unwrap();
    post.until(120).await.unwrap();
    assert!(post.agent.asking.is_empty());
    post.right();
}
