use super::*;
use crate::{
    core::LabId,
    profile::{self, Cni, ProxyMode},
};

fn lab() -> Lab {
    Lab::new("lab".parse().unwrap(), profile::load("3x2c4g").unwrap()).unwrap()
}

fn good(n: u8) -> String {
    format!(
        "os.id=debian\nos.version=13\narch=x86_64\ninit=systemd\nhostname=h{n}\nmachine_id=m{n}\nmac=eth0 00:00:00:00:00:0{n}\n\
         addr=eth0 192.0.2.{n}/24\nroute.source=192.0.2.{n}\ncores=2\nmemory=4294967296\ndisk.total=32212254720\ndisk.free=20000000000\n\
         cgroup=v2\ncgroup.controllers=cpu cpuset memory pids\nkernel=6.12.0-x\nheard=1000\nnow=1000.0\nmodule.overlay=yes\nmodule.vxlan=yes\nmodule.br_netfilter=yes\nresolver=192.0.2.1\n\
         tool.iptables=yes\ntool.ip=yes\ntool.mount=yes\ntool.systemctl=yes\ntool.flock=yes\ntool.sha256sum=yes\ntool.bash=yes\ntool.nft=yes\ntool.ipset=yes\n"
    )
}

fn codes(change: impl Fn(u8) -> String) -> Vec<Code> {
    problems(change).iter().map(|p| p.code).collect()
}

fn problems(change: impl Fn(u8) -> String) -> Vec<Problem> {
    let nodes = ["cp", "worker-1", "worker-2"];
    let fleet = nodes
        .iter()
        .zip(1..)
        .map(|(n, i)| (n.parse().unwrap(), Facts::parse(&format!("{}{}", good(i), change(i)))))
        .collect();
    from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default()).problems
}

#[test]
fn good_hosts_pass() {
    assert_eq!(codes(|_| String::new()), []);
}

#[test]
fn every_supported_family_passes() {
    for os in ["os.id=openEuler\nos.version=24.03", "os.id=rocky\nos.version=9.6", "os.id=x\nos.like=rhel fedora"] {
        assert_eq!(codes(|_| format!("{os}\n")), [], "{os}");
    }
}

#[test]
fn the_hint_names_the_oldest_systems_that_are_taken() {
    let hint = Code::HostOs.hint();
    for (id, oldest, words) in
        [("debian", 12, "Debian 12 "), ("ubuntu", 22, "Ubuntu 22.04 "), ("rocky", 8, "RHEL-like 8, ")]
    {
        assert!(hint.contains(words), "{hint}");
        assert_eq!(codes(|_| format!("os.id={id}\nos.version={oldest}.1\n")), [], "{id}");
        let older = codes(|_| format!("os.id={id}\nos.version={}\n", oldest - 1));
        assert!(!older.is_empty() && older.iter().all(|code| *code == Code::HostOs), "{id}: {older:?}");
    }
}

#[test]
fn each_fault_has_its_code() {
    for (fact, code) in [
        ("os.id=plan9", Code::HostOs),
        ("os.version=11", Code::HostOs),
        ("init=runit", Code::HostInit),
        ("arch=riscv64", Code::HostArch),
        ("arch=aarch64", Code::BundleArch),
        ("swap=1073741824", Code::HostSwap),
        ("listen=6443 users:((\"nginx\",pid=1))", Code::HostPort),
        ("listen=2381 users:((\"etcd\",pid=1))", Code::HostPort),
        ("listen.udp=8472", Code::HostPort),
        ("leftover=/etc/kubernetes/admin.conf", Code::HostLeftovers),
        ("kubelet=/etc/systemd/system/kubelet.service", Code::HostLeftovers),
        ("unit.kubelet=active", Code::HostLeftovers),
        ("unit.kubelet=activating", Code::HostLeftovers),
        ("unit.k3s=active", Code::HostLeftovers),
        ("remains=chain KUBE-KUBELET-CANARY", Code::HostLeftovers),
        ("lab=other", Code::HostTaken),
        ("lab=lab", Code::HostTaken),
        ("tool.iptables=no", Code::HostTools),
        ("module.overlay=", Code::HostKernel),
        ("kernel=5.10.0", Code::HostKernel),
        ("cgroup.controllers=cpu cpuset pids", Code::HostCgroup),
        ("modules.listed=yes\nmodule.vxlan=", Code::HostKernel),
        ("module.br_netfilter=", Code::HostKernel),
        ("resolver=127.0.0.1", Code::HostNames),
        ("resolver=::1", Code::HostNames),
        ("disk.free=1000", Code::HostDisk),
        ("addr=docker7 10.96.3.1/24", Code::HostNetwork),
        ("addr=docker7 10.244.3.1/24", Code::HostNetwork),
        ("now=2000.0", Code::HostClock),
    ] {
        let found = codes(|i| if i == 1 { format!("{fact}\n") } else { String::new() });
        assert!(found.contains(&code), "{fact}: {found:?}");
    }
}

