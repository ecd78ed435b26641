use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{
    core::{Code, Problem},
    machine::{
        Kind,
        engine::{AptSources, OsRelease},
    },
};

pub(super) const SCRIPT: &str = include_str!("../../../templates/machine/node-image.sh");
/// The part of [`SCRIPT`] that makes a virtual machine's disk of the node's files.
pub(super) const DISK: &str = include_str!("../../../templates/machine/vm-disk.sh");

/// What a node needs before kubecamp brings the bundle: an init, sshd, and every program that kubeadm looks for.
const PACKAGES: [&str; 26] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "iproute2",
    "iptables",
    "nftables",
    "conntrack",
    "ipset",
    "ethtool",
    "socat",
    "kmod",
    "udev",
    "udhcpc",
    "iputils-ping",
    "procps",
    "ca-certificates",
    "curl",
    "tar",
    "gzip",
    "zstd",
    "less",
    "util-linux",
    "mount",
    "netbase",
];

/// What a virtual machine needs besides, its kernel aside: to be booted by UEFI and to grow its disk.
const VM_PACKAGES: [&str; 4] = ["initramfs-tools", "systemd-boot-efi", "fdisk", "e2fsprogs"];

/// A node image to be built: its suite, and where the packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The release, as `trixie`.
    pub suite: String,
    /// Debian's name of the CPU, as `amd64`.
    pub arch: String,
    /// Incus's name of the CPU, as `x86_64`.
    pub machine: &'static str,
    /// What machines it is for.
    pub kind: Kind,
    /// The package of a virtual machine's kernel.
    pub kernel: String,
    /// One-line apt sources, or why there are none: only a build needs them. Where they point does not change what the image
    /// is.
    pub sources: Result<Vec<String>, String>,
}

impl Recipe {
    /// The recipe for this computer's CPU from its own mirrors and keyrings; `suite` defaults to the newest that its
    /// distribution offers for nodes: `trixie` on Debian, its own release on Ubuntu, whose mirrors have no Debian.
    pub fn here(suite: Option<&str>) -> Result<Self, Problem> {
        let (os, apt) = (OsRelease::here(), AptSources::here());
        Self::from(&os, &apt, suite, std::env::consts::ARCH)
    }

    /// The same node as an image for machines of this kind.
    #[must_use]
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    fn from(os: &OsRelease, apt: &AptSources, suite: Option<&str>, cpu: &str) -> Result<Self, Problem> {
        let (arch, machine) = match cpu {
            "x86_64" => ("amd64", "x86_64"),
            "aarch64" => ("arm64", "aarch64"),
            other => return Err(refused(format!("there are no node images for {other}"))),
        };
        let suite = match suite {
            Some(other) if os.id != "debian" && other != os.codename => {
                let why = format!("{other} is a release of Debian, and this computer's packages come from {}", os.id);
                return Err(
                    refused(why).hint(format!("Leave --suite out: machines are {} {} then.", os.id, os.codename))
                );
            }
            Some(suite) => suite.to_owned(),
            None if os.id == "debian" => "trixie".to_owned(),
            None => os.codename.clone(),
        };
        let components = if os.id == "ubuntu" { "main universe" } else { "main" };
        let sources = match apt.main(&os.codename) {
            Some(main) => {
                let keyring = keyring(os, main.signed_by.as_deref());
                let option = keyring.map(|k| format!("[signed-by={k}] ")).unwrap_or_default();
                Ok(vec![format!("deb {option}{} {suite} {components}", main.uri)])
            }
            None => Err(format!("the apt sources of this computer name no mirror of its release `{}`", os.codename)),
        };
        let kernel =
            if os.id == "ubuntu" { "linux-image-virtual".to_owned() } else { format!("linux-image-cloud-{arch}") };
        Ok(Self { suite, arch: arch.to_owned(), machine, kind: Kind::Container, kernel, sources })
    }

    /// The packages of the image, comma-separated.
    pub(super) fn packages(&self) -> String {
        let mut names = PACKAGES.to_vec();
        if self.kind == Kind::Vm {
            names.push(&self.kernel);
            names.extend(VM_PACKAGES);
        }
        names.join(",")
    }

