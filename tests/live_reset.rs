//! Reset on a host of its own kind of namespace: what a lab leaves is planted by real tools, and must be gone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use kubecamp::{
    core::{Code, Event, EventKind, NodeId, PhaseId, Problem, Problems, RunId},
    engine::{Check, HostLock, Journal, Mode, Phase, Run, Step, Summary, View, run_flow},
    host::{Facts, Host, Viewer, scan, script::LOCKS},
    phases::{BeginReset, CleanNetwork, Drain, Owner, ProveClean, Record, Records, RestoreFiles, StopCluster},
    profile::{self, Lab},
    transport::Io,
};

use crate::support::{sandbox::Sandbox, skip};

const FOREIGN: &str = include_str!("reset/foreign.sh");
const LAB: &str = include_str!("reset/lab.sh");

/// Stands for `up`: one change by the engine's own way.
struct Plant(&'static str);

#[async_trait]
impl Phase for Plant {
    fn id(&self) -> PhaseId {
        PhaseId::new("plant")
    }

    fn title(&self) -> &'static str {
        "plant"
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        Ok(vec![Step::script("plant", "plant", Check::Never, self.0)])
    }
}

struct Camp {
    // Dropped last: the host lives in it.
    host: Arc<Host>,
    notes: Arc<Mutex<Vec<String>>>,
    _sandbox: Sandbox,
}

impl Camp {
    async fn start() -> Self {
        let sandbox = Sandbox::start();
        let host = sandbox.host(&node()).await;
        let camp = Self { host, notes: Arc::default(), _sandbox: sandbox };
        camp.sh(FOREIGN).await;
        camp
    }

    async fn sh(&self, script: &str) -> String {
        let exit = self.host.root(script, Duration::from_secs(60), Io::default()).await.unwrap();
        assert!(exit.ok(), "{exit:?}");
        exit.text()
    }

    async fn scan(&self) -> Vec<String> {
        let text = self.sh(scan::SCRIPT).await;
        // The kernel is shared with whatever else runs on this machine.
        let shared = |line: &str| {
            line.starts_with("module\t") || (line.starts_with("sysctl\t") && !line.starts_with("sysctl\tnet."))
        };
        text.lines().filter(|l| !shared(l)).map(str::to_owned).collect()
    }

