use super::sim::{Post, slot};
use crate::hub::gate::agent::shut_all;

#[tokio::test]
async fn where_no_agent_can_begin_every_door_is_shut_and_everybody_put_out() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 0, 1000)]).unwrap().unwrap();
    post.until(50).await.unwrap();
    post.sim.at().doors.insert("kct-c".into(), "slot-9".into());
    post.sim.at().processes.insert("kct-b".into(), 1);
    assert!(post.is_open("kct-a"));
    // What goes wrong with one spares no other.
    post.sim.at().broken.extend(["shut kct-b".to_owned(), "evict kct-c".to_owned()]);
    let problems = shut_all(&post.sim).await;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(!post.is_open("kct-a") && !post.is_open("kct-c"));
    let server = post.sim.at();
    assert!(server.processes.is_empty(), "{:?}", server.processes);
    let last_shut = server.did.iter().rposition(|did| did.starts_with("shut")).unwrap();
    let evicted = server.did.iter().filter(|did| did.starts_with("evict")).count();
    assert_eq!(server.did.len() - last_shut - 1, evicted, "doors first");
}
