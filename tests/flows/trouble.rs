//! What `up` does when something goes wrong on one host, and when it is run again.

use kubecamp::{
    cli::exit_code,
    core::{Code, Outcome, Problems},
};

use super::camp::{Camp, Seen, steps_of, steps_of_cp};
use crate::support::simhost::{CA, Did, IDENTITIES, Login, System, Trouble};

fn exit(seen: &Seen) -> u8 {
    exit_code(Problems::from(seen.problems.clone()).class())
}

#[tokio::test]
async fn a_failed_step_ends_its_host_and_what_needs_it_and_no_more() {
    let camp = Camp::new();
    let words: String = (1..=40).map(|n| format!("line {n}\n")).collect();
    camp.host("worker-1").trouble("join", Trouble::Fail(1, words));
    let seen = camp.up().await;
    assert_eq!(
        seen.codes(),
        [("worker-1", Code::StepFailed), ("cp", Code::StepUnreached), ("worker-2", Code::StepUnreached)]
    );
    assert_eq!(exit(&seen), 7);
    let cause = &seen.problems[0];
    assert!(cause.what.contains("join-workers/join") && cause.what.contains("exit status 1"), "{cause}");
    assert_eq!(cause.detail.first().unwrap(), "line 26");
    assert_eq!(cause.detail.last().unwrap(), "line 40");
    assert!(cause.all_hints()[0].contains("continues"));
    assert!(seen.problems[1].detail[0].contains("the step join on worker-1"), "{}", seen.problems[1]);
    // The others got as far as they can without it.
    assert!(camp.host("worker-2").has("join") && camp.host("worker-2").has("answers") && camp.host("cp").has("mode"));
    assert_eq!(seen.phase("worker-1", "join-workers"), Some(Outcome::Failed));
    assert_eq!(seen.phase("cp", "verify"), Some(Outcome::Skipped));
}

#[tokio::test]
async fn the_next_run_does_only_what_is_missing() {
    let camp = Camp::new();
    camp.host("worker-1").trouble("join", Trouble::Fail(1, "no".into()));
    camp.up().await;
    camp.world.forget();
    camp.up().await.good();
    assert_eq!(steps_of(&camp.world, "worker-1"), ["join", "answers", "reach"]);
    assert_eq!(steps_of(&camp.world, "worker-2"), ["reach"]);
    assert_eq!(steps_of_cp(&camp.world), ["admit", "probes", "ready", "answers", "reach", "clear"]);
}

#[tokio::test]
async fn a_control_plane_that_fails_leaves_workers_prepared() {
    let camp = Camp::new();
    camp.host("cp").trouble("init", Trouble::Fail(1, "[kubelet-check] not healthy".into()));
    let seen = camp.up().await;
    assert_eq!(seen.codes()[0], ("cp", Code::StepFailed));
    let others = &seen.codes()[1..];
    assert!(!others.is_empty() && others.iter().all(|(_, code)| *code == Code::StepUnreached), "{others:?}");
    for worker in ["worker-1", "worker-2"] {
        assert!(camp.host(worker).has("containerd") && !camp.host(worker).has("join"));
    }
    camp.world.forget();
    camp.up().await.good();
    let again = steps_of_cp(&camp.world).into_iter().filter(|s| *s != "image").take(2).collect::<Vec<_>>();
    assert_eq!(again, ["admit", "init"]);
    assert!(camp.world.when("cp", "init") < camp.world.when("cp", "admit"), "in a lab that was there before");
    assert_eq!(steps_of(&camp.world, "worker-1"), ["join", "answers", "reach"]);
}

#[tokio::test]
async fn a_lost_link_says_where_and_in_which_step() {
    let camp = Camp::new();
    camp.host("worker-2").trouble("containerd", Trouble::LinkLost);
    let seen = camp.up().await;
    assert_eq!(seen.codes()[0], ("worker-2", Code::LinkLost));
    assert!(seen.problems[0].what.contains("runtime/containerd"), "{}", seen.problems[0]);
    assert_eq!(exit(&seen), 4);
    assert!(camp.host("worker-1").has("join"));
    // The step went on to its end on the host, and the next run finds it so.
    camp.world.forget();
    camp.up().await.good();
    assert_eq!(steps_of(&camp.world, "worker-2")[0], "cni-config");
}