    async fn flow(&self, phases: &[Box<dyn Phase>]) -> Result<Summary, Problems> {
        let notes = Arc::clone(&self.notes);
        let listen = move |event: &Event| match &event.kind {
            EventKind::Note { text, .. } | EventKind::Output { line: text, .. } => {
                notes.lock().unwrap().push(text.clone())
            }
            _ => {}
        };
        let journal = Arc::new(Journal::unkept(vec![Arc::new(listen)]));
        let lab = Lab::new("lab".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let run = Run::new(lab, Mode::Apply, journal, tokio_util::sync::CancellationToken::new());
        let hosts = BTreeMap::from([(node(), Arc::clone(&self.host))]);
        let fleet = BTreeMap::from([(node(), Facts::parse("container=yes"))]);
        run_flow(&run, phases, &[node()], &hosts, &fleet).await?;
        Ok(run.summary())
    }

    async fn up(&self) {
        self.flow(&[Box::new(Record { owner: Owner::new() }), Box::new(Plant(LAB))]).await.unwrap();
    }

    async fn reset(&self, records: Records) -> Result<Summary, Problems> {
        let records = Arc::new(records);
        let all: Vec<Box<dyn Phase>> = vec![
            Box::new(Drain),
            Box::new(BeginReset { records: Arc::clone(&records) }),
            Box::new(StopCluster { records: Arc::clone(&records) }),
            Box::new(CleanNetwork { records: Arc::clone(&records) }),
            Box::new(RestoreFiles { records: Arc::clone(&records) }),
            Box::new(ProveClean { records }),
        ];
        self.flow(&all).await
    }

    fn said(&self, words: &str) -> bool {
        self.notes.lock().unwrap().iter().any(|n| n.contains(words))
    }
}

fn node() -> NodeId {
    "cp".parse().unwrap()
}

#[tokio::test]
async fn every_residue_goes_and_everything_foreign_stays() {
    let camp = Camp::start().await;
    let before = camp.scan().await;
    let hosts = camp.sh("sha256sum /etc/hosts; stat -c %a /usr/local/bin/kubectl; cat /usr/local/bin/kubectl").await;
    camp.up().await;
    let planted = camp.scan().await;
    assert!(planted.iter().filter(|l| !before.contains(l)).count() > 150);
    let summary = camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert!(summary.changed > 5);
    assert_eq!(camp.scan().await, before);
    assert_eq!(
        camp.sh("sha256sum /etc/hosts; stat -c %a /usr/local/bin/kubectl; cat /usr/local/bin/kubectl").await,
        hosts
    );
    assert_eq!(camp.sh("cat /var/tmp/data/volume/file; ls -A /var/lib | grep kubecamp; true").await, "precious");
    assert_eq!(camp.sh("bash -c 'exec 3<>/dev/tcp/127.0.0.1/80; echo GET / >&3; tail -n 1 <&3'").await, "mine");
    let again = camp.reset(Records::new()).await.unwrap();
    assert_eq!(again.changed, 0, "a clean host has nothing to change");
}

/// A host's record of `before` up is in the lab's folder as well.
async fn copy_of_record(camp: &Camp) -> Records {
    Records::from([(node(), camp.sh("cat /var/lib/kubecamp/before").await)])
}

#[tokio::test]
async fn a_host_whose_folder_was_deleted_is_cleaned_by_the_labs_copy() {
    let camp = Camp::start().await;
    camp.sh("cp /usr/local/bin/kubectl /root/kept; rm /usr/local/bin/kubectl").await;
    let before = camp.scan().await;
    camp.up().await;
    let records = copy_of_record(&camp).await;
    camp.sh("rm -rf /var/lib/kubecamp /opt/kubecamp /etc/kubecamp /etc/kubernetes /etc/systemd/system/kube*").await;
    camp.reset(records.clone()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert_eq!(camp.scan().await, before);
    // The lab's folder still knows the host, the user has new programs of those names: they are not touched.
    camp.sh("mv /root/kept /usr/local/bin/kubectl; mkdir -p /root/.kube/cache").await;
    assert_eq!(camp.reset(records).await.unwrap().changed, 0);
    camp.sh("test -x /usr/local/bin/kubectl && test -d /root/.kube/cache").await;
}

#[tokio::test]
async fn without_any_record_the_list_of_what_up_makes_is_proven() {
    let camp = Camp::start().await;
    camp.up().await;
    camp.sh("rm /var/lib/kubecamp/before /var/lib/kubecamp/manifest").await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert!(camp.said("there is no record of the host"));
    camp.sh("nft list table inet mine; ip link show br-mine; test -e /etc/cni/net.d/87-podman.conflist; ! test -e /etc/kubernetes").await;
}

#[tokio::test]
async fn each_residue_is_named_and_the_record_kept_until_it_is_gone() {
    let camp = Camp::start().await;
    let before = camp.scan().await;
    camp.up().await;
    // A program that looks like a cluster's, a file that cannot be deleted, and a namespace that a process holds.
    camp.sh("echo x > /var/lib/kubelet/held; chattr +i /var/lib/kubelet/held\n\
         cp /bin/sleep /run/etcd; /run/etcd 1000 </dev/null >/dev/null 2>&1 & echo $! > /run/etcd.pid\n\
         ip netns exec cni-9f9f sleep 1000 </dev/null >/dev/null 2>&1 &\n\
         mkdir -p /etc/iptables; iptables-legacy-save > /etc/iptables/rules.v4\n\
         nft add table inet theirs; echo their.conf > /etc/sysctl.d/60-theirs.conf; ip link add br-theirs type bridge")
        .await;
    let failed = camp.reset(Records::new()).await.unwrap_err().into_vec();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].code, Code::ResetResidue);
    let wanted = [
        "path /var/lib/kubelet is there and was not",
        "path /var/lib/kubelet/held is there and was not",
        "process etcd /run/etcd 1000  is there and was not",
        "saved /etc/iptables/rules.v4 is there and was not",
    ];
    assert_eq!(failed[0].detail, wanted);
    assert!(camp.said("nft inet theirs is new"), "{:#?}", camp.notes.lock().unwrap());
    // The kernel has none of the cluster's any more: saved anew, neither has the file.
    camp.sh("test -s /var/lib/kubecamp/before; chattr -i /var/lib/kubelet/held; kill -9 $(cat /run/etcd.pid)\n\
         grep -q KUBE-SERVICES /etc/iptables/rules.v4 && iptables-legacy-save > /etc/iptables/rules.v4")
        .await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}"));
    let after = camp.scan().await;
    let new: Vec<_> = after.iter().filter(|l| !before.contains(l)).map(|l| l.split('\t').next().unwrap()).collect();
    assert_eq!(
        new,
        ["content", "link", "nft", "path", "sysctl", "sysctl"],
        "what others added, and forwarding for them"
    );
    assert!(before.iter().all(|l| after.contains(l) || l.ends_with("forward = 0") || l.ends_with("forwarding = 0")));
}

