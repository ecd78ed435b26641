use async_trait::async_trait;

use super::{
    cluster::{ASK, KUBECTL, UNAPPLIED},
    steps::IMPORT_COREDNS,
};
use crate::{
    core::{PhaseId, Problem, StepId},
    engine::{Check, Need, Phase, Step, View},
};

/// Starts CoreDNS after kube-proxy and the pod network: it reaches the API server only through both.
pub struct CoreDns;

impl CoreDns {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("coredns");
}

#[async_trait]
impl Phase for CoreDns {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "start CoreDNS"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let check = format!(
            "[ ! -e {UNAPPLIED}coredns ] && {ASK} -n kube-system get deploy/coredns cm/coredns svc/kube-dns -o name"
        );
        // CoreDNS is asked every second whether it is ready, not every ten: its first answer comes too early.
        let change = format!(
            "kubeadm init phase addon coredns --config /etc/kubernetes/kubecamp/init.yaml --print-manifest | \
             sed 's/^\\( *\\)readinessProbe:/&\\n\\1  periodSeconds: 1/' | \
             {KUBECTL} apply --server-side --force-conflicts --validate=false -f - && rm -f {UNAPPLIED}coredns"
        );
        let image = Need::Step(view.node.clone(), StepId::new(IMPORT_COREDNS));
        Ok(vec![Step::script("coredns", "apply CoreDNS", Check::Script(check), change).needs(image)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{self, Lab};

    #[tokio::test]
    async fn it_is_applied_once_and_stays_as_users_made_it() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("1x4c12g").unwrap()).unwrap();
        let (node, fleet) = (lab.control_plane().name.clone(), Default::default());
        let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
        let steps = CoreDns.steps(&view).await.unwrap();
        let Check::Script(check) = &steps[0].done_if else { panic!("it is a script") };
        let dir = tempfile::tempdir().unwrap();
        let check = check.replace("/var/lib/kubecamp", &dir.path().display().to_string());
        let holds = |kubectl: &str| {
            let script = format!("kubectl() {{ {kubectl}; }}\n{check}");
            std::process::Command::new("sh").arg("-c").arg(script).status().unwrap().success()
        };
        let answers = "case $* in *--request-timeout=*) ;; *) false ;; esac";
        assert!(holds(answers) && !holds("false"), "a lab that an earlier version made has no marks");
        std::fs::write(dir.path().join("unapplied-coredns"), "").unwrap();
        assert!(!holds("true"), "nobody is asked");
    }
}
