use async_trait::async_trait;

use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
};

/// Writes every node's name into /etc/hosts.
///
/// A node that cannot resolve its own name is not broken but slow: kubelet and kubeadm wait ten seconds at a time.
pub struct Names;

#[async_trait]
impl Phase for Names {
    fn id(&self) -> PhaseId {
        PhaseId::new("names")
    }

    fn title(&self) -> &'static str {
        "make the nodes know each other's names"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut lines = String::new();
        for node in view.lab.nodes() {
            let Some(facts) = view.fleet.get(&node.name) else { continue };
            let Some(ip) = facts.address() else { continue };
            let own =
                facts.hostname().filter(|h| *h != node.name.as_str()).map(|h| format!(" {h}")).unwrap_or_default();
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
