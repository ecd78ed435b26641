use async_trait::async_trait;
use serde_json::json;

use super::{
    control_plane::{KUBECTL, address_of},
    values::{CA, TOKEN},
};
use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Need, Phase, Step, View},
    host::template,
};

/// Joins the workers, all at once, as soon as the control plane takes them.
pub struct JoinWorkers;

/// What a join attempt may take before it is taken for hung: one of seven hung until kubeadm's own four minutes.
const JOIN_LIMIT: u32 = 90;

#[async_trait]
impl Phase for JoinWorkers {
    fn id(&self) -> PhaseId {
        PhaseId::new("join-workers")
    }

    fn title(&self) -> &'static str {
        "join the workers"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        if view.is_control_plane() {
            let all_joined = view.lab.workers().all(|w| is_joined(view, &w.name));
            return Ok(if all_joined { vec![] } else { vec![admit(view)] });
        }
        let cp = &view.lab.control_plane().name;
        let values = json!({"node": view.node, "address": address_of(view, view.node)?, "api": address_of(view, cp)?});
        let config = template::render("kubeadm/join.yaml.tera", &values)?;
        let discovery = template::render("kubeadm/discovery.conf.tera", &values)?;
        Ok(vec![join(&config, &discovery).needs(Need::Value(cp.clone(), &TOKEN)).needs(Need::Value(cp.clone(), &CA))])
    }
}

/// Whether a worker's facts show that it has joined; a half-joined one has no kubelet.conf.
fn is_joined(view: &View<'_>, node: &crate::core::NodeId) -> bool {
    view.fleet.get(node).is_some_and(|f| f.all("leftover").iter().any(|l| l == "/etc/kubernetes/kubelet.conf"))
}

/// Makes a token of half an hour for this run, never stored, and beside it the workers' Node objects, each with the pod
/// network that its place in the profile gives it: foreseeable, and flannel finds it when it starts.
fn admit(view: &View<'_>) -> Step {
    let node = |name: &crate::core::NodeId| {
        let pods = view.lab.pod_cidr_of(name).map(|c| c.to_string()).unwrap_or_default();
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nspec:\n  podCIDR: {pods}\n  podCIDRs: [{pods}]\n"
        )
    };
    let names: Vec<_> = view.lab.workers().map(|w| w.name.to_string()).collect();
    let names = names.join(" ");
    let nodes: String = view.lab.workers().map(|w| node(&w.name)).collect();
    // Nodes that are there already are refused one by one and stay as they are; the look at the end says what counts.
    let change = format!(
        "{KUBECTL} create -f - >/dev/null 2>&1 <<'KC_END' &\n{nodes}KC_END\n\
         ca=$(base64 -w0 /etc/kubernetes/pki/ca.crt) && token=$(kubeadm --kubeconfig /etc/kubernetes/admin.conf token create --ttl 30m) || exit 1\n\
         wait $! || {KUBECTL} get node {names} -o name >/dev/null || exit 1\n\
         echo \"KC-OUT token=$token\"; echo \"KC-OUT ca=$ca\""
    );
    Step::script("admit", "make a join token and register the workers", Check::Never, change).gives(&[&TOKEN, &CA])
}

