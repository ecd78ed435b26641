//! Plan mode: what `up` would do, from the same code, with nothing done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kubecamp::{
    core::{Code, Outcome},
    engine::{Journal, Mode, Planned, Run, run_flow},
    flows,
    host::Facts,
    profile::{self, Lab},
    render::table,
};
use tokio_util::sync::CancellationToken;

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
        let all = host.link.ran();
        assert!(!all.is_empty(), "nobody looked at it");
        for ran in all {
            let writes = ran.line.starts_with("put ")
                || ran.line.contains("mktemp")
                || ["/run/kubecamp.lock/step", "kubeadm init ", "kubeadm join ", "systemctl restart", "kc_put "]
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
async fn a_plan_says_of_what_a_limit_passed() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.host("cp").hang("get cm/kube-proxy ds/kube-proxy");
    let seen = camp.plan().await;
    let slow = seen.problems.iter().find(|p| p.code == Code::StepTimeout).unwrap();
    let wanted = "kube-proxy, looking whether it is done already (kube-proxy): reading its state: no end within 60 s";
    assert_eq!((slow.on.as_ref().unwrap().as_str(), slow.what.as_str()), ("cp", wanted));
}

#[tokio::test]
async fn a_plan_shows_what_waits_for_what() {
    let plan = Camp::new().plan().await.good();
    let join = plan.summary.planned.iter().find(|p| p.on.as_str() == "worker-1" && p.step.to_string() == "join");
    assert_eq!(join.unwrap().depends_on, ["identities", "ca"]);
}

/// The plan of a shipped layout on machines that do not exist yet.
async fn plan_of(layout: &str) -> String {
    let lab = Lab::new("lab".parse().unwrap(), profile::load(layout).unwrap()).unwrap();
    let fleet = lab.nodes().iter().map(|n| (n.name.clone(), Facts::assumed(n))).collect();
    let nodes: Vec<_> = lab.nodes().iter().map(|n| n.name.clone()).collect();
    let run = Run::new(lab, Mode::Plan, Arc::new(Journal::unkept(vec![])), CancellationToken::new());
    let camp = Camp::new();
    run_flow(&run, &flows::up(&camp.wish()), &nodes, &BTreeMap::new(), &fleet).await.unwrap();
    assert!(camp.lines().is_empty());
    let row = |p: &Planned| {
        let needs: Vec<_> = p.depends_on.iter().map(|n| format!(" <- {n}")).collect();
        vec![p.on.to_string(), format!("{}/{}", p.phase, p.step), format!("{}{}", p.title, needs.concat())]
    };
    table(&run.summary().planned.iter().map(row).collect::<Vec<_>>())
}

#[tokio::test]
async fn the_plans_of_the_shipped_layouts_are_those_on_record() {
    let layouts = profile::shipped();
    assert!(!layouts.is_empty());
    for layout in layouts {
        let plan = plan_of(&layout).await;
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("plan-{layout}"), plan);
        });
    }
}
