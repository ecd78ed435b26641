//! Whether KVM really works here. `/dev/kvm` can exist and still hang every guest, so a real kernel is booted once.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    time::timeout,
};

use crate::core::{NodeId, Report};

/// How long the guest may take until its kernel looks for a disk.
const LIMIT: Duration = Duration::from_secs(10);
/// What a kernel without a disk says at the end of its boot: it got through everything that KVM may break.
const BOOTED: &str = "Unable to mount root fs";

/// What a try of KVM showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kvm {
    /// Whether a kernel booted under it.
    pub works: bool,
    /// One clause for people: why it does not work, or how it is known to.
    pub why: String,
}

/// What is remembered between runs.
#[derive(Serialize, Deserialize)]
struct Remembered {
    key: String,
    kvm: Kvm,
}

/// The parts of a try.
#[derive(Debug)]
struct Probe {
    device: PathBuf,
    /// What Incus talks with virtual machines through.
    vsock: PathBuf,
    /// The running kernel's modules.
    modules: PathBuf,
    /// Folders where qemu is looked for.
    path: Vec<PathBuf>,
    boot: PathBuf,
    limit: Duration,
}

impl Kvm {
    /// Tries it, at most once for each boot of this computer, qemu and kernel; `memory` is the file that remembers.
    pub async fn here(memory: &Path, report: &dyn Report) -> Self {
        Probe::here().known_or_tried(memory, report).await
    }

    fn no(why: impl Into<String>) -> Self {
        Self { works: false, why: why.into() }
    }
}

/// Whether all that a try needs is there, qemu aside, which can be installed; else what lacks.
pub(super) fn prospects() -> Result<(), String> {
    Probe::here().prospects().map(drop).map_err(|no| no.why)
}

