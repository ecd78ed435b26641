use std::net::{IpAddr, Ipv4Addr};

use super::{Claim, Findings};
use crate::{
    core::{Arch, Code, GIB, MIB, Problem},
    host::{Cgroup, Facts, fact},
    phases::{cluster::VXLAN, kernel::SYSCTLS},
    profile::{Cidr, Cni, Lab, NodeSpec, ProxyMode},
};

/// Free space that binaries, images and a working lab need under /var/lib at the least, in bytes.
const FREE_DISK: u64 = 6 * GIB;

/// The same where the lab is already, and what it needs lies there.
const FREE_DISK_AGAIN: u64 = GIB;

/// Programs that every node needs; the bundle brings the rest.
const TOOLS: &[&str] = &["iptables", "ip", "mount", "systemctl", "flock", "sha256sum", "bash"];

/// Controllers that kubelet needs.
const CONTROLLERS: &[&str] = &["cpu", "cpuset", "memory", "pids"];

/// How swap that is made in memory at each start is switched off for good.
const NO_ZRAM: &str = "It is zram, which is made at each start: touch /etc/systemd/zram-generator.conf, since an empty one \
                       switches it off, or remove the package zram-tools or zram-config; then swapoff -a.";

/// What to do about a kernel that lacks what flannel needs.
const WHOLE_KERNEL: &str =
    "Install the distribution's whole kernel (linux-modules-extra, kernel-modules), or take --cni bridge.";

/// Distributions whose family is known to work, as /etc/os-release names them.
const SYSTEMS: &[&str] =
    &["debian", "ubuntu", "rhel", "centos", "rocky", "almalinux", "fedora", "ol", "openeuler", "anolis"];

/// Everything that is wrong with one host by itself.
pub(super) fn problems(lab: &Lab, node: &NodeSpec, facts: &Facts, claim: &Claim, bundle_arch: Arch) -> Findings {
    let mut found = Findings::default();
    system(facts, bundle_arch, &mut found);
    tools(lab, facts, &mut found);
    kernel(lab, facts, &mut found);
    if *claim != Claim::Ours {
        modules(lab, facts, &mut found);
    }
    disk(facts, claim, &mut found);
    found.problems.extend(claim.problem(lab.name()));
    // What a lab brings is no news where one is known to be, ours or another.
    if *claim == Claim::Free {
        leftovers(facts, &mut found);
        ports(lab, node, facts, &mut found);
        servers(lab, facts, &mut found);
    }
    networks(lab, facts, &mut found);
    names(facts, &mut found);
    settings(facts, &mut found);
    found
}

/// Settings of the lab that a line of /etc/sysctl.conf takes back: `sysctl --system` applies that file after all others.
fn settings(facts: &Facts, found: &mut Findings) {
    for (key, wanted) in SYSCTLS {
        let sets = |set: &&String| set.split_whitespace().nth(1) == Some(*key);
        let Some(set) = facts.all(fact::SETTING).iter().rev().find(sets) else { continue };
        let (line, value) = (set.split_whitespace().next().unwrap_or("?"), set.split_whitespace().nth(2).unwrap_or(""));
        let is_less = match (value.parse::<u64>(), wanted.parse::<u64>()) {
            (Ok(value), Ok(wanted)) => value < wanted,
            _ => true,
        };
        if is_less {
            let what = format!(
                "/etc/sysctl.conf:{line} sets {key} to {value}, and the lab needs {wanted}: `sysctl --system` takes that line last"
            );
            let hint = format!("Take line {line} out of /etc/sysctl.conf.");
            found.warnings.push(Problem::new(Code::HostKernel, what).hint(hint));
        }
    }
}

