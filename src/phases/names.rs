use async_trait::async_trait;

use crate::{
    core::{NodeId, PhaseId, Problem},
    engine::{Check, Phase, Step, View},
};

/// Writes every node's name into /etc/hosts.
///
/// A node that cannot resolve its own name is not broken but slow: kubelet and kubeadm wait ten seconds at a time.
pub struct Names;

impl Names {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("names");
}

#[async_trait]
impl Phase for Names {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "make the nodes know each other's names"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut lines = String::new();
        for node in view.lab.nodes() {
            let Some(facts) = view.fleet.get(&node.name) else { continue };
            let Some(ip) = facts.address() else { continue };
            let own = own_name(view, &node.name).map(|name| format!(" {name}")).unwrap_or_default();
            lines.push_str(&format!("{ip} {}{own}\n", node.name));
        }
        let block = format!("# kubecamp begin\n{lines}# kubecamp end\n");
        let check =
            format!("[ \"$(sed -n '/^# kubecamp begin$/,/^# kubecamp end$/p' /etc/hosts)\" = '{}' ]", block.trim_end());
        let names: Vec<_> = view.lab.nodes().iter().map(|n| n.name.as_str()).collect();
        let names = names.join(" ");
        // /etc/hosts may be a bind mount in a container: written in place, never renamed over.
        let change = format!(
            "kc_block /etc/hosts || exit 1\n\
             [ ! -e /etc/hosts ] || rest=$(kc_without_block /etc/hosts '{names}') || kc_die 'cannot read /etc/hosts'\n\
             printf '%s\\n%s' \"$rest\" '{block}' > /etc/hosts.kc-part && cat /etc/hosts.kc-part > /etc/hosts; rm -f /etc/hosts.kc-part"
        );
        Ok(vec![Step::script("etc-hosts", "write the nodes' names into /etc/hosts", Check::Script(check), change)])
    }
}

/// The name that the host of a node has itself, unless it is a word for something else: for a node of the lab, whose host
/// another one may be, for another host, or for whoever asks.
fn own_name<'v>(view: &View<'v>, node: &NodeId) -> Option<&'v str> {
    let name = view.fleet.get(node)?.hostname()?;
    let is = |other: &str| other.eq_ignore_ascii_case(name);
    let taken = view.lab.nodes().iter().any(|n| is(n.name.as_str()))
        || view.fleet.iter().any(|(other, facts)| other != node && facts.hostname().is_some_and(is));
    (!taken && !name.to_ascii_lowercase().starts_with("localhost")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Change,
        host::Facts,
        profile::{self, Lab},
    };

    #[tokio::test]
    async fn no_name_stands_for_two_addresses() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let node: NodeId = "cp".parse().unwrap();
        for (hosts, lines) in [
            (["a.example.org", "b"], "192.0.2.1 cp a.example.org\n192.0.2.2 worker-1 b\n"),
            (["cp", "worker-1"], "192.0.2.1 cp\n192.0.2.2 worker-1\n"),
            // Named in another order than their own names say.
            (["worker-1", "CP"], "192.0.2.1 cp\n192.0.2.2 worker-1\n"),
            (["localhost", "localhost.localdomain"], "192.0.2.1 cp\n192.0.2.2 worker-1\n"),
            (["same", "Same"], "192.0.2.1 cp\n192.0.2.2 worker-1\n"),
        ] {
            let facts = |n: usize| Facts::parse(&format!("hostname={}\naddr=eth0 192.0.2.{}/24\n", hosts[n], n + 1));
            let fleet = [(node.clone(), facts(0)), ("worker-1".parse().unwrap(), facts(1))].into();
            let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
            let [step] = <[Step; 1]>::try_from(Names.steps(&view).await.unwrap()).ok().unwrap();
            let Change::Script(text) = step.change else { panic!("it is a script") };
            assert!(text.contains(&format!("# kubecamp begin\n{lines}# kubecamp end\n")), "{hosts:?}: {text}");
        }
    }
}
