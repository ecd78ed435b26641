//! Root's kubectl on the control plane finds the cluster: in a shell, in a command and with sudo.

use crate::engine::{Check, Step};

/// Where it looks.
const ROOTS: &str = "/root/.kube/config";

/// The first line of ours there: reset knows it by that where the record is lost.
const OURS: &str = "# kubecamp: a copy of /etc/kubernetes/admin.conf; reset removes it";

/// Gives root a kubeconfig where there is none, and anew where ours is of a cluster or a certificate of before.
///
/// It is a copy, since kubectl writes into it what its users choose, as a namespace: the cluster's own stays as kubeadm made
/// it. kubectl drops the first line then, and what was there before us stays root's own, so the record counts.
pub(super) fn root_kubectl() -> Step {
    let check = format!(
        "made_here() {{ [ ! -L {ROOTS} ] && grep -qs '^file\tabsent\t{ROOTS}$' /var/lib/kubecamp/manifest; }}\n\
         same() {{ for key in certificate-authority-data client-certificate-data; do\n\
         value=$(sed -n \"s/^ *$key: *//p\" /etc/kubernetes/admin.conf | head -n 1)\n\
         [ -z \"$value\" ] || grep -qF -e \"$value\" {ROOTS} || return 1; done; }}\n\
         [ -e {ROOTS} ] || [ -L {ROOTS} ] && {{ ! made_here || same; }}"
    );
    let change = format!(
        "[ -s /etc/kubernetes/admin.conf ] || exit 1\n\
         umask 077; {{ echo '{OURS}'; cat /etc/kubernetes/admin.conf; }} | kc_put {ROOTS} 600"
    );
    Step::script("root-kubectl", "let root's kubectl find the cluster", Check::Script(check), change)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

    use super::*;
    use crate::{engine::Change, host::script::LIB};

    const ADMIN: &str = "    certificate-authority-data: Q0E=\n    client-certificate-data: T05F\n";

    fn runs(root: &Path, text: &str) -> bool {
        let moved = [("/root/", "/home/"), ("/etc/kubernetes/", "/"), ("/var/lib/kubecamp", "")];
        let moved = moved
            .iter()
            .fold(format!("{LIB}\n{text}"), |text, (path, to)| text.replace(path, &format!("{}{to}", root.display())));
        Command::new("sh").arg("-c").arg(moved).status().unwrap().success()
    }

    fn texts() -> (String, String) {
        let step = root_kubectl();
        match (step.done_if, step.change) {
            (Check::Script(check), Change::Script(change)) => (check, change),
            _ => panic!("both are scripts"),
        }
    }

    #[test]
    fn root_gets_a_copy_that_goes_with_the_cluster() {
        let (check, change) = texts();
        let dir = tempfile::tempdir().unwrap();
        let (root, config) = (dir.path(), dir.path().join("home/.kube/config"));
        fs::create_dir(root.join("home")).unwrap();
        assert!(!runs(root, &check) && !runs(root, &change), "there is no cluster");
        fs::write(root.join("admin.conf"), ADMIN).unwrap();
        assert!(!runs(root, &check) && runs(root, &change) && runs(root, &check));
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.starts_with("# kubecamp: a copy of ") && text.ends_with(ADMIN), "{text}");
        assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
        let noted = fs::read_to_string(root.join("manifest")).unwrap();
        let at = root.display();
        assert_eq!(noted, format!("dir\tabsent\t{at}/home/.kube\nfile\tabsent\t{at}/home/.kube/config\n"));
        // kubectl wrote it anew, with a namespace.
        fs::write(&config, format!("{ADMIN}    namespace: web\n")).unwrap();
        assert!(runs(root, &check), "what its user chose stays");
        for new in [ADMIN.replace("Q0E=", "TkVX"), ADMIN.replace("T05F", "TkVX")] {
            fs::write(root.join("admin.conf"), &new).unwrap();
            assert!(!runs(root, &check) && runs(root, &change) && runs(root, &check), "{new}");
            assert!(fs::read_to_string(&config).unwrap().ends_with(&new));
        }
    }

    #[test]
    fn a_kubeconfig_that_root_had_stays() {
        let (check, _) = texts();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("home/.kube")).unwrap();
        fs::write(root.join("admin.conf"), ADMIN).unwrap();
        let config = root.join("home/.kube/config");
        fs::write(&config, "theirs\n").unwrap();
        assert!(runs(root, &check));
        fs::remove_file(&config).unwrap();
        std::os::unix::fs::symlink("/nowhere", &config).unwrap();
        assert!(runs(root, &check), "a link to nowhere is root's own too");
    }
}
