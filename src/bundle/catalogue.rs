use std::path::PathBuf;

use super::{
    manifest::{Audience, Kind, Origins},
    versions::Versions,
    write::Part,
};

const APACHE: &str = "Apache-2.0";
/// Debian's packages in the base layer of kube-proxy's and flannel's images.
const WITH_BASE: &str = "Apache-2.0 AND GPL-2.0-or-later AND LGPL-2.1-or-later AND BSD-3-Clause AND MIT";

/// The stock CNI plugins that a lab uses or teaches.
pub const CNI_PLUGINS: &[&str] =
    &["bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "ptp", "tuning"];

/// What a bundle should hold under one name, whatever source it comes from.
#[derive(Debug, Clone)]
pub struct Entry {
    /// See [`Part`]; its `file` and `origin` are not known yet.
    pub name: String,
    kind: Kind,
    role: Audience,
    /// Its own version.
    pub version: String,
    install: Option<String>,
    images: Vec<String>,
    licence: &'static str,
}

impl Entry {
    /// The entry as a part, now that its bytes are at hand.
    pub fn part(&self, file: PathBuf, origin: String) -> Part {
        let Self { name, kind, role, version, install, images, licence } = self.clone();
        Part { name, kind, version, images, role, install, origin, licence: licence.to_owned(), file }
    }

    /// The reference of an image.
    pub fn image(&self) -> Option<&str> {
        self.images.first().map(String::as_str)
    }

    fn binary(name: &str, version: &str, role: Audience) -> Self {
        let install = match name.strip_prefix("cni-") {
            Some(plugin) => format!("/opt/cni/bin/{plugin}"),
            None => format!("/usr/local/bin/{name}"),
        };
        let (name, version) = (name.to_owned(), version.to_owned());
        Self { name, kind: Kind::Binary, role, version, install: Some(install), images: vec![], licence: APACHE }
    }

    fn of_image(name: &str, repository: &str, tag: &str, role: Audience) -> Self {
        let images = vec![format!("{repository}:{tag}")];
        let (name, version) = (name.to_owned(), tag.to_owned());
        Self { name, kind: Kind::Image, role, version, install: None, images, licence: APACHE }
    }

    fn licence(mut self, licence: &'static str) -> Self {
        self.licence = licence;
        self
    }
}

/// Everything that a bundle of these versions holds.
pub fn catalogue(v: &Versions, source: Origins) -> Vec<Entry> {
    use Audience::{All, ControlPlane};
    let k8s = v.kubernetes.as_str();
    let flannel_cni = if source == Origins::Modules { v.flannel_cni_module } else { v.flannel_cni };
    let mut all = vec![
        Entry::binary("containerd", v.containerd, All),
        Entry::binary("containerd-shim-runc-v2", v.containerd, All),
        Entry::binary("crictl", v.crictl, All),
        Entry::binary("ctr", v.containerd, All),
        Entry::binary("kubeadm", k8s, All),
        Entry::binary("kubectl", k8s, ControlPlane),
        Entry::binary("kubelet", k8s, All),
        Entry::binary("runc", v.runc, All).licence("Apache-2.0 AND LGPL-2.1-only"),
        Entry::binary("cni-flannel", flannel_cni, All),
    ];
    all.extend(CNI_PLUGINS.iter().map(|plugin| Entry::binary(&format!("cni-{plugin}"), v.cni, All)));
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        all.push(Entry::of_image(name, &format!("registry.k8s.io/{name}"), k8s, ControlPlane));
    }
    all.push(Entry::of_image("kube-proxy", "registry.k8s.io/kube-proxy", k8s, All).licence(WITH_BASE));
    all.push(Entry::of_image("coredns", "registry.k8s.io/coredns/coredns", v.coredns, All));
    all.push(Entry::of_image("etcd", "registry.k8s.io/etcd", v.etcd, ControlPlane));
    all.push(Entry::of_image("pause", "registry.k8s.io/pause", v.pause, All));
    all.push(Entry::of_image("flannel", "ghcr.io/flannel-io/flannel", v.flannel, All).licence(WITH_BASE));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{DEFAULT_KUBERNETES, manifest::may_install};
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_installable() {
        let all = catalogue(&Versions::of(DEFAULT_KUBERNETES).unwrap(), Origins::Modules);
        let names: BTreeSet<_> = all.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.iter().all(|e| e.install.as_deref().is_none_or(may_install)));
        assert!(all.iter().any(|e| e.image() == Some("registry.k8s.io/coredns/coredns:v1.14.2")));
    }
}
