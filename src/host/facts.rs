use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Viewer, fact};
use crate::{
    core::{Arch, Code, Problem},
    profile::{Cidr, NodeSpec},
};

/// The script that prints facts; see `templates/host/facts.sh`.
const SCRIPT: &str = concat!(
    include_str!("../../templates/host/remains.sh"),
    include_str!("../../templates/host/saved.sh"),
    include_str!("../../templates/host/kubelet.sh"),
    include_str!("../../templates/host/kube-proxy.sh"),
    include_str!("../../templates/host/proxy-rules.sh"),
    include_str!("../../templates/host/facts.sh")
);

/// Which cgroup hierarchy a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// An IPv4 address of a host with its interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Interface name.
    pub link: String,
    /// The address.
    pub ip: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
}

/// What is known of a host before anything is changed; gathered by one script in one round trip.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    single: BTreeMap<String, String>,
    many: BTreeMap<String, Vec<String>>,
}

/// When the facts came, by this computer's clock. This and the two below are not in the script.
const HEARD: &str = "heard";

/// The address that the connection came in on.
const PEER: &str = "peer.address";

/// That there is no host yet.
const ASSUMED: &str = "assumed";

/// Bit of CAP_SYS_RESOURCE in a capability mask (capabilities(7)).
const CAP_SYS_RESOURCE: u32 = 24;

impl Facts {
    /// Gathers the facts of a host.
    pub async fn gather(viewer: &Viewer) -> Result<Self, Problem> {
        let exit = viewer.read(SCRIPT).await.map_err(|p| p.during("gathering its facts"))?;
        let mut facts = Self::parse(&exit.text());
        // Client address and port, server address and port.
        if let Some(address) = viewer.peer().split_whitespace().nth(2) {
            facts.single.insert(PEER.to_owned(), address.to_owned());
        }
        // After parsing, since the host's own word for it must not count.
        let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        facts.single.insert(HEARD.to_owned(), here.as_secs_f64().to_string());
        if facts.get(fact::END) != Some("yes") {
            return Err(Problem::new(Code::StepFailed, "the facts script did not end")
                .on(viewer.node())
                .detail(exit.tail(3))
                .hint("The login shell may print or exit early; log in by hand and look."));
        }
        Ok(facts)
    }

    /// Reads the script's lines; lines without `=` are ignored.
    pub fn parse(text: &str) -> Self {
        let mut facts = Self::default();
        for (key, value) in text.lines().filter_map(|l| l.split_once('=')) {
            let value = value.trim().to_owned();
            if fact::MANY.contains(&key) {
                facts.many.entry(key.to_owned()).or_default().push(value);
            } else {
                facts.single.insert(key.to_owned(), value);
            }
        }
        facts
    }

    /// What a machine that does not exist yet will be like, for plans.
    pub fn assumed(node: &NodeSpec) -> Self {
        let text = format!(
            "os.id=debian\nos.version=13\narch={}\ncgroup=v2\ninit=systemd\nhostname={}\ncores={}\nmemory={}\nassumed=yes\nend=yes",
            std::env::consts::ARCH,
            node.name,
            node.cores,
            node.memory.0
        );
        Self::parse(&text)
    }

    /// A single value; empty ones count as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.single.get(key).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// Whether a yes/no fact is yes.
    pub fn yes(&self, key: &str) -> bool {
        matches!(self.get(key), Some("yes" | "active"))
    }

    /// All values of a repeated key.
    pub fn all(&self, key: &str) -> &[String] {
        self.many.get(key).map_or(&[], Vec::as_slice)
    }

