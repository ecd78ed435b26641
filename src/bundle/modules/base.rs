use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::tool;
use crate::{
    bundle::layer::Files,
    core::{Arch, Code, Problem, Report},
};

/// The Debian release of the base layer; its nft and iptables speak to any kernel that a host may have.
const SUITE: &str = "trixie";

/// Packages that kube-proxy and flannel call, and a shell for people who look inside.
const PACKAGES: &str = "base-files,busybox-static,nftables,iptables,conntrack,ipset,kmod";

/// What decides the layer's content, apart from the mirror's state on the day that it was made; counted up when this
/// file changes what is kept.
pub const BASE_INPUTS: &str = "trixie-1";

/// busybox' commands that flannel's manifest or a curious person calls.
const APPLETS: &[&str] = &[
    "ash", "awk", "cat", "chmod", "chown", "cp", "cut", "date", "df", "du", "echo", "env", "find", "free", "grep",
    "head", "hostname", "id", "ip", "kill", "less", "ln", "ls", "mkdir", "mount", "mv", "nc", "netstat", "nslookup",
    "ping", "ps", "readlink", "rm", "rmdir", "sed", "sh", "sleep", "sort", "stat", "tail", "tar", "tee", "test",
    "timeout", "top", "touch", "tr", "umount", "uname", "uniq", "vi", "wc", "wget", "which", "xargs",
];

/// What Debian keeps under `update-alternatives`.
const ALTERNATIVES: &[(&str, &[&str])] = &[
    ("iptables", &["", "-save", "-restore"]),
    ("ip6tables", &["", "-save", "-restore"]),
    ("arptables", &["", "-save", "-restore"]),
    ("ebtables", &["", "-save", "-restore"]),
];

/// Makes the layer under kube-proxy and flannel, unless it is there already.
///
/// Packages are unpacked, not installed: no package manager, no scripts, no emulation for a foreign CPU, and a quarter
/// of the smallest Debian system's size. What `dpkg` would have set up is added by hand.
///
/// # Errors
/// `KC-BUNDLE-BUILD` with mmdebstrap's last lines.
pub async fn base_layer(arch: Arch, root: &Path, report: &dyn Report) -> Result<PathBuf, Problem> {
    let layer = root.join(format!("base-{BASE_INPUTS}-{arch}.tar"));
    if layer.is_file() {
        return Ok(layer);
    }
    let unpacked = root.join(format!("base-{BASE_INPUTS}-{arch}.unpacked.tar"));
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=extract", "--skip=check/qemu"]).arg(format!("--include={PACKAGES}"));
    command.arg(format!("--architectures={arch}")).arg("--format=tar").arg(SUITE).arg(&unpacked);
    command.args(debian_mirror());
    fs::create_dir_all(root).map_err(|e| io_failed(root, e))?;
    tool::run("base layer", command, report, |_| {}).await?;
    let (from, to) = (unpacked.clone(), layer.clone());
    let shrunk = tokio::task::spawn_blocking(move || {
        let fresh = to.with_extension("fresh");
        shrink(&from)?.write(&fresh)?;
        fs::rename(fresh, to)?;
        fs::remove_file(from)
    });
    shrunk.await.map_err(io::Error::other).and_then(|r| r).map_err(|e| io_failed(root, e))?;
    Ok(layer)
}

fn io_failed(root: &Path, e: io::Error) -> Problem {
    Problem::new(Code::LocalFile, format!("cannot write below {}", root.display())).because(e)
}

/// The mirror in this machine's apt sources; none on other distributions, where mmdebstrap knows its own.
fn debian_mirror() -> Option<String> {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
        texts.push(fs::read_to_string(entry.path()).unwrap_or_default());
    }
    texts.iter().find_map(|text| mirror_in(text))
}

