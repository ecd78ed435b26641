use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use crate::{
    core::{Bytes, Code, NodeId, Problem},
    host::{Facts, fact},
    profile::{Cidr, Cni, Lab, Size, shortfalls},
};

/// Largest difference between two hosts' clocks: certificates are valid from the moment of their making.
const SKEW: Duration = Duration::from_secs(30);

/// Largest difference between the hosts' clocks and this computer's, by which users read the API server's certificate.
///
/// kubeadm dates its certificates five minutes back, so that they are not valid yet for a computer that is further
/// behind. A minute less, for [`SKEW`] and for the time that a host's answer takes on a slow link.
const SKEW_HERE: Duration = Duration::from_secs(4 * 60);

/// How long a certificate of kubeadm is valid, less some weeks for the lab's life.
const YEAR: Duration = Duration::from_secs(300 * 86_400);

/// Every shortfall of every host in one table.
pub(super) fn too_small(lab: &Lab, fleet: &BTreeMap<NodeId, Facts>) -> Option<Problem> {
    let mut rows = vec![];
    for node in lab.nodes() {
        let Some(facts) = fleet.get(&node.name).filter(|f| !f.is_assumed()) else { continue };
        let have = Size {
            cores: u32::try_from(facts.number(fact::CORES)).unwrap_or(u32::MAX),
            memory: Bytes(facts.number(fact::MEMORY)),
            disk: Bytes(facts.number(fact::DISK_TOTAL)),
        };
        for short in shortfalls(&node.size(), &have) {
            rows.push(format!("{:<14} {:<8} {:>8} {:>8}", node.name, short.what, short.have_text(), short.want_text()));
        }
    }
    (!rows.is_empty()).then(|| {
        rows.insert(0, format!("{:<14} {:<8} {:>8} {:>8}", "NODE", "OF", "HAS", "NEEDS"));
        Problem::new(Code::HostTooSmall, format!("hosts are smaller than layout {} asks", lab.layout())).detail(rows)
    })
}

/// Hosts that are one host given twice, and hosts that are clones of each other.
pub(super) fn twins(fleet: &BTreeMap<NodeId, Facts>) -> Vec<Problem> {
    let (mut hosts, mut found): (Vec<(&NodeId, &Facts)>, Vec<Problem>) = (vec![], vec![]);
    for (node, facts) in fleet.iter().filter(|(_, f)| !f.is_assumed()) {
        match hosts.iter().find(|(_, other)| is_one_host(other, facts)) {
            Some((first, _)) => {
                let what = format!("it is the host of {first}, given twice under different names");
                // A new machine-id, as clones need, would break the host and mend nothing.
                found.push(Problem::new(Code::HostTwin, what).on(node).hint("Give each node a host of its own."));
            }
            None => hosts.push((node, facts)),
        }
    }
    found.extend(clones(&hosts));
    found
}

/// Whether all that tells hosts apart is the same. Clones behind a NAT of their own may share an address, and then
/// differ in another interface.
fn is_one_host(a: &Facts, b: &Facts) -> bool {
    let same = |key: &str| a.get(key) == b.get(key);
    let everywhere = a.address().is_some() && a.address() == b.address();
    everywhere
        && same(fact::MACHINE_ID)
        && same(fact::HOSTNAME)
        && [fact::MAC, fact::ADDR].iter().all(|key| a.all(key) == b.all(key))
}

fn clones(hosts: &[(&NodeId, &Facts)]) -> Vec<Problem> {
    let mut seen: BTreeMap<(&str, String), Vec<&NodeId>> = BTreeMap::new();
    for &(node, facts) in hosts {
        let mut note = |what, value: String| {
            let nodes = seen.entry((what, value)).or_default();
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        };
        for (what, key) in [("machine-id", fact::MACHINE_ID), ("host name", fact::HOSTNAME)] {
            if let Some(value) = facts.get(key) {
                note(what, value.to_owned());
            }
        }
        // Links of tunnels, as gretap0, have none, which the kernel shows as zeros.
        let is_real = |mac: &&str| mac.chars().any(|c| c != '0' && c != ':');
        for mac in facts.all(fact::MAC).iter().filter_map(|m| m.split_whitespace().nth(1)).filter(is_real) {
            note("MAC address", mac.to_owned());
        }
        if let Some(ip) = facts.address() {
            note("address", ip.to_string());
        }
    }
    let twins = seen.into_iter().filter(|(_, nodes)| nodes.len() > 1);
    twins
        .map(|((what, value), nodes)| {
            let names: Vec<_> = nodes.iter().map(|n| n.as_str()).collect();
            let told = format!("{} have the same {what} {value}", names.join(" and "));
            Problem::new(Code::HostTwin, told).on(nodes[0]).hint(own(what))
        })
        .collect()
}

