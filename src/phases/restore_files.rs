use std::sync::Arc;

use async_trait::async_trait;

use super::reset_host::{Records, Scripts};
use crate::{
    core::{PhaseId, Problem},
    engine::{Phase, Step, View},
};

/// Puts back every file, folder, unit and setting as the host's manifest says it was.
pub struct RestoreFiles {
    /// What the lab's folder remembers of its hosts.
    pub records: Arc<Records>,
}

#[async_trait]
impl Phase for RestoreFiles {
    fn id(&self) -> PhaseId {
        PhaseId::new("restore-files")
    }

    fn title(&self) -> &'static str {
        "restore files and settings"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let scripts = Scripts::new(view, &self.records, Some("reset/restore.sh"))?;
        let any = |list: &str| format!("[ -n \"$({list})\" ]");
        Ok(vec![
            scripts.step("files", "restore files, folders and units", "files_left", "restore_files"),
            scripts.step("made", "remove what the cluster made by itself", "made_left", "remove_made"),
            scripts.step("settings", "restore kernel settings", &any("settings"), "restore_settings"),
            scripts.step("modules", "unload kernel modules", &any("modules"), "remove_modules"),
        ])
    }
}

#[cfg(test)]
mod tests {
    use crate::{core::Blob, host::template};

    const BEFORE: &str = "127.0.0.1 localhost\n";

