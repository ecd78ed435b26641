use crate::{
    bundle::{catalogue::CNI_PLUGINS, versions::Versions},
    core::Arch,
};

/// One file of a release, where its checksum is, and the programs in it.
#[derive(Debug, Clone)]
pub struct Release {
    /// The file's own address, before mirrors.
    pub url: String,
    /// The checksum file's address.
    pub sums: String,
    /// Path in the archive, and the bundle's name for it; an empty path means that the file is the program.
    pub programs: Vec<(String, String)>,
}

impl Release {
    /// The last part of its address.
    pub fn file_name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or(&self.url)
    }

    /// The digest of the file in the text of its checksum file: a bare digest, or lines as `sha256sum` writes them.
    pub fn digest_in(&self, sums: &str) -> Option<String> {
        let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        let lines: Vec<Vec<&str>> = sums.lines().map(|l| l.split_whitespace().collect()).collect();
        let named = lines.iter().find_map(|words| match words.as_slice() {
            [digest, name, ..] => {
                let name = name.trim_start_matches('*').rsplit('/').next()?;
                (name == self.file_name()).then_some(*digest)
            }
            _ => None,
        });
        let bare = lines.iter().find_map(|words| if let [digest] = words.as_slice() { Some(*digest) } else { None });
        named.or(bare).filter(|d| is_digest(d)).map(str::to_ascii_lowercase)
    }
}

/// Every release file of a bundle; the images come from registries.
pub fn releases(v: &Versions, arch: Arch) -> Vec<Release> {
    let github = |project: &str, version: &str, file: &str| {
        format!("https://github.com/{project}/releases/download/{version}/{file}")
    };
    let own = |name: &str| vec![(String::new(), name.to_owned())];
    let mut all: Vec<Release> = ["kubeadm", "kubectl", "kubelet"]
        .iter()
        .map(|name| {
            let url = format!("https://dl.k8s.io/release/{}/bin/linux/{arch}/{name}", v.kubernetes);
            Release { sums: format!("{url}.sha256"), url, programs: own(name) }
        })
        .collect();
    let bare = v.containerd.trim_start_matches('v');
    let url = github("containerd/containerd", v.containerd, &format!("containerd-{bare}-linux-{arch}.tar.gz"));
    let names = ["containerd", "containerd-shim-runc-v2", "ctr"];
    let programs = names.map(|name| (format!("bin/{name}"), name.to_owned())).to_vec();
    all.push(Release { sums: format!("{url}.sha256sum"), url, programs });
    let url = github("opencontainers/runc", v.runc, &format!("runc.{arch}"));
    let sums = github("opencontainers/runc", v.runc, "runc.sha256sum");
    all.push(Release { url, sums, programs: own("runc") });
    let file = format!("crictl-{}-linux-{arch}.tar.gz", v.crictl);
    let url = github("kubernetes-sigs/cri-tools", v.crictl, &file);
    all.push(Release {
        sums: format!("{url}.sha256"),
        url,
        programs: vec![("crictl".to_owned(), "crictl".to_owned())],
    });
    let url = github("containernetworking/plugins", v.cni, &format!("cni-plugins-linux-{arch}-{}.tgz", v.cni));
    let programs = CNI_PLUGINS.iter().map(|name| ((*name).to_owned(), format!("cni-{name}"))).collect();
    all.push(Release { sums: format!("{url}.sha256"), url, programs });
    all
}

/// The image that holds flannel's CNI plugin: its project publishes checksums nowhere else.
pub fn flannel_cni_image(v: &Versions) -> String {
    format!("ghcr.io/flannel-io/flannel-cni-plugin:{}", v.flannel_cni)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_found_in_every_shape() {
        let (good, other) = ("a".repeat(64), "b".repeat(64));
        let url = "https://example.org/v1/runc.amd64".to_owned();
        let release = Release { url, sums: String::new(), programs: vec![] };
        for text in [good.clone(), format!("{good}\n"), format!("{other}  runc.arm64\n{good} *runc.amd64\n")] {
            assert_eq!(release.digest_in(&text), Some(good.clone()), "{text}");
        }
        for text in [String::new(), "<html>not found</html>".to_owned(), format!("{other}  runc.arm64")] {
            assert_eq!(release.digest_in(&text), None, "{text}");
        }
    }
}
