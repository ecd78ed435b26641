use async_trait::async_trait;
use serde_json::json;

use super::cluster::{PROVEN, SOCKET, address_of};
use crate::{
    core::{Code, PhaseId, Problem},
    engine::{Check, Phase, Step, View},
    host::{fact, script, template},
    profile::{Cidr, Cni},
};

/// Writes the node's CNI configuration before the kubelet starts, so that the node is ready at once.
pub struct PodNetwork;

const CONFIG: &str = "/etc/kubecamp/cni/net.d/10-kubecamp.conflist";
/// The links of a host.
const LINKS: &str = "/sys/class/net";
/// What each pod of a bridge got from the CNI plugins, in a file that has the sandbox's id in its name: the bridge, which both
/// CNI configurations name cni0, flannel's by saying nothing, and the pod's link on the host.
const RESULTS: &str = "/var/lib/cni/results";
const ROUTES: &str = "/etc/systemd/system/kubecamp-routes.service";

/// What VXLAN adds to each packet: outer Ethernet, IP, UDP and VXLAN headers (RFC 7348).
const VXLAN_OVERHEAD: u32 = 50;

impl PodNetwork {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("pod-network");
}

#[async_trait]
impl Phase for PodNetwork {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "prepare the pod network"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let subnet = view
            .lab
            .pod_cidr_of(view.node)
            .ok_or_else(|| Problem::new(Code::Internal, "a node of the lab has no pod network").on(view.node))?;
        let mut steps = match view.lab.profile().network.cni {
            Cni::Flannel => vec![flannel(view, subnet)?],
            Cni::Bridge => bridge(view, subnet)?,
        };
        // Without a kubelet nobody would make the pods anew.
        if view.facts().yes(fact::BRIDGE_MISSING) && view.facts().runs("kubelet") {
            steps.push(loose_pods());
        }
        Ok(steps)
    }
}

/// Ends the pods that lost their bridge; the kubelet makes each anew, and with the first of them the bridge.
///
/// Any new pod makes the bridge too, and those of before hang loose even then: who does is told by its own link. Pods of the
/// host's network, or of a CNI without that bridge, do well without one. One that the kubelet ends at the same moment cannot be
/// ended by two, and is gone a moment later. What else keeps pods from coming is for the proof to say.
fn loose_pods() -> Step {
    let crictl = format!("crictl -r unix://{SOCKET}");
    let loose = format!(
        "loose() {{ for id in $({crictl} pods -q --state ready); do\n\
         for link in $(grep -hs '\"cni0\"' {RESULTS}/*-\"$id\"-* | grep -o '\"veth[0-9a-f]*\"' | tr -d '\"'); do\n\
         [ ! -e {LINKS}/\"$link\" ] || [ -e {LINKS}/\"$link\"/master ] || {{ echo \"$id\"; break; }}; done; done; }}\n"
    );
    let check = format!("{loose}[ -z \"$(loose)\" ]");
    let change = format!(
        "{loose}rm -f {PROVEN}\n\
         bad=; for id in $(loose); do {crictl} stopp \"$id\" >/dev/null || bad=1; done\n\
         all_stopped() {{ [ -z \"$(loose)\" ]; }}\n\
         [ ! \"$bad\" ] || kc_wait 5 all_stopped || exit 1\n\
         kc_wait 60 [ -e {LINKS}/cni0 ]"
    );
    Step::script("bridge", "make the pods anew that lost their bridge", Check::Before(check), change)
}

/// The interface's MTU, read on the host by the script itself. Where there is a peer, the prefix is the peer's.
fn mtu_of(address: &str) -> String {
    format!(
        "link=$(ip -o -4 addr show | awk '{{sub(\"/.*\", \"\", $4)}} $4 == \"{address}\" {{print $2; exit}}')\n\
         mtu=$(cat \"/sys/class/net/$link/mtu\") || exit 1"
    )
}

/// flannel writes its subnet file itself once it runs; pods that start before it would fail and be retried only
/// after ten seconds, so the file with the very same words is there beforehand.
fn flannel(view: &View<'_>, subnet: Cidr) -> Result<Step, Problem> {
    let text = template::text("cni/flannel.conflist")?;
    let gateway = subnet.nth(1).map(|ip| ip.to_string()).unwrap_or_default();
    let change = format!(
        "{}{}\nmkdir -p /run/flannel && [ -e /run/flannel/subnet.env ] || printf 'FLANNEL_NETWORK={}\\nFLANNEL_SUBNET={gateway}/{}\\nFLANNEL_MTU=%s\\nFLANNEL_IPMASQ=true\\n' $((mtu - {VXLAN_OVERHEAD})) > /run/flannel/subnet.env",
        script::put(CONFIG, 0o644, &text),
        mtu_of(&address_of(view, view.node)?),
        view.lab.pod_cidr(),
        subnet.prefix(),
    );
    let check = format!("{} && [ -s /run/flannel/subnet.env ]", script::has(CONFIG, &text));
    Ok(Step::script("cni-config", "write the CNI configuration of flannel", Check::Script(check), change))
}