#[tokio::test]
async fn a_step_over_its_limit_is_a_failure() {
    let camp = Camp::new();
    camp.host("worker-1").trouble("join", Trouble::TooSlow);
    let seen = camp.up().await;
    assert_eq!(seen.codes()[0], ("worker-1", Code::StepTimeout));
    assert!(seen.problems[0].what.contains("join-workers/join: no end within 240 s"), "{}", seen.problems[0]);
    assert_eq!(exit(&seen), 7);
    assert!(seen.ended(Outcome::Failed).contains("worker-1/join-workers/join"));
}

#[tokio::test]
async fn nothing_runs_after_a_cancel() {
    let camp = Camp::new();
    camp.host("cp").trouble("init", Trouble::Cancel(camp.cancel.clone()));
    let seen = camp.up().await;
    assert!(seen.problems.iter().all(|p| p.code == Code::Cancelled), "{:?}", seen.codes());
    assert_eq!((seen.problems.len(), exit(&seen)), (3, 130));
    assert_eq!(seen.phase("cp", "control-plane"), Some(Outcome::Skipped));
    assert_eq!(steps_of(&camp.world, "cp").last(), Some(&"init"));
    let after = camp.world.changes();
    assert_eq!(after.last().unwrap().0.as_str(), "cp", "a host was changed after the cancel: {after:?}");
}

#[tokio::test]
async fn a_run_that_is_cancelled_already_asks_no_host_anything() {
    let camp = Camp::new();
    camp.cancel.cancel();
    let seen = camp.up().await;
    assert!(seen.problems.iter().all(|p| p.code == Code::Cancelled) && seen.problems.len() == 3);
    assert_eq!(camp.world.changes(), []);
}

/// A worker's certificate and key, which is a part of what the control plane gives.
fn pem() -> &'static str {
    IDENTITIES.split(['=', ' ']).nth(1).unwrap()
}

#[tokio::test]
async fn secrets_are_in_no_event_journal_or_command_line() {
    let mut camp = Camp::on([System::Debian13; 3], Login::Sudo("pa55w0rd of mine"));
    camp.password = Some("pa55w0rd of mine");
    camp.host("worker-1").trouble("join", Trouble::Fail(1, format!("{} was refused", pem())));
    let seen = camp.up().await;
    let told = format!("{}{}", Problems::from(seen.problems.clone()), serde_json::to_string(&seen.events).unwrap());
    for secret in [pem(), CA, "pa55w0rd of mine"] {
        assert!(!told.contains(secret), "{told}");
        assert!(!seen.journal.contains(secret));
        assert!(camp.lines().iter().all(|line| !line.contains(secret)));
    }
    assert!(told.contains("[redacted] was refused") && !seen.journal.is_empty() && !camp.lines().is_empty());
}

#[tokio::test]
async fn a_step_that_fails_after_it_gave_a_secret_does_not_tell_it() {
    let camp = Camp::new();
    camp.host("cp").trouble("admit", Trouble::FailAfterOutput);
    let seen = camp.up().await;
    assert_eq!(seen.codes()[0], ("cp", Code::StepFailed));
    let told = Problems::from(seen.problems).to_string();
    assert!(!told.contains(pem()) && !told.contains(CA), "{told}");
}

/// Two computers, each with a first lab, which is called the same on both.
#[tokio::test]
async fn the_host_of_another_lab_of_the_same_name_is_refused() {
    let mut camp = Camp::new();
    camp.up().await.good();
    let mine = std::mem::take(&mut camp.owner);
    camp.world.forget();
    let seen = camp.up().await;
    assert_eq!(seen.codes(), ["cp", "worker-1", "worker-2"].map(|on| (on, Code::HostTaken)));
    assert_eq!(exit(&seen), 3);
    assert_eq!(camp.world.changes(), []);
    camp.owner = mine;
    camp.up().await.good();
}

