use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use futures::future::join_all;

use super::Findings;
use crate::{
    core::{Code, NodeId, Problem},
    host::{Facts, Host, Viewer, fact},
    phases::cluster::VXLAN,
    profile::{Cni, Lab},
};

/// The port of the API server.
const API: u16 = 6443;

/// The port of every kubelet.
const KUBELET: u16 = 10250;

/// How long one try may take, in seconds.
const PATIENCE: u32 = 4;

/// One port of another node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Door {
    node: NodeId,
    address: Ipv4Addr,
    port: u16,
}

/// Hosts that cannot reach each other on the ports that a cluster uses.
///
/// Nothing listens there yet, and that is an answer: a host that refuses a connection was reached. Silence and "no
/// route" are what a firewall in between, or on the host, makes of it. One that rejects with a TCP reset or ICMP's "port
/// unreachable" is not seen: both are what a host itself answers where nobody listens, and a connection says
/// "refused" to each. To tell them apart somebody would have to listen there, and nothing is changed on hosts yet; the
/// join and the proof of the lab find such a firewall.
pub(super) async fn look(lab: &Lab, hosts: &BTreeMap<NodeId, Arc<Host>>, fleet: &BTreeMap<NodeId, Facts>) -> Findings {
    let mut found = Findings::default();
    let doors = doors(lab, fleet);
    let tries = hosts
        .iter()
        .filter_map(|(node, host)| Some((host, fleet.get(node).filter(|f| f.has_tool("bash"))?)))
        .map(|(host, facts)| {
            let others: Vec<_> = doors.iter().filter(|d| d.node != *host.node()).cloned().collect();
            async move { one(lab, host, facts, &others).await }
        });
    found.problems.extend(join_all(tries).await.into_iter().flatten());
    found.warnings.extend(fleet.iter().filter_map(|(node, facts)| filtered(lab, facts).map(|p| p.on(node))));
    found
}

fn doors(lab: &Lab, fleet: &BTreeMap<NodeId, Facts>) -> Vec<Door> {
    let mut doors = vec![];
    for node in lab.nodes() {
        let Some(address) = fleet.get(&node.name).and_then(Facts::address) else { continue };
        let mut door = |port| doors.push(Door { node: node.name.clone(), address, port });
        if lab.control_plane().name == node.name {
            door(API);
        }
        door(KUBELET);
    }
    doors
}

async fn one(lab: &Lab, host: &Host, facts: &Facts, doors: &[Door]) -> Option<Problem> {
    if doors.is_empty() {
        return None;
    }
    let said = match Viewer::new(host).read(&script(doors)).await {
        Ok(exit) => exit.text(),
        Err(problem) => return Some(problem),
    };
    let shut = shut(doors, &said);
    if shut.is_empty() {
        return None;
    }
    let nodes: BTreeSet<_> = shut.iter().map(|(door, _)| door.node.as_str()).collect();
    let what = format!("cannot reach {}", nodes.into_iter().collect::<Vec<_>>().join(", "));
    let lines = shut.iter().map(|(d, why)| format!("{} at {}, TCP port {}: {why}", d.node, d.address, d.port));
    let problem = Problem::new(Code::HostApart, what).on(host.node()).detail(lines).hint(open_what(lab));
    Some(match own_addresses(facts, &shut) {
        Some(hint) => problem.hint(hint),
        None => problem,
    })
}

/// What opening ports does not mend: private addresses, which nobody gave, of hosts that may be in another cloud.
fn own_addresses(facts: &Facts, shut: &[(&Door, String)]) -> Option<String> {
    let near = facts.networks();
    let is_far = |ip: &Ipv4Addr| ip.is_private() && !near.iter().any(|network| network.contains(*ip));
    let far: BTreeSet<_> = shut.iter().map(|(door, _)| door.address).filter(is_far).collect();
    let far: Vec<_> = far.iter().map(Ipv4Addr::to_string).collect();
    (!far.is_empty()).then(|| {
        format!(
            "No network of this host has {}, an address of the other host itself: a public one, which the provider \
             translates, is not used. Hosts of different private networks (VPC) need a peering or a VPN between them.",
            far.join(", ")
        )
    })
}

