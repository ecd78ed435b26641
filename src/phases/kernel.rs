use async_trait::async_trait;

use crate::{
    core::{PhaseId, Problem},
    engine::{Check, Phase, Step, View},
    host::script,
    profile::{Cni, ProxyMode},
};

/// Loads modules and sets sysctls that pods need, now and after a reboot.
pub struct Kernel;

const MODULES_FILE: &str = "/etc/modules-load.d/kubecamp.conf";
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-kubecamp.conf";

/// inotify limits: the default of 128 instances is used up by a few pods (kubernetes/kubernetes#104303).
const SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
    ("fs.inotify.max_user_instances", "1024"),
    ("fs.inotify.max_user_watches", "524288"),
];

impl Kernel {
    /// Its id.
    pub const ID: PhaseId = PhaseId::new("kernel");
}

#[async_trait]
impl Phase for Kernel {
    fn id(&self) -> PhaseId {
        Self::ID
    }

    fn title(&self) -> &'static str {
        "load kernel modules, set sysctls"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let mut modules = vec!["overlay", "br_netfilter"];
        if view.lab.profile().network.cni == Cni::Flannel {
            modules.push("vxlan");
        }
        if view.lab.profile().proxy.mode == ProxyMode::Ipvs {
            modules.extend(["ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh", "nf_conntrack"]);
        }
        Ok(vec![modules_step(&modules), sysctl_step()])
    }
}

fn modules_step(modules: &[&str]) -> Step {
    let content = format!("{}\n", modules.join("\n"));
    let names = modules.join(" ");
    // Built-in code needs no module, and a container cannot load any: preflight already said what is really missing.
    let change = format!(
        "{}for m in {names}; do [ -d /sys/module/$m ] && continue\n\
         modprobe $m 2>/dev/null && kc_record module absent $m; done; true",
        script::put(MODULES_FILE, 0o644, &content)
    );
    Step::script("modules", format!("load {names}"), Check::Script(script::has(MODULES_FILE, &content)), change)
}

fn sysctl_step() -> Step {
    let content: String = SYSCTLS.iter().map(|(k, v)| format!("{k} = {v}\n")).collect();
    // A kernel without bridge netfilter has no such key: there its bridged packets never meet iptables.
    let live: String = SYSCTLS
        .iter()
        .map(|(k, v)| {
            let f = format!("/proc/sys/{}", k.replace('.', "/"));
            match *k {
                "fs.inotify.max_user_instances" | "fs.inotify.max_user_watches" => {
                    format!(" && {{ [ ! -w {f} ] || [ \"$(cat {f})\" -ge {v} ]; }}")
                }
                _ => format!(" && {{ [ ! -e {f} ] || [ \"$(cat {f})\" = {v} ]; }}"),
            }
        })
        .collect();
    let set: String = SYSCTLS
        .iter()
        .map(|(k, v)| match *k {
            "net.ipv4.ip_forward" => format!("kc_sysctl {k} {v} || kc_die 'cannot switch on IP forwarding'\n"),
            _ if k.starts_with("fs.") => {
                format!("[ \"$(cat /proc/sys/{0})\" -ge {v} ] || kc_sysctl {k} {v} 2>/dev/null\n", k.replace('.', "/"))
            }
            _ => format!("kc_sysctl {k} {v} 2>/dev/null\n"),
        })
        .collect();
    let check = format!("{}{live}", script::has(SYSCTL_FILE, &content));
    let change = format!("{}{set}true", script::put(SYSCTL_FILE, 0o644, &content));
    Step::script("sysctls", "switch on forwarding, raise inotify limits", Check::Script(check), change)
}