    /// A number; 0 when absent or not a number.
    pub fn number(&self, key: &str) -> u64 {
        self.get(key).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Whether a program is there.
    pub fn has_tool(&self, program: &str) -> bool {
        self.yes(&fact::tool(program))
    }

    /// Whether the kernel has a module, built in or to be loaded.
    pub fn has_module(&self, name: &str) -> bool {
        self.get(&fact::module(name)).is_some()
    }

    /// How a service is: `active`, or `activating` as one that systemd starts again and again; `None` where it does not run.
    pub fn unit(&self, service: &str) -> Option<&str> {
        self.get(&fact::unit(service))
    }

    /// Whether a service runs, and not only now and then.
    pub fn runs(&self, service: &str) -> bool {
        self.yes(&fact::unit(service))
    }

    /// Whether a node trusts none of the certificate authorities of another, its control plane; one that cannot tell does.
    pub fn trusts_none_of(&self, control_plane: &Self) -> bool {
        let its = self.all(fact::CA);
        !its.is_empty() && !its.iter().any(|ca| control_plane.all(fact::CA).contains(ca))
    }

    /// Whether these are the assumptions of [`Facts::assumed`].
    pub fn is_assumed(&self) -> bool {
        self.yes(ASSUMED)
    }

    /// By how many seconds its clock is ahead of this computer's; hosts are asked one after the other where each needs
    /// an answer from the user first, so that only these can be compared.
    pub fn clock_ahead(&self) -> Option<f64> {
        let number = |key| self.get(key)?.parse::<f64>().ok();
        Some(number(fact::NOW)? - number(HEARD)?)
    }

    /// CPU architecture, when it is one that bundles exist for.
    pub fn arch(&self) -> Option<Arch> {
        self.get(fact::ARCH).and_then(Arch::from_uname)
    }

    /// cgroup hierarchy.
    pub fn cgroup(&self) -> Cgroup {
        if self.get(fact::CGROUP) == Some("v1") { Cgroup::V1 } else { Cgroup::V2 }
    }

    /// Whether the host is a container on a kernel that it shares.
    pub fn is_container(&self) -> bool {
        self.yes(fact::CONTAINER)
    }

    /// Whether root on it may raise resource limits and lower OOM scores.
    pub fn has_sys_resource(&self) -> bool {
        let mask = self.get(fact::CAPS).and_then(|c| u64::from_str_radix(c, 16).ok());
        mask.is_none_or(|m| m & (1 << CAP_SYS_RESOURCE) != 0)
    }

    /// Global IPv4 addresses, interfaces of container networks included.
    pub fn addresses(&self) -> Vec<Address> {
        let parse = |text: &String| {
            let (link, cidr) = text.split_once(' ')?;
            let (ip, prefix) = cidr.split_once('/')?;
            Some(Address { link: link.to_owned(), ip: ip.parse().ok()?, prefix: prefix.parse().ok()? })
        };
        self.all(fact::ADDR).iter().filter_map(parse).collect()
    }

    /// The address that other hosts see: the one that it has in its lab, else the source of the default route, else the one
    /// that the connection came in on, else the first.
    ///
    /// A default route may move, as by a VPN or from a cable to the air, and a lab that works is not to follow it.
    /// VirtualBox gives every guest 10.0.2.15 on its default route (kubernetes/kubernetes#33562); preflight finds
    /// two hosts with one address and says so.
    pub fn address(&self) -> Option<Ipv4Addr> {
        let own: Vec<_> = self.addresses().into_iter().filter(|a| !is_container_link(&a.link)).collect();
        let known =
            |key| self.get(key).and_then(|v| v.parse::<Ipv4Addr>().ok()).filter(|ip| own.iter().any(|a| a.ip == *ip));
        let first = || own.first().map(|a| a.ip);
        [fact::NODE_IP, fact::ROUTE_SOURCE, PEER].into_iter().find_map(known).or_else(first)
    }

    /// The address that it had in its lab, where it has another one by now.
    pub fn moved_from(&self) -> Option<Ipv4Addr> {
        self.get(fact::NODE_IP)?.parse::<Ipv4Addr>().ok().filter(|ip| self.address() != Some(*ip))
    }

    /// The problem of a host that has no such address.
    pub fn no_address() -> Problem {
        Problem::new(Code::HostNetwork, "the host has no IPv4 address that others could reach")
            .hint("Give its link an IPv4 address: those of IPv6 and of container networks do not count.")
    }

    /// The networks that it reaches without a gateway: those of its addresses, and those of routes to a link.
    pub fn networks(&self) -> Vec<Cidr> {
        let routed = |route: &String| {
            let (to, _link) = route.split_once(' ')?;
            let (ip, prefix) = to.split_once('/').unwrap_or((to, "32"));
            Cidr::around(ip.parse().ok()?, prefix.parse().ok()?)
        };
        let own = self.addresses().into_iter().filter_map(|a| Cidr::around(a.ip, a.prefix));
        own.chain(self.all(fact::ROUTE).iter().filter_map(routed)).collect()
    }

    /// The network of its own pods, as flannel has it there.
    pub fn pod_network(&self) -> Option<Cidr> {
        let (gateway, prefix) = self.get(fact::PODS)?.split_once('/')?;
        Cidr::around(gateway.parse().ok()?, prefix.parse().ok()?)
    }

    /// The host's own name, when it is made of the characters of host names only: it is a stranger's word, and goes
    /// into scripts for other hosts.
    pub fn hostname(&self) -> Option<&str> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        self.get(fact::HOSTNAME).filter(|name| name.len() <= 253 && name.chars().all(plain))
    }