fn system(facts: &Facts, bundle_arch: Arch, found: &mut Findings) {
    // openEuler writes its id with a capital.
    let id = &facts.get(fact::OS_ID).unwrap_or("unknown").to_lowercase();
    let like = facts.get(fact::OS_LIKE).unwrap_or_default();
    let known = SYSTEMS.contains(&id.as_str()) || like.split_whitespace().any(|l| SYSTEMS.contains(&l));
    let name = facts.get(fact::OS_NAME).unwrap_or(id);
    if !known {
        found.problems.push(Problem::new(Code::HostOs, format!("{name} is not supported")));
    }
    let version = facts.get(fact::OS_VERSION).and_then(|v| v.split('.').next()).and_then(|v| v.parse::<u32>().ok());
    let too_old = match (id.as_str(), version) {
        ("debian", Some(v)) => v < 12,
        ("ubuntu", Some(v)) => v < 22,
        ("rhel" | "centos" | "rocky" | "almalinux" | "ol", Some(v)) => v < 8,
        _ => false,
    };
    if too_old {
        found.problems.push(Problem::new(Code::HostOs, format!("{name} is too old")));
    }
    if facts.get(fact::INIT) != Some("systemd") {
        let init = facts.get(fact::INIT).unwrap_or("unknown");
        found.problems.push(Problem::new(Code::HostInit, format!("process 1 is {init}, not systemd")));
    }
    match facts.arch() {
        None => {
            let arch = facts.get(fact::ARCH).unwrap_or("unknown");
            found.problems.push(Problem::new(Code::HostArch, format!("the CPU {arch} is not supported")));
        }
        Some(arch) if arch != bundle_arch => {
            let what = format!("the host is {arch}, the bundle is for {bundle_arch}");
            found.problems.push(Problem::new(Code::BundleArch, what));
        }
        Some(_) => {}
    }
}

fn tools(lab: &Lab, facts: &Facts, found: &mut Findings) {
    let mut missing: Vec<_> = TOOLS.iter().filter(|t| !facts.has_tool(t)).copied().collect();
    // Without nft, reset could not remove the tables that kube-proxy makes.
    if lab.profile().proxy.mode == ProxyMode::Nftables && !facts.has_tool("nft") {
        missing.push("nft");
    }
    // Without ipset, neither reset nor its proof could see the sets that kube-proxy makes with the one of its image.
    if lab.profile().proxy.mode == ProxyMode::Ipvs && !facts.has_tool("ipset") {
        missing.push("ipset");
    }
    if !missing.is_empty() {
        let debian = is_debian(facts);
        let mut packages: Vec<_> = missing.iter().map(|tool| package_of(tool, debian)).collect();
        packages.sort_unstable();
        packages.dedup();
        let install = if debian { "apt-get install" } else { "dnf install" };
        let problem = Problem::new(Code::HostTools, format!("programs are missing: {}", missing.join(", ")));
        found.problems.push(problem.hint(format!("Install them: {install} {}.", packages.join(" "))));
    }
}

/// The package that brings a program, in Debian's family or Red Hat's.
fn package_of(tool: &str, debian: bool) -> &str {
    match tool {
        "nft" => "nftables",
        "ip" if debian => "iproute2",
        "ip" => "iproute",
        "mount" if debian => "mount",
        "mount" | "flock" => "util-linux",
        "sha256sum" => "coreutils",
        "systemctl" => "systemd",
        same => same,
    }
}

fn kernel(lab: &Lab, facts: &Facts, found: &mut Findings) {
    let mut say = |what: String, hint: &str| found.problems.push(Problem::new(Code::HostKernel, what).hint(hint));
    let mut modules = vec!["overlay"];
    match lab.profile().proxy.mode {
        ProxyMode::Ipvs => modules.extend(["ip_vs", "ip_vs_rr"]),
        ProxyMode::Nftables if kernel_version(facts) < (5, 13) => {
            let kernel = facts.get(fact::KERNEL).unwrap_or("unknown");
            let hint = "Take --proxy-mode iptables, which works with older ones.";
            say(format!("proxy mode nftables needs Linux 5.13, this is {kernel}"), hint);
        }
        _ => {}
    }
    for module in modules {
        if !facts.has_module(module) {
            // The other ones are those of a proxy mode.
            let hint = if module == "overlay" {
                Code::HostKernel.hint()
            } else {
                "Take --proxy-mode iptables, or install the distribution's whole kernel (linux-modules-extra, kernel-modules)."
            };
            say(format!("the kernel has no {module}, and no such module can be loaded"), hint);
        }
    }
    let have = facts.get(fact::CGROUP_CONTROLLERS).unwrap_or_default();
    let missing: Vec<_> = CONTROLLERS
        .iter()
        .filter(|c| !have.split_whitespace().any(|h| h == **c || h.split(',').any(|p| p == **c)))
        .copied()
        .collect();
    if !missing.is_empty() {
        let version = if facts.cgroup() == Cgroup::V2 { "v2" } else { "v1" };
        found.problems.push(Problem::new(Code::HostCgroup, format!("cgroup {version} lacks {}", missing.join(", "))));
    }
    if facts.number(fact::SWAP) > 0 && !facts.is_container() {
        let what = format!("{} MiB of swap are on", facts.number(fact::SWAP) / MIB);
        let problem = Problem::new(Code::HostSwap, what);
        // No line in /etc/fstab stands for it.
        let zram = facts.get(fact::SWAP_ON).is_some_and(|on| on.contains("/dev/zram"));
        found.problems.push(if zram { problem.hint(NO_ZRAM) } else { problem });
    }
}