#[tokio::test]
async fn a_lab_of_an_earlier_version_gets_its_id() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.host("worker-1").more_facts("lab.id=\n");
    camp.host("worker-1").undo("baseline");
    camp.world.forget();
    camp.up().await.good();
    assert_eq!(camp.world.changes(), [("worker-1".parse().unwrap(), Did::Change("baseline"))]);
}

#[tokio::test]
async fn a_hostile_worker_gives_nothing_to_the_others() {
    let camp = Camp::new();
    let lines = "KC-OUT identities=worker-2=ZXZpbA==\nKC-OUT ca=x|;1e touch /tmp/pwned #\nKC-OUT probes=1.2.3.4/80;x\n";
    for step in ["etc-hosts", "modules", "sysctls", "containerd", "cni-config", "answers"] {
        camp.host("worker-1").trouble(step, Trouble::Prints(lines.into()));
    }
    camp.up().await.good();
    for host in ["cp", "worker-1", "worker-2"] {
        let ran = camp.host(host).link.ran();
        let given: Vec<_> = ran.iter().flat_map(|r| r.input.lines()).filter(|l| l.starts_with("KC_")).collect();
        assert!(
            given.iter().all(|l| !l.contains("ZXZpbA") && !l.contains("pwned") && !l.contains("1.2.3.4")),
            "{given:?}"
        );
        assert!(given.contains(&"KC_PROBES='10.96.0.21 10.96.0.22 10.96.0.23'"), "{given:?}");
    }
}

#[tokio::test]
async fn a_worker_is_sent_its_own_key_alone() {
    let camp = Camp::new();
    camp.up().await.good();
    for (own, other) in [(0, 1), (1, 0)] {
        let of = |n: usize| IDENTITIES.split(' ').nth(n).unwrap();
        let sent = camp.host(of(own).split('=').next().unwrap()).link.ran();
        let count = |text: &str| sent.iter().filter(|run| run.input.contains(text)).count();
        assert_eq!((count(of(own)), count(of(other))), (1, 0));
    }
}

#[tokio::test]
async fn what_the_control_plane_gives_in_another_form_is_refused_there() {
    let camp = Camp::new();
    let lines = format!("KC-OUT identities={IDENTITIES}\nKC-OUT ca=x|;1e touch /tmp/pwned #\n");
    camp.host("cp").trouble("admit", Trouble::Prints(lines));
    let seen = camp.up().await;
    assert_eq!(seen.codes()[0], ("cp", Code::StepFailed));
    assert!(seen.problems[0].what.contains("gave no ca of the right form"), "{}", seen.problems[0]);
    assert!(!camp.host("worker-1").has("join"));
}

#[tokio::test]
async fn a_stopped_kubelet_is_started_by_the_next_run() {
    for node in ["worker-1", "cp"] {
        let camp = Camp::new();
        camp.up().await.good();
        camp.world.forget();
        camp.host(node).stop_kubelet();
        camp.host("cp").undo("ready");
        camp.up().await.good();
        let own = if node == "cp" { vec!["init", "ready"] } else { vec!["admit", "ready"] };
        assert_eq!(steps_of_cp(&camp.world), own);
        assert_eq!(steps_of(&camp.world, "worker-1"), if node == "cp" { vec![] } else { vec!["join"] });
    }
}

/// Nothing on any host tells of that: its kubelet runs on.
#[tokio::test]
async fn a_node_that_somebody_deleted_is_made_again_and_no_more() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.world.forget();
    camp.host("cp").undo("ready");
    camp.up().await.good();
    assert_eq!(camp.world.changes(), [("cp".parse().unwrap(), Did::Change("ready"))]);
    let ran = camp.host("cp").link.ran();
    let made: Vec<_> = ran.iter().filter(|r| r.input.contains("\nagain worker-1 10.244.1.0/24 <<'KC_END'\n")).collect();
    assert_eq!(made.len(), 1, "a new lab has all of its nodes");
    assert!(made[0].input.contains("get pods -A --no-headers"), "{}", made[0].input);
}

