use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::geteuid;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use super::{apt::Sources, private::DAEMONS};
use crate::core::{Code, EventKind, NodeId, Problem, Report};

/// What the private engine and the node image need on a Debian or Ubuntu.
const NEEDED: [&str; 9] = [
    "incus-base",
    "lxcfs",
    "incus-client",
    "dnsmasq-base",
    "btrfs-progs",
    "squashfs-tools",
    "iproute2",
    "mmdebstrap",
    "zstd",
];
/// What virtual machines need besides: qemu with its firmware, and tools that make a disk in a file.
const FOR_VMS: [&str; 6] = ["qemu-system-x86", "qemu-utils", "ovmf", "mtools", "fdisk", "e2fsprogs"];
/// Those of all these that come from the backports on Debian 12: its own qemu is too old for Incus.
const FROM_BACKPORTS: [&str; 2] = ["incus-", "qemu-system-x86"];
/// The apt source that is added on Debian 12, whose own release has no Incus.
const BACKPORTS: &str = "/etc/apt/sources.list.d/kubecamp-backports.sources";
/// What installs packages.
const APT_GET: &str = "/usr/bin/apt-get";
/// How long another apt is waited for, and how long between two tries.
const OTHERS_LIMIT: Duration = Duration::from_secs(600);
const OTHERS_PAUSE: Duration = Duration::from_secs(3);
/// Lines of apt's output that a problem shows.
const TAIL: usize = 12;

/// Which distribution a computer runs, from `/etc/os-release`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// As `debian`.
    pub id: String,
    /// As `bookworm`.
    pub codename: String,
}

impl OsRelease {
    /// That of this computer; empty when unknown.
    pub fn here() -> Self {
        Self::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        Self { id: value("ID"), codename: value("VERSION_CODENAME") }
    }

    /// Debian and Ubuntu do, and what is made of them: it has apt and a release that mirrors know.
    fn must_suit(&self, has_apt: bool) -> Result<(), Problem> {
        if matches!(self.id.as_str(), "debian" | "ubuntu") || (has_apt && !self.codename.is_empty()) {
            return Ok(());
        }
        let id = if self.id.is_empty() { "another system" } else { self.id.as_str() };
        let what = format!("local machines need Debian or Ubuntu, and this computer runs {id}");
        Err(Problem::new(Code::LocalTools, what).hint("Use hosts over SSH instead: kubecamp up --host."))
    }
}

/// The packages that local machines need on this computer.
#[derive(Debug, Clone)]
pub struct Packages {
    os: OsRelease,
    sources: Sources,
    needed: Vec<String>,
}

impl Packages {
    /// For this computer.
    pub fn here() -> Self {
        let needed = NEEDED.iter().map(|n| (*n).to_owned()).collect();
        Self { os: OsRelease::here(), sources: Sources::here(), needed }
    }

    /// Refuses a computer whose packages are not Debian's: neither the engine's nor those of the node image can be had there.
    ///
    /// # Errors
    /// `KC-LOCAL-TOOLS`.
    pub fn check_system(&self) -> Result<(), Problem> {
        self.os.must_suit(Path::new(APT_GET).exists())
    }

    /// What virtual machines need too, for [`Packages::and`].
    pub fn for_vms() -> impl Iterator<Item = String> {
        FOR_VMS.into_iter().map(str::to_owned)
    }

    /// These too.
    #[must_use]
    pub fn and(mut self, more: impl IntoIterator<Item = String>) -> Self {
        for name in more {
            if !self.needed.contains(&name) {
                self.needed.push(name);
            }
        }
        self
    }

    /// Those that are not installed, in apt's names.
    pub async fn missing(&self) -> Vec<String> {
        let out = Command::new("dpkg-query")
            .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
            .args(&self.needed)
            .stderr(Stdio::null())
            .output()
            .await;
        let text = out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        // Incus may have come from elsewhere, in one package of another name.
        let daemon = DAEMONS.iter().any(|d| Path::new(d).exists());
        let there = |name: &str| {
            (daemon && name.starts_with("incus-")) || text.lines().any(|l| l == format!("{name} installed"))
        };
        self.needed.iter().filter(|name| !there(name)).cloned().collect()
    }

    /// The apt source file that installing would add, and why; `None` when none is needed.
    pub fn added_source(&self) -> Option<(&'static str, &'static str)> {
        let needed = self.backports().is_some() && !Path::new(BACKPORTS).exists();
        needed.then_some((BACKPORTS, "Debian 12 has Incus only in its backports"))
    }