/// Modules without which the lab comes up, or seems to, and then pods do not reach each other.
fn modules(lab: &Lab, facts: &Facts, found: &mut Findings) {
    let lacks = |module: &str| !facts.has_module(module) && !facts.is_assumed();
    if lab.profile().network.cni == Cni::Flannel && lab.nodes().len() > 1 && lacks("vxlan") {
        let what = "the kernel has no vxlan, and no such module can be loaded: flannel carries pods' traffic in it";
        let problem = Problem::new(Code::HostKernel, what).hint(WHOLE_KERNEL);
        let to = if facts.yes(fact::MODULES_LISTED) { &mut found.problems } else { &mut found.warnings };
        to.push(problem);
    }
    // Built in it shows as /proc/sys/net/bridge, in a container too, so that nobody need guess.
    if lacks("br_netfilter") && lab.profile().network.cni == Cni::Flannel {
        let what = "the kernel has no br_netfilter, and no such module can be loaded: flannel ends where it is missing";
        let hint = if facts.is_container() {
            "A container loads no modules: load it on the computer below (modprobe br_netfilter), or take --cni bridge."
        } else {
            WHOLE_KERNEL
        };
        found.problems.push(Problem::new(Code::HostKernel, what).hint(hint));
    } else if lacks("br_netfilter") {
        let what =
            "the kernel has no br_netfilter: a pod that asks a Service gets no answer from a pod on the same node";
        found.warnings.push(Problem::new(Code::HostKernel, what));
    }
}