/// What a code advises in general would mend none of these.
#[test]
fn a_fault_of_its_own_kind_has_a_hint_of_its_own() {
    let iptables = "--proxy-mode iptables";
    for (mode, instead, fact, code, hint) in [
        (ProxyMode::Nftables, "kernel=4.18.0", "kernel=6.12.0-x", Code::HostKernel, iptables),
        (ProxyMode::Ipvs, "", "module.ip_vs=yes\n", Code::HostKernel, iptables),
        (ProxyMode::Ipvs, "", "module.ip_vs_rr=yes\n", Code::HostKernel, iptables),
        (ProxyMode::Ipvs, "", "tool.ipset=yes\n", Code::HostTools, "apt-get install ipset"),
        (ProxyMode::Iptables, "module.overlay=", "module.overlay=yes", Code::HostKernel, Code::HostKernel.hint()),
        (ProxyMode::Iptables, "", "addr=eth0 192.0.2.1/24\n", Code::HostNetwork, "an IPv4 address"),
        (ProxyMode::Iptables, "swap=9\nswap.on=/dev/zram0 ", "module.ip_vs=yes", Code::HostSwap, "zram-generator.conf"),
        (ProxyMode::Iptables, "swap=9\nswap.on=/swap.img ", "module.ip_vs=yes", Code::HostSwap, Code::HostSwap.hint()),
    ] {
        let mut profile = profile::load("3x2c4g").unwrap();
        profile.proxy.mode = mode;
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let whole = format!("{}module.ip_vs=yes\nmodule.ip_vs_rr=yes\n", good(1));
        let found = |text: &str| {
            let fleet = [("cp".parse().unwrap(), Facts::parse(text))].into();
            from_facts(&lab, &Owner::new(), &fleet, Arch::Amd64, Allowances::default()).problems
        };
        assert!(found(&whole).is_empty(), "{mode:?}");
        let problems = found(&whole.replace(fact, instead));
        assert_eq!(problems.iter().map(|p| p.code).collect::<Vec<_>>(), [code], "{fact}");
        assert!(problems[0].all_hints()[0].contains(hint), "{}", problems[0]);
    }
}

#[test]
fn a_hint_names_no_way_that_leads_nowhere() {
    for (fact, way_out) in [("disk.free=1000", "under /var/lib"), ("arch=riscv64", "amd64 or arm64")] {
        let nodes = ["cp", "worker-1", "worker-2"].iter().zip(1..);
        let fleet = nodes.map(|(n, i)| (n.parse().unwrap(), Facts::parse(&format!("{}{fact}\n", good(i))))).collect();
        let allow = Allowances { undersized: true, ..Allowances::default() };
        let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, allow).problems;
        assert_eq!(found.len(), 3, "{fact} is refused all the same: {found:?}");
        for problem in found {
            let hint = problem.all_hints().join(" ");
            assert!(hint.contains(way_out) && !hint.contains("--a"), "{hint}");
        }
    }
}

#[test]
fn hosts_may_be_asked_at_different_times() {
    let asked = |now: fn(u8) -> u32| codes(move |i| format!("heard={}\nnow={}.25\n", 900 + 60 * u32::from(i), now(i)));
    assert_eq!(asked(|i| 1000 + 60 * u32::from(i)), []);
    assert_eq!(asked(|_| 1000), [Code::HostClock, Code::HostClock], "the same time said a minute later is wrong");
    let problems = problems(|i| if i == 1 { "now=9000.0\n".into() } else { String::new() });
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].on.as_ref().unwrap().as_str(), "cp", "the first host's wrong clock is the first host's");
    assert_eq!(asked(|i| 1000 + 75 * u32::from(i)), [], "fifteen and thirty seconds are within the tolerance");
}

