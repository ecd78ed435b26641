use super::cluster::{ASK, is_new};
use crate::{core::shell::quote, engine::View, profile::Cni};

/// What [`is_whole`] asks, a line for each node, lease, DaemonSet, Deployment and pod. A student may have one of the same
/// name in another namespace; a node is in none.
const STATE: &str = "jsonpath={range .items[*]}{.kind}|{.metadata.namespace}/{.metadata.name}|{.metadata.generation}|{.status.observedGeneration}|\
    {.status.desiredNumberScheduled}|{.status.updatedNumberScheduled}|{.status.numberAvailable}|\
    {.status.conditions[?(@.type==\"Ready\")].status}|{.status.conditions[?(@.type==\"Available\")].status}|\
    {.status.containerStatuses[*].state.running.startedAt}|{.spec.renewTime}|{.spec.leaseDurationSeconds}|\
    {.spec.replicas}|{.status.readyReplicas}{\"\\n\"}{end}";

/// How old a node's lease may be, in seconds: a kubelet renews it every ten seconds, by its own clock, which preflight lets
/// differ by thirty. A node counts as ready for as long as nobody says otherwise, as where its kubelet does not get through to
/// the API server and the controller manager does not work. One whose lease was made longer than the usual 40 seconds is not
/// judged.
const LEASE: u32 = 70;

/// What of the cluster must be ready, as `KIND NAMESPACE/NAME`.
fn wanted(view: &View<'_>, schedulers: bool) -> Vec<String> {
    let mut wanted: Vec<_> = view.lab.nodes().iter().map(|n| format!("Node /{}", n.name)).collect();
    if schedulers {
        let of = |part| format!("Pod kube-system/kube-{part}-{}", view.lab.control_plane().name);
        wanted.extend(["scheduler", "controller-manager"].map(of));
        wanted.extend(view.lab.nodes().iter().map(|n| format!("Lease kube-node-lease/{}", n.name)));
    }
    wanted.extend(["Deployment kube-system/coredns".to_owned(), "DaemonSet kube-system/kube-proxy".to_owned()]);
    if view.lab.profile().network.cni == Cni::Flannel {
        wanted.push("DaemonSet kube-flannel/kube-flannel-ds".to_owned());
    }
    wanted
}

/// Shell text that is true where every node is ready, and what the cluster itself runs; where `$show` is set it prints what is
/// not.
///
/// One question for all: each kubectl takes a busy host an eighth of a second.
///
/// With `schedulers`, the scheduler and the controller manager run too: that they are ready, their pods say ten seconds later.
/// Then a lab is not new, so every kubelet must have been heard of late. In a new lab one pod of CoreDNS will do, which answers
/// for both; in an old one each of them is to work.
pub(super) fn is_whole(view: &View<'_>, schedulers: bool) -> String {
    let kinds = if schedulers { "nodes,daemonsets,deployments,pods,leases" } else { "nodes,daemonsets,deployments" };
    let all = if is_new(view) { "1" } else { "$14 + 0 >= $13 + 0" };
    // What `kubectl rollout status` looks at, too.
    format!(
        "{ASK} get {kinds} -A -o {} 2>/dev/null | awk -F '|' -v wanted={} -v show=\"${{show-}}\" -v since=\"$(date -u -d '{LEASE} seconds ago' +%Y-%m-%dT%H:%M:%S)\" '\
         {{ key = $1 \" \" $2 }}\n\
         $1 == \"Node\" {{ ok[key] = $8 == \"True\"; is[key] = \"Ready is \" $8 }}\n\
         $1 == \"Lease\" {{ ok[key] = $11 >= since || $12 > 40; is[key] = \"its kubelet was heard last at \" $11 }}\n\
         $1 == \"Pod\" {{ ok[key] = $10 != \"\"; is[key] = \"does not run\" }}\n\
         $1 == \"DaemonSet\" {{ ok[key] = $3 == $4 && $5 > 0 && $5 == $6 && $5 == $7; is[key] = $7 + 0 \" of \" $5 + 0 \" ready\" }}\n\
         $1 == \"Deployment\" {{ ok[key] = $3 == $4 && $9 == \"True\" && {all}; is[key] = $14 + 0 \" of \" $13 + 0 \" ready\" }}\n\
         END {{ if (NR == 0) {{ if (show) print \"the API server does not answer\"; exit 1 }}\n\
         n = split(wanted, each, \",\"); for (i = 1; i <= n; i++) if (!ok[each[i]]) {{ bad = 1; if (!show) exit 1\n\
         name = each[i]; sub(\" /\", \" \", name); print name \": \" (each[i] in is ? is[each[i]] : \"is not there\") }}\n\
         exit bad + 0 }}'",
        quote(STATE),
        quote(&wanted(view, schedulers).join(","))
    )
}

