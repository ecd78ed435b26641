//! Plan mode: what `up` would do, from the same code, with nothing done.

use std::collections::BTreeSet;

use kubecamp::core::Outcome;

use super::camp::{Camp, Seen};
use crate::support::simhost::Trouble;

fn todo(seen: &Seen) -> BTreeSet<String> {
    let open = seen.summary.planned.iter().filter(|p| !p.done);
    open.map(|p| format!("{}/{}/{}", p.on, p.phase, p.step)).collect()
}

/// Nothing that writes may ever have reached a host.
fn untouched(camp: &Camp) {
    assert_eq!(camp.world.changes(), []);
    for host in camp.hosts.values() {
        for ran in host.link.ran() {
            let writes = ran.line.starts_with("put ")
                || ran.line.contains("mktemp")
                || ["/run/lock/kubecamp/step", "kubeadm init ", "kubeadm join ", "systemctl restart", "kc_put "]
                    .iter()
                    .any(|word| ran.input.contains(word));
            assert!(!writes, "{}\n{}", ran.line, ran.input);
        }
    }
}

#[tokio::test]
async fn a_plan_names_the_steps_that_up_takes_and_takes_none() {
    let camp = Camp::new();
    let plan = camp.plan().await.good();
    untouched(&camp);
    let up = camp.up().await.good();
    assert_eq!(todo(&plan), up.ended(Outcome::Changed));
}

#[tokio::test]
async fn a_plan_knows_what_is_done() {
    let camp = Camp::new();
    camp.host("worker-1").trouble("join", Trouble::Fail(1, "no".into()));
    camp.up().await;
    camp.world.forget();
    let plan = camp.plan().await.good();
    assert_eq!(camp.world.changes(), []);
    let up = camp.up().await.good();
    assert_eq!(todo(&plan), up.ended(Outcome::Changed));
    let after = camp.plan().await.good();
    assert_eq!(todo(&after), BTreeSet::new());
}

#[tokio::test]
async fn a_plan_shows_what_waits_for_what() {
    let plan = Camp::new().plan().await.good();
    let join = plan.summary.planned.iter().find(|p| p.on.as_str() == "worker-1" && p.step.to_string() == "join");
    assert_eq!(join.unwrap().depends_on, ["token", "ca", "cp/register"]);
}