/// The kernel takes no route to what lies beyond a gateway.
#[test]
fn the_bridge_cni_needs_hosts_on_one_network() {
    let found = |cni, prefix: &str, words: &str| -> Vec<Problem> {
        let mut profile = profile::load("3x2c4g").unwrap();
        profile.network.cni = cni;
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let facts = |i| Facts::parse(&format!("{}{words}\n", good(i).replace("/24\n", prefix)));
        let fleet = lab.nodes().iter().zip(1..).map(|(n, i)| (n.name.clone(), facts(i))).collect();
        from_facts(&lab, &Owner::new(), &fleet, Arch::Amd64, Allowances::default()).problems
    };
    // Alone in prefixes of their own, as some clouds give them.
    let apart = found(Cni::Bridge, "/32\n", "");
    assert_eq!(apart.iter().map(|p| p.code).collect::<Vec<_>>(), [Code::HostNetwork; 3]);
    assert!(apart[0].what.starts_with("it shares no network with worker-1 at 192.0.2.2, worker-2 at 192.0.2.3, "));
    assert!(apart[0].all_hints()[0].contains("--cni flannel"), "{}", apart[0]);
    let half = found(Cni::Bridge, "/31\n", "");
    let told: Vec<_> =
        half.iter().map(|p| (p.on.as_ref().unwrap().as_str(), p.what.contains("worker-2 at "))).collect();
    assert_eq!(told, [("cp", true), ("worker-1", false), ("worker-2", false)], "2 and 3 are in one prefix");
    for (cni, prefix, words) in [
        (Cni::Flannel, "/32\n", ""),
        (Cni::Bridge, "/24\n", ""),
        (Cni::Bridge, "/32\n", "route=192.0.2.0/24 eth0"),
        (Cni::Bridge, "/32\n", "route=0.0.0.0/0 venet0"),
        (Cni::Bridge, "/32\n", "route=192.0.2.1 wg0\nroute=192.0.2.2 wg0\nroute=192.0.2.3 wg0"),
    ] {
        let problems = found(cni, prefix, words);
        assert!(problems.is_empty(), "{cni:?} {prefix} {words}: {problems:?}");
    }
}

/// Certificates are read here, however well the hosts agree with each other.
#[test]
fn clocks_are_compared_with_this_computers() {
    let found = |hosts: u8, words: &str| {
        let nodes = ["cp", "worker-1", "worker-2"].iter().zip(1..=hosts);
        let facts = |i: u8| Facts::parse(&format!("{}{words}\n", good(i)));
        let fleet = nodes.map(|(n, i)| (n.parse().unwrap(), facts(i))).collect();
        let owner = Owner { id: LabId::new("aaaa"), known: true };
        from_facts(&lab(), &owner, &fleet, Arch::Amd64, Allowances::default())
    };
    for (hosts, now, what) in [
        (1, 8200, "its clock is 7200 s ahead of this computer's"),
        (3, 8200, "the clocks of cp, worker-1, worker-2 are 7200 s ahead of this computer's"),
    ] {
        let problems = found(hosts, &format!("now={now}.0")).problems;
        let told: Vec<_> = problems.iter().map(|p| (p.code, p.what.as_str())).collect();
        assert_eq!(told, [(Code::HostClock, what)]);
        assert!(problems[0].on.is_some() && problems[0].all_hints()[0].contains("this computer's"), "{}", problems[0]);
        let again = found(hosts, &format!("lab=lab\nlab.id=aaaa\nnow={now}.0"));
        assert!(again.problems.is_empty(), "{:?}", again.problems);
        assert_eq!(again.warnings.iter().map(|w| w.what.as_str()).collect::<Vec<_>>(), [what]);
    }
    // What was made there has begun here.
    let behind = found(1, "now=759.0");
    assert!(behind.problems.is_empty(), "{:?}", behind.problems);
    assert_eq!(behind.warnings[0].what, "its clock is 241 s behind this computer's");
    let dead = Facts::parse(&format!("{}heard=2000000000\nnow=1000.0\n", good(1)));
    let dead =
        from_facts(&lab(), &Owner::new(), &[("cp".parse().unwrap(), dead)].into(), Arch::Amd64, Allowances::default());
    assert_eq!(
        dead.problems.iter().map(|p| p.code).collect::<Vec<_>>(),
        [Code::HostClock],
        "its certificates are over here"
    );
    for now in [760, 940, 1000, 1003, 1240] {
        let seen = found(3, &format!("now={now}.0"));
        assert!(seen.problems.is_empty() && seen.warnings.is_empty(), "{now}: {:?} {:?}", seen.problems, seen.warnings);
    }
}

