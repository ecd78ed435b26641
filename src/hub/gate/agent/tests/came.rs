use super::sim::{Post, T0, slot};
use crate::hub::gate::{Came, ReportKind};

#[tokio::test]
async fn who_came_is_said_as_long_as_the_slot_is_open() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    assert_eq!(post.agent.came(), []);
    post.until(110).await.unwrap();
    let came = post.agent.came();
    assert!(came.len() == 1 && came[0].booking == "1" && (T0 + 100..T0 + 105).contains(&came[0].at), "{came:?}");
    post.hear().unwrap();
    assert_eq!(post.agent.came(), [Came { booking: "1".into(), at: T0 + 100 }]);
    post.until(220).await.unwrap();
    assert_eq!(post.agent.came(), []);
}

#[tokio::test]
async fn who_came_and_went_between_two_looks_came() {
    let mut post = Post::new();
    post.sim.at().absent.insert("kct-a".into());
    post.plan(1, &[slot("1", "kct-a", 100, 200)]).unwrap().unwrap();
    post.sim.at().let_in.insert("slot-2-kct-a".into());
    post.until(110).await.unwrap();
    assert!(post.is_open("kct-a") && post.agent.came().is_empty(), "that was another slot");
    post.sim.at().let_in.insert("slot-1-kct-a".into());
    post.until(120).await.unwrap();
    assert_eq!(post.agent.came().len(), 1);
    post.reborn(None).unwrap();
    post.until(220).await.unwrap();
    post.hear().unwrap();
    let seen = ReportKind::Seen { booking: "1".into(), account: Some("kct-a".into()) };
    assert_eq!(post.told.iter().filter(|told| **told == seen).count(), 1);
    post.right();
}
