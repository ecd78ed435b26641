use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::{
    cluster::{JOINED, address_of, cgroup_driver, has_joined, is_new, joined_another},
    steps::JOIN,
    values::{CA, IDENTITIES},
};
use crate::{
    core::{NodeId, PhaseId, Problem},
    engine::{Check, Need, Phase, Step, View},
    host::{Cgroup, Facts, fact, template},
};

/// Joins the workers, all at once, as soon as they are admitted.
pub struct JoinWorkers;

/// What a join attempt may take before it is taken for hung: one of seven hung until kubeadm's own four minutes.
const JOIN_LIMIT: u32 = 90;

impl JoinWorkers {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("join-workers");
}

#[async_trait]
impl Phase for JoinWorkers {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "join the workers"
    }

    fn concerns(&self, view: &View<'_>) -> bool {
        !view.is_control_plane()
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let cp = &view.lab.control_plane().name;
        let values = json!({
            "node": view.node, "lab": view.lab.name(), "address": address_of(view, view.node)?, "api": address_of(view, cp)?,
            "patch": patch(view.facts())?,
        });
        // In a new cluster, or in one that is not this: what the worker has of a cluster does not count.
        let anew = is_new(view) || joined_another(view, view.node);
        let step = join(view.node, &values, anew)?;
        Ok(vec![step.needs(Need::Value(cp.clone(), &IDENTITIES)).needs(Need::Value(cp.clone(), &CA))])
    }
}

/// Where systemd-resolved has the name servers themselves; what /etc/resolv.conf names then is on the host's loopback.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// What of the kubelet's configuration depends on its host, which need not be like the control plane's.
fn patch(facts: &Facts) -> Result<String, Problem> {
    let resolv_conf = if facts.get(fact::RESOLV_CONF) == Some(RESOLVED) { RESOLVED } else { "/etc/resolv.conf" };
    template::render(
        "kubeadm/kubelet-patch.yaml.tera",
        &json!({
            "resolv_conf": resolv_conf, "cgroup_driver": cgroup_driver(facts), "cgroup_v1": facts.cgroup() == Cgroup::V1,
        }),
    )
}

/// A function of the shell, `at_home`: whether the kubelet says that it is reached at ADDRESS, or nothing of that. By the
/// shell itself, since every `up` asks.
const AT_HOME: &str = "at_home() {\nIFS= read -r told < /var/lib/kubelet/kubeadm-flags.env\ncase \"$told \" in *\"--node-ip=$ADDRESS\"[!0-9.]*) ;; *--node-ip=*) return 1 ;; esac\n}\n";