#[tokio::test]
async fn a_reset_killed_anywhere_is_finished_by_the_next() {
    let camp = Camp::start().await;
    let before = camp.scan().await;
    camp.up().await;
    let records = Arc::new(Records::new());
    let first: Vec<Box<dyn Phase>> = vec![
        Box::new(BeginReset { records: Arc::clone(&records) }),
        Box::new(StopCluster { records: Arc::clone(&records) }),
        Box::new(CleanNetwork { records }),
    ];
    camp.flow(&first).await.unwrap();
    // As if killed in the midst of restoring files: some are back, some are half removed.
    camp.sh("rm -rf /opt/kubecamp /etc/kubernetes; rm -f /etc/systemd/system/kubelet.service; echo part > /usr/local/bin/kubeadm.kc-part.4711; echo part > /opt/cni/bin/bridge.kc-part.4712; \
         mkdir -p /etc/kubecamp; echo part > /etc/kubecamp/containerd.toml.kc-part; echo part > /etc/hosts.kc-part").await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert_eq!(camp.scan().await, before);
    camp.sh("test ! -e /etc/hosts.kc-part").await;
    // And up again on the clean host, whose reset compares with the same.
    camp.up().await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(camp.scan().await, before);
}

/// As a join whose run was killed: it holds the lock of changes, and once the reset waits for it there are the pods' control
/// groups, where nothing was to be unmounted or removed before.
const UNDER_WAY: &str = r#"
awk '$2 ~ "^/var/lib/kubelet/" {print $2}' /proc/mounts | sort -r | while read -r m; do umount "$(printf %b "$m")" || exit 1; done
mkdir -p -m 700 /run/kubecamp.lock && cd /run/kubecamp.lock && touch step || exit 1
flock -o step sh -c 'tries=0; until grep -q -- "-> FLOCK.*:$0 " /proc/locks; do
  tries=$((tries + 1)); [ $tries -lt 300 ] || exit 1; sleep 0.1; done
mkdir -p /sys/fs/cgroup/kubepods/besteffort && touch /run/made' "$(stat -c %i step)" </dev/null >/dev/null 2>&1 &
tries=0; while flock -n step true; do tries=$((tries + 1)); [ $tries -lt 2000 ] || exit 1; done
"#;

