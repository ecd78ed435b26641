use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use serde_json::json;

use super::{
    cluster::{ASK, DRAINED, KUBECTL, UNAPPLIED, address_of, cgroup_driver},
    root_kubectl::root_kubectl,
    steps::{CA, INIT},
};
use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
    host::{Cgroup, Facts, fact, template},
};

/// Runs kubeadm init on the control plane.
pub struct ControlPlane {
    /// Other names and addresses under which users reach the API server.
    pub extra_names: Vec<String>,
}

/// How long a control plane that is there may need until its API server answers, as after a reboot, in seconds.
const STARTS: u32 = 90;

/// Values of `kubeadm/common.yaml.tera` from a host's facts. kube-proxy's are for all nodes, and one that is a container keeps
/// those of a kernel that it may not change.
fn component_values(view: &View<'_>, facts: &Facts) -> serde_json::Value {
    json!({
        "cgroup_driver": cgroup_driver(facts),
        "cgroup_v1": facts.cgroup() == Cgroup::V1,
        "container": view.fleet.values().any(Facts::is_container),
        "proxy_mode": view.lab.profile().proxy.mode,
        "pod_cidr": view.lab.profile().network.pods,
    })
}

/// A name of the API server in the form in which kubeadm takes it into the certificate; it refuses all of its work for one
/// that is neither an address nor a name of DNS. Without it clients do as well: the kubeconfig says by which name to know the
/// server.
fn san(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(is_plain)
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    (is_name || name.parse::<IpAddr>().is_ok()).then_some(name)
}

impl ControlPlane {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("control-plane");
}

#[async_trait]
impl Phase for ControlPlane {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "start the control plane"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let address = address_of(view, view.node)?;
        let mut names: Vec<_> =
            self.extra_names.iter().filter_map(|name| san(name)).filter(|name| *name != address).collect();
        names.push(view.node.to_string());
        names.sort();
        names.dedup();
        let init = template::render(
            "kubeadm/init.yaml.tera",
            &json!({
                "address": address, "node": view.node, "lab": view.lab.name(), "single": view.lab.nodes().len() == 1,
                "kubernetes": view.lab.profile().kubernetes, "pod_cidr": view.lab.profile().network.pods,
                "service_cidr": view.lab.profile().network.services, "names": names,
            }),
        )?;
        let common = template::render("kubeadm/common.yaml.tera", &component_values(view, view.facts()))?;
        let config = format!("{init}{common}");
        let mut steps = vec![certificates(&config), start(), root_kubectl()];
        if view.facts().yes(fact::DRAINED) {
            steps.push(uncordon());
        }
        Ok(steps)
    }
}

/// The CA comes first and apart: its digest lets the workers prepare while the control plane starts.
fn certificates(config: &str) -> Step {
    let change = format!(
        "umask 077; mkdir -p /etc/kubernetes/kubecamp || exit 1\n\
         cat > /etc/kubernetes/kubecamp/init.yaml <<'KC_END'\n{config}KC_END\n\
         kubeadm init phase certs ca --config /etc/kubernetes/kubecamp/init.yaml || exit 1"
    );
    let check = format!(
        "[ -s /etc/kubernetes/pki/ca.crt ] && [ -s /etc/kubernetes/pki/ca.key ] && [ \"$(cat /etc/kubernetes/kubecamp/init.yaml)\" = '{}' ]",
        config.trim_end().replace('\'', r"'\''")
    );
    Step::script(CA, "make the cluster's certificate authority", Check::Script(check), change)
}

fn start() -> Step {
    // One question for all: each kubectl takes a busy host an eighth of a second, and the API server as much again.
    let check = format!(
        "[ -s /etc/kubernetes/admin.conf ] && systemctl is-active -q kubelet && \
         for pod in etcd kube-apiserver kube-controller-manager kube-scheduler; do \
         [ -s /etc/kubernetes/manifests/$pod.yaml ] || exit 1; done && \
         maps=$({ASK} get cm -A -o 'jsonpath={{range .items[*]}} {{.metadata.namespace}}/{{.metadata.name}} {{end}}') && \
         for map in kube-system/kubeadm-config kube-system/kubelet-config kube-public/cluster-info; do \
         case $maps in *\" $map \"*) ;; *) exit 1 ;; esac; done"
    );
    // After a reboot the API server only needs time, or a kubelet that somebody stopped. kubeadm's phases find what an
    // interrupted run left and go on from it; its preflight would refuse that, and the flow's own has looked at more.
    // Of other manifests those that are gone are written again, and no more: what users changed in the rest stays.
    // A cluster is as old as its etcd: who moves the API server's manifest away keeps all that is in it.
    let change = format!(
        "whole() ( {check}; ) >/dev/null 2>&1\n\
         if [ -s /etc/kubernetes/admin.conf ] && [ -e /etc/kubernetes/manifests/kube-apiserver.yaml ]; then\n\
         for part in etcd control-plane/kube-controller-manager control-plane/kube-scheduler; do\n\
         [ -s /etc/kubernetes/manifests/${{part#*/}}.yaml ] && continue\n\
         case $part in etcd) set -- etcd local ;; *) set -- control-plane ${{part#*/kube-}} ;; esac\n\
         kubeadm init phase \"$@\" --config /etc/kubernetes/kubecamp/init.yaml || exit 1\n\
         done\n\
         systemctl is-active -q kubelet || systemctl restart kubelet\n\
         kc_wait {STARTS} {ASK} get --raw /readyz >/dev/null 2>&1; whole && exit\nfi\n\
         [ -e /var/lib/etcd/member ] || for addon in coredns flannel kube-proxy; do : > {UNAPPLIED}$addon || exit 1; done\n\
         kubeadm init --config /etc/kubernetes/kubecamp/init.yaml --skip-phases=preflight,addon,show-join-command --skip-token-print"
    );
    Step::script(INIT, "run kubeadm init", Check::Script(check), change).limit(Duration::from_secs(300))
}

