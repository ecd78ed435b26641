//! A host's state as lines, and the difference between two of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Traces, traces::setting};

/// The script that prints a scan; see the files.
pub const SCRIPT: &str =
    concat!(include_str!("../../templates/host/saved.sh"), include_str!("../../templates/host/scan.sh"));

/// The kind of a line that says which tool failed.
pub const FAILED: &str = "failed";

/// What one scan saw: `kind<TAB>thing` lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan(BTreeSet<(String, String)>);

/// One difference between two scans.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// What kind of thing, as `link` or `path`.
    pub kind: String,
    /// The thing.
    pub thing: String,
    /// Whether it is there now and was not, or the other way round.
    pub now: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = if self.now { "is there and was not" } else { "is gone and was there" };
        write!(f, "{} {} {how}", self.kind, self.thing)
    }
}

/// Differences as people say them, a line for each thing and without digests: a file with other content is gone with one
/// digest and there with another.
pub fn in_words(found: &[Difference]) -> Vec<String> {
    // Whether it was there, and is there now.
    let mut things: BTreeMap<(&str, &str), (bool, bool)> = BTreeMap::new();
    for one in found {
        let (was, is) = things.entry(one.named()).or_default();
        if one.now { *is = true } else { *was = true }
    }
    let how = |kind: &str, state: (bool, bool)| match (state, kind) {
        ((true, true), "file") => "has other content",
        ((true, true), _) => "has another value",
        ((false, _), _) => "is new",
        ((true, false), _) => "is gone",
    };
    things.into_iter().map(|((kind, name), state)| format!("{kind} {name} {}", how(kind, state))).collect()
}

impl Difference {
    /// What the thing is called in both scans, whatever it holds.
    fn named(&self) -> (&str, &str) {
        match self.kind.as_str() {
            "content" => ("file", self.thing.split_once("  ").map_or(self.thing.as_str(), |(_, path)| path)),
            "path" => ("file", self.thing.as_str()),
            "sysctl" => ("setting", setting(&self.thing)),
            kind => (kind, self.thing.as_str()),
        }
    }
}

/// The differences between two scans, by whose they can be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// What a lab left or took: a reset that ends with any of these has failed.
    pub residues: Vec<Difference>,
    /// What others did meanwhile: worth a note.
    pub others: Vec<Difference>,
}