/// Tries all doors at once, each in words that [`shut`] reads.
fn script(doors: &[Door]) -> String {
    let tries: String = doors.iter().map(|d| format!("kc_reach {} {} {} &\n", d.node, d.address, d.port)).collect();
    format!(
        "LC_ALL=C; export LC_ALL\n\
         kc_reach() {{\n\
         said=$(timeout {PATIENCE} bash -c \"exec 3<>/dev/tcp/$2/$3\" 2>&1); code=$?\n\
         case $code:$said in\n\
         0:* | *'Connection refused'*) echo \"KC-REACH $1 $3 yes\" ;;\n\
         124:*) echo \"KC-REACH $1 $3 no answer within {PATIENCE} s\" ;;\n\
         *) echo \"KC-REACH $1 $3 $(echo \"$said\" | head -n 1 | sed 's/.*: //')\" ;;\n\
         esac\n}}\n{tries}wait"
    )
}

/// The doors that did not let us through, and why; of one that nothing is said of, nothing is known.
fn shut<'d>(doors: &'d [Door], said: &str) -> Vec<(&'d Door, String)> {
    let word = |door: &Door| {
        let head = format!("KC-REACH {} {} ", door.node, door.port);
        said.lines().find_map(|l| l.strip_prefix(&head).map(str::to_owned))
    };
    let tried = doors.iter().map(|door| (door, word(door).unwrap_or_else(|| "the try did not end".to_owned())));
    tried.filter(|(_, word)| word != "yes").collect()
}

fn open_what(lab: &Lab) -> String {
    let pods = match lab.profile().network.cni {
        Cni::Flannel => format!("UDP {VXLAN}"),
        Cni::Bridge => format!("everything of the pod network {}", lab.pod_cidr()),
    };
    format!(
        "Open between the hosts: TCP {API} to {}, TCP {KUBELET} and {pods} to all (security group, firewall).",
        lab.control_plane().name
    )
}