    /// The script that makes the disk; empty for a container, which needs none.
    pub(super) fn disk(&self) -> &'static str {
        match self.kind {
            Kind::Vm => DISK,
            Kind::Container => "",
        }
    }

    /// What the image is known by: a digest of everything that decides its content.
    pub fn key(&self) -> String {
        let mut hasher = Sha256::new();
        for part in [SCRIPT, self.disk(), &self.packages(), &self.suite, &self.arch] {
            hasher.update(part.as_bytes());
            hasher.update([0]);
        }
        hex::encode(hasher.finalize())[..16].to_owned()
    }

    /// The alias of the image in Incus.
    pub fn alias(&self) -> String {
        let kind = match self.kind {
            Kind::Vm => "vm",
            Kind::Container => "node",
        };
        format!("kubecamp-{kind}-{}-{}", self.suite, self.key())
    }
}

/// Why no image can be made on this computer.
pub(super) fn refused(why: String) -> Problem {
    Problem::new(Code::EngineImage, "no node image can be built here").detail([why])
}

/// The distribution's whole keyring where it is installed: the one named in the sources may know one release only.
fn keyring(os: &OsRelease, named: Option<&str>) -> Option<String> {
    let path = format!("/usr/share/keyrings/{}-archive-keyring.gpg", os.id);
    if Path::new(&path).exists() {
        return Some(path);
    }
    named.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(suite: &str) -> Recipe {
        let os = OsRelease { id: "debian".into(), codename: "bookworm".into() };
        let apt = AptSources::parse("deb http://mirror.example/debian bookworm main", "");
        Recipe::from(&os, &apt, Some(suite), "x86_64").unwrap()
    }

    #[test]
    fn the_key_follows_content_and_not_the_mirror() {
        let trixie = recipe("trixie");
        assert_eq!(trixie.key().len(), 16);
        assert_ne!(trixie.key(), recipe("bookworm").key());
        let elsewhere = Recipe { sources: Ok(vec!["deb http://other.example trixie main".into()]), ..trixie.clone() };
        assert_eq!(trixie.key(), elsewhere.key());
        let sources = trixie.sources.unwrap();
        assert!(sources[0].ends_with("http://mirror.example/debian trixie main"), "{sources:?}");
    }

    #[test]
    fn a_virtual_machine_has_a_kernel_and_an_image_of_its_own() {
        let (container, vm) = (recipe("trixie"), recipe("trixie").of_kind(Kind::Vm));
        assert!(vm.packages().ends_with(",linux-image-cloud-amd64,initramfs-tools,systemd-boot-efi,fdisk,e2fsprogs"));
        assert!(!container.packages().contains("linux-image"));
        assert!(vm.alias().starts_with("kubecamp-vm-trixie-") && vm.key() != container.key());
        assert!(container.disk().is_empty() && vm.disk().contains("mke2fs"));
    }

    #[test]
    fn the_disk_is_made_without_loop_devices_and_mounts() {
        let commands: Vec<_> = DISK.lines().filter(|l| !l.trim_start().starts_with('#')).collect();
        for tool in ["losetup", "mount ", "kpartx", "grub-install"] {
            let used = commands.iter().filter(|l| l.trim_start().starts_with(tool)).count();
            assert_eq!(used, 0, "{tool}");
        }
        // Partitions, boot entry and fstab must name the same root, in whatever case each of them wants.
        assert!(DISK.contains("uuid=$rootpart, name=root") && DISK.contains("root=PARTUUID=$(echo $rootpart"));
        // Where the partition begins, the file system does.
        assert!(DISK.contains("start=97MiB") && DISK.contains("offset=$((97 * 1048576))"));
        assert!(DISK.contains("size=2974MiB") && DISK.contains("\"$disk\" 2974M"));
    }

    #[test]
    fn another_distributions_release_is_refused() {
        let os = OsRelease { id: "ubuntu".into(), codename: "noble".into() };
        let apt = AptSources::parse("deb http://mirror.example/ubuntu noble main universe", "");
        let recipe = |suite| Recipe::from(&os, &apt, suite, "x86_64");
        let problem = recipe(Some("bookworm")).unwrap_err();
        assert_eq!(problem.code, Code::EngineImage);
        assert!(problem.all_hints()[0].contains("Leave --suite out: machines are ubuntu noble"), "{problem:?}");
        for own in [None, Some("noble")] {
            assert_eq!(recipe(own).unwrap().suite, "noble");
        }
    }

    #[test]
    fn an_unknown_cpu_is_refused() {
        let os = OsRelease { id: "debian".into(), codename: "bookworm".into() };
        let apt = AptSources::parse("deb http://mirror.example/debian bookworm main", "");
        assert_eq!(Recipe::from(&os, &apt, None, "mips").unwrap_err().code, Code::EngineImage);
    }
}