fn kernel_version(facts: &Facts) -> (u32, u32) {
    let mut parts = facts.get(fact::KERNEL).unwrap_or_default().split(['.', '-']).map_while(|p| p.parse().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn disk(facts: &Facts, claim: &Claim, found: &mut Findings) {
    let needed = if *claim == Claim::Ours { FREE_DISK_AGAIN } else { FREE_DISK };
    let free = facts.number(fact::DISK_FREE);
    if free < needed {
        let what = format!("{} MiB are free under /var/lib, {} are needed", free / MIB, needed / MIB);
        found.problems.push(Problem::new(Code::HostDisk, what));
    }
}

fn leftovers(facts: &Facts, found: &mut Findings) {
    // CNI configuration alone may be podman's, or what kubeadm reset left: the lab's containerd has a folder of its own.
    let clusters: Vec<_> = facts
        .all(fact::LEFTOVER)
        .iter()
        .filter(|l| !matches!(l.as_str(), "/etc/cni/net.d" | "/opt/cni/bin"))
        .cloned()
        .collect();
    let others = ["k3s", "k3s-agent", "kubelet"]
        .iter()
        // One that is started again and again is there too.
        .filter(|u| facts.unit(u).is_some())
        .map(|u| format!("{u}.service runs"));
    let all: Vec<_> = clusters.into_iter().chain(others).collect();
    if !all.is_empty() {
        found.problems.push(Problem::new(Code::HostLeftovers, "the host has parts of another cluster").detail(all));
    }
    let kernel = facts.all(fact::REMAINS);
    if !kernel.is_empty() {
        let what = "the kernel still has links, chains or tables of another cluster";
        let problem = Problem::new(Code::HostLeftovers, what).detail(kernel.iter().cloned());
        found.problems.push(problem.hint(gone_with_a_restart(facts.all(fact::SAVED))));
    }
    found.problems.extend(other_kubelet(facts));
}

/// How what is in the kernel goes, where these files bring some of it back at each start.
fn gone_with_a_restart(saved: &[String]) -> String {
    if saved.is_empty() {
        return "kubeadm reset leaves them; a restart of the host takes them away.".to_owned();
    }
    format!(
        "Each start of the host loads rules of a cluster from {}: take those out there first (KUBE-, FLANNEL-, CNI-, \
         kube-proxy). Then a restart of the host takes all of it away.",
        saved.join(" and ")
    )
}

/// A kubelet that something else installed: its drop-ins would win over the lab's unit, and reset would take its unit.
fn other_kubelet(facts: &Facts) -> Option<Problem> {
    let units: Vec<_> = facts.all(fact::OTHER_KUBELET).iter().map(|l| l.split_once(' ').unwrap_or((l, ""))).collect();
    if units.is_empty() {
        return None;
    }
    let mut packages: Vec<_> = units.iter().map(|(_, package)| *package).filter(|p| !p.is_empty()).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut hints = vec![];
    if !packages.is_empty() {
        let remove = if is_debian(facts) { "apt-get purge" } else { "dnf remove" };
        hints.push(format!("Remove the package: {remove} {}.", packages.join(" ")));
    }
    let files: Vec<_> = units.iter().filter(|(_, package)| package.is_empty()).map(|(file, _)| *file).collect();
    if !files.is_empty() {
        hints.push(format!("Remove it: systemctl disable --now kubelet; rm {}.", files.join(" ")));
    }
    let lines = units.iter().map(|(file, by)| match *by {
        "" => (*file).to_owned(),
        by => format!("{file} of the package {by}"),
    });
    let problem = Problem::new(Code::HostLeftovers, "the host has a kubelet that is not the lab's").detail(lines);
    Some(hints.into_iter().fold(problem, Problem::hint))
}

fn is_debian(facts: &Facts) -> bool {
    matches!(facts.get(fact::OS_ID), Some("debian" | "ubuntu"))
        || facts.get(fact::OS_LIKE).unwrap_or_default().contains("debian")
}

fn ports(lab: &Lab, node: &NodeSpec, facts: &Facts, found: &mut Findings) {
    let mut wanted = vec![10250, 10256, 10249, 10248];
    if lab.control_plane().name == node.name {
        // 2381 is where etcd tells its metrics and health, on the loopback.
        wanted.extend([6443, 2379, 2380, 2381, 10257, 10259]);
    }
    for line in facts.all(fact::LISTEN) {
        let (port, by) = line.split_once(' ').unwrap_or((line, ""));
        if port.parse().is_ok_and(|p: u16| wanted.contains(&p)) {
            let name = by.split('"').nth(1).map(|n| format!(" by {n}")).unwrap_or_default();
            found.problems.push(Problem::new(Code::HostPort, format!("port {port} is taken{name}")));
        }
    }
    let carries = lab.profile().network.cni == Cni::Flannel && lab.nodes().len() > 1;
    if carries && facts.all(fact::LISTEN_UDP).iter().any(|port| *port == VXLAN.to_string()) {
        let what = format!("UDP port {VXLAN} is taken, in which flannel carries pods' traffic");
        found.problems.push(Problem::new(Code::HostPort, what));
    }
}

/// Virtual servers of others, as keepalived's, which kube-proxy would not spare: at its start it empties the whole list in
/// nftables mode, and takes what is no Service of the cluster in ipvs mode.
fn servers(lab: &Lab, facts: &Facts, found: &mut Findings) {
    let (count, mode) = (facts.number(fact::IPVS_FOREIGN), lab.profile().proxy.mode);
    // With this link they are those of a cluster of before, and told as its left-overs.
    let is_clusters = facts.all(fact::REMAINS).iter().any(|left| left == "link kube-ipvs0");
    if count == 0 || mode == ProxyMode::Iptables || is_clusters {
        return;
    }
    let are = if count == 1 { "1 virtual server is".to_owned() } else { format!("{count} virtual servers are") };
    let what = format!("{are} on the host (/proc/net/ip_vs), which kube-proxy removes when it starts in {mode} mode");
    let hint = "Take --proxy-mode iptables, which leaves them alone, or a host without such servers.";
    found.problems.push(Problem::new(Code::HostNetwork, what).hint(hint));
}

fn networks(lab: &Lab, facts: &Facts, found: &mut Findings) {
    if facts.address().is_none() && !facts.is_assumed() {
        found.problems.push(Facts::no_address());
    }
    for (what, cidr) in [("pod", lab.pod_cidr()), ("service", lab.service_cidr())] {
        // The links of a cluster are the lab's, or left-overs that are told as such: other CIDRs would not help.
        let clash = facts.addresses().into_iter().find(|a| !is_clusters(&a.link) && overlaps(cidr, a.ip, a.prefix));
        if let Some(address) = clash {
            let text = format!("{} {}/{} lies in the {what} network {cidr}", address.link, address.ip, address.prefix);
            found.problems.push(Problem::new(Code::HostNetwork, text));
        }
    }
}

/// Where pods' questions go. The host's own name needs no look: `up` writes it into /etc/hosts.
fn names(facts: &Facts, found: &mut Findings) {
    let servers = facts.all(fact::RESOLVER);
    let itself = |s: &&String| s.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if let Some(server) = servers.iter().find(itself) {
        let what =
            format!("its name server is {server}, the host itself: to CoreDNS that is CoreDNS, a loop that ends it");
        found.problems.push(Problem::new(Code::HostNames, what).hint(
            "Name a server outside of the host in /etc/resolv.conf, or run systemd-resolved, whose servers are taken.",
        ));
    }
    if servers.is_empty() && !facts.is_assumed() {
        let warning =
            Problem::new(Code::HostNames, "no name server is configured: pods will resolve names of the cluster only");
        found.warnings.push(warning.hint("Set one in /etc/resolv.conf if pods need the Internet."));
    }
    // The kubelet gives CoreDNS the first three.
    if !servers.is_empty() && servers.iter().take(3).all(|s| s.contains(':') && !itself(&s)) {
        let what = "its name servers are of IPv6 only, and pods have IPv4 only: they will wait in vain for names of the Internet";
        found.warnings.push(Problem::new(Code::HostNames, what).hint(
            "Name an IPv4 one in /etc/resolv.conf, or with systemd-resolved as DNS= in /etc/systemd/resolved.conf, if pods need \
             the Internet.",
        ));
    }
    // Asked only where no lab is yet; no reason to refuse, since a lab may live without any.
    let silent = facts.all(fact::SILENT);
    if !silent.is_empty() {
        // Three are asked at most; CoreDNS goes on to one that answers.
        let so = if silent.len() >= servers.len().min(3) {
            "pods will wait in vain for names of the Internet"
        } else {
            "names of the Internet will come late at times"
        };
        let what = format!("no answer from its name server {}: {so}", silent.join(", "));
        let hint = "Name one that answers in /etc/resolv.conf, or open UDP port 53 to it, if pods need the Internet.";
        found.warnings.push(Problem::new(Code::HostNames, what).hint(hint));
    }
}

fn is_clusters(link: &str) -> bool {
    link == "cni0" || link.starts_with("flannel") || link.starts_with("kube-ipvs0")
}

fn overlaps(cidr: Cidr, ip: Ipv4Addr, prefix: u8) -> bool {
    Cidr::around(ip, prefix).is_some_and(|c| c.overlaps(cidr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_takes_a_setting_back_is_named() {
        let warned = |text: &str| {
            let mut found = Findings::default();
            settings(&Facts::parse(text), &mut found);
            assert!(found.problems.is_empty());
            found.warnings.into_iter().map(|w| (w.code, w.what)).collect::<Vec<_>>()
        };
        let found = warned("setting=7 net.ipv4.ip_forward 0\nsetting=9 fs.inotify.max_user_watches 8192\n");
        assert!(found.iter().all(|(code, _)| *code == Code::HostKernel));
        for (what, words) in found.iter().zip([
            "/etc/sysctl.conf:7 sets net.ipv4.ip_forward to 0, and the lab needs 1",
            "/etc/sysctl.conf:9 sets fs.inotify.max_user_watches to 8192, and the lab needs 524288",
        ]) {
            assert!(what.1.starts_with(words), "{}", what.1);
        }
        assert_eq!(found.len(), 2);
        let none = "setting=1 net.ipv4.ip_forward 0\nsetting=2 net.ipv4.ip_forward 1\n\
                    setting=3 fs.inotify.max_user_instances 8192\nsetting=4 kernel.panic 0\n";
        assert_eq!(warned(none), []);
    }
}
