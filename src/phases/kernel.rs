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
        .map(|(k, v)| match (is_least(k), live_file(k)) {
            (true, f) => format!(" && {{ [ ! -w {f} ] || [ \"$(cat {f})\" -ge {v} ]; }}"),
            (false, f) => format!(" && {{ [ ! -e {f} ] || [ \"$(cat {f})\" = {v} ]; }}"),
        })
        .collect();
    let set: String = SYSCTLS
        .iter()
        .map(|(k, v)| match *k {
            "net.ipv4.ip_forward" => format!("kc_sysctl {k} {v} || kc_die 'cannot switch on IP forwarding'\n"),
            _ if is_least(k) => {
                format!("[ \"$(cat {})\" -ge {v} ] || kc_sysctl {k} {v} 2>/dev/null\n", live_file(k))
            }
            _ => format!("kc_sysctl {k} {v} 2>/dev/null\n"),
        })
        .collect();
    let check = format!("{}{live}", is_kept());
    let change = format!("{}{set}true", keep());
    Step::script("sysctls", "switch on forwarding, raise inotify limits", Check::Script(check), change)
}

/// Whether a host may have more than the lab needs.
fn is_least(key: &str) -> bool {
    key.starts_with("fs.inotify.")
}

/// Where the kernel shows its value.
fn live_file(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

/// A check that the next start of the host will set the same or what is more than the lab needs, by one file alone.
fn is_kept() -> String {
    let each: String = SYSCTLS
        .iter()
        .map(|(k, v)| match is_least(k) {
            true => format!(" && v[\"{k}\"] ~ /^[0-9]+$/ && v[\"{k}\"] + 0 >= {v}"),
            false => format!(" && v[\"{k}\"] == \"{v}\""),
        })
        .collect();
    // As many lines as settings, and each of these: then there is none of anything else.
    let says = format!("NF == 2 {{ v[$1] = $2 }} END {{ exit !(NR == {}{each}) }}", SYSCTLS.len());
    let earlier = format!("[ -e {EARLIER_FILE} ] && grep -qs '^file\t.*\t{EARLIER_FILE}$' /var/lib/kubecamp/manifest");
    format!("awk -F ' = ' '{says}' {SYSCTL_FILE} 2>/dev/null && ! {{ {earlier}; }}")
}

/// Writes that file; what an earlier version put on the host under another name goes, and its record stays: reset brings back
/// what was there before.
///
/// No other file has a say beside this one: where the host has more than the lab needs, by whichever of them, it says that.
fn keep() -> String {
    let lines: String = SYSCTLS
        .iter()
        .map(|(k, v)| match is_least(k) {
            true => format!("v=$(cat {}); [ \"$v\" -ge {v} ] || v={v}; echo \"{k} = $v\"; ", live_file(k)),
            false => format!("echo '{k} = {v}'; "),
        })
        .collect();
    format!(
        "{{ {lines}}} 2>/dev/null | kc_put {SYSCTL_FILE} 644 || exit 1\n\
         if kc_known file {EARLIER_FILE}; then rm -f {EARLIER_FILE}; fi\n"
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    fn runs(root: &Path, script: &str) -> bool {
        let text = format!("{}\n{script}", script::LIB);
        let text = ["/etc/sysctl.d", "/var/lib/kubecamp", "/proc/sys/fs/inotify"]
            .iter()
            .fold(text, |text, path| text.replace(path, &format!("{}{path}", root.display())));
        Command::new("sh").arg("-c").arg(text).status().unwrap().success()
    }

    /// What earlier versions wrote, whatever the host had.
    fn content() -> String {
        SYSCTLS.iter().map(|(k, v)| format!("{k} = {v}\n")).collect()
    }

    #[test]
    fn a_host_that_has_more_keeps_it_at_its_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        let live = at("/proc/sys/fs/inotify");
        for folder in [&live, &at("/etc/sysctl.d")] {
            fs::create_dir_all(folder).unwrap();
        }
        let has = |instances: &str, watches: &str| {
            fs::write(live.join("max_user_instances"), format!("{instances}\n")).unwrap();
            fs::write(live.join("max_user_watches"), format!("{watches}\n")).unwrap();
        };
        let said = || fs::read_to_string(at(SYSCTL_FILE)).unwrap();
        has("128", "1048576");
        assert!(!runs(root, &is_kept()) && runs(root, &keep()) && runs(root, &is_kept()));
        assert_eq!(said(), content().replace("524288", "1048576"));
        // Whatever the host has meanwhile, nothing is written a second time.
        for (instances, watches) in [("1024", "1048576"), ("8192", "524288")] {
            has(instances, watches);
            assert!(runs(root, &is_kept()));
        }
        assert!(runs(root, &keep()));
        assert_eq!(said(), content().replace("1024", "8192"));
        fs::write(at(SYSCTL_FILE), content()).unwrap();
        assert!(runs(root, &is_kept()), "of an earlier version");
    }

    #[test]
    fn a_file_that_says_less_or_something_else_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let file = root.join(SYSCTL_FILE.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        for (ours, theirs) in [
            ("ip_forward = 1", "ip_forward = 0"),
            ("ip_forward = 1", "ip_forward = 10"),
            ("ip_forward = 1", "ip_forward=1"),
            ("524288", "524287"),
            ("524288", "9999999x"),
            ("1024", ""),
            ("fs.inotify.max_user_watches = 524288\n", ""),
            ("524288\n", "524288\nfs.inotify.max_user_watches=1\n"),
            ("524288\n", "524288\nfs.inotify.max_user_watches = 524288\n"),
        ] {
            fs::write(&file, content().replace(ours, theirs)).unwrap();
            assert!(!runs(root, &is_kept()), "{ours} {theirs}");
            assert!(runs(root, &keep()) && runs(root, &is_kept()));
            assert_eq!(fs::read_to_string(&file).unwrap(), content());
        }
    }

    #[test]
    fn the_facts_tell_of_the_same_settings() {
        let facts = include_str!("../../templates/host/facts.sh");
        let (_, after) = facts.split_once("\n[ -r /etc/sysctl.conf ] && ").unwrap();
        let (part, _) = after.split_once("\n[ -w /proc/sys/net/netfilter").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sysctl.conf");
        let ours: Vec<&str> = SYSCTLS.iter().map(|(k, _)| *k).collect();
        let others = ["fs.inotify.max_queued_events", "net.bridge.bridge-nf-call-arptables", "net.ipv4.ip_forward_x"];
        let lines: String = ours.iter().chain(&others).map(|k| format!("{k} = 0\n")).collect();
        fs::write(&file, lines).unwrap();
        let script = format!("p() {{ echo \"$2\"; }}\n{part}").replace("/etc/sysctl.conf", &file.display().to_string());
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let told = String::from_utf8(out.stdout).unwrap();
        let keys: Vec<_> = told.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(keys, ours);
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