    /// Installs what is missing; says what it does through `report`.
    pub async fn install(&self, report: &dyn Report) -> Result<(), Problem> {
        let missing = self.missing().await;
        if missing.is_empty() {
            return Ok(());
        }
        if !Path::new(APT_GET).exists() {
            return Err(Problem::new(Code::LocalTools, "packages are missing and this computer has no apt")
                .detail([missing.join(" ")]));
        }
        if !geteuid().is_root() {
            return Err(Problem::new(Code::LocalRoot, "installing packages needs root").detail([missing.join(" ")]));
        }
        let newer = |name: &str| FROM_BACKPORTS.iter().any(|start| name.starts_with(start));
        let backports = missing.iter().any(|p| newer(p)) && self.add_backports(report)?;
        apt(&["update"], 0, report).await?;
        let mut words = vec!["install".to_owned(), "--yes".to_owned(), "--no-install-recommends".to_owned()];
        words.extend(missing.iter().map(|name| match newer(name) && backports {
            true => format!("{name}/{}-backports", self.os.codename),
            false => name.clone(),
        }));
        apt(&words, missing.len() as u64, report).await
    }

    /// The text of the source file for backports, where this computer needs one.
    fn backports(&self) -> Option<String> {
        let suite = format!("{}-backports", self.os.codename);
        if self.os.id != "debian" || self.os.codename != "bookworm" {
            return None;
        }
        let main = self.sources.main(&self.os.codename)?;
        let key = main.signed_by.as_ref().map(|k| format!("Signed-By: {k}\n")).unwrap_or_default();
        Some(format!(
            "# Added by kubecamp: Debian 12 has Incus only here. Delete this file once Incus is removed.\n\
             Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{key}",
            main.uri
        ))
    }

    /// Adds the source for backports unless the computer has one; returns whether packages come from there.
    fn add_backports(&self, report: &dyn Report) -> Result<bool, Problem> {
        let Some(text) = self.backports() else { return Ok(false) };
        if self.sources.main(&format!("{}-backports", self.os.codename)).is_none() {
            report.note(&NodeId::here(), &format!("adding {BACKPORTS}: Debian 12 has Incus only in its backports"));
            fs::write(BACKPORTS, text)
                .map_err(|e| Problem::new(Code::LocalFile, format!("{BACKPORTS} cannot be written")).because(e))?;
        }
        Ok(true)
    }
}

/// Runs apt-get, first finishing what an interrupted dpkg left: apt refuses everything until that is done, and where it
/// cannot be, apt says so. apt writes errors to standard error; one pipe keeps both in order.
const APT: &str = "exec 2>&1; [ \"$1\" != update ] || dpkg --configure -a; \
    exec apt-get -q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \"$@\"";

/// Runs apt-get; the last lines of its output explain a failure. Waits for another apt to end.
async fn apt<S: AsRef<str>>(words: &[S], packages: u64, report: &dyn Report) -> Result<(), Problem> {
    let Some(tail) = when_free(OTHERS_PAUSE, report, || run_apt(words, packages, report)).await? else { return Ok(()) };
    let verb = words.first().map_or("", AsRef::as_ref);
    Err(Problem::new(Code::EnginePackages, format!("apt-get {verb} failed")).detail(tail))
}

