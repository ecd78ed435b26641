use super::sim::{Post, T0, slot};
use crate::hub::gate::{Plan, SlotState};

/// How often the machines of `kct-a` were to be stopped.
fn stops(post: &Post) -> usize {
    post.sim.at().did.iter().filter(|did| *did == "halt kct-a").count()
}

#[tokio::test]
async fn the_machines_of_a_slot_that_cannot_be_ended_are_stopped_and_kept() {
    for what in ["shut", "evict", "clear", "cut", "save", "reset", "prove"] {
        let mut post = Post::new();
        let slots = [slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 900)];
        post.plan(1, &slots).unwrap().unwrap();
        post.until(99).await.unwrap();
        assert_eq!(stops(&post), 0);
        post.sim.at().broken.insert(format!("{what} kct-a"));
        post.until(150).await.unwrap();
        assert_eq!(post.agent.ledger().slots["1"].state(), SlotState::Quarantined, "{what}");
        assert!(stops(&post) == 1 && post.sim.at().stopped.contains("kct-a"), "{what}");
        assert!(!post.sim.at().did.contains(&"retire kct-a".to_owned()), "{what}");
        post.reborn(None).unwrap();
        post.until(160).await.unwrap();
        assert_eq!(stops(&post), 2, "{what}: a new process does it once more");
        post.sim.at().broken.clear();
        let mut plan = Plan::new("s1", 2, T0, T0 + 10_000);
        (plan.slots, plan.cleared) = (slots.to_vec(), vec!["1".into()]);
        post.give(&plan).unwrap().unwrap();
        post.until(180).await.unwrap();
        assert_eq!(post.agent.ledger().slots["1"].state(), SlotState::Done, "{what}");
        assert!(post.is_open("kct-b") && stops(&post) == 2, "{what}");
    }
}

/// As on a disk that became read-only in the midst of a slot.
#[tokio::test]
async fn whoever_is_in_is_put_out_though_the_door_does_not_shut() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 900)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    post.sim.at().broken.insert("shut kct-a".into());
    for second in 100..140 {
        post.until(second).await.unwrap();
        assert!(post.is_open("kct-a") && !post.sim.at().processes.contains_key("kct-a"), "{second}");
        let state = post.agent.ledger().slots["1"].state();
        let wanted = if second <= 105 { SlotState::Ending } else { SlotState::Quarantined };
        assert!(state == wanted || second == 106, "{second} {state:?}");
    }
    // Cleared before the disk is mended: the door is shut first of all, and that fails once more.
    let mut plan = Plan::new("s1", 2, T0, T0 + 10_000);
    (plan.slots, plan.cleared) = (vec![slot("2", "kct-b", 110, 900)], vec!["1".into()]);
    post.give(&plan).unwrap().unwrap();
    post.until(160).await.unwrap();
    assert_eq!(post.agent.ledger().slots["1"].state(), SlotState::Quarantined);
    post.sim.at().broken.clear();
    plan.revision = 3;
    post.give(&plan).unwrap().unwrap();
    post.until(170).await.unwrap();
    assert_eq!(post.agent.ledger().slots["1"].state(), SlotState::Done);
    assert!(!post.is_open("kct-a") && post.is_open("kct-b"));
}

/// Somebody left a million files: an end that goes on removing them is none that is stuck.
#[tokio::test]
async fn what_takes_long_to_remove_costs_time_and_not_the_server() {
    let post = async || {
        let mut post = Post::new();
        post.plan(1, &[slot("1", "kct-a", 0, 100), slot("2", "kct-b", 110, 900)]).unwrap().unwrap();
        post.sim.at().broken.insert("more kct-a".into());
        post.until(150).await.unwrap();
        assert!(!post.is_open("kct-a") && !post.is_open("kct-b"), "nobody gets the place meanwhile");
        post
    };
    let state = |post: &Post| post.agent.ledger().slots["1"].state();
    let mut goes = post().await;
    assert_eq!(state(&goes), SlotState::Ending);
    goes.sim.at().broken.clear();
    goes.until(170).await.unwrap();
    assert!(state(&goes) == SlotState::Done && goes.is_open("kct-b"));

    let mut stuck = post().await;
    stuck.sim.at().broken.insert("clear kct-a".into());
    stuck.until(154).await.unwrap();
    assert_eq!(state(&stuck), SlotState::Ending);
    stuck.until(157).await.unwrap();
    assert_eq!(state(&stuck), SlotState::Quarantined);

    let mut endless = post().await;
    endless.until(990).await.unwrap();
    assert_eq!(state(&endless), SlotState::Ending);
    endless.until(1010).await.unwrap();
    assert!(state(&endless) == SlotState::Quarantined && !endless.is_open("kct-b"));
}

#[tokio::test]
async fn machines_that_do_not_stop_are_stopped_again_later() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 100)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    post.sim.at().broken.extend(["evict kct-a".to_owned(), "halt kct-a".to_owned()]);
    post.until(130).await.unwrap();
    let told = |post: &Post| post.agent.troubles().keys().any(|what| what.contains("quarantined slot 1"));
    assert!(stops(&post) == 1 && told(&post), "{:?}", post.agent.troubles());
    post.sim.at().broken.remove("halt kct-a");
    post.until(200).await.unwrap();
    assert!(stops(&post) == 2 && post.sim.at().stopped.contains("kct-a") && !told(&post));
    post.until(400).await.unwrap();
    assert_eq!(stops(&post), 2);
}
