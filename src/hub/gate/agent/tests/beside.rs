use std::collections::BTreeSet;

use super::{
    sim::{Post, slot},
    slots::WHOLE,
};
use crate::hub::gate::{Slot, SlotState};

/// What is done for somebody until their slot is open, and no more while it is.
const OPENED: [&str; 4] = ["account", "arm", "account", "open"];

/// A shared server: the slot on the second place begins while that on the first is open, and ends later.
fn post() -> Post {
    let mut post = Post::new();
    let second = Slot { place: 1, ..slot("2", "kct-b", 150, 400) };
    post.plan(1, &[slot("1", "kct-a", 100, 200), second]).unwrap().unwrap();
    post
}

/// What was done for an account, in order.
fn done(post: &Post, account: &str) -> Vec<String> {
    let server = post.sim.at();
    let words = server.did.iter().filter_map(|did| did.split_once(' '));
    words.filter(|(_, of)| *of == account).map(|(what, _)| what.to_owned()).collect()
}

#[tokio::test]
async fn two_slots_beside_each_other_end_each_for_itself() {
    let mut post = post();
    post.until(199).await.unwrap();
    assert!(post.is_open("kct-a") && post.is_open("kct-b"));
    let both = BTreeSet::from(["kct-a".to_owned(), "kct-b".to_owned()]);
    assert_eq!(post.sim.at().reaching, both);
    post.until(260).await.unwrap();
    assert!(!post.is_open("kct-a") && post.is_open("kct-b"));
    let running = |account: &str| post.sim.at().processes.contains_key(account);
    assert!(!running("kct-a") && running("kct-b"));
    assert_eq!(post.sim.at().cron, BTreeSet::from(["kct-b".to_owned()]));
    assert_eq!(post.sim.at().files, BTreeSet::from(["kct-b".to_owned()]));
    assert_eq!(post.sim.at().reaching, BTreeSet::from(["kct-b".to_owned()]));
    assert_eq!(post.sim.at().labs.keys().collect::<Vec<_>>(), ["kct-b"]);
    assert_eq!(done(&post, "kct-b"), OPENED, "what was ended was not theirs");
    post.until(500).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1"), WHOLE);
    assert_eq!(post.states("2"), WHOLE);
    post.right();
}

#[tokio::test]
async fn a_place_that_cannot_be_cleaned_leaves_the_other_to_its_holder() {
    let mut post = post();
    post.until(199).await.unwrap();
    post.sim.at().broken.insert("evict kct-a".into());
    post.until(260).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("1").last(), Some(&SlotState::Quarantined));
    assert!(post.is_open("kct-b"));
    assert_eq!(done(&post, "kct-b"), OPENED);
    assert_eq!(post.sim.at().stopped, BTreeSet::from(["kct-a".to_owned()]), "the machines of nobody else");
    post.until(500).await.unwrap();
    post.hear().unwrap();
    assert_eq!(post.states("2"), WHOLE);
    post.right();
}