    #[test]
    fn a_record_that_a_full_disk_cut_off_is_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let restore = template::text("reset/restore.sh").unwrap();
        let script = format!("KC={}\nTAB='\t'\n{restore}\nmanifest", dir.path().display());
        let whole = "tree\tabsent\t/etc/kubernetes\nfile\tabsent\t/etc/crictl.yaml\n";
        let cut = format!("{whole}tree\tabsent\t/var/lib");
        for (text, seen) in [(whole, whole), (cut.as_str(), whole), ("dir\tabsent\t/opt", "")] {
            std::fs::write(dir.path().join("manifest"), text).unwrap();
            let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), seen, "{text}");
        }
    }

    #[test]
    fn a_kubeconfig_of_roots_own_stays_where_the_record_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join(".kube/config");
        std::fs::create_dir_all(dir.path().join(".kube")).unwrap();
        let [host, restore] = ["reset/host.sh", "reset/restore.sh"].map(|name| template::text(name).unwrap());
        let functions = format!("CONTROL=yes NODES=\n{host}\n{restore}")
            .replace("/var/lib/kubecamp", &dir.path().join("kubecamp").display().to_string())
            .replace("/root/", &format!("{}/", dir.path().display()));
        for (text, ours) in [("apiVersion: v1\n", false), ("# kubecamp: a copy of x\napiVersion: v1\n", true)] {
            std::fs::write(&config, text).unwrap();
            let script = format!("{functions}\nmanifest");
            let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
            let listed = String::from_utf8_lossy(&out.stdout).contains("/.kube/config\n");
            assert_eq!(listed, ours, "{text}");
        }
    }

    #[test]
    fn files_come_back_into_what_the_images_leave() {
        let dir = tempfile::tempdir().unwrap();
        let (own, file) = (dir.path().join("kubecamp"), dir.path().join("file"));
        for folder in ["kept", "containerd"] {
            std::fs::create_dir_all(own.join(folder)).unwrap();
        }
        std::fs::write(own.join("kept/1"), "before").unwrap();
        std::fs::write(&file, "ours").unwrap();
        std::fs::write(own.join("manifest"), format!("file\tkept:1\t{}\n", file.display())).unwrap();
        let [host, restore] = ["reset/host.sh", "reset/restore.sh"].map(|name| template::text(name).unwrap());
        let functions = format!("CONTROL=no NODES=\n{host}\n{restore}");
        let functions = functions.replace("/var/lib/kubecamp", &own.display().to_string());
        // Nothing can be written while the images fill the disk.
        let full = "has() { false; }\ncp() { [ ! -e \"$KC/containerd\" ] && command cp \"$@\"; }";
        let script = format!("{functions}\n{full}\nrestore_files");
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "before", "{out:?}");
    }

    /// What becomes of a hosts file that is `now` so, and what is spared.
    fn hosts_after(now: &str) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let (own, hosts) = (dir.path().join("kubecamp"), dir.path().join("hosts"));
        std::fs::create_dir_all(own.join("kept")).unwrap();
        std::fs::write(own.join("kept/1"), BEFORE).unwrap();
        let sum = Blob::from_bytes(BEFORE.as_bytes()).sha256().to_owned();
        std::fs::write(own.join("before"), format!("content\t{sum}  {}\n", hosts.display())).unwrap();
        std::fs::write(own.join("manifest"), format!("block\tkept:1\t{}\n", hosts.display())).unwrap();
        std::fs::write(&hosts, now).unwrap();
        let names = ["host/lib.sh", "reset/host.sh", "reset/restore.sh"];
        let functions = names.map(|name| template::text(name).unwrap()).concat();
        let functions = functions.replace("/var/lib/kubecamp", &own.display().to_string());
        let script =
            format!("CONTROL=no NODES=\n{functions}\nhas() {{ false; }}\nfiles_left && restore_files && ! files_left");
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        let spared = std::fs::read_to_string(own.join("spared")).unwrap_or_default();
        (std::fs::read_to_string(&hosts).unwrap(), spared.replace(&hosts.display().to_string(), "hosts"))
    }

    #[test]
    fn a_hosts_file_that_others_wrote_whole_is_theirs() {
        // As cloud-init does at each start, which takes our lines away.
        let theirs = format!("{BEFORE}127.0.1.1 theirs\n");
        // The proof reads it, and would call the file a residue for ever.
        assert_eq!(hosts_after(&theirs), (theirs, "content\thosts\n".to_owned()));
    }

    #[test]
    fn a_hosts_file_that_a_cut_off_write_left_empty_comes_back() {
        assert_eq!(hosts_after(""), (BEFORE.to_owned(), String::new()));
        let with_block = format!("{BEFORE}# kubecamp begin\n192.0.2.1 cp\n# kubecamp end\n");
        assert_eq!(hosts_after(&with_block), (BEFORE.to_owned(), String::new()));
    }

    /// What is unloaded, in order, on a host that had overlay before any lab, where the record says these words first.
    fn unloaded(head: &str, container: &str, listener: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let [own, modules, links, log] = ["kubecamp", "modules", "netlink", "log"].map(|name| dir.path().join(name));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("before"), format!("{head}module\toverlay\n")).unwrap();
        std::fs::write(own.join("manifest"), "dir\tabsent\t/opt/kubecamp\n").unwrap();
        std::fs::write(&links, format!("sk Eth Pid Groups Rmem\n0 15 1 00000001 0\n0 12 7 {listener} 0\n")).unwrap();
        let loaded = "overlay 1 0 - Live 0x0\nip_vs_rr 1 0 - Live 0x0\nip_vs 1 1 ip_vs_rr, Live 0x0\n\
            nf_conntrack_netlink 1 0 - Live 0x0\nnf_conntrack 1 2 nf_conntrack_netlink,ip_vs, Live 0x0\n\
            br_netfilter 1 0 - Live 0x0\nnft_ct 1 1 - Live 0x0\nxt_comment 1 0 - Live 0x0\nsnd 1 0 - Live 0x0\n";
        std::fs::write(&modules, loaded).unwrap();
        let [host, restore] = ["reset/host.sh", "reset/restore.sh"].map(|name| template::text(name).unwrap());
        let functions = [("/var/lib/kubecamp", &own), ("/proc/modules", &modules), ("/proc/net/netlink", &links)]
            .iter()
            .fold(host + &restore, |text, (path, to)| text.replace(path, &to.display().to_string()));
        let script = format!(
            "CONTROL=no NODES= CONTAINER={container}\n{functions}\nM={} L={}\nothers_forward() {{ return 1; }}\n\
             timeout() {{ shift; \"$@\"; }}\n\
             rmmod() {{ awk -v m=\"$1\" '$1 == m {{ next }} index(\",\" $4, \",\" m \",\") {{ $3-- }} {{ print }}' $M > $M.new\n\
             mv $M.new $M; echo \"$1\" >> $L; }}\nremove_modules",
            modules.display(),
            log.display()
        );
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        std::fs::read_to_string(&log).unwrap_or_default().trim_end().replace('\n', " ")
    }

    #[test]
    fn modules_that_came_and_are_idle_go_one_after_the_other() {
        let (third, nobody) = ("scan\t3\n", "00000000");
        assert_eq!(unloaded(third, "no", nobody), "ip_vs_rr nf_conntrack_netlink xt_comment ip_vs nf_conntrack");
        assert_eq!(unloaded(third, "no", "00000007"), "ip_vs_rr xt_comment ip_vs", "somebody hears of connections");
        assert_eq!(unloaded(third, "yes", nobody), "", "they are the computer's below");
        for earlier in ["scan\t2\n", ""] {
            assert_eq!(unloaded(earlier, "no", nobody), "", "any of them may have been there");
        }
    }

    /// What was written to have a profile removed, and what is spared, where this program runs.
    fn profile_after(head: &str, comm: &str, container: &str, refused: bool) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let below = |path: &str| dir.path().join(path);
        for folder in ["kubecamp", "security/apparmor", "proc/7"] {
            std::fs::create_dir_all(below(folder)).unwrap();
        }
        std::fs::write(below("kubecamp/before"), head).unwrap();
        let loaded = "docker-default (enforce)\ncri-containerd.apparmor.d (enforce)\n";
        std::fs::write(below("security/apparmor/profiles"), loaded).unwrap();
        std::fs::write(below("proc/7/comm"), format!("{comm}\n")).unwrap();
        let remove = below("security/apparmor/.remove");
        if refused {
            std::fs::create_dir(&remove).unwrap();
        }
        let [host, restore] = ["reset/host.sh", "reset/restore.sh"].map(|name| template::text(name).unwrap());
        let functions =
            [("/var/lib/kubecamp", "kubecamp"), ("/sys/kernel/security", "security"), ("/proc/[0-9]", "proc/[0-9]")]
                .iter()
                .fold(host + &restore, |text, (path, to)| text.replace(path, &below(to).display().to_string()));
        let script = format!("CONTROL=no NODES= CONTAINER={container}\n{functions}\nremove_profiles");
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        (text(remove), text(below("kubecamp/spared")))
    }

    #[test]
    fn the_profile_of_containers_goes_unless_somebody_may_use_it() {
        const NAME: &str = "cri-containerd.apparmor.d";
        let gone = || (NAME.to_owned(), String::new());
        let left = |spared: &str| (String::new(), spared.to_owned());
        let spared = format!("apparmor\t{NAME}\n");
        let third = "scan\t3\n";
        assert_eq!(profile_after(third, "sshd", "no", false), gone());
        assert_eq!(profile_after("", "sshd", "no", false), gone(), "the record is lost");
        assert_eq!(profile_after(third, "containerd-shim", "no", false), left(&spared));
        assert_eq!(profile_after(third, "sshd", "no", true), left(&spared), "the kernel refuses");
        assert_eq!(profile_after(third, "sshd", "yes", false), left(""), "it is the computer's below");
        assert_eq!(profile_after("scan\t2\n", "sshd", "no", false), left(""), "it may have been there");
        assert_eq!(profile_after(&format!("{third}{spared}"), "sshd", "no", false), left(""), "it was there");
    }

    /// Which of these folders, all of them empty, would go where the record says this.
    fn hollow(record: &str, of_user: bool) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        for folder in ["kubecamp", "opt/containerd/bin", "opt/nri", "run/containerd"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("kubecamp/before"), record.replace("ROOT", &root)).unwrap();
        let socket = dir.path().join("run/containerd/containerd.sock");
        let _socket = of_user.then(|| std::os::unix::net::UnixListener::bind(socket).unwrap());
        let [host, restore] = ["reset/host.sh", "reset/restore.sh"].map(|name| template::text(name).unwrap());
        let functions = ["/opt/containerd", "/opt/nri", "/run/containerd/"]
            .iter()
            .fold(host + &restore, |text, path| text.replace(path, &format!("{root}{path}")))
            .replace("/var/lib/kubecamp", &format!("{root}/kubecamp"));
        let script = format!("CONTROL=no NODES= CONTAINER=no\n{functions}\nhollow");
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().filter_map(|line| line.strip_prefix(&root)).map(str::to_owned).collect()
    }

    #[test]
    fn without_a_record_the_folder_that_only_containerd_makes_goes_all_the_same() {
        assert_eq!(hollow("scan\t3\n", false), ["/opt/containerd", "/opt/nri"]);
        assert_eq!(hollow("scan\t3\npath\tROOT/opt/containerd\n", false), ["/opt/nri"]);
        assert_eq!(hollow("", false), ["/opt/containerd"], "the record is lost");
        assert!(hollow("", true).is_empty(), "a containerd of the user's makes it too");
    }

    #[test]
    fn what_cni_noted_of_the_labs_pods_goes_before_their_names_do() {
        let dir = tempfile::tempdir().unwrap();
        let below = |path: &str| dir.path().join(path);
        let pod = "kubecamp/containerd/io.containerd.grpc.v1.cri/sandboxes/77aa";
        for folder in ["cni/results", "cni/cache/results", pod] {
            std::fs::create_dir_all(below(folder)).unwrap();
        }
        let was = below("cni/results/podman-77aa-eth0");
        std::fs::write(below("kubecamp/before"), format!("path\t{}\n", was.display())).unwrap();
        let results = ["cni-loopback-77aa-lo", "cni-loopback-5e5e-lo", "k8s-pod-network-77aa-eth0", "podman-77aa-eth0"];
        for result in results {
            std::fs::write(below("cni/results").join(result), "{}").unwrap();
        }
        std::fs::write(below("cni/cache/results/cni-loopback-77aa-lo"), "{}").unwrap();
        let [host, restore] = ["reset/host.sh", "reset/restore.sh"].map(|name| template::text(name).unwrap());
        let functions = [("/var/lib/kubecamp", "kubecamp"), ("/var/lib/cni", "cni")]
            .iter()
            .fold(host + &restore, |text, (path, to)| text.replace(path, &below(to).display().to_string()));
        let script = format!("CONTROL=no NODES=\n{functions}\nfree_images");
        let out = std::process::Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(out.status.success() && !below("kubecamp/containerd").exists(), "{out:?}");
        let there: Vec<_> = results.iter().filter(|result| below("cni/results").join(result).exists()).collect();
        assert_eq!(there, [&"cni-loopback-5e5e-lo", &"podman-77aa-eth0"]);
        assert!(!below("cni/cache/results/cni-loopback-77aa-lo").exists());
    }
}
