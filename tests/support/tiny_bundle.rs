//! A bundle of a few bytes with every member that `up` asks for.

use std::{fs, path::Path};

use kubecamp::{
    bundle::{Audience, Kind, Origins, Part, Title, write},
    core::Arch,
};

/// Programs with their place, and whether only the control plane has them.
const PROGRAMS: &[(&str, &str)] = &[
    ("kubeadm", "/usr/local/bin/kubeadm"),
    ("kubelet", "/usr/local/bin/kubelet"),
    ("kubectl", "/usr/local/bin/kubectl"),
    ("containerd", "/usr/local/bin/containerd"),
    ("bridge", "/opt/cni/bin/bridge"),
];

const IMAGES: &[(&str, Audience)] = &[
    ("kube-apiserver", Audience::ControlPlane),
    ("etcd", Audience::ControlPlane),
    ("kube-proxy", Audience::All),
    ("coredns", Audience::All),
    ("flannel", Audience::All),
    ("pause", Audience::All),
];

/// Writes one to `file`.
pub fn tiny_bundle(file: &Path, kubernetes: &str, arch: Arch) {
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str, kind, role, install: Option<&str>| {
        let plain = folder.path().join(name);
        fs::write(&plain, format!("the bytes of {name}\n")).unwrap();
        let images = if kind == Kind::Image { vec![format!("registry.k8s.io/{name}:{kubernetes}")] } else { vec![] };
        let part = Part {
            name: name.to_owned(),
            kind,
            version: kubernetes.to_owned(),
            images,
            role,
            install: install.map(str::to_owned),
            origin: format!("example.org/{name}@{kubernetes}"),
            licence: "Apache-2.0".to_owned(),
            file: plain,
        };
        part.pack(folder.path(), &[]).unwrap()
    };
    let programs = PROGRAMS.iter().map(|(name, to)| part(name, Kind::Binary, Audience::All, Some(to)));
    let images = IMAGES.iter().map(|(name, role)| part(name, Kind::Image, *role, None));
    let parts = programs.chain(images).collect();
    let title = Title { kubernetes: kubernetes.to_owned(), arch, source: Origins::Modules, replaced: vec![] };
    write(title, parts, file).unwrap();
}