#[tokio::test]
async fn what_a_killed_run_still_makes_goes_too() {
    let camp = Camp::start().await;
    let before = camp.scan().await;
    camp.up().await;
    camp.sh(UNDER_WAY).await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    camp.sh("rm /run/made").await;
    assert_eq!(camp.scan().await, before);
}

/// Whoever filled the disk left nothing for the note that the host is being reset, and nothing for files to come back into.
#[tokio::test]
async fn live_reset_empties_a_full_disk_all_the_same() {
    let camp = Camp::start().await;
    camp.sh("mkdir -p /var/lib/kubecamp && mount -t tmpfs -o size=16m full /var/lib/kubecamp").await;
    let before = camp.scan().await;
    camp.up().await;
    camp.sh(
        "mkdir -p /var/lib/kubecamp/incoming; mount -o remount,nr_inodes=$(($(df --output=iused /var/lib/kubecamp | tail -n 1) + 9)) /var/lib/kubecamp\n\
         n=0; while touch /var/lib/kubecamp/incoming/$n 2>/dev/null && [ $n -lt 99 ]; do n=$((n + 1)); done\n\
         ! touch /var/lib/kubecamp/x 2>/dev/null",
    )
    .await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert_eq!(camp.scan().await, before);
}

#[tokio::test]
async fn a_host_that_never_was_in_a_lab_is_not_touched() {
    let camp = Camp::start().await;
    camp.sh(
        "iptables-nft -N KUBE-FIREWALL; ip link add cni0 type bridge; mkdir -p /etc/kubernetes/pki /var/lib/kubelet",
    )
    .await;
    let before = camp.scan().await;
    assert_eq!(camp.reset(Records::new()).await.unwrap().changed, 0);
    assert_eq!(camp.scan().await, before);
}

#[tokio::test]
async fn live_reset_spares_what_others_set_and_wrote_meanwhile() {
    let camp = Camp::start().await;
    camp.sh("mkdir -p /var/lib/cni/results").await;
    camp.up().await;
    // The end of our block is lost, and a friend has come below it; so has a container in a CNI network of theirs. A pod of
    // the lab was killed beside it.
    camp.sh(
        "echo 2 > /proc/sys/net/ipv4/conf/all/arp_ignore\n\
         ip netns add cni-5e5e; mkdir -p /var/lib/kubecamp/containerd/io.containerd.grpc.v1.cri/sandboxes/77aa\n\
         for id in 5e5e 77aa; do echo '{}' > /var/lib/cni/results/cni-loopback-$id-lo; done\n\
         echo '{\"sandbox\":\"/var/run/netns/cni-5e5e\"}' > /var/lib/cni/results/podman-5e-eth0\n\
         grep -v '^# kubecamp end$' /etc/hosts > /run/hosts; echo '192.0.2.8 friend-2' >> /run/hosts; cat /run/hosts > /etc/hosts",
    )
    .await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    let sysctl = camp.sh("cd /proc/sys/net/ipv4; cat conf/all/arp_ignore ip_forward conf/all/route_localnet").await;
    assert_eq!(sysctl, "2\n0\n0");
    for kept in ["sysctl net.ipv4.conf.all.arp_ignore", "netns cni-5e5e"] {
        assert!(camp.said(&format!("left alone: {kept}")), "{:#?}", camp.notes.lock().unwrap());
    }
    camp.sh("ip netns exec cni-5e5e true").await;
    assert_eq!(camp.sh("ls /var/lib/cni/results").await, "cni-loopback-5e5e-lo\npodman-5e-eth0");
    assert_eq!(camp.sh("cat /etc/hosts").await, "127.0.0.1 localhost\n192.0.2.7 friend\n\n192.0.2.8 friend-2");
}