/// A firewall on the host itself: whether it lets VXLAN in, and pods ask the API server and each other, cannot be tried
/// before somebody listens. To firewalld pods are of no zone that it trusts, on whatever link they come.
fn filtered(lab: &Lab, facts: &Facts) -> Option<Problem> {
    let by = facts.get(fact::FIREWALL)?;
    let pods = lab.pod_cidr();
    let tunnel = lab.nodes().len() > 1 && lab.profile().network.cni == Cni::Flannel;
    let with = |port: String| if tunnel { port } else { String::new() };
    let hint = match by {
        "firewalld" => format!(
            "On the host: {}firewall-cmd --permanent --zone=trusted --add-source={pods} && firewall-cmd --reload.",
            with(format!("firewall-cmd --permanent --add-port={VXLAN}/udp && "))
        ),
        "ufw" => format!("On the host: {}ufw allow from {pods}.", with(format!("ufw allow {VXLAN}/udp && "))),
        // Flannel lets pods through by a rule at the end, which comes too late there.
        "iptables" | "iptables-legacy" => format!(
            "On the host: {}{by} -I INPUT -s {pods} -j ACCEPT && {by} -I FORWARD -s {pods} -j ACCEPT && \
             {by} -I FORWARD -d {pods} -j ACCEPT; and save them, since a restart forgets them, but none of the lab's, which would \
             come back after its reset: {by}-save | grep -v 'KUBE-\\|FLANNEL-\\|CNI-' > /etc/iptables/rules.v4, on Red Hat's \
             /etc/sysconfig/iptables.",
            with(format!("{by} -I INPUT -p udp --dport {VXLAN} -j ACCEPT && "))
        ),
        _ => format!("{} And let in what comes from pods, {pods}.", open_what(lab)),
    };
    let what = format!(
        "{by} is active, and nobody can try before the lab is up whether it lets {}what comes from pods in, without which \
         they reach neither the API server nor those of other nodes",
        with(format!("UDP {VXLAN} and "))
    );
    Some(Problem::new(Code::HostApart, what).hint(hint))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::profile;

    fn door(node: &str, address: [u8; 4], port: u16) -> Door {
        Door { node: node.parse().unwrap(), address: address.into(), port }
    }

    #[test]
    fn a_refusal_is_an_answer_and_silence_is_none() {
        let free = |n: u8| std::net::TcpListener::bind((Ipv4Addr::new(127, 0, 0, n), 0)).unwrap();
        let open = free(1);
        let refused = free(2).local_addr().unwrap().port();
        let doors = [
            door("open", [127, 0, 0, 1], open.local_addr().unwrap().port()),
            door("refused", [127, 0, 0, 2], refused),
            // Nobody connects to everybody: the kernel refuses without sending anything.
            door("nowhere", [255, 255, 255, 255], KUBELET),
        ];
        let out = Command::new("sh").arg("-c").arg(script(&doors)).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        let shut = shut(&doors, &said);
        let names: Vec<_> = shut.iter().map(|(d, _)| d.node.as_str()).collect();
        assert_eq!(names, ["nowhere"], "{said}");
    }

    #[test]
    fn a_firewall_is_to_let_in_what_comes_from_pods() {
        let hint = |layout: &str, cni: Cni, by: &str| {
            let mut profile = profile::load(layout).unwrap();
            profile.network.cni = cni;
            let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
            filtered(&lab, &Facts::parse(&format!("firewall={by}\n"))).unwrap().all_hints().remove(0)
        };
        let trusted = "firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 && firewall-cmd --reload.";
        let port = "firewall-cmd --permanent --add-port=8472/udp && ";
        assert_eq!(hint("3x2c4g", Cni::Flannel, "firewalld"), format!("On the host: {port}{trusted}"));
        assert_eq!(hint("3x2c4g", Cni::Bridge, "firewalld"), format!("On the host: {trusted}"));
        assert_eq!(hint("1x4c12g", Cni::Flannel, "firewalld"), format!("On the host: {trusted}"));
        let ufw = "On the host: ufw allow 8472/udp && ufw allow from 10.244.0.0/16.";
        assert_eq!(hint("3x2c4g", Cni::Flannel, "ufw"), ufw);
        for by in ["iptables", "iptables-legacy"] {
            let port = format!("{by} -I INPUT -p udp --dport 8472 -j ACCEPT && ");
            let pods =
                ["INPUT -s", "FORWARD -s", "FORWARD -d"].map(|to| format!("{by} -I {to} 10.244.0.0/16 -j ACCEPT"));
            let pods = pods.join(" && ");
            assert!(hint("3x2c4g", Cni::Flannel, by).starts_with(&format!("On the host: {port}{pods}; and save them")));
            let bridge = hint("3x2c4g", Cni::Bridge, by);
            assert!(bridge.starts_with(&format!("On the host: {pods}; and save them")));
            assert!(bridge.contains(&format!(": {by}-save | grep -v 'KUBE-\\|FLANNEL-\\|CNI-' > ")), "{bridge}");
        }
        let other = hint("1x4c12g", Cni::Bridge, "nftables");
        assert!(other.ends_with("And let in what comes from pods, 10.244.0.0/16."), "{other}");
    }

    #[test]
    fn a_try_that_said_nothing_is_not_a_good_one() {
        let doors = [door("cp", [192, 0, 2, 1], API), door("cp", [192, 0, 2, 1], KUBELET)];
        let shut = shut(&doors, "KC-REACH cp 6443 yes\nKC-REACH cp 102500 yes\n");
        assert_eq!(shut, [(&doors[1], "the try did not end".to_owned())]);
    }
}
