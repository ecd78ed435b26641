//! `up` as it should go: order, everything once, again, on every kind of system.

use std::collections::BTreeSet;

use kubecamp::{
    core::{Code, Outcome},
    flows,
};

use super::camp::{Camp, steps_of};
use crate::support::simhost::{Did, Login, SimHost, System};

/// What a worker goes through.
const WORKER: &[&str] = &[
    "baseline",
    "etc-hosts",
    "modules",
    "sysctls",
    "keep",
    "install",
    "containerd",
    "cni-config",
    "image",
    "image",
    "image",
    "image",
    "join",
    "answers",
    "reach",
];

/// What the control plane goes through; images of the addons, and what admits the workers, come beside.
const CONTROL_PLANE: &[&str] = &[
    "baseline",
    "etc-hosts",
    "modules",
    "sysctls",
    "keep",
    "install",
    "containerd",
    "cni-config",
    "ca",
    "init",
    "root-kubectl",
    "kube-proxy",
    "daemonset",
    "coredns",
    "probes",
    "ready",
    "answers",
    "reach",
    "clear",
];

fn control_plane(camp: &Camp) -> (Vec<&'static str>, usize) {
    let all = steps_of(&camp.world, "cp");
    let images = all.iter().filter(|s| **s == "image").count();
    (all.into_iter().filter(|s| !matches!(*s, "image" | "admit")).collect(), images)
}

#[tokio::test]
async fn every_step_comes_once_and_in_order() {
    let camp = Camp::new();
    let seen = camp.up().await.good();
    assert_eq!(control_plane(&camp), (CONTROL_PLANE.to_vec(), 6));
    assert_eq!(steps_of(&camp.world, "cp").into_iter().filter(|s| *s == "admit").count(), 1);
    assert_eq!(steps_of(&camp.world, "worker-1"), WORKER);
    assert_eq!(steps_of(&camp.world, "worker-2"), WORKER);
    let when = |on: &str, step: &str| camp.world.when(on, step);
    for worker in ["worker-1", "worker-2"] {
        assert!(when("cp", "ca") < when("cp", "admit") && when("cp", "admit") < when(worker, "join"));
        assert!(when(worker, "join") < when("cp", "reach") && when("cp", "probes") < when(worker, "reach"));
        assert!(when(worker, "reach") < when("cp", "clear"));
    }
    assert!(seen.ended(Outcome::Failed).is_empty() && seen.ended(Outcome::AlreadyDone).is_empty());
    assert_eq!(seen.summary.changed as usize, seen.ended(Outcome::Changed).len());
}

#[tokio::test]
async fn a_worker_gets_no_image_of_the_control_plane() {
    let camp = Camp::new();
    camp.up().await.good();
    let has = |on: &str, image: &str| {
        camp.host(on).link.ran().iter().any(|r| r.line.starts_with("put ") && r.line.contains(image))
    };
    assert!(has("cp", "/etcd.tar.zst") && has("cp", "/coredns.tar.zst"));
    assert!(!has("worker-1", "/etcd.tar.zst") && has("worker-1", "/coredns.tar.zst"));
}

#[tokio::test]
async fn programs_travel_compressed_to_a_host_that_has_zstd() {
    let camp = Camp::new();
    camp.host("worker-1").more_facts("tool.zstd=yes\n");
    camp.up().await.good();
    let packed = |on: &str| {
        let ran = camp.host(on).link.ran();
        let put: Vec<_> = ran.iter().filter(|r| r.line.starts_with("put /usr/local/bin/kubelet ")).collect();
        assert_eq!(put.len(), 1);
        put[0].input.ends_with(" of zstd")
    };
    assert!(packed("worker-1") && !packed("worker-2"));
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let camp = Camp::new();
    let first = camp.up().await.good();
    camp.world.forget();
    let second = camp.up().await.good();
    assert_eq!(camp.world.changes(), []);
    assert_eq!((second.summary.changed, second.ended(Outcome::Changed)), (0, BTreeSet::new()));
    assert!(second.summary.unchanged > 0 && second.summary.unchanged < first.summary.changed);
}