impl Scan {
    /// Reads the script's output; other lines are ignored.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|l| l.split_once('\t'));
        Self(lines.map(|(kind, thing)| (kind.to_owned(), thing.to_owned())).collect())
    }

    /// Whether the scan saw nothing at all: a scan that failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tools that failed, and how: what they would have shown is missing, so the scan proves nothing.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.0.iter().filter(|(kind, _)| kind == FAILED);
        failed.map(|(_, thing)| thing.trim_end().to_owned()).collect()
    }

    /// Whether it saw this.
    pub fn saw(&self, kind: &str, thing: &str) -> bool {
        self.0.contains(&(kind.to_owned(), thing.to_owned()))
    }

    /// The version of the script that made it; those that do not say theirs are the first.
    pub fn version(&self) -> u32 {
        let said = self.0.iter().find(|(kind, _)| kind == super::traces::VERSION);
        said.and_then(|(_, version)| version.parse().ok()).unwrap_or(1)
    }

    /// The names of the settings that it saw.
    pub fn settings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(kind, _)| kind == "sysctl").map(|(_, thing)| setting(thing))
    }

    /// Whether it would have seen things of this kind.
    pub fn shows(&self, kind: &str) -> bool {
        !self.is_empty() && self.failures().is_empty() && (!is_tool(kind) || self.saw("tool", kind))
    }

    /// What differs in `after`, without what changes by itself on a living host.
    pub fn differences(&self, after: &Self, traces: &Traces) -> Differences {
        let mut found = Differences::default();
        for (kind, thing) in after.0.difference(&self.0) {
            if traces.changes_by_itself(kind, thing) {
                continue;
            }
            let holds_others = || traces.is_folder_of_others(kind, thing, &after.new_paths(self));
            let ours = traces.may_be_new(kind, thing) && !holds_others() && !after.is_in_others_bridge(kind, thing);
            let told = || traces.came_with_a_module(self, kind, thing);
            let ours = ours && !traces.was_not_looked_at(self, after, kind, thing) && !told();
            let to = if ours { &mut found.residues } else { &mut found.others };
            to.push(Difference { kind: kind.clone(), thing: thing.clone(), now: true });
        }
        for (kind, thing) in self.0.difference(&after.0) {
            let unseen = is_tool(kind) && !after.saw("tool", kind);
            if traces.changes_by_itself(kind, thing) || unseen {
                continue;
            }
            let taken = traces.may_be_gone(kind, thing) && !traces.went_with_a_restart(kind, thing);
            let to = if taken { &mut found.residues } else { &mut found.others };
            to.push(Difference { kind: kind.clone(), thing: thing.clone(), now: false });
        }
        found
    }

    /// What must not be on any host without a lab: for hosts whose record is lost.
    pub fn leftovers(&self, traces: &Traces) -> Vec<Difference> {
        let of_others =
            |kind: &str, thing: &str| traces.changes_by_itself(kind, thing) || self.is_in_others_bridge(kind, thing);
        let is_ours = |kind: &str, thing: &str| traces.is_certain(kind, thing) && !of_others(kind, thing);
        let known = self.0.iter().filter(|(kind, thing)| is_ours(kind, thing));
        known.map(|(kind, thing)| Difference { kind: kind.clone(), thing: thing.clone(), now: true }).collect()
    }

    /// Incus, LXD and podman call the links of their containers as CNI calls those of pods.
    fn is_in_others_bridge(&self, kind: &str, thing: &str) -> bool {
        let masters =
            || self.0.iter().filter(|(kind, _)| kind == "link").filter_map(|(_, link)| link.split_once(" in "));
        kind == "link" && masters().any(|(link, master)| link == thing && master != "cni0")
    }

    fn new_paths<'a>(&'a self, before: &'a Self) -> Vec<&'a str> {
        let new = self.0.difference(&before.0);
        new.filter(|(kind, _)| kind == "path").map(|(_, thing)| thing.as_str()).collect()
    }
}