/// Runs kubeadm join, or only starts the kubelet where an earlier join needs no more.
///
/// Where it joins `anew` the kubelet's file tells: a worker that a reset did not reach has joined a cluster that is gone.
fn join(node: &NodeId, values: &serde_json::Value, anew: bool) -> Result<Step, Problem> {
    let config = template::render("kubeadm/join.yaml.tera", values)?;
    let of = |key: &str| values[key].as_str().unwrap_or_default();
    let (address, patch) = (of("address"), of("patch"));
    let conf = template::render("kubeadm/kubelet.conf.tera", values)?;
    let here = if anew { " && grep -qF \"$KC_CA\" $kube/kubelet.conf" } else { "" };
    let change = format!(
        "LIMIT={JOIN_LIMIT} NODE={node} ADDRESS={address}\n{}{AT_HOME}joined() {{ {JOINED}{here}; }}\n\
         conf() {{ fill \"$KC_CA\" <<'KC_END'\n{conf}KC_END\n}}\n\
         mkdir -p $run/patches && trap 'rm -rf $c $out $run/patches' EXIT || exit 1\n\
         cat > $c <<'KC_END' || exit 1\n{config}KC_END\n\
         cat > $run/patches/kubeletconfiguration+merge.yaml <<'KC_END' || exit 1\n{patch}KC_END\n\
         join",
        template::text("node/join.sh")?
    );
    let check = format!(
        "ADDRESS={address}\n{AT_HOME}{}{} && at_home && kubelet_runs",
        template::text("host/kubelet.sh")?,
        has_joined()
    );
    let done_if = if anew { Check::Never } else { Check::Script(check) };
    Ok(Step::script(JOIN, "run kubeadm join", done_if, change).limit(Duration::from_secs(280)))
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
    use crate::{
        engine::Change,
        profile::{self, Lab},
    };

    /// Another node's, and this one's: the words `mine alone`.
    const SECRETS: &str = "worker-10=b3RoZXJz worker-1=bWluZSBhbG9uZQ==";

    /// Programs that do what they do everywhere, and those that only note how they are called.
    const REAL: &[&str] = &["base64", "cat", "date", "grep", "ln", "mkdir", "rm", "sed", "timeout"];
    const SHAM: &[&str] = &["bash", "journalctl", "kubeadm", "sleep", "systemctl"];

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
                        "PATH=/usr/bin:/bin; [ ! -e \"$ROOT/words\" ] || { cat \"$ROOT/words\"; rm \"$ROOT/words\"; exit 1; }".into()
                    }
                    // How often the kubelet was started again.
                    "systemctl" => "[ \"$1\" != show ] || PATH=/usr/bin:/bin cat \"$ROOT/restarts\" 2>/dev/null || echo 0".into(),
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

        fn join(&self) -> (Output, String) {
            self.join_as("worker-1", false)
        }

        /// Runs the join's script; gives also how programs were called.
        fn join_as(&self, node: &str, anew: bool) -> (Output, String) {
            let values = json!({"node": node, "lab": "lab", "address": "192.0.2.2", "api": "192.0.2.1"});
            let step = join(&node.parse().unwrap(), &values, anew).unwrap();
            let Change::Script(text) = step.change else { panic!("the join is a script") };
            let root: &Path = self.0.path();
            let mut text = format!("KC_IDENTITIES='{SECRETS}'\nKC_CA=LS0tLS1C\n{text}");
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
    const FLAGS: &str = "var/lib/kubelet/kubeadm-flags.env";

    #[test]
    fn a_node_gets_its_own_identity_and_no_argument_shows_it() {
        let host = Sham::new();
        let (out, called) = host.join();
        assert!(out.status.success(), "{out:?}\n{called}");
        assert!(called.contains("kubeadm join --config") && !called.contains("b3RoZXJz"), "{called}");
        assert!(!called.contains("bWluZ") && !called.contains("mine"), "{called}");
        assert!(!called.contains("systemctl restart"), "kubeadm starts the kubelet, once: {called}");
        let file = |path: &str| host.0.path().join(path);
        assert_eq!(fs::read_to_string(file(CERTIFICATE)).unwrap(), "mine alone");
        assert!(file(CERTIFICATE).is_symlink(), "the kubelet renews nothing else");
        let mode = |path: &str| fs::metadata(file(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(CERTIFICATE), mode(CONF), mode("var/lib/kubelet/pki")), (0o600, 0o600, 0o755));
        let conf = fs::read_to_string(file(CONF)).unwrap();
        assert!(conf.contains("certificate-authority-data: LS0tLS1C\n"), "{conf}");
        assert!(!host.has("run/kubecamp/join.yaml") && !host.has("run/kubecamp/join.out"));
        assert!(!host.has("run/kubecamp/patches"), "kubeadm join alone reads it");
    }

    #[tokio::test]
    async fn a_worker_joins_with_what_its_own_host_is() {
        let lab = Lab::new("lab".parse().unwrap(), profile::load("2x4c8g").unwrap()).unwrap();
        let [cp, worker] = ["cp", "worker-1"].map(|name| name.parse::<NodeId>().unwrap());
        let (old, resolved) =
            ("cgroup=v1\nresolv.conf=/etc/resolv.conf\n", format!("cgroup=v2\nresolv.conf={RESOLVED}\n"));
        for (here, there, wanted) in [
            (&*resolved, old, "resolvConf: /etc/resolv.conf\ncgroupDriver: cgroupfs\nfailCgroupV1: false\n"),
            (old, &*resolved, "resolvConf: /run/systemd/resolve/resolv.conf\ncgroupDriver: systemd\n"),
            (old, "resolv.conf=/x; reboot\n", "resolvConf: /etc/resolv.conf\ncgroupDriver: systemd\n"),
        ] {
            let facts = |words: &str, n: u8| Facts::parse(&format!("{words}addr=eth0 192.0.2.{n}/24\n"));
            let fleet = [(cp.clone(), facts(here, 1)), (worker.clone(), facts(there, 2))].into();
            let view = View { lab: &lab, node: &worker, fleet: &fleet, host: None };
            let [step] = <[Step; 1]>::try_from(JoinWorkers.steps(&view).await.unwrap()).ok().unwrap();
            let Change::Script(text) = step.change else { panic!("the join is a script") };
            let (_, patch) =
                text.split_once("> $run/patches/kubeletconfiguration+merge.yaml <<'KC_END' || exit 1\n").unwrap();
            let (patch, _) = patch.split_once("KC_END\n").unwrap();
            assert!(patch.starts_with('#') && patch.ends_with(&format!("\n{wanted}")), "{patch}");
            assert!(text.contains("\npatches:\n  directory: /run/kubecamp/patches\n"), "{text}");
        }
    }

    #[test]
    fn a_kubelet_that_died_once_is_started_anew_so_that_it_counts() {
        let host = Sham::new();
        host.put("restarts", "1\n");
        let (out, called) = host.join();
        assert!(out.status.success() && called.contains("systemctl restart kubelet"), "{out:?}\n{called}");
    }

    #[test]
    fn a_node_without_an_identity_does_not_join() {
        let host = Sham::new();
        let (out, called) = host.join_as("worker-2", false);
        assert!(!out.status.success() && !called.contains("kubeadm join"), "{out:?}\n{called}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("no identity"), "{out:?}");
    }

    #[test]
    fn what_was_killed_before_kubeadm_began_is_no_join() {
        let host = Sham::new();
        host.put(CONF, "apiVersion: v1\n");
        host.put(CERTIFICATE, "x");
        let (out, called) = host.join();
        assert!(out.status.success() && called.contains("kubeadm join"), "{out:?}\n{called}");
    }

    #[test]
    fn a_stopped_kubelet_is_started_and_no_more() {
        let host = Sham::new();
        host.put(CONF, "apiVersion: v1\n");
        host.put(CERTIFICATE, "x");
        host.put(FLAGS, "x");
        let (out, called) = host.join();
        assert!(out.status.success() && called.contains("systemctl restart kubelet"), "{out:?}\n{called}");
        assert!(!called.contains("kubeadm") && host.has(CONF), "{called}");
    }

    #[test]
    fn a_node_whose_address_changed_goes_on_at_the_new_one() {
        let flags = |told: &str| format!("KUBELET_KUBEADM_ARGS=\"--v=2 {told} --x=y\"\n");
        for (told, holds) in [
            ("--node-ip=192.0.2.2", true),
            ("--v=3", true),
            ("--node-ip=192.0.2.20", false),
            ("--node-ip=10.0.0.2", false),
        ] {
            let host = Sham::new();
            host.put(CONF, "apiVersion: v1\n");
            host.put(CERTIFICATE, "x");
            host.put(FLAGS, &flags(told));
            let root = host.0.path();
            let check = format!("ADDRESS=192.0.2.2\n{AT_HOME}at_home")
                .replace("/var/lib", &format!("{}/var/lib", root.display()));
            assert_eq!(Command::new("/bin/sh").arg("-c").arg(check).status().unwrap().success(), holds, "{told}");
            let (out, called) = host.join();
            assert!(out.status.success() && called.contains("systemctl restart kubelet"), "{out:?}\n{called}");
            assert!(!called.contains("kubeadm join") && called.contains("sed -i ") != holds, "{called}");
            let kept = if holds { told } else { "--node-ip=192.0.2.2" };
            assert_eq!(fs::read_to_string(root.join(FLAGS)).unwrap(), flags(kept));
        }
    }

    #[test]
    fn whoever_joined_a_cluster_that_is_gone_joins_the_new_one() {
        for (authority, joins) in [("LS0tLS1C", false), ("b3RoZXJz", true)] {
            let host = Sham::new();
            host.put(CONF, &format!("clusters:\n- cluster:\n    certificate-authority-data: {authority}\n"));
            host.put(CERTIFICATE, "x");
            host.put(FLAGS, "x");
            let (out, called) = host.join_as("worker-1", true);
            assert!(out.status.success(), "{out:?}\n{called}");
            let at = |what: &str| called.lines().position(|line| line.starts_with(what));
            assert_eq!(at("kubeadm join").is_some(), joins, "{called}");
            assert!(!joins || at("systemctl stop kubelet") < at("kubeadm join"), "{called}");
        }
    }

    #[test]
    fn what_a_broken_join_left_makes_room_for_another() {
        let host = Sham::new();
        host.put(CONF, "");
        host.put(CERTIFICATE, "x");
        let (out, called) = host.join();
        assert!(out.status.success() && called.contains("kubeadm join"), "{out:?}\n{called}");
        assert!(
            called.contains("systemctl stop kubelet") && fs::read_to_string(host.0.path().join(CONF)).unwrap() != "",
            "{called}"
        );
    }

    #[test]
    fn a_kubelet_whose_configuration_is_gone_is_stopped_before_its_node_joins() {
        let host = Sham::new();
        host.put(CERTIFICATE, "x");
        host.put(FLAGS, "x");
        let (out, called) = host.join();
        assert!(out.status.success(), "{out:?}\n{called}");
        let at = |what: &str| called.lines().position(|line| line.starts_with(what)).expect(what);
        assert!(at("systemctl stop kubelet") < at("kubeadm join"), "{called}");
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