#[tokio::test]
async fn every_system_takes_the_same_steps() {
    for systems in [
        [System::Rocky9; 3],
        [System::Debian12, System::Ubuntu2404, System::OpenEuler2403],
        [System::OpenEuler2403, System::Rocky9, System::Debian13],
    ] {
        let camp = Camp::on(systems, Login::Root);
        camp.up().await.good();
        assert_eq!(control_plane(&camp), (CONTROL_PLANE.to_vec(), 6), "{systems:?}");
        assert_eq!(steps_of(&camp.world, "worker-2"), WORKER, "{systems:?}");
    }
}

#[tokio::test]
async fn a_refused_host_stops_the_run_before_any_change_and_all_are_told() {
    let camp = Camp::new();
    camp.host("cp").more_facts("cores=1\nlisten=6443 users:((\"nginx\",pid=7,fd=3))\n");
    camp.host("worker-1").more_facts("memory=1073741824\nnow=9000.0\n");
    camp.host("worker-2").more_facts("leftover=/etc/kubernetes/kubelet.conf\nmachine_id=m1\n");
    let seen = camp.up().await;
    let found: BTreeSet<_> = seen.problems.iter().map(|p| p.code).collect();
    let wanted = [Code::HostTooSmall, Code::HostPort, Code::HostClock, Code::HostLeftovers, Code::HostTwin];
    assert_eq!(found, wanted.into());
    let table = seen.problems.iter().find(|p| p.code == Code::HostTooSmall).unwrap();
    assert_eq!(table.detail.len(), 3, "a heading, and one line for each shortfall: {table}");
    assert_eq!(camp.world.changes(), []);
}

#[tokio::test]
async fn files_that_are_there_already_are_not_sent_again() {
    let camp = Camp::new();
    camp.up().await.good();
    let puts = camp.world.changes().into_iter().filter(|(_, did)| matches!(did, Did::Put(_))).count();
    let all: BTreeSet<_> = camp.world.changes().into_iter().map(|(n, did)| format!("{n} {did:?}")).collect();
    assert!(puts > 20 && all.iter().filter(|l| l.contains("Put")).count() == puts, "{all:#?}");
}

#[tokio::test]
async fn what_an_interrupted_upload_has_done_is_not_sent_again() {
    let camp = Camp::new();
    camp.up().await.good();
    let worker = camp.host("worker-1");
    let puts =
        || worker.link.ran().iter().filter(|r| r.line.starts_with("put ") && r.line.contains(".tar.zst")).count();
    let first = puts();
    worker.lose_an_image();
    camp.up().await.good();
    assert!(first > 1, "{first}");
    assert_eq!(puts() - first, 1);
}

#[tokio::test]
async fn an_image_that_somebody_removed_comes_back() {
    let camp = Camp::new();
    camp.up().await.good();
    camp.world.forget();
    camp.host("worker-1").remove_an_image();
    camp.up().await.good();
    assert_eq!(camp.world.changes(), [("worker-1".parse().unwrap(), Did::Change("image"))]);
    camp.world.forget();
    camp.up().await.good();
    assert_eq!(camp.world.changes(), []);
}

#[tokio::test]
async fn hosts_that_do_not_reach_each_others_ports_are_refused_with_all_of_them() {
    let camp = Camp::new();
    camp.host("worker-1").shut("cp", 6443, "no answer within 4 s");
    camp.host("worker-1").shut("worker-2", 10250, "No route to host");
    let seen = camp.up().await;
    assert_eq!(seen.codes(), [("worker-1", Code::HostApart)]);
    let problem = &seen.problems[0];
    assert_eq!(problem.what, "cannot reach cp, worker-2");
    assert_eq!(
        problem.detail,
        [
            "cp at 192.0.2.1, TCP port 6443: no answer within 4 s",
            "worker-2 at 192.0.2.3, TCP port 10250: No route to host"
        ]
    );
    assert!(problem.all_hints()[0].contains("TCP 6443 to cp, TCP 10250 and UDP 8472 to all"), "{problem}");
    assert_eq!(camp.world.changes(), []);
}

