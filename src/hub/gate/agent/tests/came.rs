use super::sim::{Post, T0, slot};
use crate::hub::gate::Came;

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