/// Shell text that waits for [`is_whole`], and ends the step where it did not become true in so many seconds.
///
/// What is not ready comes first, then the pods of the cluster's own namespaces that are not, and what happened last: all of
/// it within the lines that a problem shows.
pub(super) fn wait(view: &View<'_>, schedulers: bool, seconds: u32) -> String {
    let whole = is_whole(view, schedulers);
    format!(
        "whole() {{\n{whole}\n}}\nshow=; end=$(($(date +%s) + {seconds})); until whole; do\n\
         [ $(date +%s) -lt $end ] || {{ show=yes; whole | head -n 6 >&2\n\
         {ASK} get pods -A --no-headers 2>/dev/null | awk '$1 ~ /^kube-(system|flannel)$/ {{ split($3, of, \"/\"); if (of[1] != of[2] && $4 != \"Completed\") print }}' | head -n 4 >&2\n\
         {ASK} get events -A --sort-by=.lastTimestamp --no-headers 2>/dev/null | tail -n 5 >&2; exit 1; }}\n\
         sleep 0.5; done"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{self, Lab};

    #[test]
    fn what_is_not_ready_is_seen_in_one_answer() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let fleet = Default::default();
        let view = View { lab: &lab, node: &"cp".parse().unwrap(), fleet: &fleet, host: None };
        let folder = tempfile::tempdir().unwrap();
        let mut ready = [
            "Node|/cp||||||True|",
            "Node|/worker-1||||||True|",
            "DaemonSet|kube-flannel/kube-flannel-ds|1|1|2|2|2||",
            "DaemonSet|kube-system/kube-proxy|2|2|2|2|2||",
            "Deployment|kube-system/coredns|1|1|||||True||||2|2",
            "Deployment|student/coredns|1|1|||||False||||2|",
            "Pod|kube-system/kube-scheduler-cp||||||False||2026-11-27T10:00:00Z",
            "Pod|kube-system/kube-controller-manager-cp||||||True||2026-11-27T10:00:00Z",
            "Lease|kube-node-lease/cp|||||||||NOW",
            "Lease|kube-node-lease/worker-1|||||||||NOW",
            "Lease|kube-system/apiserver-x|||||||||OLD",
        ];
        let whole = |answer: &[&str]| {
            let file = folder.path().join("answer");
            std::fs::write(&file, answer.join("\n")).unwrap();
            let time = |ago: u32| format!("$(date -u -d '{ago} seconds ago' +%Y-%m-%dT%H:%M:%S.000000Z)");
            let sham = format!("sed \"s/NOW/{}/; s/OLD/{}/\" {}", time(9), time(300), file.display());
            let script = format!("kubectl() {{ {sham}; }}\n{}", is_whole(&view, true));
            std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success()
        };
        assert!(whole(&ready));
        for (line, worse) in [
            (1, "Node|/worker-1||||||Unknown|"),
            (1, "Node|/worker-2||||||True|"),
            (2, "DaemonSet|kube-flannel/kube-flannel-ds|1|1|2|2|||"),
            (2, "DaemonSet|kube-flannel/kube-flannel-ds|1|1|0|||"),
            (3, "DaemonSet|kube-system/kube-proxy|3|2|2|2|2||"),
            (3, "DaemonSet|kube-system/kube-proxy|2|2|2|1|2||"),
            (4, "Deployment|kube-system/coredns|1|1|||||False||||2|2"),
            (4, "Deployment|kube-system/coredns|1|1|||||True||||2|1"),
            (4, "Deployment|kube-system/coredns|1|1|||||True||||2|"),
            (4, ""),
            (6, "Pod|student/kube-scheduler-cp||||||True||2026-11-27T10:00:00Z"),
            (7, "Pod|kube-system/kube-controller-manager-cp||||||False||"),
            (9, "Lease|kube-node-lease/worker-1|||||||||OLD"),
            (9, "Lease|kube-system/worker-1|||||||||NOW"),
        ] {
            let good = std::mem::replace(&mut ready[line], worse);
            assert!(!whole(&ready), "{worse}");
            ready[line] = good;
        }
        // Another's that is ready stands for nothing.
        (ready[4], ready[5]) =
            ("Deployment|kube-system/coredns|1|1|||||False||||2|2", "Deployment|student/coredns|1|1|||||True||||2|2");
        assert!(!whole(&ready));
        assert!(!whole(&[]));
    }

    /// Many pods of students do not push it out of what is shown.
    #[test]
    fn what_is_not_ready_is_named_first() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let fleet = Default::default();
        let view = View { lab: &lab, node: &"cp".parse().unwrap(), fleet: &fleet, host: None };
        let says = |state: &str| {
            let pods = "default web-1 0/1 Error 3 1m\nkube-system coredns-a 1/1 Running 0 1m\n\
                        kube-system coredns-b 0/1 CrashLoopBackOff 5 1m\n";
            let events: String = (1..=40).map(|n| format!("event {n}\n")).collect();
            let sham = format!(
                "kubectl() {{ case $* in *' get pods '*) printf %s {} ;; *' get events '*) printf %s {} ;; *) printf %s {} ;; esac; }}",
                quote(pods),
                quote(&events),
                quote(state)
            );
            let script = format!("{sham}\n{}", wait(&view, false, 0));
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(out.status.code(), Some(1), "{out:?}");
            String::from_utf8(out.stderr).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let told = says(
            "Node|/cp||||||True|\nNode|/worker-1||||||Unknown|\nDaemonSet|kube-system/kube-proxy|2|2|2|2|2||\n\
             Deployment|kube-system/coredns|1|1|||||True||||2|1\n",
        );
        assert_eq!(
            told[..4],
            [
                "Node worker-1: Ready is Unknown",
                "Deployment kube-system/coredns: 1 of 2 ready",
                "DaemonSet kube-flannel/kube-flannel-ds: is not there",
                "kube-system coredns-b 0/1 CrashLoopBackOff 5 1m"
            ]
        );
        assert!(told.len() <= 15 && told.last().is_some_and(|last| last == "event 40"), "{told:?}");
        assert_eq!(says("")[0], "the API server does not answer");
    }
}