#[test]
fn twins_are_named() {
    for (same, word, hint) in [
        ("machine_id=same", "machine-id same", "systemd-machine-id-setup"),
        ("hostname=same", "host name same", "hostnamectl set-hostname"),
        ("mac=eth1 52:54:00:12:34:56", "MAC address 52:54:00:12:34:56", "new MAC address"),
        ("addr=eth1 10.0.2.15/24\nroute.source=10.0.2.15", "address 10.0.2.15", "a bridged network"),
        ("addr=eth1 10.0.0.4/24\nroute.source=10.0.0.4", "address 10.0.0.4", "a peering or a VPN"),
    ] {
        let found = problems(|i| if i > 1 { format!("{same}\n") } else { String::new() });
        let told: Vec<_> = found.iter().map(|p| (p.code, p.what.as_str())).collect();
        assert_eq!(told, [(Code::HostTwin, format!("worker-1 and worker-2 have the same {word}").as_str())]);
        assert!(matches!(&found[0].all_hints()[..], [only] if only.contains(hint)), "{}", found[0]);
    }
}

/// Only iptables mode leaves them alone; where a lab is they may be its own.
#[test]
fn virtual_servers_of_others_keep_a_lab_away_that_would_remove_them() {
    let found = |mode, words: &str| -> Vec<Problem> {
        let mut profile = profile::load("3x2c4g").unwrap();
        profile.proxy.mode = mode;
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let facts = Facts::parse(&format!("{}module.ip_vs=yes\nmodule.ip_vs_rr=yes\n{words}\n", good(1)));
        let owner = Owner { id: LabId::new("aaaa"), known: true };
        from_facts(&lab, &owner, &[("cp".parse().unwrap(), facts)].into(), Arch::Amd64, Allowances::default()).problems
    };
    for mode in [ProxyMode::Nftables, ProxyMode::Ipvs, ProxyMode::Iptables] {
        let refused = (mode != ProxyMode::Iptables).then_some(Code::HostNetwork);
        for (words, code) in [
            ("ipvs.foreign=0", None),
            ("ipvs.foreign=1", refused),
            ("ipvs.foreign=3", refused),
            ("ipvs.foreign=3\nlab=lab\nlab.id=aaaa", None),
            ("ipvs.foreign=3\nlab=other\nlab.id=bbbb", Some(Code::HostTaken)),
            ("ipvs.foreign=3\nremains=link kube-ipvs0", Some(Code::HostLeftovers)),
        ] {
            let codes: Vec<_> = found(mode, words).iter().map(|p| p.code).collect();
            assert_eq!(codes, Vec::from_iter(code), "{mode} {words}");
        }
    }
    let told = found(ProxyMode::Nftables, "ipvs.foreign=3").remove(0);
    assert!(told.what.starts_with("3 virtual servers are ") && told.what.ends_with(" in nftables mode"), "{told}");
    assert!(told.all_hints()[0].contains("--proxy-mode iptables"), "{told}");
}

/// Every host that loads the modules of such tunnels has these links.
#[test]
fn links_without_an_address_make_no_twins() {
    let tunnels = "mac=gretap0 00:00:00:00:00:00\nmac=erspan0 00:00:00:00:00:00\n";
    assert_eq!(codes(|_| tunnels.to_owned()), []);
}

