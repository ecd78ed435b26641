use std::{collections::BTreeSet, net::Ipv4Addr};

use super::scan::Scan;
use crate::profile::Cidr;

/// Which differences on a host can come from a lab, and which never do.
///
/// A host lives on while it carries a lab: DHCP renews, fail2ban bans, docker starts containers, people install things
/// and edit files. None of that is the lab's, and a proof that counts it would cry wolf. So a new thing counts by its
/// name, place or network, or because the manifest lists it; a thing that went counts where reset has been working.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    /// The lab's pod and service networks.
    pub networks: Vec<Cidr>,
    /// Paths, units and settings of the host's manifest.
    pub recorded: BTreeSet<String>,
    /// What reset left alone knowingly, as (`content`, `/etc/hosts`).
    pub spared: BTreeSet<(String, String)>,
    /// Whether the host is a container: then settings outside of `net.` belong to the kernel that it shares.
    pub container: bool,
    /// Whether the node is a worker: then an etcd on its host is somebody else's.
    pub worker: bool,
    /// How the host was when reset began, where it was started anew since its record was made.
    pub restarted: Option<Scan>,
}

/// The kind of the line that says which version of the script made a scan.
pub(super) const VERSION: &str = "scan";

/// Beginnings of settings that are there only while the kernel has a module.
const OF_MODULES: &[&str] = &["net.netfilter.", "net.ipv4.vs.", "net.bridge."];

/// Folders that only Kubernetes, its runtime and kubecamp use.
const FOLDERS: &[&str] = &[
    "/etc/kubernetes",
    "/etc/kubecamp",
    "/opt/kubecamp",
    "/var/lib/kubelet",
    "/var/lib/etcd",
    "/var/lib/kubecamp",
    "/run/flannel",
    "/run/kubecamp",
    super::script::LOCKS,
    "/run/kubernetes",
    "/var/log/pods",
    "/var/log/containers",
    "/usr/libexec/kubernetes",
    "/var/lib/kubecamp.gone",
];

/// Folders that `up` may make and that others use too.
const SHARED_FOLDERS: &[&str] = &[
    "/etc/cni",
    "/etc/cni/net.d",
    "/opt/cni",
    "/opt/cni/bin",
    "/var/lib/cni",
    "/opt/containerd",
    "/opt/nri",
    "/etc/nri",
    "/etc/cdi",
    "/run/cdi",
    "/run/nri",
    "/run/containerd",
    "/root/.kube",
    "/lib/modules",
    "/etc/ssl/certs",
    "/etc/systemd/logind.conf.d",
    "/etc/containerd",
];

/// Folders of others out of which reset takes what the lab put there: nothing else may go with that.
const EMPTIED: &[&str] = &[
    "/etc/cni",
    "/opt/cni",
    "/opt/containerd",
    "/opt/nri",
    "/etc/nri",
    "/etc/cdi",
    "/lib/modules",
    "/etc/ssl/certs",
    "/etc/systemd/logind.conf.d",
];