    /// The interface that carries `ip`.
    pub fn link_of(&self, ip: Ipv4Addr) -> Option<String> {
        self.addresses().into_iter().find(|a| a.ip == ip).map(|a| a.link)
    }
}

/// Interfaces that container networks make; their addresses are never the host's own.
fn is_container_link(name: &str) -> bool {
    ["cni", "flannel", "docker", "kube-", "br-", "virbr", "lxdbr", "incusbr", "cali", "cilium", "kcbr", "podman"]
        .iter()
        .any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        host::Host,
        transport::{Reply, ScriptedTransport},
    };

    #[test]
    fn reads_lines_and_chooses_the_address() {
        let facts = Facts::parse(
            "arch=x86_64\naddr=cni0 10.244.0.1/24\naddr=eth0 10.77.0.5/24\nroute.source=10.77.0.5\ncaps=000001fffeffffff\nnoise",
        );
        assert_eq!(facts.arch(), Some(Arch::Amd64));
        assert_eq!(facts.address(), Some(Ipv4Addr::new(10, 77, 0, 5)));
        assert!(!facts.has_sys_resource());
        assert_eq!(facts.link_of(Ipv4Addr::new(10, 77, 0, 5)).as_deref(), Some("eth0"));
    }

    #[test]
    fn a_file_is_told_as_it_is_and_none_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let define = SCRIPT.lines().find(|line| line.starts_with("read_first()")).unwrap();
        for (text, told) in [
            (Some("a\\tb  \nsecond\n"), "a\\tb  \n"),
            (Some(" no end"), " no end\n"),
            (Some(""), ""),
            (Some("\nsecond\n"), "\n"),
            (None, ""),
        ] {
            let file = dir.path().join("file");
            match text {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            let script = format!("l=stale first=stale\n{define}\nread_first {}", file.display());
            let out = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
            assert_eq!((String::from_utf8(out.stdout).unwrap().as_str(), out.stderr.len()), (told, 0), "{text:?}");
        }
    }

    #[test]
    fn a_name_server_that_is_silent_is_told_from_one_that_answers() {
        use std::{net::UdpSocket, process::Command, thread};
        let (_, after) = SCRIPT.split_once("\nname_server_answers() {").unwrap();
        let (body, _) = after.split_once("\n}\n").unwrap();
        let answers = |port: u16| {
            let script = format!("name_server_answers() {{{body}\n}}\nname_server_answers 127.0.0.1 {port}");
            Command::new("sh").arg("-c").arg(script).status().unwrap().success()
        };
        let free = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = free();
        let port = server.local_addr().unwrap().port();
        let served = thread::spawn(move || {
            let mut question = [0; 512];
            // The first one is lost.
            server.recv_from(&mut question).unwrap();
            let (length, from) = server.recv_from(&mut question).unwrap();
            server.send_to(&question[..length], from).unwrap();
            question[..length].to_vec()
        });
        assert!(answers(port), "one question may be lost");
        assert_eq!(served.join().unwrap(), b"kc\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01");
        let silent = free();
        let port = silent.local_addr().unwrap().port();
        assert!(!answers(port));
        drop(silent);
        assert!(!answers(port), "and where nobody listens at all");
    }

    #[test]
    fn a_strangers_words_do_not_get_into_scripts() {
        let facts = Facts::parse("hostname=x'; touch /tmp/x; echo '\npeer.address=192.0.2.1; reboot");
        assert_eq!((facts.hostname(), facts.address()), (None, None));
        assert_eq!(Facts::parse("hostname=node-1.example.org").hostname(), Some("node-1.example.org"));
    }

    /// sudo gives the script a new environment.
    #[tokio::test]
    async fn the_connection_is_known_whoever_becomes_root() {
        for found in ["root", "free"] {
            let link = ScriptedTransport::new().played_by(move |ran| {
                let peer = format!("KC-PEER 198.51.100.7 51234 192.0.2.11 2222\n{found}\n");
                Some(Reply::ok(if ran.line.contains("id -u") { peer } else { FACTS.to_owned() }))
            });
            const FACTS: &str = "addr=eth0 10.0.2.15/24\naddr=eth1 192.0.2.11/24\nend=yes\n";
            let host = Host::open("cp".parse().unwrap(), Arc::new(link), None).await.unwrap();
            let facts = Facts::gather(&Viewer::new(&host)).await.unwrap();
            assert_eq!(facts.address(), Some(Ipv4Addr::new(192, 0, 2, 11)), "{found}");
        }
    }

    #[tokio::test]
    async fn a_clock_is_compared_with_this_computers() {
        let link = ScriptedTransport::new()
            .on("p os.id", Reply::ok("now=1000.5\nheard=990\nend=yes"))
            .on("id -u", Reply::ok("root"));
        let host = Host::open("cp".parse().unwrap(), Arc::new(link), None).await.unwrap();
        let ahead = Facts::gather(&Viewer::new(&host)).await.unwrap().clock_ahead().unwrap();
        assert!(ahead < -1e9, "some fifty years behind, whatever it says itself: {ahead}");
        assert_eq!(Facts::parse("arch=x86_64").clock_ahead(), None);
    }

    /// What the facts call the kubelet where `systemctl` says these things of it.
    fn kubelet(state: &str, restarts: u32, pid: u32) -> Option<String> {
        use std::{fs, os::unix::fs::PermissionsExt, process::Command};
        let bin = tempfile::tempdir().unwrap();
        let (sham, path) = (bin.path().join("systemctl"), bin.path().display());
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in 'is-active kubelet') echo {state} ;; 'is-active -q kubelet') [ {state} = active ] ;;\n\
             *NRestarts*) echo {restarts} ;; *MainPID*) echo {pid} ;; *) exit 3 ;; esac\n"
        );
        fs::write(&sham, text).unwrap();
        fs::set_permissions(&sham, fs::Permissions::from_mode(0o755)).unwrap();
        let script = SCRIPT.replacen("PATH=/usr/local/sbin", &format!("PATH={path}:/usr/local/sbin"), 1);
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        Facts::parse(&String::from_utf8_lossy(&out.stdout)).get("unit.kubelet").map(str::to_owned)
    }

    #[test]
    fn a_kubelet_that_is_started_again_and_again_does_not_run() {
        let mut young = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        for (state, restarts, pid, wanted) in [
            ("active", 0, young.id(), Some("active")),
            ("active", 7, young.id(), Some("activating")),
            ("active", 7, 1, Some("active")),
            ("activating", 7, 0, Some("activating")),
            ("failed", 7, 0, None),
        ] {
            assert_eq!(kubelet(state, restarts, pid).as_deref(), wanted, "{state} {restarts} {pid}");
        }
        young.kill().unwrap();
        young.wait().unwrap();
    }

    /// What the facts say of a node with these links, where `nft` says this, and pods were given that bridge.
    fn node(runs: &str, nft: &str, links: &[&str], bridge: &str) -> Facts {
        use std::{fs, os::unix::fs::PermissionsExt, process::Command};
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let config = dir.path().join("pods/1/volumes/kubernetes.io~configmap/kube-proxy");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("config.conf"), "kind: KubeProxyConfiguration\nmode: nftables\n").unwrap();
        fs::write(dir.path().join("lab"), "lab\n").unwrap();
        for link in links {
            fs::create_dir_all(dir.path().join("net").join(link)).unwrap();
        }
        fs::create_dir(dir.path().join("results")).unwrap();
        for link in ["veth0000000a", "veth0000000b", "veth0000000c"] {
            let given = format!("{{\"name\":\"{bridge}\"}},{{\"name\":\"{link}\"}}");
            fs::write(dir.path().join(format!("results/cbr0-{link}-eth0")), given).unwrap();
        }
        let sham = dir.path().join("nft");
        fs::write(&sham, format!("#!/bin/sh\necho '{nft}'\n")).unwrap();
        fs::set_permissions(&sham, fs::Permissions::from_mode(0o755)).unwrap();
        let script = SCRIPT
            .replacen("PATH=/usr/local/sbin", &format!("PATH={root}:/usr/local/sbin"), 1)
            .replace("/var/lib/kubecamp/lab", &format!("{root}/lab"))
            .replace("/var/lib/kubelet/pods", &format!("{root}/pods"))
            .replace("/sys/class/net", &format!("{root}/net"))
            .replace("/var/lib/cni/results", &format!("{root}/results"))
            .replace("runs=$(kube_proxy)", &format!("runs={runs}"));
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        Facts::parse(&String::from_utf8_lossy(&out.stdout))
    }

    #[test]
    fn rules_that_somebody_flushed_and_a_bridge_that_somebody_deleted_are_told() {
        for (runs, nft, missing) in [
            ("71:5,", "ip daddr vmap @service-ips", false),
            ("71:5,", "Error: No such file or directory", true),
            ("", "Error: No such file or directory", false),
        ] {
            assert_eq!(node(runs, nft, &[], "cni0").yes("rules.missing"), missing, "{runs} {nft}");
        }
        for (links, missing) in [
            (&["veth0000000a/master", "veth0000000b"][..], true),
            (&["veth0000000a/master", "veth0000000b", "cni0"][..], true),
            (&["veth0000000a/master", "cni0"][..], false),
            (&["veth0000000d", "eth0"][..], false),
        ] {
            assert_eq!(node("", "", links, "cni0").yes("bridge.missing"), missing, "{links:?}");
        }
        assert!(!node("", "", &["veth0000000a"], "lxc1").yes("bridge.missing"), "a CNI without that bridge");
    }

    /// The firewall that the facts tell of where iptables-save and iptables-legacy-save print these rules.
    fn firewall(rules: &str, legacy: &str) -> Option<String> {
        use std::{fs, os::unix::fs::PermissionsExt, process::Command};
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        fs::write(dir.path().join("tables"), "filter\n").unwrap();
        let shams = [("iptables-save", rules), ("iptables-legacy-save", legacy), ("systemctl", ""), ("nft", "")];
        for (name, says) in shams {
            let sham = dir.path().join(name);
            fs::write(&sham, format!("#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit 3\n")).unwrap();
            fs::set_permissions(&sham, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let functions: Vec<_> = SCRIPT.lines().filter(|l| l.starts_with("p() {") || l.starts_with("has() {")).collect();
        let (_, after) = SCRIPT.split_once("\n# A firewall of the host itself").unwrap();
        let (part, _) = after.split_once("\n# What an earlier cluster left").unwrap();
        let part = part.replace("/etc/ufw/", &format!("{root}/")).replace("/proc/net/ip_tables_names", "$names");
        let script = format!("lab={root}/lab names={root}/tables\n{}\n#{part}", functions.join("\n"));
        let path = format!("{root}:/usr/sbin:/usr/bin:/sbin:/bin");
        let out = Command::new("sh").arg("-c").arg(script).env("PATH", path).output().unwrap();
        Facts::parse(&String::from_utf8_lossy(&out.stdout)).get("firewall").map(str::to_owned)
    }

    #[test]
    fn rules_that_end_in_one_which_turns_all_else_away_are_a_firewall() {
        let cloud =
            ":INPUT ACCEPT [0:0]\n-A INPUT -p icmp -j ACCEPT\n-A INPUT -j REJECT --reject-with icmp-host-prohibited";
        let others = ":FORWARD DROP [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP\n\
            -A FORWARD -o virbr0 -j REJECT --reject-with icmp-port-unreachable\n-A INPUT -j ufw-reject-input\n\
            -A INPUT -s 198.51.100.7/32 -j DROP\n-A ufw-reject-input -j REJECT --reject-with icmp-port-unreachable";
        for (rules, legacy, told) in [
            (cloud, "", Some("iptables")),
            ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited", "", Some("iptables")),
            ("-A INPUT -m comment --comment \"all else\" -j DROP", "", Some("iptables")),
            (":INPUT DROP [0:0]", "", Some("iptables")),
            (others, "", None),
            (others, cloud, Some("iptables-legacy")),
            (others, ":INPUT DROP [7:420]", Some("iptables-legacy")),
        ] {
            assert_eq!(firewall(rules, legacy).as_deref(), told, "{rules} and {legacy}");
        }
    }

    #[tokio::test]
    async fn the_script_runs_on_this_computer() {
        let out = std::process::Command::new("sh").arg("-c").arg(SCRIPT).output().unwrap();
        let facts = Facts::parse(&String::from_utf8_lossy(&out.stdout));
        assert!(facts.yes("end"), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(facts.number("cores") > 0 && facts.number("memory") > 0);
    }
}
