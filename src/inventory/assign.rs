use super::HostEntry;
use crate::core::{Code, NodeId, Problem, Problems};

impl HostEntry {
    /// Whether both are one machine as far as their texts tell: address and port, whoever logs in.
    ///
    /// Two names of one machine are told apart only on the machine, by its machine-id.
    pub fn same_machine(&self, other: &Self) -> bool {
        let port = |host: &Self| host.port.unwrap_or(22);
        // Behind different jump hosts the same private address is two machines.
        self.address.eq_ignore_ascii_case(&other.address) && port(self) == port(other) && self.jump == other.jump
    }
}

/// Says which host becomes which node: first those that name one, then the others in order.
///
/// `layout` only makes the message clear; the result has the order of `nodes`.
pub fn assign(layout: &str, nodes: &[NodeId], hosts: Vec<HostEntry>) -> Result<Vec<(NodeId, HostEntry)>, Problems> {
    Problems::check(find_problems(layout, nodes, &hosts))?;
    let (named, free): (Vec<_>, Vec<_>) = hosts.into_iter().partition(|host| host.node.is_some());
    let mut free = free.into_iter();
    let pair = |node: &NodeId| {
        let host = named.iter().find(|host| host.node.as_ref() == Some(node)).cloned();
        let host = host.or_else(|| free.next())?;
        Some((node.clone(), HostEntry { node: Some(node.clone()), ..host }))
    };
    let pairs: Option<Vec<_>> = nodes.iter().map(pair).collect();
    Ok(pairs.ok_or_else(|| Problem::new(Code::Internal, "equal counts of hosts and nodes did not pair"))?)
}

fn find_problems(layout: &str, nodes: &[NodeId], hosts: &[HostEntry]) -> Vec<Problem> {
    let mut found = vec![];
    if hosts.len() != nodes.len() {
        let verb = if hosts.len() == 1 { "is" } else { "are" };
        let (want, have) = (count(nodes.len(), "node"), count(hosts.len(), "host"));
        let what = format!("layout {layout} has {want}, and {have} {verb} given");
        found.push(Problem::new(Code::HostCount, what).detail(hosts.iter().map(ToString::to_string)));
    }
    for (i, host) in hosts.iter().enumerate() {
        if hosts[..i].iter().any(|other| host.same_machine(other)) {
            let what = format!("host {host} is given twice");
            found.push(Problem::new(Code::HostSpec, what).hint("Each node needs a host of its own."));
        }
        let Some(node) = &host.node else { continue };
        if !nodes.contains(node) {
            let known: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
            let what = format!("host {host} is to be node `{node}`, which the profile does not have");
            found.push(Problem::new(Code::HostSpec, what).hint(format!("Its nodes are: {}.", known.join(", "))));
        } else if hosts[..i].iter().any(|other| other.node.as_ref() == Some(node)) {
            let what = format!("host {host} is a second one for node `{node}`");
            found.push(Problem::new(Code::HostSpec, what).hint("Name each node once."));
        }
    }
    found
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::entries;

    fn nodes() -> Vec<NodeId> {
        ["cp", "worker-1", "worker-2"].map(|name| name.parse().unwrap()).to_vec()
    }

    fn given(texts: &[&str]) -> Result<String, String> {
        let pairs = assign("3x2c4g", &nodes(), entries(texts).unwrap()).map_err(|p| p.to_string())?;
        Ok(pairs.iter().map(|(node, host)| format!("{node}={host}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn hosts_take_nodes_in_order_after_those_that_name_one() {
        assert_eq!(given(&["a", "b", "c"]).unwrap(), "cp=a worker-1=b worker-2=c");
        assert_eq!(given(&["a", "cp=b", "c"]).unwrap(), "cp=b worker-1=a worker-2=c");
        assert_eq!(given(&["a:22", "a:23", "root@a:24"]).unwrap(), "cp=a:22 worker-1=a:23 worker-2=root@a:24");
    }

    #[test]
    fn both_numbers_are_told() {
        let few = given(&["a"]).unwrap_err();
        assert!(few.contains("KC-HOST-COUNT: layout 3x2c4g has 3 nodes, and 1 host is given"), "{few}");
        let many = given(&["a", "b", "c", "d"]).unwrap_err();
        assert!(many.contains("has 3 nodes, and 4 hosts are given"), "{many}");
        assert!(given(&[]).unwrap_err().contains("and 0 hosts are given"));
    }

    #[test]
    fn twins_and_strangers_are_all_refused() {
        let told = given(&["root@a", "ubuntu@A:22", "master=b", "cp=c", "cp=d"]).unwrap_err();
        for expected in [
            "KC-HOST-COUNT",
            "host ubuntu@A:22 is given twice",
            "host b is to be node `master`, which the profile does not have",
            "host d is a second one for node `cp`",
        ] {
            assert!(told.contains(expected), "{told}\nlacks {expected}");
        }
    }
}
