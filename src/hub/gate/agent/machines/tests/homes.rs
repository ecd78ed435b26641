use super::*;

#[tokio::test]
async fn a_home_that_takes_nothing_keeps_no_lab_from_its_holder() {
    let shelf = Arc::new(Shelf::default());
    let (machines, one) = (on(&shelf), slot("1x4c12g"));
    *shelf.lacking.lock().unwrap() = vec![Problem::new(Code::GateAccount, "cannot write lab.txt")];
    machines.arm(&one).await.unwrap();
    assert_eq!(shelf.did(), ["up 1x4c12g", "hand cp"]);
    assert_eq!(machines.lacking("kct_a").as_deref(), Some("KC-GATE-ACCOUNT: cannot write lab.txt"));
    assert_eq!(machines.lacking("kct_b"), None);
    shelf.lacking.lock().unwrap().clear();
    machines.arm(&one).await.unwrap();
    assert_eq!(machines.lacking("kct_a"), None);
}
