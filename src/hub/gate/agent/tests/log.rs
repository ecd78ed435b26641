use super::sim::{Post, slot};
use crate::hub::gate::agent::{Entry, Step};

#[tokio::test]
async fn the_log_tells_what_became_of_a_slot_and_its_door() {
    let mut post = Post::new();
    post.plan(1, &[slot("1", "kct-a", 100, 200)]).unwrap().unwrap();
    post.until(99).await.unwrap();
    assert!(post.agent.log().is_empty(), "nothing is open yet");
    post.until(400).await.unwrap();
    let slot = "booking=1 account=kct-a server=s1";
    let want = [
        format!("slot opened: {slot}"),
        format!("slot warned: {slot} minutes=5"),
        format!("slot warned: {slot} minutes=1"),
        format!("slot closed: {slot} reason=over"),
        format!("slot handed over: {slot}"),
    ];
    assert_eq!(post.agent.log(), want);
    assert!(post.agent.log().is_empty(), "each once");
    let detail = vec!["sshd is away".to_owned()];
    post.agent.write(Entry::Failed { booking: "2".into(), step: Step::ProveEmpty, detail }).unwrap();
    assert_eq!(post.agent.log(), ["slot quarantined: booking=2 account=- server=s1 step=prove-empty"]);
}