/// Two aliases of ssh may lead to the same host.
#[test]
fn a_host_that_is_given_twice_is_no_clone() {
    let nodes = [("cp", 1), ("worker-1", 2), ("worker-2", 2)];
    let fleet = nodes.iter().map(|(n, i)| (n.parse().unwrap(), Facts::parse(&good(*i)))).collect();
    let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default()).problems;
    let told: Vec<_> = found.iter().map(|p| (p.code, p.on.as_ref().unwrap().as_str())).collect();
    assert_eq!(told, [(Code::HostTwin, "worker-2")], "{found:?}");
    assert!(found[0].what.contains("the host of worker-1, given twice"), "{}", found[0]);
    assert_eq!(found[0].all_hints(), ["Give each node a host of its own."]);
}

#[test]
fn all_shortfalls_in_one_table() {
    let fleet: BTreeMap<NodeId, Facts> = ["cp", "worker-1", "worker-2"]
        .iter()
        .zip(1..)
        .map(|(n, i)| (n.parse().unwrap(), Facts::parse(&format!("{}cores=1\nmemory=2147483648\n", good(i)))))
        .collect();
    let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default());
    assert_eq!(found.problems.len(), 1);
    let table = &found.problems[0].detail;
    assert_eq!(table.len(), 7);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&table[0]), ["NODE", "OF", "HAS", "NEEDS"]);
    assert_eq!(words(&table[1]), ["cp", "cores", "1", "2"]);
    let allowed = from_facts(
        &lab(),
        &Owner::new(),
        &fleet,
        Arch::Amd64,
        Allowances { undersized: true, ..Allowances::default() },
    );
    assert!(allowed.problems.is_empty() && allowed.warnings.iter().any(|w| w.code == Code::HostTooSmall));
}

/// Two students, both with a first lab, which is called `lab`, name the same host.
#[test]
fn a_host_is_ours_by_the_labs_id_and_not_by_its_name() {
    let nodes = ["cp", "worker-1", "worker-2"];
    let found = |owner: &Owner, words: &str, allow| {
        let facts = |i| Facts::parse(&format!("{}{words}\nlisten=6443\n", good(i)));
        let fleet = nodes.iter().zip(1..).map(|(n, i)| (n.parse().unwrap(), facts(i))).collect();
        from_facts(&lab(), owner, &fleet, Arch::Amd64, allow)
    };
    let codes = |owner: &Owner, words: &str| -> Vec<Code> {
        found(owner, words, Allowances::default()).problems.iter().map(|p| p.code).collect()
    };
    let mine = Owner { id: LabId::new("aaaa"), known: true };
    let first_time = Owner { id: LabId::new("bbbb"), known: false };
    assert_eq!(codes(&mine, "lab=lab\nlab.id=aaaa\nlisten=2381"), []);
    assert_eq!(codes(&first_time, "lab=lab\nlab.id=aaaa"), [Code::HostTaken; 3]);
    assert_eq!(codes(&mine, "lab=lab\nlab.id=bbbb"), [Code::HostTaken; 3]);
    // Claimed by a version that knew no ids: by the name, where the lab's folder is there.
    assert_eq!(codes(&mine, "lab=lab"), []);
    assert_eq!(codes(&first_time, "lab=lab"), [Code::HostTaken; 3]);
    let told = found(&first_time, "lab=lab\nlab.id=aaaa", Allowances::default());
    assert!(told.problems[0].all_hints().iter().any(|h| h.contains("--take-over")), "{}", told.problems[0]);
    let allow = Allowances { take_over: true, ..Allowances::default() };
    let taken = found(&first_time, "lab=lab\nlab.id=aaaa", allow);
    assert!(taken.problems.is_empty() && taken.warnings.iter().any(|w| w.code == Code::HostTaken));
    assert_eq!(found(&first_time, "lab=other\nlab.id=aaaa", allow).problems[0].code, Code::HostTaken);
}

