//! The steps of the flows as a host sees them: it knows each by words of its scripts.
//!
//! Of the entries of a table the first whose words occur in a script is the step, so words stand here that no other
//! step's script has; where that cannot be, the one with the rarer words comes first, and says so. A step whose script
//! changes is mended here and nowhere else.

/// A step as a host sees it.
struct Known {
    /// What tests call it; the comment beside it names the phase and the step.
    name: &'static str,
    /// Words of its change.
    change: &'static str,
    /// Words of its check; none where the step is done whenever it comes.
    check: Option<&'static str>,
}

const fn known(name: &'static str, change: &'static str, check: &'static str) -> Known {
    Known { name, change, check: Some(check) }
}

const fn unchecked(name: &'static str, change: &'static str) -> Known {
    Known { name, change, check: None }
}

/// The steps of `up`, in about the order of the flow.
const UP: &[Known] = &[
    // record/baseline: the host's record from before, and the claim of the lab.
    known("baseline", "/var/lib/kubecamp/lab.part", "[ -s /var/lib/kubecamp/before ] && echo"),
    // names/etc-hosts
    known("etc-hosts", "kc_block /etc/hosts", "/^# kubecamp begin$/"),
    // kernel/modules
    known("modules", "modprobe $m", "/etc/modules-load.d/kubecamp.conf"),
    // kernel/sysctls
    known("sysctls", "kc_sysctl net.ipv4.ip_forward", "/etc/sysctl.d/99-zz-kubecamp.conf"),
    // binaries/keep: what the programs will replace.
    known("keep", "kc_keep \"$path\"", "!($0 in known)"),
    // binaries/install: after the uploads, which the host knows by their digests.
    known("install", "> /var/lib/kubecamp/binaries.part", "case $known in"),
    // runtime/containerd
    known("containerd", "systemctl restart kubecamp-containerd", "systemctl is-active -q kubecamp-containerd"),
    // pod-network/cni-config
    known("cni-config", "FLANNEL_NETWORK=", "/run/flannel/subnet.env"),
    // images/import and images-later/import-*: one name for all, since each image has a mark of its own.
    known("image", "images import", "images ls -q"),
    // control-plane/ca
    known("ca", "kubeadm init phase certs ca", "[ -s /etc/kubernetes/pki/ca.crt ]"),
    // control-plane/init
    known("init", "kubeadm init --config", "kube-public/cluster-info"),
    // control-plane/root-kubectl
    known("root-kubectl", "cat /etc/kubernetes/admin.conf; }", "client-certificate-data; do"),
    // kube-proxy/kube-proxy: its ConfigMap and DaemonSet.
    known("kube-proxy", "kubeadm init phase addon kube-proxy", "get cm/kube-proxy ds/kube-proxy"),
    // kube-proxy/rules: only where the facts miss them.
    known("rules", "until_true rules_are_there", "|| ! mode_is"),
    // pod-network/bridge: only where the facts miss it.
    known("bridge", "stopp \"$id\"", "pods -q --state ready"),
    // coredns/coredns
    known("coredns", "kubeadm init phase addon coredns", "svc/kube-dns -o name"),
    // admit-workers/admit
    unchecked("admit", "kubeconfig user"),
    // admit-workers/quiet: before the join, whose words its check has too.
    known("quiet", "systemctl stop kubelet.service", "! systemctl -q is-active kubelet"),
    // join-workers/join
    known("join", "kubeadm join", "kubelet-client-current.pem"),
    // flannel/daemonset
    known("daemonset", "apply --server-side", "get ds kube-flannel-ds"),
    // proxy-mode/mode
    known("mode", "rollout restart ds/kube-proxy", "get cm kube-proxy -o 'jsonpath"),
    // verify/probes
    unchecked("probes", "KC-OUT probes"),
    // verify/clear
    unchecked("clear", "delete ns kubecamp-verify --wait=false"),
    // verify/ready
    known("ready", "get pods -A --no-headers", "get nodes,daemonsets,deployments"),
    // verify/reach
    known("reach", "> /run/kubecamp/verified", "cat /run/kubecamp/verified"),
    // verify/answers
    known("answers", "until_true names_answer", "mode_is && answer_dns"),
];

/// The steps of `reset`, as they follow each other; only the last words of their scripts differ, since all functions come
/// before the call. One that undoes a step of the same name in `up` ends in `-out`, since a host keeps both effects.
const RESET: &[Known] = &[
    // drain/drain
    known("drain", "nobody ends the pods", "! command -v kubectl"),
    // begin-reset/begin
    known("begin", "\nscan_begun\ntrue", "[ -e $KC/resetting ]"),
    // stop-cluster/*
    known("kubelet", "stop_kubelet\ntrue", "! kubelet_left"),
    known("kubeadm", "run_kubeadm\ntrue", "! kubeadm_helps"),
    known("containers", "stop_containers\ntrue", "! containers_left"),
    known("mounts", "unmount_all\ntrue", "! mounts_left"),
    // clean-network/*
    known("ipvs", "remove_servers\ntrue", "$(servers)"),
    known("links", "remove_links\ntrue", "$(veths; pins; pins_of_others; links; routes)"),
    known("rules-out", "remove_rules\ntrue", "! rules_left"),
    known("ipsets", "remove_sets\ntrue", "$(sets)"),
    // restore-files/*
    known("files", "restore_files\ntrue", "! files_left"),
    known("made", "remove_made\ntrue", "! made_left"),
    known("settings", "restore_settings\ntrue", "$(settings)"),
    known("modules-out", "remove_modules\ntrue", "$(modules)"),
    // prove-clean/forget: the proof before it is no script.
    known("forget", "\nforget\n", "forgotten"),
];

/// How many last lines of a script tell the steps of `reset` apart.
const CALL: usize = 9;

/// The step whose change this script is.
pub(super) fn of_change(script: &str) -> Option<&'static str> {
    let lines: Vec<&str> = script.lines().collect();
    let call = lines[lines.len().saturating_sub(CALL)..].join("\n");
    let reset = RESET.iter().find(|known| call.contains(known.change));
    reset.or_else(|| UP.iter().find(|known| script.contains(known.change))).map(|known| known.name)
}

/// The step of `up` whose check this is.
pub(super) fn of_check(check: &str) -> &'static str {
    by_check(UP, check).unwrap_or_else(|| panic!("no step is known by its check\n{check}"))
}

/// The step of `reset` whose check this is.
pub(super) fn of_check_of_reset(check: &str) -> &'static str {
    let call = check.lines().last().unwrap_or_default();
    by_check(RESET, call).unwrap_or_else(|| panic!("no step of reset is known by {call}"))
}

fn by_check(table: &[Known], text: &str) -> Option<&'static str> {
    table.iter().find(|known| known.check.is_some_and(|words| text.contains(words))).map(|known| known.name)
}

/// Panics where a test names a step that there is not: it would wait for it in vain, or be glad that it was not done.
pub(super) fn must_be_known(name: &str) {
    assert!(UP.iter().chain(RESET).any(|known| known.name == name), "there is no step {name}");
}