/// What `kubeadm reset` leaves is in nobody's files.
#[tokio::test]
async fn live_reset_facts_see_what_a_cluster_left_in_the_kernel() {
    let camp = Camp::start().await;
    let gather = async || Facts::gather(&Viewer::new(&camp.host)).await.unwrap().all("remains").to_vec();
    assert_eq!(gather().await, [""; 0], "docker's chains and others' links are no cluster's");
    camp.sh(
        "ip link add cni0 type bridge; iptables-legacy -t mangle -N KUBE-KUBELET-CANARY; iptables-nft -N KUBE-FIREWALL\n\
         nft add table ip kube-proxy; nft add chain ip kube-proxy services",
    )
    .await;
    let all = ["link cni0", "chain KUBE-FIREWALL", "chain KUBE-KUBELET-CANARY", "nftables table ip kube-proxy"];
    assert_eq!(gather().await, all);
}

/// Preflight refuses such a host; where one came by all the same, its unit is switched on again afterwards.
#[tokio::test]
async fn live_reset_switches_on_again_what_was_on_before() {
    let camp = Camp::start().await;
    const LINK: &str = "/etc/systemd/system/multi-user.target.wants/kubelet.service";
    camp.sh(&format!(
        "mkdir -p /etc/systemd/system/multi-user.target.wants /usr/local/lib/systemd/system /etc/systemd/system/kubelet.service.d\n\
         echo '[Service]' > /usr/local/lib/systemd/system/kubelet.service; ln -s /usr/local/lib/systemd/system/kubelet.service {LINK}\n\
         echo '[Service]' > /etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
    ))
    .await;
    let facts = Facts::gather(&Viewer::new(&camp.host)).await.unwrap();
    let seen: Vec<_> = facts.all("kubelet").iter().map(|l| l.trim_end()).collect();
    assert_eq!(
        seen,
        ["/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", "/usr/local/lib/systemd/system/kubelet.service"]
    );
    let before = camp.scan().await;
    camp.up().await;
    assert_eq!(camp.sh(&format!("readlink {LINK}")).await, "../kubelet.service");
    let again = Facts::gather(&Viewer::new(&camp.host)).await.unwrap();
    assert_eq!(again.all("kubelet"), facts.all("kubelet"), "the lab's own unit is not somebody else's");
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert_eq!(camp.scan().await, before);
    assert_eq!(camp.sh(&format!("readlink {LINK}")).await, "/usr/local/lib/systemd/system/kubelet.service");
    assert_eq!(camp.reset(Records::new()).await.unwrap().changed, 0);
}

#[tokio::test]
async fn frozen_stopped_and_orphaned_processes_end() {
    let camp = Camp::start().await;
    camp.up().await;
    let said = camp.sh(
        "cp /bin/sleep /opt/kubecamp/bin/containerd; cp /bin/sleep /usr/local/bin/kubelet; cp /bin/sh /run/containerd-shim-runc-v2\n\
         begun() { until [ \"$(cat /proc/$1/comm)\" = \"$2\" ] && [ \"$(readlink /proc/$1/fd/1)\" = /dev/null ]; do :; done; }\n\
         /opt/kubecamp/bin/containerd 1000 </dev/null >/dev/null 2>&1 & begun $! containerd; kill -STOP $!; rm /opt/kubecamp/bin/containerd\n\
         /usr/local/bin/kubelet 1000 </dev/null >/dev/null 2>&1 & begun $! kubelet; kill -STOP $!\n\
         /run/containerd-shim-runc-v2 -c 'while :; do sleep 100; done' -address /run/kubecamp/containerd.sock </dev/null >/dev/null 2>&1 &\n\
         begun $! containerd-shim; kill -STOP $!\n\
         mkdir /sys/fs/cgroup/freezer && mount -t cgroup -o freezer freezer /sys/fs/cgroup/freezer && g=/sys/fs/cgroup/freezer/kubepods-kubecamp-test && mkdir -p $g/pod/c || { echo NO-FREEZER; exit 0; }\n\
         sleep 1001 </dev/null >/dev/null 2>&1 & begun $! sleep; echo $! > $g/pod/c/cgroup.procs; echo FROZEN > $g/freezer.state",
    )
    .await;
    if said.contains("NO-FREEZER") {
        skip("frozen processes: this kernel mounts no freezer of cgroup v1");
    }
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert_eq!(camp.sh("ls -d /sys/fs/cgroup/*/kubepods* 2>/dev/null; true").await, "");
    let left = camp.sh("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null | grep '[1]00[01] \\|[-]address' | grep -v 100000; true").await;
    assert_eq!(left, "");
}