/// Nothing runs for this network: a bridge on each node, and one route to every other node's pods.
fn bridge(view: &View<'_>, subnet: Cidr) -> Result<Vec<Step>, Problem> {
    let mtu = view.facts().number(fact::MTU).max(1280);
    let text = template::render("cni/bridge.conflist.tera", &json!({"subnet": subnet, "mtu": mtu}))?;
    let config = Step::script(
        "cni-config",
        "write the CNI configuration of the bridge plugin",
        Check::Script(script::has(CONFIG, &text)),
        script::put(CONFIG, 0o644, &text),
    );
    let mut routes = vec![];
    for other in view.lab.nodes().iter().filter(|n| n.name != *view.node) {
        let pods = view.lab.pod_cidr_of(&other.name).map(|c| c.to_string()).unwrap_or_default();
        routes.push(json!({"node": other.name, "pods": pods, "via": address_of(view, &other.name)?}));
    }
    let values = json!({"routes": routes, "subnet": subnet, "pod_cidr": view.lab.pod_cidr()});
    let unit = template::render("cni/routes.service.tera", &values)?;
    let live: String = routes
        .iter()
        .filter_map(|r| {
            Some(format!(" && ip route show {} | grep -q 'via {} '", r["pods"].as_str()?, r["via"].as_str()?))
        })
        .collect();
    let check = format!(
        "{}{live} && iptables -w -t nat -C POSTROUTING -j KUBE-KUBECAMP-MASQ && iptables -w -C FORWARD -j KUBE-KUBECAMP-FWD",
        script::has(ROUTES, &unit)
    );
    Ok(vec![config, Step::script("routes", "route to the other nodes' pods", Check::Script(check), start(&unit))])
}