/// A new authority would come beside everything that trusts the old one.
#[test]
fn a_cluster_without_the_authority_it_was_made_with_is_refused() {
    let owner = Owner { id: LabId::new("aaaa"), known: true };
    let found = |name: &str, cp: &str, worker: &str| {
        let lab = Lab::new(name.parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let facts = |n, words: &str| {
            let size = "cores=4\nmemory=8589934592\ndisk.total=64424509440";
            Facts::parse(&format!("{}{size}\nlab={name}\nlab.id=aaaa\n{words}\n", good(n)))
        };
        let fleet = [("cp".parse().unwrap(), facts(1, cp)), ("worker-1".parse().unwrap(), facts(2, worker))].into();
        from_facts(&lab, &owner, &fleet, Arch::Amd64, Allowances::default()).problems
    };
    let (data, whole) = ("leftover=/var/lib/etcd/member", "ca=MIIDold\nca.key=yes");
    for (cp, worker, words) in [
        (data.to_owned(), "", "no ca.crt and no ca.key in"),
        (format!("{data}\nca=MIIDold"), "", "no ca.key in"),
        (format!("{data}\nca.key=yes"), "", "no ca.crt in"),
        (String::new(), "joined=yes\nca=MIIDold", "no ca.crt and no ca.key in"),
        (format!("{data}\nca=MIIDnew\nca.key=yes"), "joined=yes\nca=MIIDold", "not the one that the workers"),
    ] {
        for (name, way) in
            [("lab", "kubecamp reset, then kubecamp up."), ("x", "kubecamp reset --name x, then kubecamp up --name x.")]
        {
            let problems = found(name, &cp, worker);
            assert!(matches!(&problems[..], [one] if one.code == Code::ClusterLost), "{cp}: {problems:?}");
            assert!(problems[0].what.contains(words) && problems[0].all_hints()[0].ends_with(way), "{}", problems[0]);
        }
    }
    // As a run leaves it that was killed: before there was an authority, before etcd had data, in kubeadm init, in a join.
    for (cp, worker) in [
        (String::new(), ""),
        (whole.to_owned(), ""),
        (format!("{data}\n{whole}"), ""),
        (format!("{data}\n{whole}"), "ca=MIIDolder"),
        (format!("{data}\n{whole}"), "joined=yes"),
        (format!("{data}\n{whole}"), "joined=yes\nca=MIIDold"),
        // Replaced: workers trust both for as long as that takes.
        (format!("{data}\nca=MIIDnew\nca.key=yes"), "joined=yes\nca=MIIDold\nca=MIIDnew"),
    ] {
        assert_eq!(found("lab", &cp, worker).len(), 0, "{cp} {worker}");
    }
}

#[test]
fn a_packaged_kubelet_is_named_with_its_packages() {
    let units = "kubelet=/usr/lib/systemd/system/kubelet.service kubelet\n\
                 kubelet=/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf kubeadm\n";
    let fleet = [("cp".parse().unwrap(), Facts::parse(&format!("{}{units}", good(1))))].into();
    let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default());
    assert_eq!(found.problems.len(), 1);
    assert_eq!(found.problems[0].all_hints(), ["Remove the package: apt-get purge kubeadm kubelet."]);
    assert!(found.problems[0].detail[1].ends_with("10-kubeadm.conf of the package kubeadm"), "{}", found.problems[0]);
}

#[test]
fn missing_programs_are_told_by_their_packages() {
    for (os, command) in [
        ("os.id=ubuntu\nos.version=24.04", "apt-get install coreutils iproute2 iptables mount nftables util-linux"),
        ("os.id=rocky\nos.version=9.6", "dnf install coreutils iproute iptables nftables util-linux"),
    ] {
        let tools = ["nft", "ip", "mount", "flock", "sha256sum", "iptables"];
        let none: String = tools.iter().map(|t| format!("tool.{t}=\n")).collect();
        let fleet = [("cp".parse().unwrap(), Facts::parse(&format!("{}{os}\n{none}", good(1))))].into();
        let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default());
        assert_eq!(found.problems.iter().map(|p| p.code).collect::<Vec<_>>(), [Code::HostTools]);
        assert_eq!(found.problems[0].all_hints(), [format!("Install them: {command}.")]);
    }
}

/// Other CIDRs would not take away what an earlier cluster left.
#[test]
fn a_stale_link_is_a_leftover_and_no_clash_of_networks() {
    let stale = "addr=cni0 10.244.0.1/24\naddr=kube-ipvs0 10.96.0.1/32\nremains=link cni0\nremains=link kube-ipvs0\n";
    assert_eq!(codes(|i| if i == 2 { stale.into() } else { String::new() }), [Code::HostLeftovers]);
    let ours = |i| if i == 2 { "addr=cni0 10.244.0.1/24\n".to_owned() } else { String::new() };
    assert_eq!(codes(ours), []);
}