/// Runs kubeadm join, then restarts kubelet: until its certificate comes it asks for everything as nobody and is
/// refused, and the longer that takes the longer it waits before it asks again. Pods that reach it before its list of
/// Services does fail and are tried again only after ten to fifteen seconds.
fn join(config: &str, discovery: &str) -> Step {
    // Only the shell itself handles the token: an argument of any other program can be read by every user of the host.
    let change = format!(
        "umask 077; mkdir -p /run/kubecamp && c=/run/kubecamp/join.yaml d=/run/kubecamp/discovery.conf && trap 'rm -f /run/kubecamp/join.yaml /run/kubecamp/discovery.conf' EXIT || exit 1\n\
         fill() {{ while IFS= read -r line; do case $line in *@@*) line=${{line%@@*}}$1 ;; esac; printf '%s\\n' \"$line\"; done; }}\n\
         fill \"$KC_TOKEN\" > $c <<'KC_END' || exit 1\n{config}KC_END\n\
         fill \"$KC_CA\" > $d <<'KC_END' || exit 1\n{discovery}KC_END\n\
         try() {{ timeout {JOIN_LIMIT} kubeadm join --config $c --skip-phases=preflight; }}\n\
         clean() {{ echo 'kubecamp: the join did not end, cleaning up and trying once more' >&2; journalctl -u kubelet -n 10 --no-pager >&2\n\
         systemctl stop kubelet; rm -f /etc/kubernetes/kubelet.conf /etc/kubernetes/bootstrap-kubelet.conf /etc/kubernetes/pki/ca.crt; rm -rf /var/lib/kubelet/pki; }}\n\
         [ ! -e /etc/kubernetes/bootstrap-kubelet.conf ] || clean\n\
         try || {{ clean; try; }} || exit 1\n\
         systemctl restart kubelet"
    );
    let check = "[ -s /etc/kubernetes/kubelet.conf ] && [ -e /var/lib/kubelet/pki/kubelet-client-current.pem ] && systemctl is-active -q kubelet";
    Step::script("join", "run kubeadm join", Check::Script(check.into()), change).limit(240)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;
    use crate::engine::Change;

    const SECRET: &str = "kc5im0.t0kent0kent0kent";

    /// Runs the join's script on a host of its own: a folder, whose programs note how they are called.
    #[test]
    fn the_token_is_in_no_argument() {
        let root = tempfile::tempdir().unwrap();
        let (bin, log) = (root.path().join("bin"), root.path().join("log"));
        fs::create_dir(&bin).unwrap();
        let real = ["cat", "grep", "mkdir", "rm", "sleep", "timeout"];
        let shams = ["bash", "journalctl", "kubeadm", "systemctl", "sed"];
        for name in real.into_iter().chain(shams) {
            let then = if real.contains(&name) {
                format!("exec $(PATH=/usr/bin:/bin; command -v {name}) \"$@\"")
            } else if name == "kubeadm" {
                "PATH=/usr/bin:/bin; cp \"$3\" \"$ROOT/join.yaml\"".to_owned()
            } else {
                String::new()
            };
            let sham = bin.join(name);
            fs::write(&sham, format!("#!/bin/sh\necho \"{name} $*\" >> \"$ROOT/log\"\n{then}\n")).unwrap();
            fs::set_permissions(&sham, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let values = json!({"node": "worker-1", "address": "192.0.2.2", "api": "192.0.2.1"});
        let file = |name: &str| template::render(name, &values).unwrap();
        let Change::Script(text) = join(&file("kubeadm/join.yaml.tera"), &file("kubeadm/discovery.conf.tera")).change
        else {
            panic!("the join is a script")
        };
        let mut text = format!("KC_TOKEN={SECRET}\nKC_CA=LS0tLS1C\n{text}");
        for own in ["/run/kubecamp", "/etc/kubernetes", "/var/lib/kubelet"] {
            text = text.replace(own, &format!("{}{own}", root.path().display()));
        }
        let out =
            Command::new("/bin/sh").arg("-c").arg(&text).env("PATH", &bin).env("ROOT", root.path()).output().unwrap();
        let called = fs::read_to_string(&log).unwrap_or_default();
        assert!(out.status.success(), "{out:?}\n{called}");
        assert!(called.contains("kubeadm join --config") && !called.contains(SECRET), "{called}");
        let config = fs::read_to_string(root.path().join("join.yaml")).unwrap();
        assert!(config.contains(&format!("\n  tlsBootstrapToken: {SECRET}\nnodeRegistration:")), "{config}");
        assert!(!root.path().join("run/kubecamp/join.yaml").exists());
    }
}
