use async_trait::async_trait;
use serde_json::json;

use super::images::image_of;
use crate::{
    bundle::Bundle,
    core::{PhaseId, Problem, shell::quote},
    engine::{Check, Phase, Step, View},
    host::{Cgroup, script, template},
};
use std::sync::Arc;

/// Runs kubecamp's own containerd and prepares the kubelet's unit.
pub struct Runtime {
    /// Names the pause image.
    pub bundle: Arc<Bundle>,
}

/// The socket of the lab's containerd.
pub const SOCKET: &str = "/run/kubecamp/containerd.sock";

#[async_trait]
impl Phase for Runtime {
    fn id(&self) -> PhaseId {
        PhaseId::new("runtime")
    }

    fn title(&self) -> &'static str {
        "start containerd, prepare the kubelet"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut files = vec![
            ("/etc/kubecamp/containerd.toml".to_owned(), self.config(view)?),
            ("/etc/systemd/system/kubecamp-containerd.service".to_owned(), template::text("node/containerd.service")?),
            ("/etc/systemd/system/kubelet.service".to_owned(), template::text("node/kubelet.service")?),
            ("/etc/crictl.yaml".to_owned(), template::text("node/crictl.yaml")?),
        ];
        for mirror in &view.lab.profile().mirrors {
            let values = json!({"registry": mirror.registry, "endpoints": mirror.endpoints});
            let text = template::render("node/hosts_toml.tera", &values)?;
            files.push((format!("/etc/kubecamp/registries/{}/hosts.toml", mirror.registry), text));
        }
        let same: Vec<_> = files.iter().map(|(path, text)| script::has(path, text)).collect();
        let puts: String = files.iter().map(|(path, text)| script::put(path, 0o644, text)).collect();
        let check = format!(
            "{} && systemctl is-active -q kubecamp-containerd && [ -S {SOCKET} ] && systemctl is-enabled -q kubelet",
            same.join(" && ")
        );
        let own = ["/var/lib/kubelet", "/var/lib/cni", "/etc/kubernetes", "/opt/cni"];
        let trees: String = own.iter().map(|d| format!("kc_dirs {0}; kc_tree {d}\n", parent(d))).collect();
        let change = format!(
            "{trees}for l in /etc/systemd/system/*.wants/kubelet.service; do [ ! -L \"$l\" ] || kc_keep \"$l\" || exit 1; done\n\
             kc_dirs /etc/kubecamp/cni/net.d; mkdir -p /run/kubecamp /var/lib/kubecamp/containerd\n{puts}\
             kc_record unit absent kubecamp-containerd; kc_record unit absent kubelet\n\
             systemctl daemon-reload && systemctl enable -q kubecamp-containerd kubelet && systemctl restart kubecamp-containerd || exit 1\n\
             i=0; until [ -S {SOCKET} ] && /opt/kubecamp/bin/ctr -a {SOCKET} version >/dev/null 2>&1; do i=$((i+1)); [ $i -lt 150 ] || kc_die \"$(journalctl -u kubecamp-containerd -n 20 --no-pager 2>&1)\"; sleep 0.2; done",
        );
        Ok(vec![Step::script("containerd", "configure and start containerd", Check::Script(check), change)])
    }
}

impl Runtime {
    fn config(&self, view: &View<'_>) -> Result<String, Problem> {
        let facts = view.facts();
        let values = json!({
            "pause": image_of(&self.bundle, "pause")?,
            "restrict_oom": !facts.has_sys_resource(),
            "systemd_cgroup": facts.cgroup() == Cgroup::V2,
        });
        template::render("node/containerd.toml.tera", &values)
    }
}

fn parent(path: &str) -> String {
    quote(path.rsplit_once('/').map_or("/", |(p, _)| if p.is_empty() { "/" } else { p }))
}