#[test]
fn a_restart_alone_does_not_take_away_what_it_loads_anew() {
    let hint = |saved: &str| {
        let facts = Facts::parse(&format!("{}remains=chain KUBE-SERVICES\n{saved}", good(1)));
        let fleet = [("cp".parse().unwrap(), facts)].into();
        let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default());
        assert_eq!(found.problems.iter().map(|p| p.code).collect::<Vec<_>>(), [Code::HostLeftovers]);
        found.problems[0].all_hints().remove(0)
    };
    assert!(hint("").ends_with("a restart of the host takes them away."));
    let files = "saved=/etc/iptables/rules.v4\nsaved=/etc/iptables/rules.v6\n";
    assert!(hint(files).contains(" from /etc/iptables/rules.v4 and /etc/iptables/rules.v6: "));
}

#[test]
fn name_servers_that_pods_have_no_way_to_are_warned_about() {
    let warned = |servers: &[&str]| -> Vec<Code> {
        let lines: String = servers.iter().map(|server| format!("resolver={server}\n")).collect();
        let facts = Facts::parse(&good(1).replace("resolver=192.0.2.1\n", &lines));
        let fleet = [("cp".parse().unwrap(), facts)].into();
        let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default());
        found.warnings.iter().map(|w| w.code).collect()
    };
    let (one, two, link) = ("2001:db8::1", "2001:db8::2", "fe80::1%eth0");
    assert_eq!(warned(&[one, link]), [Code::HostNames]);
    assert_eq!(warned(&[one, two, link, "192.0.2.1"]), [Code::HostNames], "the fourth is not taken");
    assert_eq!(warned(&[one, "192.0.2.1"]), []);
}

#[test]
fn what_pods_will_lack_is_warned_about() {
    let warned = |words: &str| -> Vec<Code> {
        let text = format!("{}{words}\n", good(1));
        let text = if words == "no resolver" { text.replace("resolver=192.0.2.1\n", "") } else { text };
        let fleet = [("cp".parse().unwrap(), Facts::parse(&text))].into();
        let found = from_facts(&lab(), &Owner::new(), &fleet, Arch::Amd64, Allowances::default());
        assert!(found.problems.is_empty(), "{words}: {:?}", found.problems);
        found.warnings.iter().map(|w| w.code).collect()
    };
    assert_eq!(warned(""), []);
    assert_eq!(warned("no resolver"), [Code::HostNames]);
    assert_eq!(warned("silent=192.0.2.1"), [Code::HostNames]);
    // In a container nobody can tell.
    assert_eq!(warned("module.vxlan="), [Code::HostKernel]);
}

/// flannel looks for it at its start, and ends.
#[test]
fn a_kernel_without_br_netfilter_carries_no_flannel() {
    let found = |cni, words: &str| {
        let mut profile = profile::load("3x2c4g").unwrap();
        profile.network.cni = cni;
        let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
        let facts = Facts::parse(&format!("{}module.br_netfilter=\n{words}\n", good(1)));
        let fleet = [("cp".parse().unwrap(), facts)].into();
        from_facts(&lab, &Owner::new(), &fleet, Arch::Amd64, Allowances::default())
    };
    for (words, hint) in [
        ("", "linux-modules-extra"),
        ("modules.listed=yes", "linux-modules-extra"),
        ("container=yes", "on the computer below (modprobe br_netfilter)"),
    ] {
        let flannel = found(Cni::Flannel, words);
        assert_eq!(flannel.problems.iter().map(|p| p.code).collect::<Vec<_>>(), [Code::HostKernel], "{words}");
        let told = flannel.problems[0].all_hints().remove(0);
        assert!(told.contains(hint) && told.ends_with("or take --cni bridge."), "{told}");
        let bridge = found(Cni::Bridge, words);
        assert!(bridge.problems.is_empty(), "{words}: {:?}", bridge.problems);
        assert_eq!(bridge.warnings.iter().map(|w| w.code).collect::<Vec<_>>(), [Code::HostKernel], "{words}");
    }
}