/// Nobody gave the private address, and no port that is opened leads there.
#[tokio::test]
async fn a_private_address_of_another_network_is_told_as_such() {
    let camp = Camp::new();
    camp.host("cp").more_facts("addr=eth0 10.1.0.4/24\nroute.source=10.1.0.4\n");
    camp.host("worker-2").more_facts("addr=eth1 10.1.0.6/24\n");
    for worker in ["worker-1", "worker-2"] {
        camp.host(worker).shut("cp", 6443, "no answer within 4 s");
    }
    let seen = camp.up().await;
    assert_eq!(seen.codes(), [("worker-1", Code::HostApart), ("worker-2", Code::HostApart)]);
    let [far, near] = &seen.problems[..] else { panic!("{:?}", seen.problems) };
    let hints = far.all_hints();
    assert!(hints.len() == 2 && hints[1].contains("No network of this host has 10.1.0.4, "), "{hints:?}");
    assert_eq!(near.all_hints().len(), 1, "it is in the same network, and a firewall is between");
}

#[tokio::test]
async fn a_host_that_could_not_try_is_not_taken_for_a_good_one() {
    let camp = Camp::new();
    camp.host("worker-2").shut("link", 0, "");
    assert_eq!(camp.up().await.codes(), [("worker-2", Code::LinkLost)]);
}

#[tokio::test]
async fn a_firewall_of_the_host_itself_is_only_warned_about() {
    let camp = Camp::on([System::Debian13, System::Rocky9, System::Ubuntu2404], Login::Root);
    camp.host("worker-1").more_facts("firewall=firewalld\n");
    camp.host("worker-2").more_facts("firewall=ufw\n");
    let seen = camp.up().await.good();
    let told: Vec<_> = seen.warnings.iter().map(|w| (w.on.as_ref().unwrap().as_str(), w.code)).collect();
    assert_eq!(told, [("worker-1", Code::HostApart), ("worker-2", Code::HostApart)]);
    assert!(seen.warnings[0].all_hints()[0].contains("firewall-cmd --permanent --add-port=8472/udp"));
}

#[tokio::test]
async fn a_disk_that_the_lab_itself_has_filled_is_no_reason_to_refuse_it() {
    let camp = Camp::new();
    camp.host("worker-1").more_facts("disk.free=5000000000\n");
    assert_eq!(camp.up().await.codes(), [("worker-1", Code::HostDisk)]);
    camp.host("worker-1").more_facts("disk.free=7000000000\n");
    camp.up().await.good();
    camp.host("worker-1").more_facts("disk.free=5000000000\n");
    camp.up().await.good();
    camp.host("worker-1").more_facts("disk.free=500000000\n");
    assert_eq!(camp.up().await.codes(), [("worker-1", Code::HostDisk)]);
}

#[tokio::test]
async fn a_proof_holds_as_long_as_the_boot_and_the_kube_proxy_it_was_made_with() {
    let camp = Camp::new();
    camp.up().await.good();
    let breaks: [fn(&SimHost); 2] = [SimHost::reboot, SimHost::restart_kube_proxy];
    for break_it in breaks {
        camp.world.forget();
        break_it(camp.host("worker-1"));
        camp.up().await.good();
        assert_eq!(steps_of(&camp.world, "worker-1"), ["reach"]);
        assert_eq!(steps_of(&camp.world, "cp"), ["probes", "clear"]);
        camp.world.forget();
        camp.up().await.good();
        assert_eq!(camp.world.changes(), []);
    }
}

#[tokio::test]
async fn rules_and_a_bridge_that_somebody_removed_come_back_and_are_proven() {
    let camp = Camp::new();
    camp.up().await.good();
    for step in ["rules", "bridge"] {
        camp.world.forget();
        let host = camp.host("worker-1");
        if step == "rules" {
            host.flush_rules()
        } else {
            host.delete_bridge()
        }
        camp.up().await.good();
        assert_eq!(steps_of(&camp.world, "worker-1"), [step, "reach"]);
        assert_eq!(steps_of(&camp.world, "worker-2"), [""; 0]);
        assert_eq!(steps_of(&camp.world, "cp"), ["probes", "clear"]);
        camp.world.forget();
        camp.up().await.good();
        assert_eq!(camp.world.changes(), []);
    }
}

#[test]
fn the_phases_told_beforehand_are_those_of_the_flow() {
    let phases: Vec<_> = flows::up(&Camp::new().wish()).iter().map(|p| p.id()).collect();
    assert_eq!(phases, flows::UP);
}