/// Writes the unit and starts it; systemctl itself only says where to look when that fails.
fn start(unit: &str) -> String {
    format!(
        "{}kc_record unit absent kubecamp-routes\n\
         systemctl daemon-reload && systemctl enable -q kubecamp-routes || exit 1\n\
         systemctl restart kubecamp-routes || kc_die \"$(journalctl -u kubecamp-routes -n 10 --no-pager 2>&1)\"",
        script::put(ROUTES, 0o644, unit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{core::shell::quote, engine::Change};

    #[test]
    fn pods_without_their_bridge_are_ended_and_those_of_the_host_are_not() {
        let step = loose_pods();
        let (Check::Before(check), Change::Script(change)) = (step.done_if, step.change) else {
            panic!("they are scripts")
        };
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let file = |name: &str| dir.path().join(name);
        for pod in ["web", "dns", "etcd", "ptp", "busy", "new"] {
            std::fs::write(file(pod), "").unwrap();
        }
        std::fs::create_dir_all(file("net/veth0000000d/master")).unwrap();
        for (pod, bridge, link) in [
            ("web", "cni0", "veth0000000a"),
            ("dns", "cni0", "veth0000000b"),
            ("busy", "cni0", "veth0000000c"),
            ("new", "cni0", "veth0000000d"),
            ("ptp", "lxc1", "veth0000000e"),
        ] {
            std::fs::create_dir_all(file("net").join(link)).unwrap();
            let links = format!("{{\"name\":\"{bridge}\"}},{{\"name\":\"{link}\"}},{{\"name\":\"eth0\"}}");
            std::fs::write(file(&format!("cbr0-{pod}-eth0")), format!("{{\"interfaces\":[{links}]}}")).unwrap();
        }
        std::fs::write(file("mark"), "stamp").unwrap();
        // One pod cannot be ended at first; the others are, and a new one has brought the bridge.
        let sham = format!(
            "crictl() {{ shift 2; case $1 in pods) cd {root}; ls web dns etcd ptp busy new 2>/dev/null ;; \
             stopp) [ $2 != busy ] || [ -e {root}/again ] || return 1; rm \"{root}/$2\"; : > {root}/net/cni0 ;; esac; }}\n"
        );
        let runs = |text: &str| {
            let mut text = text.to_owned();
            for (path, name) in [(LINKS, "net"), (PROVEN, "mark"), (RESULTS, "")] {
                text = text.replace(path, &format!("{root}/{name}"));
            }
            std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("{}{sham}{text}", script::LIB))
                .status()
                .unwrap()
                .success()
        };
        assert!(!runs(&check) && !runs(&change));
        assert!(file("net/cni0").exists() && !file("web").exists() && !runs(&check), "one of them still hangs loose");
        std::fs::write(file("again"), "").unwrap();
        assert!(runs(&change) && runs(&check));
        let there = ["web", "dns", "busy", "etcd", "ptp", "new", "mark"].map(|name| file(name).exists());
        assert_eq!(there, [false, false, false, true, true, true, false]);
        std::fs::remove_file(file("net/cni0")).unwrap();
        assert!(runs(&check), "pods of the host's network need no bridge");
    }

    #[test]
    fn the_mtu_is_that_of_the_link_with_the_address() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        for (link, mtu) in [("eth0", "1500"), ("ens3", "1460"), ("wg0", "1420")] {
            std::fs::create_dir(dir.path().join(link)).unwrap();
            std::fs::write(dir.path().join(link).join("mtu"), format!("{mtu}\n")).unwrap();
        }
        let sham = "ip() { cat <<'END'\n2: eth0    inet 10.0.0.50/24 brd 10.0.0.255 scope global eth0\n\
                    3: ens3    inet 10.0.0.5 peer 10.0.0.1/32 scope global ens3\n\
                    4: wg0    inet 10.0.0.7/32 scope global wg0\nEND\n}\n";
        for (address, told, code) in
            [("10.0.0.50", "1500\n", 0), ("10.0.0.5", "1460\n", 0), ("10.0.0.7", "1420\n", 0), ("10.0.0.1", "", 1)]
        {
            let script = format!("{sham}{}\necho $mtu", mtu_of(address)).replace("/sys/class/net", &root);
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!(
                (String::from_utf8(out.stdout).unwrap().as_str(), out.status.code()),
                (told, Some(code)),
                "{address}"
            );
        }
    }

    #[test]
    fn a_route_that_the_kernel_refuses_is_told_with_its_reason() {
        let sham = "kc_put() { cat >/dev/null; }\nkc_record() { :; }\nkc_die() { echo \"$*\" >&2; exit 1; }\n\
                    systemctl() { [ \"$1\" != restart ]; }\njournalctl() { echo \"$2: Nexthop has invalid gateway.\"; }\n";
        let script = format!("{sham}{}", start("[Unit]\n"));
        let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), said.as_str()), (Some(1), "kubecamp-routes: Nexthop has invalid gateway.\n"));
    }

    /// It takes away what is neither its own nor the kernel's.
    #[test]
    fn systemd_networkd_leaves_the_routes_alone() {
        let route = json!({"node": "worker-1", "pods": "10.244.1.0/24", "via": "192.0.2.9"});
        let values = json!({"routes": [route], "subnet": "10.244.0.0/24", "pod_cidr": "10.244.0.0/16"});
        let unit = template::render("cni/routes.service.tera", &values).unwrap();
        let routes: Vec<_> = unit.lines().filter(|line| line.contains("ip route ")).collect();
        assert_eq!(
            routes,
            [
                "ExecStart=/bin/sh -c 'exec ip route replace 10.244.1.0/24 via 192.0.2.9 proto kernel'",
                // Also one that an earlier version made without.
                "ExecStop=-/bin/sh -c 'exec ip route del 10.244.1.0/24 via 192.0.2.9'",
            ]
        );
    }

    /// As docker leaves it where it switched forwarding on, and as it is once kube-proxy is there.
    #[test]
    fn pods_reach_each_other_where_the_kernel_drops_what_no_rule_accepts() {
        let values = json!({"routes": [], "subnet": "10.244.1.0/24", "pod_cidr": "10.244.0.0/16"});
        let unit = template::render("cni/routes.service.tera", &values).unwrap();
        let commands: Vec<_> =
            unit.lines().filter_map(|l| l.strip_prefix("ExecStart=/bin/sh -c '")?.strip_suffix('\'')).collect();
        let proxy = "-A FORWARD -j DOCKER-USER\n-A FORWARD -j KUBE-FORWARD\n\
             -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n";
        for (rules, place) in [("", 1), ("-A FORWARD -j REJECT\n", 1), (proxy, 4)] {
            let rules = quote(&format!("-P FORWARD DROP\n{rules}-A FORWARD -o docker0 -j DOCKER\n"));
            let sham = format!(
                "iptables() {{ case $* in *-C*) return 1 ;; *-S*) printf %s {rules} ;; *) echo \"$*\" ;; esac; }}"
            );
            let mut called = String::new();
            for command in &commands {
                // As systemd reads it.
                let script = format!("{sham}\n{}", command.replace("exec ", "").replace("$$", "$"));
                let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
                assert!(out.status.success(), "{out:?}");
                called.push_str(&String::from_utf8(out.stdout).unwrap());
            }
            let forward: Vec<_> = called.lines().filter(|l| l.contains("-FWD")).collect();
            let jump = format!("-w -I FORWARD {place} -j KUBE-KUBECAMP-FWD");
            let wanted = [
                "-w -N KUBE-KUBECAMP-FWD",
                "-w -F KUBE-KUBECAMP-FWD",
                "-w -A KUBE-KUBECAMP-FWD -s 10.244.0.0/16 -j ACCEPT",
                "-w -A KUBE-KUBECAMP-FWD -d 10.244.0.0/16 -j ACCEPT",
                jump.as_str(),
            ];
            assert_eq!(forward, wanted, "{called}");
        }
    }

    /// In a folder that others write to as well, the first file by name would win over ours.
    #[test]
    fn containerd_reads_a_folder_that_only_we_write_to() {
        let config = template::text("node/containerd.toml.tera").unwrap();
        let folder = CONFIG.rsplit_once('/').unwrap().0;
        assert!(folder.starts_with("/etc/kubecamp/") && config.contains(&format!("\n  conf_dir = \"{folder}\"\n")));
    }
}