#[tokio::test]
async fn a_cluster_without_its_authority_is_refused_and_not_made_anew() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.world.forget();
    camp.host("cp").lose_authority();
    for _ in 0..2 {
        for seen in [camp.up().await, camp.plan().await] {
            assert_eq!((seen.codes(), exit(&seen)), (vec![("cp", Code::ClusterLost)], 3));
            let hint = &seen.problems[0].all_hints()[0];
            assert!(hint.contains("kubecamp reset --name team7, then kubecamp up --name team7"), "{hint}");
        }
    }
    assert_eq!(camp.world.changes(), []);
    camp.reset(&[]).await.good();
    camp.up().await.good();
}

#[tokio::test]
async fn an_address_that_changed_stops_a_control_plane_and_no_worker() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.world.forget();
    camp.host("worker-1").more_facts("node.ip=192.0.2.77\n");
    camp.host("worker-1").undo("join");
    camp.up().await.good();
    // What was proven is of the address of before.
    assert_eq!(
        (steps_of(&camp.world, "cp"), steps_of(&camp.world, "worker-1")),
        (vec!["admit", "probes", "ready", "reach", "clear"], vec!["join", "reach"])
    );
    camp.world.forget();
    camp.host("worker-1").more_facts("node.ip=192.0.2.2\n");
    camp.host("cp").more_facts("node.ip=192.0.2.77\n");
    for seen in [camp.up().await, camp.plan().await] {
        assert_eq!((seen.codes(), exit(&seen)), (vec![("cp", Code::ClusterMoved)], 3));
    }
    camp.host("cp").more_facts("addr=eth0 192.0.2.77/24\nnode.ip=192.0.2.1\n");
    camp.up().await.good();
    assert_eq!(camp.world.changes(), []);
}

#[tokio::test]
async fn a_worker_without_its_configuration_joins_anew() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.world.forget();
    camp.host("worker-2").empty_kubelet_conf();
    camp.up().await.good();
    assert_eq!(
        (steps_of(&camp.world, "cp"), steps_of(&camp.world, "worker-2")),
        (vec!["admit"], vec!["quiet", "join"])
    );
}

#[tokio::test]
async fn a_worker_whose_kubelet_cannot_run_joins_anew() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.world.forget();
    camp.host("worker-1").crash_kubelet();
    camp.host("cp").undo("ready");
    camp.up().await.good();
    assert_eq!(steps_of_cp(&camp.world), ["admit", "ready"]);
    assert_eq!(steps_of(&camp.world, "worker-1"), ["join"]);
    camp.world.forget();
    camp.up().await.good();
    assert_eq!(camp.world.changes(), []);
}

#[tokio::test]
async fn hosts_that_wait_for_each_other_end_the_run_and_say_what_for() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.host("worker-1").undo("join");
    camp.host("cp").undo("ready");
    let seen = tokio::time::timeout(std::time::Duration::from_secs(60), camp.up()).await.expect("it waits for ever");
    let told = Problems::from(seen.problems.clone()).to_string();
    assert_eq!((seen.problems[0].code, exit(&seen)), (Code::StepUnreached, 7));
    assert!(told.contains("it needs the identities from cp") && told.contains("the step join on worker-1"), "{told}");
    assert!(seen.problems.iter().any(|p| p.all_hints()[0].contains("looks at all of them anew")), "{told}");
}

#[tokio::test]
async fn a_lab_that_does_not_work_is_more_than_a_failed_step() {
    for (node, step, words) in [
        ("cp", "ready", "timed out waiting for the condition on nodes/worker-1"),
        ("worker-1", "answers", "kube-proxy does not say that its mode is nftables: iptables"),
        ("worker-1", "reach", "the Service 10.96.0.22 does not reach its pod from this node"),
    ] {
        let camp = Camp::new();
        camp.host(node).trouble(step, Trouble::Fail(1, words.into()));
        let seen = camp.up().await;
        assert_eq!((seen.codes()[0], exit(&seen)), ((node, Code::VerifyFailed), 8));
        let cause = &seen.problems[0];
        assert!(cause.what.starts_with(&format!("verify/{step}: ")) && cause.detail == [words], "{cause}");
    }
}
