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
        Ok(vec![join(&config, &discovery)?.needs(Need::Value(cp.clone(), &TOKEN)).needs(Need::Value(cp.clone(), &CA))])
    }
}

/// Whether a worker's facts show that it needs no token: the very things that its own check looks at.
fn is_joined(view: &View<'_>, node: &crate::core::NodeId) -> bool {
    view.fleet.get(node).is_some_and(|f| f.yes("joined") && f.yes("unit.kubelet"))
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

/// Runs kubeadm join, or only starts the kubelet where an earlier join needs no more.
fn join(config: &str, discovery: &str) -> Result<Step, Problem> {
    let change = format!(
        "LIMIT={JOIN_LIMIT}\n{}mkdir -p $run && trap 'rm -f $c $d $out' EXIT || exit 1\n\
         fill \"$KC_TOKEN\" > $c <<'KC_END' || exit 1\n{config}KC_END\n\
         fill \"$KC_CA\" > $d <<'KC_END' || exit 1\n{discovery}KC_END\n\
         join",
        template::text("node/join.sh")?
    );
    let check = format!(
        "{}[ -s /etc/kubernetes/kubelet.conf ] && [ -e /var/lib/kubelet/pki/kubelet-client-current.pem ] && kubelet_runs",
        template::text("host/kubelet.sh")?
    );
    Ok(Step::script("join", "run kubeadm join", Check::Script(check), change).limit(280))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::Path,
        process::{Command, Output},
    };

    use super::*;
    use crate::engine::Change;

    const SECRET: &str = "kc5im0.t0kent0kent0kent";

    /// Programs that do what they do everywhere, and those that only note how they are called.
    const REAL: &[&str] = &["cat", "date", "grep", "mkdir", "rm", "timeout"];
    const SHAM: &[&str] = &["bash", "journalctl", "kubeadm", "sed", "sleep", "systemctl"];

    /// A host that is a folder.
    struct Sham(tempfile::TempDir);

    impl Sham {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let bin = root.path().join("bin");
            fs::create_dir(&bin).unwrap();
            for name in REAL.iter().chain(SHAM) {
                let then = match *name {
                    // Its first run fails with the words that a test has put there.
                    "kubeadm" => {
                        "PATH=/usr/bin:/bin; cp \"$3\" \"$ROOT/join.yaml\"; [ ! -e \"$ROOT/words\" ] || { cat \"$ROOT/words\"; rm \"$ROOT/words\"; exit 1; }".into()
                    }
                    name if REAL.contains(&name) => format!("exec $(PATH=/usr/bin:/bin; command -v {name}) \"$@\""),
                    _ => String::new(),
                };
                let file = bin.join(name);
                fs::write(&file, format!("#!/bin/sh\necho \"{name} $*\" >> \"$ROOT/log\"\n{then}\n")).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            }
            Self(root)
        }

        fn put(&self, path: &str, text: &str) {
            let file = self.0.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }

        fn has(&self, path: &str) -> bool {
            self.0.path().join(path).exists()
        }

        /// Runs the join's script; gives also how programs were called.
        fn join(&self) -> (Output, String) {
            let values = json!({"node": "worker-1", "address": "192.0.2.2", "api": "192.0.2.1"});
            let file = |name: &str| template::render(name, &values).unwrap();
            let step = join(&file("kubeadm/join.yaml.tera"), &file("kubeadm/discovery.conf.tera")).unwrap();
            let Change::Script(text) = step.change else { panic!("the join is a script") };
            let root: &Path = self.0.path();
            let mut text = format!("KC_TOKEN={SECRET}\nKC_CA=LS0tLS1C\n{text}");
            for own in ["/run/kubecamp", "/etc/kubernetes", "/var/lib/kubelet"] {
                text = text.replace(own, &format!("{}{own}", root.display()));
            }
            let mut sh = Command::new("/bin/sh");
            let out = sh.arg("-c").arg(&text).env("PATH", root.join("bin")).env("ROOT", root).output().unwrap();
            (out, fs::read_to_string(root.join("log")).unwrap_or_default())
        }
    }

    const CONF: &str = "etc/kubernetes/kubelet.conf";
    const CERTIFICATE: &str = "var/lib/kubelet/pki/kubelet-client-current.pem";

    #[test]
    fn the_token_is_in_no_argument() {
        let host = Sham::new();
        let (out, called) = host.join();
        assert!(out.status.success(), "{out:?}\n{called}");
        assert!(called.contains("kubeadm join --config") && !called.contains(SECRET), "{called}");
        assert!(called.contains("systemctl restart kubelet"), "{called}");
        let config = fs::read_to_string(host.0.path().join("join.yaml")).unwrap();
        assert!(config.contains(&format!("\n  tlsBootstrapToken: {SECRET}\nnodeRegistration:")), "{config}");
        assert!(!host.has("run/kubecamp/join.yaml") && !host.has("run/kubecamp/join.out"));
    }

    #[test]
    fn a_stopped_kubelet_is_started_and_no_more() {
        let host = Sham::new();
        host.put(CONF, "apiVersion: v1\n");
        host.put(CERTIFICATE, "x");
        let (out, called) = host.join();
        assert!(out.status.success() && called.contains("systemctl restart kubelet"), "{out:?}\n{called}");
        assert!(!called.contains("kubeadm") && host.has(CONF), "{called}");
    }

    #[test]
    fn what_a_broken_join_left_makes_room_for_another() {
        let host = Sham::new();
        host.put(CONF, "");
        host.put(CERTIFICATE, "x");
        let (out, called) = host.join();
        assert!(out.status.success() && called.contains("kubeadm join"), "{out:?}\n{called}");
        assert!(called.contains("systemctl stop kubelet") && !host.has(CONF) && !host.has(CERTIFICATE), "{called}");
    }

    #[test]
    fn a_node_that_still_counts_as_ready_is_waited_for() {
        let host = Sham::new();
        host.put("words", "error: a Node with name \"worker-1\" and status \"Ready\" already exists in the cluster\n");
        let (out, called) = host.join();
        assert!(out.status.success(), "{out:?}\n{called}");
        let times = |what: &str| called.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!((times("kubeadm join"), times("sleep 3")), (2, 1), "{called}");
        assert!(!called.contains("journalctl"), "{called}");
    }
}