/// Takes back what a reset that was broken off did to the workers first: nothing would ever start there.
fn uncordon() -> Step {
    // Those that are in the cluster no more are not asked for; without names all would be.
    let change = format!(
        "[ -s {DRAINED} ] || {{ rm -f {DRAINED}; exit 0; }}\n\
         nodes=$({KUBECTL} get nodes $(cat {DRAINED}) -o name --ignore-not-found) || exit 1\n\
         [ ! \"$nodes\" ] || {KUBECTL} uncordon $nodes || exit 1\n\
         rm -f {DRAINED}"
    );
    let check = Check::Script(format!("[ ! -e {DRAINED} ]"));
    Step::script("uncordon", "let pods go to the workers that a reset has drained", check, change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Change,
        host::script::LIB,
        profile::{self, Lab},
    };

    #[tokio::test]
    async fn workers_that_a_broken_off_reset_drained_take_pods_again() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let node = lab.control_plane().name.clone();
        for (facts, steps) in [("", 3), ("drained=yes\n", 4)] {
            let fleet = [(node.clone(), Facts::parse(&format!("{facts}addr=eth0 192.0.2.1/24\n")))].into();
            let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
            assert_eq!(ControlPlane { extra_names: vec![] }.steps(&view).await.unwrap().len(), steps);
        }
        let Change::Script(change) = uncordon().change else { panic!("it is a script") };
        let both = "worker-1\nworker-9\n";
        for (marked, there, called) in
            [(both, " node/worker-1", "uncordon node/worker-1\n"), (both, "", ""), ("", " node/worker-1", "")]
        {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().display();
            let change = change.replace("/var/lib/kubecamp", &root.to_string());
            let mark = dir.path().join("drained");
            std::fs::write(&mark, marked).unwrap();
            let sham = format!(
                "kubectl() {{ shift 2; case $* in get*) echo{there} ;; *) echo \"$*\" >> {root}/did ;; esac; }}\n"
            );
            assert!(
                std::process::Command::new("sh").arg("-c").arg(format!("{sham}{change}")).status().unwrap().success()
            );
            assert_eq!(std::fs::read_to_string(dir.path().join("did")).unwrap_or_default(), called);
            assert!(!mark.exists());
        }
    }

    #[tokio::test]
    async fn a_name_that_kubeadm_refuses_is_not_in_the_certificate() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let node = lab.control_plane().name.clone();
        let fleet = [(node.clone(), Facts::parse("addr=eth0 192.0.2.1/24\n"))].into();
        for (given, names) in [
            ("lab_cp", "cp"),
            ("Lab.Example.org.", "cp lab.example.org"),
            ("2001:db8::1", "2001:db8::1 cp"),
            ("192.0.2.1", "cp"),
            ("a..b", "cp"),
            ("lab-.example.org", "cp"),
            ("CP", "cp"),
        ] {
            let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
            let mut steps = ControlPlane { extra_names: vec![given.into()] }.steps(&view).await.unwrap();
            let Change::Script(text) = steps.remove(0).change else { panic!("it is a script") };
            let (_, sans) = text.split_once("  certSANs:\n").unwrap();
            let sans: Vec<_> = sans.lines().map_while(|line| line.strip_prefix("  - ")).collect();
            let quoted = names.split(' ').map(|name| format!("\"{name}\""));
            let wanted: Vec<_> = ["localhost".to_owned(), "127.0.0.1".to_owned()].into_iter().chain(quoted).collect();
            assert_eq!(sans, wanted, "{given}");
        }
    }

    /// The workers' kube-proxy has the same configuration.
    #[tokio::test]
    async fn a_container_among_the_nodes_keeps_kube_proxy_from_the_kernels_limits() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let node = lab.control_plane().name.clone();
        for (cp, worker, wanted) in [("no", "no", false), ("yes", "no", true), ("no", "yes", true)] {
            let facts = |is: &str| Facts::parse(&format!("addr=eth0 192.0.2.1/24\ncontainer={is}\n"));
            let fleet = [(node.clone(), facts(cp)), ("worker-1".parse().unwrap(), facts(worker))].into();
            let view = View { lab: &lab, node: &node, fleet: &fleet, host: None };
            let mut steps = ControlPlane { extra_names: vec![] }.steps(&view).await.unwrap();
            let Change::Script(text) = steps.remove(0).change else { panic!("it is a script") };
            assert_eq!(text.contains("\nconntrack:\n"), wanted, "{cp} {worker}");
        }
    }

    /// The change with the library that comes before it, and with all that it touches in this folder.
    fn init_in(root: &str) -> String {
        let Change::Script(change) = start().change else { panic!("it is a script") };
        let moved =
            [("/root/", "/home/"), ("/etc/kubernetes/", "/"), ("/var/lib/kubecamp", ""), ("/var/lib/etcd", "/etcd")];
        moved.iter().fold(format!("{LIB}\n{change}"), |text, (path, to)| text.replace(path, &format!("{root}{to}")))
    }

    #[test]
    fn a_new_control_plane_begins_without_addons() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let script = format!("kubeadm() {{ echo x > {root}/admin.conf; }}\n{}", init_in(&root));
        let addons = ["coredns", "flannel", "kube-proxy"].map(|addon| dir.path().join(format!("unapplied-{addon}")));
        for new in [true, false] {
            assert!(std::process::Command::new("sh").arg("-c").arg(&script).status().unwrap().success());
            for addon in &addons {
                assert_eq!(addon.exists(), new, "{}", addon.display());
                let _ = std::fs::remove_file(addon);
            }
            // One that was there before may have them, changed by its users, whatever else they broke.
            std::fs::create_dir_all(dir.path().join("etcd/member")).unwrap();
        }
    }

    #[test]
    fn a_silent_api_server_is_asked_for_a_while_and_not_so_many_times() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let change = init_in(&root);
        std::fs::create_dir_all(dir.path().join("manifests")).unwrap();
        for file in ["admin.conf", "asked", "manifests/kube-apiserver.yaml"] {
            std::fs::write(dir.path().join(file), "x\n").unwrap();
        }
        // Each question takes the ten seconds that it may.
        let sham = format!(
            "kubectl() {{ case $* in *--request-timeout=10s*) echo x >>{root}/asked ;; esac; return 1; }}\n\
             date() {{ echo $(($(wc -l <{root}/asked) * 10)); }}\n\
             kubeadm() {{ :; }}\nsystemctl() {{ :; }}\nsleep() {{ :; }}\n"
        );
        assert!(std::process::Command::new("sh").arg("-c").arg(format!("{sham}{change}")).status().unwrap().success());
        let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap().lines().count();
        assert!((9..15).contains(&asked), "{asked}");
    }

    #[test]
    fn only_the_manifest_that_is_gone_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let change = init_in(&root);
        std::fs::create_dir_all(dir.path().join("manifests")).unwrap();
        std::fs::write(dir.path().join("admin.conf"), "x").unwrap();
        for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            std::fs::write(dir.path().join(format!("manifests/{name}.yaml")), "x").unwrap();
        }
        // It makes what is asked for; everything else is as it must be.
        let sham = format!(
            "kubeadm() {{ echo \"$*\" >>{root}/did; case $4 in local) n=etcd ;; *) n=kube-$4 ;; esac; echo x >{root}/manifests/$n.yaml; }}\n\
             systemctl() {{ :; }}\nkubectl() {{ echo ' kube-system/kubeadm-config kube-system/kubelet-config kube-public/cluster-info '; }}\n"
        );
        for (gone, words) in [
            ("kube-scheduler", "init phase control-plane scheduler "),
            ("kube-controller-manager", "init phase control-plane controller-manager "),
            ("etcd", "init phase etcd local "),
        ] {
            std::fs::remove_file(dir.path().join(format!("manifests/{gone}.yaml"))).unwrap();
            assert!(
                std::process::Command::new("sh").arg("-c").arg(format!("{sham}{change}")).status().unwrap().success()
            );
            let did = std::fs::read_to_string(dir.path().join("did")).unwrap();
            assert!(did.starts_with(words) && did.lines().count() == 1, "{did}");
            std::fs::remove_file(dir.path().join("did")).unwrap();
        }
    }
}