/// Locks come last: they go with the run that took them, also where there was nothing to reset.
#[tokio::test]
async fn live_reset_leaves_no_locks_and_two_never_hold_one_host() {
    let camp = Camp::start().await;
    let take = |run: &str| {
        let run = RunId::from(run.to_owned());
        let host = Arc::clone(&camp.host);
        async move { HostLock::take(&host, &run, |_| false).await }
    };
    let first = take("first").await.unwrap();
    camp.sh("[ -s /run/kubecamp.lock/run.who ]").await;
    assert_eq!(take("second").await.err().unwrap().code, Code::HostBusy);
    assert_eq!(take("first").await.err().unwrap().code, Code::HostTwin, "one machine under two names");
    // One that waits gets the host when the first lets go, and a lock that is really there.
    let (third, freed) = tokio::join!(take("third"), async {
        camp.sh("for n in $(seq 200); do grep -qsx flock /proc/[0-9]*/comm && exit 0; sleep 0.05; done; exit 1").await;
        first.release().await
    });
    assert!(freed);
    let third = third.unwrap();
    assert_eq!(camp.sh("cat /run/kubecamp.lock/run.who").await, "third");
    assert_eq!(take("fourth").await.err().unwrap().code, Code::HostBusy);
    assert!(third.release().await);
    camp.sh("[ ! -e /run/kubecamp.lock ]").await;
    // A stranger's file keeps the folder, and that is told.
    let fifth = take("fifth").await.unwrap();
    camp.sh("echo x > /run/kubecamp.lock/other").await;
    assert!(!fifth.release().await);
    assert!(camp.scan().await.contains(&"path\t/run/kubecamp.lock/other".to_owned()));
}

