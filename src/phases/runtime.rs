use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use reqwest::Url;
use serde_json::json;

use super::cluster::SOCKET;
use crate::{
    bundle::Bundle,
    core::{Code, PhaseId, Problem, shell::quote},
    engine::{Check, Phase, Step, View},
    host::{Cgroup, Facts, script, template},
    profile::Mirror,
};

/// Runs kubecamp's own containerd and prepares the kubelet's unit.
///
/// Where these run already, and of what was replaced since, they are started anew: pods live on.
pub struct Runtime {
    /// Names the images that are kept.
    pub bundle: Arc<Bundle>,
}

/// Where containerd looks for what each registry's images are fetched from, as its configuration says.
const REGISTRIES: &str = "/etc/kubecamp/registries";

impl Runtime {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("runtime");
}

#[async_trait]
impl Phase for Runtime {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "start containerd, prepare the kubelet"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut files = vec![
            ("/etc/kubecamp/containerd.toml".to_owned(), self.config(view)?),
            ("/etc/systemd/system/kubecamp-containerd.service".to_owned(), unit(view.facts())?),
            ("/etc/systemd/system/kubelet.service".to_owned(), template::text("node/kubelet.service")?),
            ("/etc/crictl.yaml".to_owned(), template::text("node/crictl.yaml")?),
        ];
        for mirror in &view.lab.profile().mirrors {
            files.push((format!("{REGISTRIES}/{}/hosts.toml", mirror.registry), hosts_toml(mirror)?));
        }
        let same: Vec<_> = files.iter().map(|(path, text)| script::has(path, text)).collect();
        let puts: String = files.iter().map(|(path, text)| script::put(path, 0o644, text)).collect();
        let check = format!(
            "{}{} && systemctl is-active -q kubecamp-containerd && [ -S {SOCKET} ] && systemctl is-enabled -q kubelet && fresh",
            template::text("host/fresh.sh")?,
            same.join(" && ")
        );
        let own = ["/var/lib/kubelet", "/var/lib/cni", "/etc/kubernetes", "/opt/cni"];
        let trees: String = own.iter().map(|d| format!("kc_dirs {0}; kc_tree {d}\n", parent(d))).collect();
        let change = format!(
            "{trees}for l in /etc/systemd/system/*.wants/kubelet.service; do [ ! -L \"$l\" ] || kc_keep \"$l\" || exit 1; done\n\
             kc_dirs /etc/kubecamp/cni/net.d; mkdir -p /run/kubecamp /var/lib/kubecamp/containerd\n{puts}\
             kc_record unit absent kubecamp-containerd; kc_record unit absent kubelet\n\
             systemctl daemon-reload && systemctl enable -q kubecamp-containerd kubelet && systemctl restart kubecamp-containerd || exit 1\n\
             i=0; until [ -S {SOCKET} ] && /opt/kubecamp/bin/ctr -a {SOCKET} version >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 150 ] || kc_die \"$(journalctl -u kubecamp-containerd -n 20 --no-pager 2>&1)\"; sleep 0.2; done\n\
             systemctl try-restart kubelet",
        );
        Ok(vec![Step::script("containerd", "configure and start containerd", Check::Script(check), change)])
    }
}

impl Runtime {
    fn config(&self, view: &View<'_>) -> Result<String, Problem> {
        let facts = view.facts();
        let pause = self.bundle.image("pause")?;
        let values = json!({
            "pause": pause,
            "images": kept(pause, self.bundle.members().flat_map(|m| &m.images)),
            "restrict_oom": !facts.has_sys_resource(),
            "systemd_cgroup": facts.cgroup() == Cgroup::V2,
        });
        template::render("node/containerd.toml.tera", &values)
    }
}

/// containerd's unit. Who may not lower scores of the OOM killer does not ask systemd to.
fn unit(facts: &Facts) -> Result<String, Problem> {
    template::render("node/containerd.service.tera", &json!({"lower_oom": facts.has_sys_resource()}))
}

/// The images that are kept besides the pause image, each once: of two equal keys in its configuration containerd dies.
fn kept<'a>(pause: &str, images: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
    images.map(String::as_str).filter(|name| *name != pause).collect()
}

/// Where containerd looks for a registry's images first.
fn hosts_toml(mirror: &Mirror) -> Result<String, Problem> {
    let endpoints = mirror.endpoints.iter().map(|text| endpoint(text)).collect::<Result<Vec<_>, _>>()?;
    template::render("node/hosts_toml.tera", &json!({"endpoints": endpoints}))
}

/// An endpoint as containerd reads it. It appends `/v2` to a path that does not end so, unless it is told to take the
/// path as it is: right for a registry below a path, wrong where `v2` stands before the repositories' own prefix.
fn endpoint(text: &str) -> Result<serde_json::Value, Problem> {
    // What is written is the parsed address and not the text, in which a quote would end the file's.
    let url = Url::parse(text)
        .map_err(|e| Problem::new(Code::ProfileInvalid, format!("the endpoint {text} is not a URL")).because(e))?;
    let address = url.as_str().trim_end_matches('/');
    let before_the_end = url
        .path()
        .trim_end_matches('/')
        .rsplit_once('/')
        .is_some_and(|(before, _)| before.split('/').any(|segment| segment == "v2"));
    Ok(json!({"url": address, "override_path": before_the_end}))
}