/// The first Debian mirror in a list of apt sources, in either of its two formats.
fn mirror_in(text: &str) -> Option<String> {
    let is_mirror = |uri: &&str| uri.starts_with("http") && uri.trim_end_matches('/').ends_with("/debian");
    let mut words = text
        .lines()
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .flat_map(str::split_whitespace);
    words.find(is_mirror).map(str::to_owned)
}

/// Keeps what programs need to run, and licences.
fn is_kept(path: &str) -> bool {
    let dropped = [
        "boot",
        "dev/",
        "etc/apt",
        "etc/dpkg",
        "etc/fstab",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/update-motd.d",
        "usr/games",
        "usr/include",
        "usr/src",
        "var/cache",
        "var/lib/apt",
        "var/lib/dpkg",
        "var/log/apt",
        "usr/bin/mawk",
        "var/backups",
    ];
    let in_library = |name: &str| path.strip_prefix("usr/lib/").is_some_and(|rest| rest.contains(name));
    let licence = path.starts_with("usr/share/common-licenses")
        || (path.starts_with("usr/share/doc/") && path.ends_with("/copyright"));
    !dropped.iter().any(|d| path.starts_with(d))
        && (licence || !path.starts_with("usr/share/"))
        && !in_library("/gconv/")
        && !in_library("/ossl-modules/")
        && !in_library("/engines-")
}

fn shrink(from: &Path) -> io::Result<Files> {
    let (mut files, mut seen) = (Files::default(), HashMap::new());
    for entry in tar::Archive::new(File::open(from)?).entries()? {
        let mut entry = entry?;
        let path = plain_name(&entry.path()?);
        if path.is_empty() || !is_kept(&path) {
            continue;
        }
        let mode = entry.header().mode()?;
        let target = entry.link_name()?.map(|to| to.to_string_lossy().into_owned()).unwrap_or_default();
        match entry.header().entry_type() {
            tar::EntryType::Directory => files.folder(&path, mode),
            tar::EntryType::Symlink => files.link(&path, &target),
            tar::EntryType::Link => {
                let same: Option<&(u32, Vec<u8>)> = seen.get(&plain_name(Path::new(&target)));
                if let Some((mode, bytes)) = same {
                    files.bytes(&path, *mode, bytes.clone());
                }
            }
            _ => {
                let mut bytes = vec![];
                entry.read_to_end(&mut bytes)?;
                files.bytes(&path, mode, bytes.clone());
                seen.insert(path, (mode, bytes));
            }
        }
    }
    add_set_up(&mut files);
    Ok(files)
}

fn plain_name(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches("./").trim_matches('/').to_owned()
}

/// What the packages' scripts would have done.
fn add_set_up(files: &mut Files) {
    for (name, ends) in ALTERNATIVES {
        for end in *ends {
            files.link(&format!("usr/sbin/{name}{end}"), &format!("/etc/alternatives/{name}{end}"));
            files.link(&format!("etc/alternatives/{name}{end}"), &format!("/usr/sbin/{name}-nft{end}"));
        }
    }
    for name in APPLETS {
        files.link(&format!("usr/bin/{name}"), "busybox");
    }
    for (path, mode) in [("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("run", 0o755), ("tmp", 0o1777)] {
        files.folder(path, mode);
    }
    super::add_users(files);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_from_both_formats() {
        let new = "Types: deb\n# http://old.example/debian\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        let old = "# deb http://x/debian a\ndeb [arch=amd64] https://m.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in(old).as_deref(), Some("https://m.example/debian/"));
        assert_eq!(mirror_in("deb http://archive.example/ubuntu noble main"), None);
    }

    #[test]
    fn programs_and_licences_stay() {
        for kept in ["usr/sbin/nft", "usr/lib/x86_64-linux-gnu/libc.so.6", "usr/share/doc/kmod/copyright", "lib"] {
            assert!(is_kept(kept), "{kept}");
        }
        for dropped in ["usr/share/man/man8/nft.8", "dev/null", "usr/lib/x/gconv/GBK.so", "var/lib/dpkg/status"] {
            assert!(!is_kept(dropped), "{dropped}");
        }
    }
}