/// The process that holds the lock ends as with its connection; then the run takes it back, unless another was faster.
#[tokio::test]
async fn live_reset_a_lost_lock_is_taken_back_or_stops_the_run_there() {
    let camp = Camp::start().await;
    let lock = HostLock::take(&camp.host, &RunId::from("mine".to_owned()), |_| false).await.unwrap();
    camp.sh("F=/run/kubecamp.lock; p=$(cat $F/run.pid); kill -9 $p\n\
         for n in $(seq 200); do [ \"$(cat $F/run.pid)\" != $p ] && exit 0; sleep 0.05; done; exit 1")
        .await;
    camp.host.held().await.unwrap_or_else(|p| panic!("{p}"));
    let other = HostLock::take(&camp.host, &RunId::from("other".to_owned()), |_| false).await;
    assert_eq!(other.err().unwrap().code, Code::HostBusy);
    let faster = camp.sh(
        "F=/run/kubecamp.lock; exec 9>>$F/run; ( sleep 1; kill -9 $(cat $F/run.pid) ) 9>&- & flock -w 20 9 || exit 1\n\
         echo theirs > $F/run.who; sleep 12",
    );
    let stopped = async {
        for _ in 0..200 {
            match camp.host.held().await {
                Err(problem) => return problem.to_string(),
                Ok(()) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        String::new()
    };
    let (_, stopped) = tokio::join!(faster, stopped);
    assert!(stopped.contains("KC-HOST-BUSY on cp") && stopped.contains("theirs"), "{stopped}");
    assert!(camp.flow(&[Box::new(Plant("touch /run/planted"))]).await.is_err());
    camp.sh("[ ! -e /run/planted ]").await;
    assert!(lock.release().await);
}

/// Every user of a host may write to /run/lock, where an earlier version had its locks.
#[tokio::test]
async fn live_reset_nobody_else_gets_at_the_locks() {
    let camp = Camp::start().await;
    const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c";
    let refused = async |what: &str| camp.sh(&format!("! {NOBODY} '{what}' 2>/dev/null")).await;
    camp.sh(&format!(
        "echo precious > /etc/victim; {NOBODY} 'mkdir /run/lock/kubecamp && cd /run/lock/kubecamp && \
         for f in run run.who run.pid step upload; do ln -s /etc/victim $f; done'"
    ))
    .await;
    refused("mkdir /run/kubecamp.lock").await;
    let lock = HostLock::take(&camp.host, &RunId::from("mine".to_owned()), |_| false).await.unwrap();
    assert_eq!(camp.sh("stat -c '%a %u' /run/kubecamp.lock").await, "700 0");
    refused("ln -s /etc/victim /run/kubecamp.lock/other").await;
    camp.up().await;
    camp.reset(Records::new()).await.unwrap_or_else(|p| panic!("{p}\n{:#?}", camp.notes.lock().unwrap()));
    assert!(lock.release().await);
    assert_eq!(
        camp.sh("cat /etc/victim; ls /run/lock/kubecamp | wc -l; ls -d /run/kubecamp*; true").await,
        "precious\n5"
    );
}

/// A run was killed, and its connection still looks alive to the host.
#[tokio::test]
async fn live_reset_a_run_that_is_over_loses_its_lock() {
    let camp = Camp::start().await;
    let take = |run: &str, over: &'static str| {
        let (host, run) = (Arc::clone(&camp.host), RunId::from(run.to_owned()));
        async move { HostLock::take(&host, &run, |who| who == over).await }
    };
    let _killed = take("killed", "").await.unwrap();
    assert_eq!(take("other", "somebody").await.err().unwrap().code, Code::HostBusy, "it may well live");
    let _next = take("next", "killed").await.unwrap();
    assert_eq!(camp.sh(&format!("cat {LOCKS}/run.who")).await, "next");
    assert_eq!(take("next", "next").await.err().unwrap().code, Code::HostTwin, "a run does not oust itself");
    // Another computer's run has come meanwhile: the files still name the one that is over.
    camp.sh(&format!("echo killed > {LOCKS}/run.who; echo 1 > {LOCKS}/run.pid")).await;
    assert_eq!(take("other", "killed").await.err().unwrap().code, Code::HostBusy);
}

/// A tool that crashes hides its tables: neither a record nor a proof may be made of such a scan.
#[tokio::test]
async fn a_crashed_tool_stops_up_and_leaves_reset_unproven() {
    let camp = Camp::start().await;
    const BREAK: &str = "printf '#!/bin/sh\\nkill -SEGV $$\\n' > /usr/local/sbin/nft && chmod 755 /usr/local/sbin/nft";
    const MEND: &str = "rm /usr/local/sbin/nft";
    camp.sh(BREAK).await;
    let refused = camp.flow(&[Box::new(Record { owner: Owner::new() }), Box::new(Plant(LAB))]).await.unwrap_err();
    let refused = refused.iter().next().unwrap();
    assert_eq!(refused.code, Code::HostScan);
    assert!(refused.detail.iter().any(|l| l.contains("nft -s list ruleset: ended by signal 11")), "{refused}");
    camp.sh("[ ! -e /var/lib/kubecamp ]").await;
    camp.sh(MEND).await;
    camp.up().await;
    camp.sh(BREAK).await;
    let unproven = camp.reset(Records::new()).await.unwrap_err();
    assert!(unproven.iter().any(|p| p.code == Code::ResetUnproven), "{unproven}");
    camp.sh("[ -s /var/lib/kubecamp/before ]").await;
    camp.sh(MEND).await;
    camp.reset(Records::new()).await.unwrap();
    camp.sh("[ ! -e /var/lib/kubecamp ]").await;
}