/// Kinds that only a tool of the same name can show.
fn is_tool(kind: &str) -> bool {
    matches!(kind, "nft" | "ipset")
        || kind.ends_with("tables-save")
        || kind.ends_with("-legacy-save")
        || kind.ends_with("-nft-save")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "link\teth0\nlink\tdocker0\npath\t/etc/cni/net.d\npath\t/etc/cni/net.d/mine\nport\t80\ntool\tnft\nnft\tinet mine\n\
        nft\tip nat chain DOCKER\nnft\tip filter chain INPUT: tcp dport 22 accept\nsysctl\tnet.ipv4.ip_forward = 0\n\
        content\taaaa  /etc/hosts\ncontent\tbbbb  /etc/passwd\nunit\tswap.target static\npackages\tcccc\nroute\tdefault via 192.0.2.1 proto dhcp metric 100\n";

    fn compare(gone: &[&str], new: &[&str], traces: &Traces) -> (Vec<String>, Vec<String>) {
        let before = Scan::parse(BEFORE);
        let mut after = before.clone();
        after.0.retain(|(kind, thing)| !gone.contains(&format!("{kind} {thing}").as_str()));
        after.0.extend(new.iter().filter_map(|l| l.split_once(' ')).map(|(k, t)| (k.to_owned(), t.to_owned())));
        let found = before.differences(&after, traces);
        let text = |list: Vec<Difference>| list.iter().map(|d| format!("{} {}", d.kind, d.thing)).collect();
        (text(found.residues), text(found.others))
    }

    #[test]
    fn people_read_no_digests() {
        let one = |now, kind: &str, thing: &str| Difference { kind: kind.into(), thing: thing.into(), now };
        let found = [
            one(true, "content", "ca3d163b  /etc/cni/net.d/99-mine.conf"),
            one(true, "path", "/etc/cni/net.d/99-mine.conf"),
            one(true, "content", "aaaa  /etc/passwd"),
            one(false, "content", "bbbb  /etc/passwd"),
            one(false, "path", "/etc/sysctl.d/old.conf"),
            one(true, "sysctl", "vm.panic_on_oom = 1"),
            one(false, "sysctl", "vm.panic_on_oom = 0"),
            one(true, "link", "docker0"),
        ];
        let wanted = [
            "file /etc/cni/net.d/99-mine.conf is new",
            "file /etc/passwd has other content",
            "file /etc/sysctl.d/old.conf is gone",
            "link docker0 is new",
            "setting vm.panic_on_oom has another value",
        ];
        assert_eq!(in_words(&found), wanted);
    }

    fn traces() -> Traces {
        Traces {
            networks: vec!["10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap()],
            ..Traces::default()
        }
    }

    #[test]
    fn what_a_cluster_leaves_is_a_residue() {
        for line in [
            "link cni0",
            "link flannel.1",
            "link kube-ipvs0",
            "link veth1a2b3c4d",
            "link veth0 in cni0",
            "netns cni-77",
            "address cni0 10.244.0.1/24",
            "route 10.244.1.0/24 via 192.0.2.9 dev eth0",
            "mount /var/lib/kubelet/pods/x",
            "mount /var/lib/kubecamp/containerd/x",
            "nft ip kube-proxy",
            "nft ip6 kube-proxy chain services",
            "nft ip nat chain KUBE-KUBELET-CANARY",
            "nft ip nat chain PREROUTING: jump KUBE-SERVICES",
            "nft ip flannel-ipv4",
            "nft ip kubecamp",
            "iptables-legacy-save nat :CNI-HOSTPORT-DNAT -",
            "ip6tables-legacy-save nat -A POSTROUTING -j FLANNEL-POSTRTG",
            "ipset KUBE-6-LOAD-BALANCER",
            "ipvs TCP 0A600001:01BB",
            "ipvs TCP C0000201:7531",
            "cgroup /sys/fs/cgroup/kubepods",
            "process kubelet /usr/local/bin/kubelet",
            "process containerd /opt/kubecamp/bin/containerd",
            "port 10250",
            "port 6443",
            "path /etc/kubernetes",
            "path /run/kubecamp.lock/other",
            "path /var/lib/etcd/member",
            "path /opt/cni/bin",
            "path /usr/local/bin/kubeadm",
            "path /etc/systemd/system/multi-user.target.wants/kubelet.service",
            "path /etc/sysctl.d/99-kubernetes-cri.conf",
            "path /etc/systemd/logind.conf.d/99-kubelet.conf",
            "path /etc/cni/net.d/10-flannel.conflist",
            "path /usr/local/bin/kubeadm.kc-part.4711",
            "path /etc/systemd/system/kubelet.service.kc-part",
            "path /opt/cni/bin/bridge.kc-part.4712",
            "block /etc/hosts",
            "apparmor cri-containerd.apparmor.d",
            "saved /etc/iptables/rules.v4",
            "content ffff  /etc/hosts",
            "sysctl net.ipv4.ip_forward = 1",
            "unit swap.target masked",
        ] {
            assert_eq!(compare(&[], &[line], &traces()), (vec![line.to_owned()], vec![]), "{line}");
        }
    }

    #[test]
    fn what_a_restart_took_of_others_is_only_told() {
        let ours = Scan::parse("link\tcni0\nnft\tip kube-proxy\n");
        let gone = |line: &str, begun: &str| {
            let with = Traces { restarted: Some(Scan::parse(begun)), ..traces() };
            let (kind, thing) = line.split_once(' ').unwrap();
            let before = Scan::parse(&format!("{BEFORE}{kind}\t{thing}\n"));
            let found = before.differences(&Scan::parse(BEFORE), &with);
            (found.residues.len(), found.others.len())
        };
        for line in ["nft inet unsaved", "link vx0", "nft ip filter chain INPUT: tcp dport 80 accept"] {
            assert_eq!(gone(line, "tool\tnft\nlink\teth0\n"), (0, 1), "{line}");
            let there = format!("tool\tnft\n{}\n", line.replacen(' ', "\t", 1));
            assert_eq!(gone(line, &there), (1, 0), "reset took it: {line}");
            assert_eq!(gone(line, "tool\tnft\nfailed\tip link\n"), (1, 0), "nobody saw: {line}");
            assert_eq!(gone(line, ""), (1, 0), "{line}");
        }
        assert_eq!(gone("nft inet unsaved", "link\teth0\n"), (1, 0), "there was no tool that shows it");
        // Neither what a cluster makes, nor files.
        for line in ["link flannel.9", "nft ip nat chain KUBE-THEIRS", "path /etc/cni/net.d/theirs"] {
            assert_eq!(gone(line, "tool\tnft\nlink\teth0\n"), (1, 0), "{line}");
        }
        assert!(!ours.shows("nft") && ours.shows("link"));
    }

    #[test]
    fn what_others_do_meanwhile_is_only_told() {
        for line in [
            "link br-0123456789ab",
            "link veth1a2b3c4",
            "link veth1a2b3c4 in docker0",
            "link wg0",
            "netns mine",
            "address eth0 192.0.2.77/24",
            "route 198.51.100.0/24 via 192.0.2.1",
            "mount /run/netns/mine",
            "mount /var/lib/kubecamp",
            "nft inet theirs",
            "nft ip nat chain PREROUTING: jump DOCKER",
            "nft ip filter chain f2b-sshd",
            "nft inet mine chain input: accept comment \"jump KUBE-SERVICES\"",
            "ipset theirs",
            "ipvs TCP C0000201:0050",
            "process containerd /usr/bin/containerd",
            "port 8080",
            "path /etc/systemd/system/nginx.service",
            "path /usr/local/bin/theirs",
            "path /usr/local/bin/theirs.kc-partial",
            "content ffff  /etc/passwd",
            "swap /swapfile",
            "unit docker.service",
        ] {
            assert_eq!(compare(&[], &[line], &traces()), (vec![], vec![line.to_owned()]), "{line}");
        }
    }

    #[test]
    fn a_link_in_others_bridge_is_theirs_whatever_its_name() {
        let lines = |bridge: &str| ["link veth1a2b3c4d".to_owned(), format!("link veth1a2b3c4d in {bridge}")];
        for (bridge, ours) in [("lxdbr0", false), ("cni-podman0", false), ("cni0", true)] {
            let lines = lines(bridge);
            let (residues, others) = compare(&[], &lines.each_ref().map(String::as_str), &traces());
            assert_eq!(if ours { (residues.len(), others.len()) } else { (others.len(), residues.len()) }, (2, 0));
            // Nor without a record.
            let alone = Scan::parse(&lines.map(|line| line.replacen(' ', "\t", 1)).join("\n"));
            assert_eq!(alone.leftovers(&traces()).len(), if ours { 2 } else { 0 }, "{bridge}");
        }
    }

    #[test]
    fn an_etcd_on_a_worker_is_not_the_labs() {
        let with = Traces { worker: true, ..traces() };
        for line in ["path /var/lib/etcd", "path /var/lib/etcd/member", "process etcd /usr/bin/etcd", "port 2379"] {
            assert_eq!(compare(&[], &[line], &with), (vec![], vec![line.to_owned()]), "{line}");
            assert_eq!(compare(&[], &[line], &traces()), (vec![line.to_owned()], vec![]), "{line}");
        }
    }

    #[test]
    fn what_changes_by_itself_is_not_even_told() {
        let dhcp = "route default via 192.0.2.1 proto dhcp metric 100";
        let new = [
            "route default via 192.0.2.1 proto dhcp metric 200",
            "nft ip nat",
            "nft ip nat chain POSTROUTING",
            "packages dddd",
            "tool ipset",
        ];
        assert_eq!(compare(&[dhcp, "packages cccc"], &new, &traces()), (vec![], vec![]));
    }

    #[test]
    fn what_reset_may_have_taken_is_missed() {
        for line in [
            "nft inet mine",
            "nft ip filter chain INPUT: tcp dport 22 accept",
            "path /etc/cni/net.d/mine",
            "link eth0",
            "unit swap.target static",
        ] {
            assert_eq!(compare(&[line], &[], &traces()), (vec![line.to_owned()], vec![]), "{line}");
        }
        for line in ["nft ip nat chain DOCKER", "link docker0", "port 80"] {
            assert_eq!(compare(&[line], &[], &traces()), (vec![], vec![line.to_owned()]), "{line}");
        }
        // The tool that showed it is gone: nothing can be said.
        assert_eq!(compare(&["tool nft", "nft inet mine"], &[], &traces()), (vec![], vec![]));
    }

    #[test]
    fn what_others_take_away_meanwhile_is_only_told() {
        for line in [
            // Ubuntu refreshes its snaps by itself.
            "path /etc/systemd/system/snap-core22-1380.mount",
            "path /etc/systemd/system/multi-user.target.wants/nginx.service",
            "path /etc/sysctl.d/50-theirs.conf",
            "path /etc/containerd/config.toml",
            "path /var/lib/cni/networks/podman/10.88.0.5",
            "path /run/cdi/gpu.yaml",
            "netns netns-3f6c",
            "unit containerd.service",
        ] {
            let before = Scan::parse(&format!("{BEFORE}{}\n", line.replacen(' ', "\t", 1)));
            let found = before.differences(&Scan::parse(BEFORE), &traces());
            assert_eq!((found.residues.len(), found.others.len()), (0, 1), "{line}: {found:?}");
        }
        // What reset has been working on counts.
        let with = Traces { recorded: ["/etc/sysctl.d/90-theirs.conf".to_owned()].into(), ..traces() };
        for line in [
            "path /etc/sysctl.d/90-theirs.conf",
            "path /etc/systemd/system/kubelet.service",
            "path /etc/kubernetes/theirs",
            "unit kubelet.service",
        ] {
            let before = Scan::parse(&format!("{BEFORE}{}\n", line.replacen(' ', "\t", 1)));
            let found = before.differences(&Scan::parse(BEFORE), &with);
            assert_eq!((found.residues.len(), found.others.len()), (1, 0), "{line}: {found:?}");
        }
    }

    #[test]
    fn others_files_excuse_the_folders_that_they_are_in() {
        let podman = ["path /opt/cni", "path /opt/cni/bin", "path /opt/cni/bin/theirs"];
        assert_eq!(compare(&[], &podman, &traces()).0, [""; 0]);
        let ours = ["path /opt/cni", "path /opt/cni/bin", "path /opt/cni/bin/bridge", "path /opt/cni/bin/theirs"];
        assert_eq!(
            compare(&[], &ours, &traces()).0,
            ["path /opt/cni", "path /opt/cni/bin", "path /opt/cni/bin/bridge"]
        );
    }

    #[test]
    fn the_manifest_and_the_spared_and_a_shared_kernel_count() {
        let mut with = traces();
        with.recorded.insert("/usr/local/bin/theirs".into());
        assert_eq!(compare(&[], &["path /usr/local/bin/theirs"], &with).0.len(), 1);
        with.spared.insert(("content".into(), "/etc/hosts".into()));
        with.spared.insert(("sysctl".into(), "net.ipv4.ip_forward".into()));
        assert_eq!(
            compare(&[], &["content ffff  /etc/hosts", "sysctl net.ipv4.ip_forward = 1"], &with),
            (vec![], vec![])
        );
        with.spared.insert(("netns".into(), "cni-theirs".into()));
        let pin = |name: &str| [format!("netns cni-{name}"), format!("mount /run/netns/cni-{name}")];
        assert_eq!(compare(&[], &pin("theirs").each_ref().map(String::as_str), &with), (vec![], vec![]));
        assert!(Scan::parse("netns\tcni-theirs\n").leftovers(&with).is_empty());
        assert_eq!(compare(&[], &pin("ours").each_ref().map(String::as_str), &with).0.len(), 2);
        assert_eq!(compare(&[], &["sysctl kernel.panic = 10"], &with).0.len(), 1);
        with.container = true;
        assert_eq!(compare(&[], &["sysctl kernel.panic = 10"], &with), (vec![], vec![]));
    }

    #[test]
    fn without_a_record_only_what_is_certain_counts() {
        let found = Scan::parse(
            "path\t/etc/cni\npath\t/etc/kubernetes\ncontent\tx  /etc/hosts\nsysctl\tkernel.panic = 10\nlink\teth0\nlink\tcni0\n",
        );
        let found: Vec<_> = found.leftovers(&traces()).iter().map(Difference::to_string).collect();
        assert_eq!(found, ["link cni0 is there and was not", "path /etc/kubernetes is there and was not"]);
    }

    /// The script with one of its tools replaced by `body`.
    fn with_tool(tool: &str, body: &str) -> Scan {
        let script = SCRIPT.replacen("\n{\n", &format!("\n{tool}() {{ {body}\n}}\n{{\n"), 1);
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        Scan::parse(&String::from_utf8_lossy(&out.stdout))
    }

    #[test]
    fn a_tool_that_fails_is_noted() {
        let crash = "sh -c 'kill -SEGV $$'";
        for (tool, body, how) in [
            ("ip", crash, "ip -4 rule show: ended by signal 11"),
            ("ip", "echo 'Dump terminated' >&2; return 2", "ip -4 rule show: exit code 2 Dump terminated"),
        ] {
            let scan = with_tool(tool, body);
            assert!(scan.failures().iter().any(|f| f.starts_with(how)), "{:?}", scan.failures());
        }
        for body in ["return 127", "echo 'RTNETLINK answers: Operation not supported' >&2; return 2"] {
            assert_eq!(with_tool("ip", body).failures(), [""; 0], "nothing there to show");
        }
    }

    /// Reset removes from folders that were there what the record does not know.
    #[test]
    fn all_that_lies_in_a_folder_is_seen_however_much_that_is() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("pods");
        for pod in 0..450 {
            std::fs::create_dir_all(logs.join(format!("pod-{pod}/container"))).unwrap();
        }
        let script = SCRIPT.replace("/var/log/pods", &logs.display().to_string());
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        let scan = Scan::parse(&String::from_utf8_lossy(&out.stdout));
        let unseen = (0..450).filter(|pod| !scan.saw("path", &logs.join(format!("pod-{pod}")).display().to_string()));
        assert_eq!(unseen.count(), 0);
    }

    #[test]
    fn the_script_sees_this_computer() {
        let out = std::process::Command::new("sh").arg("-c").arg(SCRIPT).output().unwrap();
        let scan = Scan::parse(&String::from_utf8_lossy(&out.stdout));
        assert!(scan.saw("link", "lo") && scan.saw("address", "lo 127.0.0.1/8") && scan.version() > 1);
        assert_eq!(scan.failures(), [""; 0]);
        assert_eq!(scan.differences(&scan, &traces()), Differences::default());
    }
}