fn parent(path: &str) -> String {
    quote(path.rsplit_once('/').map_or("/", |(p, _)| if p.is_empty() { "/" } else { p }))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Whether a host counts as fresh where a kubelet runs, `then` happens, and systemd says `reload` of its unit.
    fn is_fresh(then: &str, reload: &str) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "{}\ncp \"$(command -v sh)\" kubelet && cp kubelet new && mkfifo wait || exit 9\n\
             ./kubelet -c 'read line' <> wait & pid=$!; main=$pid; trap 'kill $pid' EXIT\n\
             i=0; until [ kubelet -ef /proc/$pid/exe ]; do [ $i -lt 500 ] || exit 9; i=$((i+1)); sleep 0.01; done\n\
             systemctl() {{ printf 'MainPID=%s\\nNeedDaemonReload=%s\\n\\n' 0 no $main {reload}; }}\n\
             {then}\nfresh",
            template::text("host/fresh.sh").unwrap()
        );
        let ended = Command::new("sh").arg("-c").arg(script).current_dir(dir.path()).status().unwrap();
        assert!(matches!(ended.code(), Some(0 | 1)), "{then}: {ended}");
        ended.success()
    }

    #[test]
    fn what_runs_of_another_program_or_unit_than_the_disks_is_not_fresh() {
        assert!(is_fresh("", "no"));
        assert!(is_fresh("main=0", "no"), "a new host runs none");
        assert!(!is_fresh("mv new kubelet", "no"), "the one before runs on");
        assert!(is_fresh("main=0; mv new kubelet", "no"), "the next one is the new one");
        assert!(!is_fresh("", "yes"), "its unit was replaced");
        assert!(!is_fresh("systemctl() { return 1; }", "no"), "nobody can tell");
    }

    #[test]
    fn pods_inherit_the_limits_of_any_service() {
        for (caps, lines) in [
            ("caps=000001ffffffffff", &["TasksMax=infinity", "OOMScoreAdjust=-999"][..]),
            ("caps=000001fffeffffff", &["TasksMax=infinity"][..]),
        ] {
            let text = unit(&Facts::parse(caps)).unwrap();
            let (_, limits) = text.split_once("\nLimitNOFILE=1024:524288\n").unwrap();
            let (limits, _) = limits.split_once("\n\n[Install]\nWantedBy=").unwrap();
            assert_eq!(limits.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(), lines, "{caps}");
        }
    }

    #[test]
    fn no_image_of_the_bundle_is_cleared_away() {
        // Two members may bring an image of one name.
        let all = ["k8s/etcd:3.6", "k8s/pause:3", "ghcr.io/flannel:1", "k8s/etcd:3.6"].map(str::to_owned);
        let images = kept("k8s/pause:3", all.iter());
        let values = json!({"pause": "k8s/pause:3", "images": images, "restrict_oom": true, "systemd_cgroup": true});
        let text = template::render("node/containerd.toml.tera", &values).unwrap();
        assert!(
            text.contains(&format!("config_path = \"{REGISTRIES}\"\n")),
            "the mirrors are where they are looked for"
        );
        let (_, pinned) = text.split_once(".pinned_images]\n").unwrap();
        let (pinned, _) = pinned.split_once("\n\n[").unwrap();
        assert_eq!(
            pinned.lines().map(str::trim).collect::<Vec<_>>(),
            [
                r#"sandbox = "k8s/pause:3""#,
                r#""ghcr.io/flannel:1" = "ghcr.io/flannel:1""#,
                r#""k8s/etcd:3.6" = "k8s/etcd:3.6""#
            ]
        );
    }

    #[test]
    fn containerd_reads_the_endpoints_as_the_profile_means_them() {
        let endpoints = [
            "https://mirror.example",
            "http://mirror.example:5000/",
            "https://mirror.example/v2/k8s/",
            "https://mirror.example/k8s/v2",
            "https://mirror.example/a\"b\n",
        ];
        let mirror =
            Mirror { registry: "docker.io".into(), endpoints: endpoints.iter().map(ToString::to_string).collect() };
        let text = hosts_toml(&mirror).unwrap();
        let (_, hosts) = text.split_once("\n\n").unwrap();
        assert_eq!(
            hosts,
            r#"[host."https://mirror.example"]
  capabilities = ["pull", "resolve"]

[host."http://mirror.example:5000"]
  capabilities = ["pull", "resolve"]

[host."https://mirror.example/v2/k8s"]
  capabilities = ["pull", "resolve"]
  override_path = true

[host."https://mirror.example/k8s/v2"]
  capabilities = ["pull", "resolve"]

[host."https://mirror.example/a%22b"]
  capabilities = ["pull", "resolve"]
"#
        );
        assert!(!text.lines().any(|line| line.starts_with("server")), "containerd knows docker.io's host itself");
    }
}