/// Tries again while another apt is at work: for the lists of packages apt-get itself waits for nobody, and on a new
/// computer its timers load them in the first minutes. What a try returns are its last lines where it failed.
async fn when_free<F>(
    pause: Duration,
    report: &dyn Report,
    mut run: impl FnMut() -> F,
) -> Result<Option<Vec<String>>, Problem>
where
    F: Future<Output = Result<Option<Vec<String>>, Problem>>,
{
    let (end, mut told) = (Instant::now() + OTHERS_LIMIT, false);
    loop {
        let failed = run().await?;
        let held = failed.iter().flatten().any(|line| line.contains("Could not get lock"));
        if !held || Instant::now() > end {
            return Ok(failed);
        }
        if !told {
            report.note(&NodeId::here(), "another apt is at work on this computer; waiting until it ends");
            told = true;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Runs apt-get once; its last lines where it failed.
async fn run_apt<S: AsRef<str>>(
    words: &[S],
    packages: u64,
    report: &dyn Report,
) -> Result<Option<Vec<String>>, Problem> {
    let here = NodeId::here();
    let broken = |e| Problem::new(Code::EnginePackages, "apt-get could not be run").because(e);
    let mut child = Command::new("sh")
        .args(["-c", APT, "apt-get"])
        .args(words.iter().map(AsRef::as_ref))
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Ctrl-C at the terminal is for kubecamp: it would end dpkg in the midst of a package.
        .process_group(0)
        .spawn()
        .map_err(broken)?;
    let (mut tail, mut done, mut total) = (vec![], 0, packages);
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            total = newly_installed(&line).unwrap_or(total);
            if line.starts_with("Setting up ") {
                done += 1;
                report.progress(&here, "packages", done, total.max(done));
            }
            if tail.len() == TAIL {
                tail.remove(0);
            }
            tail.push(line.clone());
            report.event(EventKind::Output { on: here.clone(), line });
        }
    }
    Ok((!child.wait().await.map_err(broken)?.success()).then_some(tail))
}

/// The count in `1 upgraded, 23 newly installed, 0 to remove and 4 not upgraded.`
fn newly_installed(line: &str) -> Option<u64> {
    let (before, _) = line.split_once(" newly installed")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::core::Quiet;

    fn packages(codename: &str) -> Packages {
        let os = OsRelease::parse(&format!("NAME=\"Debian\"\nID=debian\nVERSION_CODENAME={codename}\n"));
        let line = format!("deb [signed-by=/k.gpg] http://mirror.example/debian {codename} main");
        Packages { os, sources: Sources::parse(&line, ""), needed: vec![] }
    }

    #[test]
    fn a_system_without_packages_of_debian_is_refused() {
        let suits = |text: &str, has_apt| OsRelease::parse(text).must_suit(has_apt);
        for apt in [false, true] {
            let refused = suits("ID=fedora\nVERSION_ID=42\n", apt).unwrap_err();
            assert!(refused.code == Code::LocalTools && refused.what.ends_with("runs fedora"), "{refused}");
            assert!(refused.all_hints()[0].contains("--host"), "{refused:?}");
        }
        for good in ["ID=debian\n", "ID=ubuntu\nVERSION_CODENAME=noble\n", "ID=kali\nVERSION_CODENAME=kali-rolling\n"] {
            assert!(suits(good, true).is_ok(), "{good}");
        }
        assert!(suits("", false).is_err());
    }

    #[test]
    fn only_debian_12_needs_backports_and_they_come_from_its_own_mirror() {
        let text = packages("bookworm").backports().unwrap();
        assert!(text.contains("URIs: http://mirror.example/debian\nSuites: bookworm-backports\n"), "{text}");
        assert!(text.ends_with("Signed-By: /k.gpg\n"), "{text}");
        assert_eq!(packages("trixie").backports(), None);
    }

    #[test]
    fn what_an_interrupted_dpkg_left_is_finished_before_anything_else() {
        let bin = tempfile::tempdir().unwrap();
        for name in ["dpkg", "apt-get"] {
            let (sham, text) =
                (bin.path().join(name), format!("#!/bin/sh\necho {name} $* >&2\n[ {name} = apt-get ]\n"));
            fs::write(&sham, text).unwrap();
            fs::set_permissions(&sham, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let apt = |words: &[&str]| {
            let mut sh = std::process::Command::new("/bin/sh");
            let out = sh.args(["-c", APT, "apt-get"]).args(words).env("PATH", bin.path()).output().unwrap();
            assert!(out.status.success(), "{out:?}");
            String::from_utf8(out.stdout).unwrap().replace("-q -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 ", "")
        };
        assert_eq!(apt(&["update"]), "dpkg --configure -a\napt-get update\n");
        assert_eq!(apt(&["install", "--yes", "zstd"]), "apt-get install --yes zstd\n");
    }

    #[tokio::test]
    async fn another_apt_is_waited_for_and_other_failures_are_told_at_once() {
        let held = [
            "Reading package lists...",
            "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)",
        ];
        let other = vec!["E: Unable to locate package x".to_owned()];
        let held: Vec<_> = held.iter().map(|&line| line.to_owned()).collect();
        for last in [None, Some(other)] {
            let mut left = vec![last.clone(), Some(held.clone()), Some(held.clone())];
            let mut count = 0;
            let ended = when_free(Duration::ZERO, &Quiet, || {
                count += 1;
                std::future::ready(Ok(left.pop().unwrap()))
            });
            assert_eq!(ended.await.unwrap(), last);
            assert_eq!(count, 3);
        }
    }

    #[test]
    fn apts_count_is_read() {
        assert_eq!(newly_installed("0 upgraded, 23 newly installed, 0 to remove and 4 not upgraded."), Some(23));
        assert_eq!(newly_installed("Setting up x"), None);
    }
}