/// Programs and CNI plugins that bundles hold.
const PROGRAMS: &[&str] = &[
    "kubeadm",
    "kubelet",
    "kubectl",
    "crictl",
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "flannel",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// Words in packet filter rules and chains that only a cluster writes.
const RULE_WORDS: &[&str] = &["KUBE-", "FLANNEL-", "CNI-", "kube-proxy", "flannel", "kubecamp", "cni0", "kubernetes"];

/// Words of programs that change their own rules and links all the time.
const RESTLESS: &[&str] = &[
    "DOCKER",
    "docker",
    "br-",
    "f2b-",
    "fail2ban",
    "crowdsec",
    "NETAVARK",
    "podman",
    "LIBVIRT",
    "libvirt",
    "virbr",
    "lxdbr",
    "incusbr",
    "lxd",
    "incus",
    "veth",
    "vnet",
    "tap",
    "tun",
    "wg",
    "ppp",
    "tailscale",
    "ts-",
    "sshguard",
];

/// Ports on which a cluster listens.
fn is_cluster_port(port: &str) -> bool {
    matches!(port.parse(), Ok(6443 | 10248..=10260u16))
}

/// Ports of etcd.
fn is_etcd_port(port: &str) -> bool {
    matches!(port.parse(), Ok(2379..=2382u16))
}

fn is_rules(kind: &str) -> bool {
    kind == "nft" || kind.ends_with("-save")
}

fn beneath(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Traces {
    /// Whether it changes on a living host without anyone's doing.
    pub fn changes_by_itself(&self, kind: &str, thing: &str) -> bool {
        let spared = |kind: &str, thing: &str| self.spared.contains(&(kind.to_owned(), thing.to_owned()));
        match kind {
            // Which tools there are is no state; packages are upgraded by timers, and `up` installs none.
            // Modules come with whatever needs them; reset unloads those that nothing uses any more.
            "tool" | "packages" | "boot" | "module" | VERSION | super::scan::FAILED => true,
            // DHCP renews addresses and routes with new lifetimes.
            "route" => thing.contains("proto dhcp") || thing.contains("proto ra"),
            "nft" => is_empty_base(thing),
            "content" => spared(kind, thing.split_once("  ").map_or(thing, |(_, path)| path)),
            "netns" => spared(kind, thing),
            "apparmor" => self.container || spared(kind, thing),
            "mount" => thing.strip_prefix("/run/netns/").is_some_and(|pin| spared("netns", pin)),
            "sysctl" => {
                let key = setting(thing);
                spared(kind, key)
                    || (self.container && !key.starts_with("net."))
                    || (self.container
                        && matches!(key, "net.netfilter.nf_conntrack_max" | "net.netfilter.nf_conntrack_buckets"))
            }
            _ => false,
        }
    }

    /// Whether a thing that is there and was not can be the lab's.
    pub fn may_be_new(&self, kind: &str, thing: &str) -> bool {
        match kind {
            "path" => self.is_lab_path(thing) || SHARED_FOLDERS.contains(&thing) || self.recorded.contains(thing),
            "content" => thing.split_once("  ").is_some_and(|(_, path)| {
                path == "/etc/hosts" || self.is_lab_path(path) || self.recorded.contains(path)
            }),
            // Settings are few and all of them are ones that clusters change.
            "sysctl" => true,
            _ => self.is_certain(kind, thing),
        }
    }

    /// Whether a thing is new in `now` only since the version that made the record `before` did not look at it.
    pub fn was_not_looked_at(&self, before: &Scan, now: &Scan, kind: &str, thing: &str) -> bool {
        let is_new_kind = matches!(kind, "apparmor" | "saved") && before.version() < 3;
        before.version() < now.version() && (is_new_kind || self.is_unknown_setting(before, kind, thing))
    }

    /// Whether a setting is there only since the kernel has a module that it had not, as conntrack's since kube-proxy ran.
    ///
    /// A module that somebody uses stays.
    pub fn came_with_a_module(&self, before: &Scan, kind: &str, thing: &str) -> bool {
        OF_MODULES.iter().any(|of| thing.starts_with(of)) && self.is_unknown_setting(before, kind, thing)
    }

    /// Whether the record lacks a setting altogether. What `up` sets itself is in the manifest.
    fn is_unknown_setting(&self, before: &Scan, kind: &str, thing: &str) -> bool {
        let name = setting(thing);
        kind == "sysctl" && !self.recorded.contains(name) && before.settings().all(|known| known != name)
    }

    /// Whether a thing that was there and is not can have been taken by the lab or its reset.
    pub fn may_be_gone(&self, kind: &str, thing: &str) -> bool {
        let restless = || RESTLESS.iter().any(|word| thing.contains(word));
        match kind {
            // A restart empties /run. Elsewhere a snap that is refreshed, an upgrade, and whoever switches a service off take
            // files of their own away.
            "path" => {
                !["/root/.kube", "/run", "/usr/local"].iter().any(|folder| beneath(thing, folder))
                    && (self.is_lab_path(thing)
                        || self.recorded.contains(thing)
                        || EMPTIED.iter().any(|folder| beneath(thing, folder)))
            }
            // A changed file shows as new content too. Namespaces go with a container or a restart, and reset removes none
            // that was there.
            "content" | "packages" | "process" | "port" | "address" | "mount" | "cgroup" | "swap" | "route"
            | "netns" => false,
            // A module that was unloaded takes its settings along; a changed one shows as new too.
            "sysctl" => false,
            "link" | "ipset" | "ipvs" => !restless(),
            // Those of docker go with docker.
            "unit" => self.is_certain(kind, thing) || thing.starts_with("swap.target"),
            kind if is_rules(kind) => !restless(),
            _ => false,
        }
    }

    /// Whether a restart of the host took a thing of others that was in its kernel alone, as rules that nobody saved: it was
    /// gone before reset began.
    pub fn went_with_a_restart(&self, kind: &str, thing: &str) -> bool {
        let in_kernel = matches!(kind, "link" | "ipset" | "ipvs") || is_rules(kind);
        in_kernel
            && !self.is_certain(kind, thing)
            && self.restarted.as_ref().is_some_and(|begun| begun.shows(kind) && !begun.saw(kind, thing))
    }

    /// Whether a thing is a lab's by its very name, wherever it came from.
    pub fn is_certain(&self, kind: &str, thing: &str) -> bool {
        match kind {
            "path" => self.is_lab_path(thing),
            "block" | "apparmor" | "saved" => true,
            "link" => is_lab_link(thing),
            "address" => thing.split(' ').next().is_some_and(is_lab_link),
            "route" => {
                thing.split_whitespace().any(is_lab_link) || self.holds(thing.split(' ').next().unwrap_or_default())
            }
            "netns" => thing.starts_with("cni-"),
            "ipset" => thing.starts_with("KUBE-"),
            "ipvs" => self.is_lab_server(thing),
            "process" => is_lab_process(thing) && !(self.worker && thing.starts_with("etcd ")),
            "cgroup" => true,
            "mount" => {
                beneath(thing, "/var/lib/kubelet")
                    // The folder itself is a mount point only where somebody else made it one.
                    || (beneath(thing, "/var/lib/kubecamp") && thing != "/var/lib/kubecamp")
                    || beneath(thing, "/run/kubecamp")
                    || thing.starts_with("/run/netns/cni-")
            }
            "port" => is_cluster_port(thing) || (is_etcd_port(thing) && !self.worker),
            // The gate of a booked server is no lab's.
            "unit" if thing.starts_with("kubecamp-agent") => false,
            // kubespray masks swap.target and leaves it so.
            "unit" => thing.starts_with("kubelet") || thing.starts_with("kubecamp") || thing == "swap.target masked",
            kind if is_rules(kind) => {
                let bare = without_comments(thing);
                RULE_WORDS.iter().any(|word| bare.contains(word))
            }
            _ => false,
        }
    }

    /// Whether a new folder is there only for others' new files, as /etc/cni/net.d for podman's.
    pub fn is_folder_of_others(&self, kind: &str, folder: &str, new: &[&str]) -> bool {
        kind == "path" && SHARED_FOLDERS.contains(&folder) && {
            let inside: Vec<_> =
                new.iter().filter(|p| **p != folder && beneath(p, folder) && !SHARED_FOLDERS.contains(*p)).collect();
            !inside.is_empty() && inside.iter().all(|p| !self.is_lab_path(p) && !self.recorded.contains(**p))
        }
    }

    fn is_lab_path(&self, path: &str) -> bool {
        if path.contains("kubecamp-agent") || path.contains("kubecamp-gate") {
            return false; // the gate of a booked server
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let named = |words: &[&str]| words.iter().any(|w| name.contains(w));
        if self.worker && beneath(path, "/var/lib/etcd") {
            return false;
        }
        if FOLDERS.iter().any(|f| beneath(path, f))
            || path == "/etc/crictl.yaml"
            || path == "/root/.kube/cache"
            || is_part(name)
        {
            return true;
        }
        match path.rsplit_once('/').map_or("", |(folder, _)| folder) {
            "/usr/local/bin" | "/usr/local/sbin" | "/opt/cni/bin" => PROGRAMS.contains(&name),
            "/etc/cni/net.d" => named(&["kubecamp", "flannel", "calico"]),
            "/etc/systemd/logind.conf.d" => named(&["kubelet"]),
            folder if beneath(folder, "/etc/systemd/system") => name.starts_with("kubelet") || named(&["kubecamp"]),
            "/etc/sysctl.d" | "/etc/modules-load.d" => named(&["kube", "k8s"]),
            folder if beneath(folder, "/var/lib/cni") => named(&["kubecamp", "flannel"]) || name == "cni0",
            _ => false,
        }
    }

    fn holds(&self, address: &str) -> bool {
        let ip = address.split('/').next().and_then(|a| a.parse::<Ipv4Addr>().ok());
        ip.is_some_and(|ip| self.networks.iter().any(|n| n.contains(ip)))
    }

    /// `TCP 0A600001:01BB`, as /proc/net/ip_vs prints it.
    fn is_lab_server(&self, thing: &str) -> bool {
        let parse = || {
            let (ip, port) = thing.split_once(' ')?.1.split_once(':')?;
            Some((Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?), u16::from_str_radix(port, 16).ok()?))
        };
        parse().is_some_and(|(ip, port)| self.holds(&ip.to_string()) || (30000..32768).contains(&port))
    }
}

/// The name of a setting in its line, `net.ipv4.ip_forward = 1`.
pub(super) fn setting(thing: &str) -> &str {
    thing.split(" = ").next().unwrap_or(thing)
}

/// What a write or an upload that was cut off leaves: `kubeadm.kc-part`, `kubeadm.kc-part.4711`.
fn is_part(name: &str) -> bool {
    name.split_once(".kc-part").is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('.'))
}

/// A rule without what people wrote between quotes.
fn without_comments(rule: &str) -> String {
    rule.split('"').step_by(2).collect()
}

/// `cni0`, `flannel.1`, `veth1a2b3c4d`, `veth1a2b3c4d in cni0`; docker's `veth1a2b3c4` has seven digits and a master.
fn is_lab_link(thing: &str) -> bool {
    if let Some((_, master)) = thing.split_once(" in ") {
        return master == "cni0";
    }
    let is_pods =
        |n: &str| n.strip_prefix("veth").is_some_and(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    matches!(thing, "cni0" | "kube-ipvs0")
        || thing.starts_with("flannel.")
        || thing.starts_with("flannel-")
        || is_pods(thing)
}

/// A containerd counts only when it is kubecamp's: docker brings one too.
fn is_lab_process(thing: &str) -> bool {
    let name = thing.split(' ').next().unwrap_or(thing);
    !matches!(name, n if n.starts_with("containerd") || n.starts_with("runc")) || thing.contains("kubecamp")
}

/// Tables and base chains that iptables-nft creates by reading: `ip filter`, `ip nat chain POSTROUTING`.
fn is_empty_base(thing: &str) -> bool {
    let words: Vec<_> = thing.split_whitespace().collect();
    let family = |w: &str| matches!(w, "ip" | "ip6");
    let table = |w: &str| matches!(w, "filter" | "nat" | "mangle" | "raw" | "security");
    match words.as_slice() {
        [f, t] => family(f) && table(t),
        [f, t, "chain", chain] => {
            family(f) && table(t) && matches!(*chain, "INPUT" | "OUTPUT" | "FORWARD" | "PREROUTING" | "POSTROUTING")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_did_not_look_at_is_only_told() {
        let after = "scan\t2\nsysctl\tnet.ipv4.ip_forward = 1\nsysctl\tvm.swappiness = 1\n";
        let found = |before: &str, recorded: &[&str]| {
            let recorded = recorded.iter().map(|name| (*name).to_owned()).collect();
            let traces = Traces { recorded, ..Traces::default() };
            let found = Scan::parse(before).differences(&Scan::parse(after), &traces);
            let new = |list: Vec<crate::host::scan::Difference>| {
                list.into_iter().filter(|one| one.now).map(|one| setting(&one.thing).to_owned()).collect::<Vec<_>>()
            };
            (new(found.residues).join(" "), new(found.others).join(" "))
        };
        let of = |residues: &str, others: &str| (residues.to_owned(), others.to_owned());
        let (forward, swap) = ("net.ipv4.ip_forward", "vm.swappiness");
        let first = "sysctl\tnet.ipv4.ip_forward = 0\n";
        assert_eq!(found(first, &[]), of(forward, swap));
        assert_eq!(found(first, &[swap]), of(&format!("{forward} {swap}"), ""), "up set it");
        assert_eq!(found(&format!("scan\t2\n{first}"), &[]), of(&format!("{forward} {swap}"), ""), "it was looked at");
    }

    #[test]
    fn kinds_that_an_earlier_version_did_not_list_are_only_told() {
        let found = |version: u32, traces: &Traces| {
            let before = Scan::parse(&format!("scan\t{version}\nlink\tlo\n"));
            let now = Scan::parse("scan\t3\nlink\tlo\napparmor\tcri-containerd.apparmor.d\n");
            let found = before.differences(&now, traces);
            (found.residues.len(), found.others.len())
        };
        let traces = Traces::default();
        assert_eq!((found(1, &traces), found(2, &traces), found(3, &traces)), ((0, 1), (0, 1), (1, 0)));
        assert_eq!(found(3, &Traces { container: true, ..Traces::default() }), (0, 0), "it is the computer's below");
        let spared = [("apparmor".to_owned(), "cri-containerd.apparmor.d".to_owned())].into();
        assert_eq!(found(3, &Traces { spared, ..Traces::default() }), (0, 0));
    }

    #[test]
    fn saved_rules_and_profiles_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let below = |path: &str| format!("{}{path}", dir.path().display());
        for folder in ["/etc/iptables", "/etc/sysconfig", "/apparmor"] {
            std::fs::create_dir_all(below(folder)).unwrap();
        }
        let theirs = "*filter\n-A INPUT -m comment --comment \"jump KUBE-SERVICES\" -j ACCEPT\nCOMMIT\n";
        let files = [
            ("/etc/iptables/rules.v4", "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n", true),
            ("/etc/iptables/rules.v6", theirs, false),
            ("/etc/sysconfig/iptables", "*filter\n:FLANNEL-FWD - [0:0]\nCOMMIT\n", true),
            ("/etc/sysconfig/nftables.conf", "table ip nat {\n\tchain KUBE-SERVICES {\n\t}\n}\n", true),
            ("/etc/nftables.conf", "flush ruleset\ntable ip kube-proxy {\n}\n", true),
        ];
        for (path, text, _) in files {
            std::fs::write(below(path), text).unwrap();
        }
        std::fs::write(below("/apparmor/profiles"), "docker-default (enforce)\ncri-containerd.apparmor.d (enforce)\n")
            .unwrap();
        let script = crate::host::scan::SCRIPT.replace("/sys/kernel/security/", &below("/"));
        let script = ["/etc/iptables/", "/etc/sysconfig/", "/etc/nftables.conf"]
            .iter()
            .fold(script, |script, path| script.replace(path, &below(path)));
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        let scan = Scan::parse(&String::from_utf8_lossy(&out.stdout));
        for (path, _, wanted) in files {
            assert_eq!(scan.saw("saved", &below(path)), wanted, "{path}");
        }
        assert!(scan.saw("apparmor", "cri-containerd.apparmor.d") && !scan.saw("apparmor", "docker-default"));
        assert!(scan.version() >= 3);
    }

    #[test]
    fn what_a_module_brought_is_only_told() {
        let new = ["net.ipv4.vs.conntrack", "net.netfilter.nf_conntrack_max", "net.bridge.bridge-nf-call-iptables"];
        let found = |known: &str, now: &str, recorded: &[&str]| {
            let recorded = recorded.iter().map(|name| (*name).to_owned()).collect();
            let traces = Traces { recorded, ..Traces::default() };
            let before = Scan::parse(&format!("scan\t3\nmodule\toverlay\n{known}"));
            let now = Scan::parse(&format!("scan\t3\nmodule\toverlay\nmodule\tip_vs\n{now}"));
            let found = before.differences(&now, &traces);
            (found.residues.len(), found.others.len())
        };
        for name in new {
            let line = |value: u32| format!("sysctl\t{name} = {value}\n");
            assert_eq!(found("", &line(1), &[]), (0, 1), "{name}");
            assert_eq!(found("", &line(1), &[name]), (1, 0), "up set {name}");
            // It was there with another value, which is gone.
            assert_eq!(found(&line(0), &line(1), &[]), (1, 1), "{name}");
        }
        assert_eq!(found("", "sysctl\tvm.panic_on_oom = 1\n", &[]), (1, 0), "it needs no module");
        assert_eq!(found("module\tdummy\n", "", &[]), (0, 0), "modules come and go");
    }
}