/// How each clone gets one of its own.
fn own(what: &str) -> &'static str {
    match what {
        "host name" => "Give each a name of its own: hostnamectl set-hostname NAME.",
        "MAC address" => "Switch all but one off and give each a new MAC address in its virtual machine's settings.",
        "address" => {
            "Give each an address of its own where its default route leaves: in VirtualBox by a bridged network in place of \
             NAT, in clouds by networks (VPC) that do not overlap and are joined by a peering or a VPN. A public address which \
             the provider translates is not the host's own."
        }
        _ => Code::HostTwin.hint(),
    }
}

/// Hosts whose bridge CNI would have no way to the others: its routes go to the other host itself, and the kernel takes
/// none to an address that lies beyond a gateway.
pub(super) fn unlinked(lab: &Lab, fleet: &BTreeMap<NodeId, Facts>) -> Vec<Problem> {
    if lab.profile().network.cni != Cni::Bridge {
        return vec![];
    }
    let places: Vec<_> = fleet.iter().filter_map(|(node, f)| Some((node, f.address()?, f.networks()))).collect();
    let one = |(node, _, networks): &(&NodeId, Ipv4Addr, Vec<Cidr>)| {
        let others = places.iter().filter(|(other, ip, _)| other != node && !networks.iter().any(|n| n.contains(*ip)));
        let far: Vec<_> = others.map(|(other, ip, _)| format!("{other} at {ip}")).collect();
        (!far.is_empty()).then(|| {
            let what = format!(
                "it shares no network with {}, and the bridge CNI sends what is for other nodes' pods straight to them",
                far.join(", ")
            );
            let hint = "Take --cni flannel, which needs none, or hosts on one network, whose prefix is not /32.";
            Problem::new(Code::HostNetwork, what).on(node).hint(hint)
        })
    };
    places.iter().filter_map(one).collect()
}

/// Clocks that differ by more than [`SKEW`], each compared with this computer's when the host was asked: the next host
/// may be asked minutes later, after the user's answer about its key.
pub(super) fn clocks(fleet: &BTreeMap<NodeId, Facts>) -> Vec<Problem> {
    let times = times(fleet);
    let Some((middle, right)) = middle(&times) else { return vec![] };
    let far = times.iter().filter(|(_, t)| (t - right).abs() > SKEW.as_secs_f64());
    far.map(|(node, t)| {
        Problem::new(Code::HostClock, format!("its clock differs by {:.0} s from that of {middle}", t - right)).on(node)
    })
    .collect()
}

/// Clocks that agree with each other and not with this computer's: the host in the middle speaks for those like it.
///
/// Beside it whether certificates that are made there would not be valid here: they are made for a year, and those of hosts
/// that are behind by less have begun.
pub(super) fn clock_here(fleet: &BTreeMap<NodeId, Facts>) -> Option<(Problem, bool)> {
    let times = times(fleet);
    let (node, ahead) = middle(&times)?;
    if ahead.abs() <= SKEW_HERE.as_secs_f64() {
        return None;
    }
    let like = times.iter().filter(|(_, t)| (t - ahead).abs() <= SKEW.as_secs_f64());
    let mut like: Vec<_> = like.map(|(node, _)| node.as_str()).collect();
    like.sort_unstable();
    let whose = if like.len() > 1 { format!("the clocks of {} are", like.join(", ")) } else { "its clock is".into() };
    let way = if ahead > 0.0 { "ahead of" } else { "behind" };
    let what = format!("{whose} {:.0} s {way} this computer's", ahead.abs());
    let set = "Set the one that is wrong, which may be this computer's: timedatectl set-ntp true.";
    let by_hand = "Where no time server is reached, as root: date -s '2030-12-31 23:59' && hwclock -w.";
    let is_invalid = ahead > 0.0 || -ahead > YEAR.as_secs_f64();
    Some((Problem::new(Code::HostClock, what).on(node).hint(set).hint(by_hand), is_invalid))
}

/// By how many seconds each host's clock is ahead of this computer's, in that order.
fn times(fleet: &BTreeMap<NodeId, Facts>) -> Vec<(&NodeId, f64)> {
    let mut times: Vec<_> = fleet.iter().filter_map(|(node, f)| Some((node, f.clock_ahead()?))).collect();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    times
}

/// The one in the middle, so that the first host's wrong clock does not make the others look wrong.
fn middle<'f>(times: &[(&'f NodeId, f64)]) -> Option<(&'f NodeId, f64)> {
    times.get(times.len().saturating_sub(1) / 2).copied()
}
