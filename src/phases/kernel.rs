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
/// A start of the host reads these files by their names: behind 99-sysctl.conf, which is often a link to /etc/sysctl.conf.
const SYSCTL_FILE: &str = "/etc/sysctl.d/99-zz-kubecamp.conf";
/// Where earlier versions had it.
const EARLIER_FILE: &str = "/etc/sysctl.d/90-kubecamp.conf";

/// Settings that pods need, each with its value, or for inotify its least one.
///
/// inotify limits: the default of 128 instances is used up by a few pods (kubernetes/kubernetes#104303).
pub(super) const SYSCTLS: &[(&str, &str)] = &[
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
    let check = format!("{}{live}", is_kept());
    let change = format!("{}{set}true", keep());
    Step::script("sysctls", "switch on forwarding, raise inotify limits", Check::Script(check), change)
}

fn content() -> String {
    SYSCTLS.iter().map(|(k, v)| format!("{k} = {v}\n")).collect()
}

/// A check that the next start of the host will set the same, by one file alone.
fn is_kept() -> String {
    let earlier = format!("[ -e {EARLIER_FILE} ] && grep -qs '^file\t.*\t{EARLIER_FILE}$' /var/lib/kubecamp/manifest");
    format!("{} && ! {{ {earlier}; }}", script::has(SYSCTL_FILE, &content()))
}

/// Writes that file; what an earlier version put on the host under another name goes, and its record stays: reset brings back
/// what was there before.
fn keep() -> String {
    format!(
        "{}if kc_known file {EARLIER_FILE}; then rm -f {EARLIER_FILE}; fi\n",
        script::put(SYSCTL_FILE, 0o644, &content())
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    fn runs(root: &Path, script: &str) -> bool {
        let text = format!("{}\n{script}", include_str!("../../templates/host/lib.sh"));
        let text = ["/etc/sysctl.d", "/var/lib/kubecamp"]
            .iter()
            .fold(text, |text, path| text.replace(path, &format!("{}{path}", root.display())));
        Command::new("sh").arg("-c").arg(text).status().unwrap().success()
    }

    #[test]
    fn the_settings_outlive_a_restart_whatever_the_distribution_sets() {
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        assert!(["99-sysctl.conf", "99-kubernetes-cri.conf"].iter().all(|other| name(SYSCTL_FILE).as_str() > *other));
        assert!(name(EARLIER_FILE).as_str() < "99-sysctl.conf");
    }

    #[test]
    fn the_file_of_an_earlier_version_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        fs::create_dir_all(at("/etc/sysctl.d")).unwrap();
        let earlier = script::put(EARLIER_FILE, 0o644, &content());
        assert!(runs(root, &earlier) && !runs(root, &is_kept()));
        for _ in 0..2 {
            assert!(runs(root, &keep()) && runs(root, &is_kept()));
            assert!(at(SYSCTL_FILE).exists() && !at(EARLIER_FILE).exists());
        }
        // A write that was cut off before it took the other away.
        fs::write(at(EARLIER_FILE), "").unwrap();
        assert!(!runs(root, &is_kept()) && runs(root, &keep()) && runs(root, &is_kept()));
        let manifest = fs::read_to_string(at("/var/lib/kubecamp/manifest")).unwrap();
        let files: Vec<_> = manifest.lines().filter(|line| line.starts_with("file\tabsent\t")).collect();
        assert_eq!(files.len(), 2, "reset knows both: {manifest}");
    }

    #[test]
    fn somebody_elses_file_of_that_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let theirs = root.join(EARLIER_FILE.trim_start_matches('/'));
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, "theirs").unwrap();
        assert!(runs(root, &keep()) && runs(root, &is_kept()));
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
    }
}
