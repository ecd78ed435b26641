use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::core::Arch;

/// The bundle format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// What a bundle holds: the first member of its file, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// The CPU that everything in it is for.
    pub arch: Arch,
    /// The version of the bundle format, [`FORMAT`].
    pub format: u32,
    /// The Kubernetes version, as `v1.36.3`.
    pub kubernetes: String,
    /// Its members, sorted by name.
    pub members: Vec<Member>,
    /// Go modules that were replaced by a local folder when it was built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<String>,
    /// Where its parts come from.
    pub source: Origins,
}

/// Where the parts of a bundle come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origins {
    /// The projects' release sites and registries.
    Upstream,
    /// Built from Go modules on the user's computer.
    Modules,
}

/// One binary or image of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Member {
    /// The image references that it provides, as `registry.k8s.io/kube-proxy:v1.36.3`; none for a binary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Where a binary belongs on a node; none for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its licence as an SPDX expression.
    pub licence: String,
    /// Its name, as `kubelet` or `kube-apiserver`; unique in the bundle.
    pub name: String,
    /// Where it comes from: a URL, an image reference or `module@version`.
    pub origin: String,
    /// The bytes that nodes need.
    pub plain: Content,
    /// Which nodes need it.
    pub role: Audience,
    /// The compressed bytes in the bundle file.
    pub stored: Stored,
    /// Its own version, as `v1.36.3`.
    pub version: String,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An executable, placed at [`Member::install`].
    Binary,
    /// A container image as a tar file in OCI layout, named so that containerd imports it as is.
    Image,
}

/// Which nodes need a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// Every node.
    All,
    /// Control planes only.
    ControlPlane,
}

/// Length and digest of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// SHA-256 as lower-case hex.
    pub sha256: String,
    /// Length in bytes.
    pub size: u64,
}

/// Where and how a member is kept in the bundle file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Its path in the tar file, as `bin/kubelet.zst`.
    pub path: String,
    /// SHA-256 of the compressed bytes.
    pub sha256: String,
    /// Length of the compressed bytes.
    pub size: u64,
}

impl Member {
    /// Whether a worker needs it too.
    pub fn for_workers(&self) -> bool {
        self.role == Audience::All
    }
}

impl Manifest {
    /// The manifest as the bundle keeps it: the same bytes for the same content.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Whether `path` stays below the folder that it is joined to: relative, with plain names only.
pub fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && !path.split('/').any(str::is_empty)
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
        && !path.split('/').any(|name| name == ".")
}

/// Whether `path` is where a bundle may put a file on a node: absolute, plain, below a folder of programs.
pub fn may_install(path: &str) -> bool {
    ["/usr/local/bin/", "/opt/cni/bin/"].iter().any(|root| path.strip_prefix(root).is_some_and(is_plain_name))
}

/// Whether `name` is a file's name that no path, shell or terminal reads as anything else.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether `text` has only the letters that image references are made of.
pub fn is_plain_reference(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/@".contains(&b))
}

/// Whether `text` is a SHA-256 digest as the manifest writes it.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_plain_relative_paths_stay_inside() {
        for good in ["manifest.json", "bin/kubelet.zst", "images/a..b.tar.zst", "a/.hidden"] {
            assert!(stays_inside(good), "{good}");
        }
        for bad in ["", "/", "/etc/passwd", "../x", "a/../b", "a/..", "./a", "a/.", "a//b", "a/", "a\\..\\b", "a\0"] {
            assert!(!stays_inside(bad), "{bad}");
        }
    }

    #[test]
    fn only_programs_may_be_installed() {
        assert!(may_install("/usr/local/bin/kubelet") && may_install("/opt/cni/bin/bridge"));
        for bad in ["/etc/shadow", "/usr/local/bin/../../etc/x", "/usr/local/bin/", "/usr/local/bin/a/b", "kubelet"] {
            assert!(!may_install(bad), "{bad}");
        }
        for bad in ["..", ".profile", "a b", "a'b", "$(id)", "a\nb"] {
            assert!(!may_install(&format!("/usr/local/bin/{bad}")), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_stays_inside_resolves_inside(path in "[a./\\\\]{0,12}") {
            if stays_inside(&path) {
                let mut depth = 0i32;
                for part in path.split('/') {
                    depth += if part == ".." { -1 } else { 1 };
                    prop_assert!(depth > 0 && !part.is_empty());
                }
            }
        }
    }
}
