//! The names of facts, as `templates/host/facts.sh` writes them.

/// Constants for names of facts, and a list of them.
macro_rules! facts {
    ($(#[$of:meta])* $list:ident: $($(#[$doc:meta])* $name:ident = $key:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $key;)*

        $(#[$of])* pub(super) const $list: &[&str] = &[$($name),*];
    };
}

facts! {
    /// Those that have one value.
    #[cfg(test)]
    ONE:
    /// The distribution, as its `/etc/os-release` says it.
    OS_ID = "os.id";
    /// The distributions that it is like, with spaces between.
    OS_LIKE = "os.like";
    /// The distribution and its release, for people.
    OS_NAME = "os.name";
    /// The release.
    OS_VERSION = "os.version";
    /// The CPU's architecture, as `uname -m` says it.
    ARCH = "arch";
    /// The kernel's release, as `uname -r` says it.
    KERNEL = "kernel";
    /// The host's own name.
    HOSTNAME = "hostname";
    /// The name of process 1.
    INIT = "init";
    /// Whether it is a container on a kernel that it shares: `yes` or `no`.
    CONTAINER = "container";
    /// The content of `/etc/machine-id`.
    MACHINE_ID = "machine_id";
    /// The clock, in seconds since 1970.
    NOW = "now";
    /// The cores that it may use.
    CORES = "cores";
    /// The memory that it may use, in bytes.
    MEMORY = "memory";
    /// The size of the file system below `/var/lib`, in bytes.
    DISK_TOTAL = "disk.total";
    /// What is free there, in bytes.
    DISK_FREE = "disk.free";
    /// The swap that is on, in bytes.
    SWAP = "swap";
    /// The files and devices of that swap, with spaces between.
    SWAP_ON = "swap.on";
    /// The cgroup hierarchy: `v1` or `v2`.
    CGROUP = "cgroup";
    /// The controllers of that hierarchy, with spaces between.
    CGROUP_CONTROLLERS = "cgroup.controllers";
    /// The capabilities that root may have, as a hexadecimal mask.
    CAPS = "caps";
    /// The address that packets on the default route come from.
    ROUTE_SOURCE = "route.source";
    /// The MTU of the default route's link, in bytes.
    MTU = "mtu";
    /// Who drives a firewall of the host's own, such as `ufw`.
    FIREWALL = "firewall";
    /// How many virtual servers of IPVS there are.
    IPVS_FOREIGN = "ipvs.foreign";
    /// Whether the node has all that a join leaves: `yes`.
    JOINED = "joined";
    /// The file that names the servers which pods get.
    RESOLV_CONF = "resolv.conf";
    /// The address at which the lab's kubelet was told to be reached.
    NODE_IP = "node.ip";
    /// The network of the host's own pods, by the address that they know it by, as flannel has it.
    PODS = "pods";
    /// Whether the key of the cluster's certificate authority is there: `yes`.
    CA_KEY = "ca.key";
    /// Whether a reset has drained the workers: `yes`.
    DRAINED = "drained";
    /// Whether the host has the record of how it was before `up`: `yes`.
    RECORDED = "recorded";
    /// The name of the lab that the host belongs to.
    LAB = "lab";
    /// The id of that lab.
    LAB_ID = "lab.id";
    /// The stamp of what was proven on the host, and by which kube-proxy.
    VERIFIED = "verified";
    /// Which kube-proxy runs there.
    KUBE_PROXY = "kube_proxy";
    /// Whether the rules of the kube-proxy that runs are gone: `yes`.
    RULES_MISSING = "rules.missing";
    /// Whether pods hang loose because their bridge is gone, or was and came again without them: `yes`.
    BRIDGE_MISSING = "bridge.missing";
    /// Whether the host knows what its kernel has built in: `yes`.
    MODULES_LISTED = "modules.listed";
    /// Whether the script came to its end: `yes`.
    END = "end";
}

facts! {
    /// Those that may come several times.
    MANY:
    /// A link and one of its IPv4 addresses with the prefix.
    ADDR = "addr";
    /// A certificate authority that the node trusts, by a line of its certificate.
    CA = "ca";
    /// A unit file or drop-in of a kubelet that is not the lab's, and the package that brought it.
    OTHER_KUBELET = "kubelet";
    /// A file or folder of some cluster.
    LEFTOVER = "leftover";
    /// A TCP port that is listened on, and by which program.
    LISTEN = "listen";
    /// A UDP port that is listened on.
    LISTEN_UDP = "listen.udp";
    /// A link and its hardware address.
    MAC = "mac";
    /// What an earlier cluster left in the kernel.
    REMAINS = "remains";
    /// A name server that pods get.
    RESOLVER = "resolver";
    /// A network that is reached without a gateway, and by which link.
    ROUTE = "route";
    /// A file from which rules of an earlier cluster come back at each start.
    SAVED = "saved";
    /// A line of /etc/sysctl.conf that sets what the lab sets: its number, the key, the value.
    SETTING = "setting";
    /// A name server that does not answer.
    SILENT = "silent";
}

/// The fact that tells whether a program is there: `yes`.
pub(super) fn tool(program: &str) -> String {
    format!("tool.{program}")
}

/// The fact that tells how a service is: `active` or `activating`.
pub(super) fn unit(service: &str) -> String {
    format!("unit.{service}")
}

/// The fact that tells whether the kernel has a module: `yes` or `loadable`.
pub(super) fn module(name: &str) -> String {
    format!("module.{name}")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    const SCRIPT: &str = include_str!("../../templates/host/facts.sh");

    /// What the script's lines from `first` to before `next` print, with this folder in the place of the root of the host.
    fn printed(first: &str, next: &str, root: &Path) -> String {
        let (_, after) = SCRIPT.split_once(&format!("\n{first}")).unwrap();
        let (part, _) = after.split_once(&format!("\n{next}")).unwrap();
        let at = root.display();
        let part =
            format!("{first}{part}").replace("/etc/", &format!("{at}/etc/")).replace("/run/", &format!("{at}/run/"));
        let p = SCRIPT.lines().find(|line| line.starts_with("p() {")).unwrap();
        let out = Command::new("sh").arg("-c").arg(format!("{p}\nlab={at}/lab\n{part}")).output().unwrap();
        assert!(out.stderr.is_empty(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn what_the_last_file_of_settings_says_is_told_by_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let settings = || printed("[ -r /etc/sysctl.conf ]", "[ -w /proc/sys/net/netfilter", dir.path());
        assert_eq!(settings(), "", "there is no such file");
        fs::create_dir(dir.path().join("etc")).unwrap();
        let lines = [
            "# net.ipv4.ip_forward = 0",
            " \t; net.ipv4.ip_forward = 0",
            " \tnet.ipv4.ip_forward=0",
            "-fs/inotify/max_user_watches = 8192\r",
            "net/bridge/bridge-nf-call-ip6tables\t=\t0 ",
            "kernel.panic = 10",
            "net.ipv4.ip_forward",
            "\r",
            "",
            "fs.inotify.max_user_instances =",
            // The last line may have no end.
            "net.ipv4.ip_forward = 1",
        ];
        fs::write(dir.path().join("etc/sysctl.conf"), lines.join("\n")).unwrap();
        assert_eq!(
            settings(),
            "setting=3 net.ipv4.ip_forward 0\nsetting=4 fs.inotify.max_user_watches 8192\n\
             setting=5 net.bridge.bridge-nf-call-ip6tables 0\nsetting=10 fs.inotify.max_user_instances \n\
             setting=11 net.ipv4.ip_forward 1\n"
        );
    }

    #[test]
    fn the_network_of_a_hosts_pods_is_told_where_a_lab_is() {
        let dir = tempfile::tempdir().unwrap();
        let pods = || printed("[ -e $lab ] && [ -r /run/flannel/subnet.env ]", "p lab \"$(", dir.path());
        fs::write(dir.path().join("lab"), "lab\n").unwrap();
        assert_eq!(pods(), "", "there is no flannel");
        fs::create_dir_all(dir.path().join("run/flannel")).unwrap();
        let text =
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        fs::write(dir.path().join("run/flannel/subnet.env"), text).unwrap();
        assert_eq!(pods(), "pods=10.244.1.1/24\n");
        fs::remove_file(dir.path().join("lab")).unwrap();
        assert_eq!(pods(), "", "it is of another cluster");
    }

    #[test]
    fn the_script_writes_each() {
        let words: Vec<_> = SCRIPT.split_whitespace().collect();
        let by_p = |key: &str| words.windows(2).any(|pair| pair[0] == "p" && pair[1].trim_matches('"') == key);
        // awk writes `addr=` by itself, and two in one text.
        let by_awk = |key: &str| ["\"", "\\n"].iter().any(|before| SCRIPT.contains(&format!("{before}{key}=")));
        for key in ONE.iter().chain(MANY) {
            assert!(by_p(key) || by_awk(key), "{key}");
        }
        for family in [tool("$t"), unit("$u"), module("$m")] {
            assert!(by_p(&family), "{family}");
        }
    }
}