impl Probe {
    fn here() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            device: "/dev/kvm".into(),
            vsock: "/dev/vhost-vsock".into(),
            modules: Path::new("/lib/modules").join(release.trim()),
            path: std::env::split_paths(&path).collect(),
            boot: "/boot".into(),
            limit: LIMIT,
        }
    }

    async fn known_or_tried(&self, memory: &Path, report: &dyn Report) -> Kvm {
        let (qemu, kernel) = match self.parts() {
            Ok(parts) => parts,
            Err(no) => return no,
        };
        let key = key(&qemu, &kernel).await;
        let known = fs::read(memory).ok().and_then(|bytes| serde_json::from_slice::<Remembered>(&bytes).ok());
        if let Some(known) = known.filter(|k| k.key == key) {
            return known.kvm;
        }
        report.note(&NodeId::here(), "trying whether KVM works here by booting a kernel under it");
        let kvm = self.boot(&qemu, &kernel).await;
        // Not remembered is only slower.
        if let Ok(bytes) = serde_json::to_vec(&Remembered { key, kvm: kvm.clone() }) {
            memory.parent().map(fs::create_dir_all);
            fs::write(memory, bytes).ok();
        }
        kvm
    }

    /// qemu and a kernel to try it with, or what is missing.
    fn parts(&self) -> Result<(PathBuf, PathBuf), Kvm> {
        let kernel = self.prospects()?;
        let (device, program) = (self.device.display(), "qemu-system-x86_64");
        let qemu = self.path.iter().map(|d| d.join(program)).find(|p| p.is_file());
        let qemu =
            qemu.ok_or_else(|| Kvm::no(format!("{device} is there but {program} is not, so it was not tried")))?;
        Ok((qemu, kernel))
    }

    /// A kernel to try it with where nothing speaks against KVM before it is tried.
    fn prospects(&self) -> Result<PathBuf, Kvm> {
        if std::env::consts::ARCH != "x86_64" {
            return Err(Kvm::no(format!("VMs are not tried on {}", std::env::consts::ARCH)));
        }
        let device = self.device.display();
        if !self.device.exists() {
            return Err(Kvm::no(format!("this computer has no {device}")));
        }
        if let Err(e) = File::options().read(true).write(true).open(&self.device) {
            return Err(Kvm::no(format!("{device} cannot be opened: {e}")));
        }
        if !self.vsock.exists() && !self.has_module("vhost_vsock") {
            let vsock = self.vsock.display();
            return Err(Kvm::no(format!(
                "{device} is there but {vsock}, which Incus needs for virtual machines, is not, nor its kernel module"
            )));
        }
        self.kernel().ok_or_else(|| {
            let boot = self.boot.display();
            Kvm::no(format!("{device} is there but no kernel in {boot} to try it with, so it was not tried"))
        })
    }

    /// Whether the running kernel could load a module; Incus does that itself.
    fn has_module(&self, name: &str) -> bool {
        let list = fs::read_to_string(self.modules.join("modules.dep")).unwrap_or_default();
        list.lines().filter_map(|l| l.split(':').next()).any(|path| {
            let file = path.rsplit('/').next().unwrap_or_default();
            file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".ko"))
        })
    }

    /// The last kernel by name that can be read.
    fn kernel(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.boot).into_iter().flatten().flatten();
        let named = entries.filter(|e| e.file_name().to_string_lossy().starts_with("vmlinuz")).map(|e| e.path());
        named.filter(|p| File::open(p).is_ok()).max()
    }

    async fn boot(&self, qemu: &Path, kernel: &Path) -> Kvm {
        let guest = Command::new(qemu)
            .args(["-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", "512", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-serial", "stdio", "-no-reboot", "-append", "console=ttyS0 panic=-1"])
            .arg("-kernel")
            .arg(kernel)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut guest = match guest {
            Ok(guest) => guest,
            Err(e) => return Kvm::no(format!("{} could not be run: {e}", qemu.display())),
        };
        let mut last = String::new();
        let booted = match guest.stdout.take() {
            Some(console) => timeout(self.limit, says(console, &mut last)).await,
            None => Ok(false),
        };
        guest.start_kill().ok();
        let out = guest.wait_with_output().await.map(|o| o.stderr).unwrap_or_default();
        let error = String::from_utf8_lossy(&out).lines().next().unwrap_or_default().trim().to_owned();
        let device = self.device.display();
        let said =
            if last.is_empty() { "which said nothing".to_owned() } else { format!("whose last words were `{last}`") };
        match booted {
            Ok(true) => Kvm { works: true, why: "KVM works, a kernel booted under it".to_owned() },
            Ok(false) if error.is_empty() => Kvm::no(format!("{device} is there but ended the kernel tried, {said}")),
            Ok(false) => Kvm::no(format!("{device} is there but does not work: {error}")),
            Err(_) => Kvm::no(format!(
                "{device} is there but hung the kernel tried for {} s, {said}",
                self.limit.as_secs_f32()
            )),
        }
    }
}

/// Reads the guest's console until the kernel has booted, or to its end; `last` is the last line with words.
async fn says(console: impl AsyncRead + Unpin, last: &mut String) -> bool {
    let mut console = BufReader::new(console);
    let mut line = vec![];
    loop {
        line.clear();
        // Carriage returns, escapes and bytes that are no text are a console's everyday life.
        match console.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        let text: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
        if text.contains(BOOTED) {
            return true;
        }
        if !text.trim().is_empty() {
            *last = text.trim().chars().take(100).collect();
        }
    }
}

/// What the outcome depends on: this boot of this kernel, this qemu, the kernel tried.
async fn key(qemu: &Path, kernel: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let version = Command::new(qemu).arg("--version").stdin(Stdio::null()).output().await;
    let version = version.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    [
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/kernel/random/boot_id"),
        version.lines().next().unwrap_or_default().to_owned(),
        kernel.display().to_string(),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::core::Quiet;

    /// A computer whose qemu is this script.
    fn computer(qemu: &str) -> (tempfile::TempDir, Probe) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["bin", "boot"] {
            fs::create_dir(at(folder)).unwrap();
        }
        fs::write(at("kvm"), "").unwrap();
        fs::write(at("boot/vmlinuz-6.1"), "").unwrap();
        let program = at("bin/qemu-system-x86_64");
        fs::write(
            &program,
            format!("#!/bin/sh\n[ \"$1\" = --version ] && exec echo v1\necho >>{}\n{qemu}\n", at("runs").display()),
        )
        .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let limit = Duration::from_millis(700);
        fs::write(at("vsock"), "").unwrap();
        let (vsock, modules) = (at("vsock"), at("modules"));
        let probe = Probe { device: at("kvm"), vsock, modules, path: vec![at("bin")], boot: at("boot"), limit };
        (dir, probe)
    }

    #[tokio::test]
    async fn a_guest_that_hangs_is_no_kvm_and_is_tried_once() {
        let (dir, probe) = computer("printf 'Booting\\r\\nProbing EDD (edd=off to disable)... \\r\\n'; exec sleep 60");
        let memory = dir.path().join("cache/kvm.json");
        for _ in 0..2 {
            let kvm = probe.known_or_tried(&memory, &Quiet).await;
            assert!(!kvm.works);
            assert!(
                kvm.why.contains("hung the kernel tried for 0.7 s, whose last words were `Probing EDD"),
                "{}",
                kvm.why
            );
        }
        assert_eq!(fs::read_to_string(dir.path().join("runs")).unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn only_a_kernel_that_looked_for_its_disk_proves_kvm() {
        let panic = "echo '[1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)'";
        for (qemu, works, words) in [
            (panic, true, "a kernel booted under it"),
            ("echo Hello", false, "last words were `Hello`"),
            ("echo 'could not access KVM' >&2; exit 1", false, "does not work: could not access KVM"),
        ] {
            let (dir, probe) = computer(qemu);
            let kvm = probe.known_or_tried(&dir.path().join("kvm.json"), &Quiet).await;
            assert_eq!(kvm.works, works);
            assert!(kvm.why.contains(words), "{}", kvm.why);
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        for (gone, words) in [
            ("kvm", "has no"),
            ("vsock", "which Incus needs for virtual machines, is not"),
            ("bin/qemu-system-x86_64", "qemu-system-x86_64 is not"),
            ("boot/vmlinuz-6.1", "no kernel in"),
        ] {
            let (dir, probe) = computer("exit 1");
            fs::remove_file(dir.path().join(gone)).unwrap();
            let kvm = probe.known_or_tried(&dir.path().join("kvm.json"), &Quiet).await;
            assert!(!kvm.works && kvm.why.contains(words), "{}", kvm.why);
        }
    }

    #[test]
    fn a_module_that_can_be_loaded_is_as_good_as_its_device_and_qemu_can_be_installed() {
        let (dir, probe) = computer("exit 1");
        for gone in ["vsock", "bin/qemu-system-x86_64"] {
            fs::remove_file(dir.path().join(gone)).unwrap();
        }
        let with = |list: &str| {
            fs::create_dir_all(&probe.modules).unwrap();
            fs::write(probe.modules.join("modules.dep"), list).unwrap();
            probe.prospects()
        };
        assert!(with("kernel/drivers/vhost/vhost_vsock_x.ko: kernel/drivers/vhost/vhost_vsock.ko\n").is_err());
        assert!(with("kernel/drivers/vhost/vhost_vsock.ko.xz: kernel/drivers/vhost/vhost.ko.xz\n").is_ok());
    }
}
