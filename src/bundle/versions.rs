use crate::core::{Code, Problem};

/// The Kubernetes version of a lab whose profile does not say otherwise.
pub const DEFAULT_KUBERNETES: &str = "v1.36.3";

/// The parts that belong to one Kubernetes minor release: etcd, CoreDNS and pause as its kubeadm asks, the rest pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// Kubernetes itself, as `v1.36.3`.
    pub kubernetes: String,
    /// The tag of the etcd image, as `3.6.8-0`.
    pub etcd: &'static str,
    /// As `v1.14.2`.
    pub coredns: &'static str,
    /// As `3.10.2`.
    pub pause: &'static str,
    /// crictl, as `v1.36.0`.
    pub crictl: &'static str,
    /// As `v2.3.7`.
    pub containerd: &'static str,
    /// As `v1.5.2`.
    pub runc: &'static str,
    /// The stock CNI plugins, as `v1.9.1`.
    pub cni: &'static str,
    /// The flannel daemon, as `v0.28.10`.
    pub flannel: &'static str,
    /// The release of flannel's CNI plugin, where upstream keeps it on its own.
    pub flannel_cni: &'static str,
    /// The last stock release that held flannel's CNI plugin: the newest one that is a Go module.
    pub flannel_cni_module: &'static str,
}

/// Minor release, etcd, CoreDNS, pause, and a patch release known to build from Go modules.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    ("v1.34", "3.6.5-0", "v1.12.1", "3.10.1", "v1.34.4"),
    ("v1.35", "3.6.6-0", "v1.13.1", "3.10.1", "v1.35.4"),
    ("v1.36", "3.6.8-0", "v1.14.2", "3.10.2", "v1.36.3"),
    ("v1.37", "3.7.0-0", "v1.14.6", "3.10.2", "v1.37.2"),
];

/// Minor release, the first patch release with the etcd of its row, and the etcd of those before it.
const EARLIER_ETCD: &[(&str, u16, &str)] = &[("v1.34", 2, "3.6.4-0")];

/// One known version of each supported minor release, oldest first.
pub fn known_versions() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.4).collect()
}

/// The version of the same minor release as `kubernetes` that is known to fit the table.
pub fn known_beside(kubernetes: &str) -> Option<&'static str> {
    let (minor, _) = kubernetes.rsplit_once('.')?;
    ROWS.iter().find(|row| row.0 == minor).map(|row| row.4)
}

impl Versions {
    /// The parts for Kubernetes `kubernetes`: a patch release has the parts of its minor release, but for `EARLIER_ETCD`.
    ///
    /// Whether a later one still has them, only its kubeadm tells.
    ///
    /// # Errors
    /// `KC-BUNDLE-UNKNOWN` with the known versions.
    pub fn of(kubernetes: &str) -> Result<Self, Problem> {
        let unknown = || {
            Problem::new(Code::BundleUnknown, format!("Kubernetes `{kubernetes}` is not known"))
                .hint(format!("Known are {} and their other patch releases.", known_versions().join(", ")))
        };
        let (minor, patch) = kubernetes.rsplit_once('.').ok_or_else(unknown)?;
        let plain = !patch.is_empty() && patch.len() < 4 && patch.bytes().all(|b| b.is_ascii_digit());
        let row = ROWS.iter().find(|row| row.0 == minor && plain).ok_or_else(unknown)?;
        let number: u16 = patch.parse().map_err(|_| unknown())?;
        let earlier = EARLIER_ETCD.iter().find(|(of, first, _)| *of == minor && number < *first);
        Ok(Self {
            kubernetes: kubernetes.to_owned(),
            etcd: earlier.map_or(row.1, |(.., etcd)| *etcd),
            coredns: row.2,
            pause: row.3,
            crictl: "v1.36.0",
            containerd: "v2.3.7",
            runc: "v1.5.2",
            cni: "v1.9.1",
            flannel: "v0.28.10",
            flannel_cni: "v1.9.1-flannel3",
            flannel_cni_module: "v0.9.1",
        })
    }

    /// etcd's own version, as `v3.6.8`.
    pub fn etcd_module(&self) -> String {
        format!("v{}", self.etcd.split('-').next().unwrap_or(self.etcd))
    }

    /// The version of the `k8s.io/*` libraries that belong to it, as `v0.36.3`.
    pub fn libraries(&self) -> String {
        self.kubernetes.replacen("v1.", "v0.", 1)
    }

    /// The minor number, as `36`.
    pub fn minor(&self) -> &str {
        self.kubernetes.split('.').nth(1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_the_releases_that_there_are() {
        let hint = Code::BundleUnknown.hint();
        let (first, last) = (ROWS.first().unwrap().0, ROWS.last().unwrap().0);
        assert!(hint.contains(&format!("{first} to {last}")) && hint.contains(DEFAULT_KUBERNETES), "{hint}");
    }

    #[test]
    fn known_minors_have_parts_and_others_are_refused() {
        for known in known_versions() {
            let versions = Versions::of(known).unwrap();
            assert!(versions.libraries().starts_with("v0.") && versions.etcd_module().starts_with("v3."));
        }
        assert_eq!(Versions::of("v1.36.12").unwrap().coredns, "v1.14.2");
        assert_eq!((known_beside("v1.34.99"), known_beside("v1.20.1")), (Some("v1.34.4"), None));
        for bad in ["1.36.3", "v1.36", "v1.36.x", "v1.36.", "v1.20.1", "", "v1.36.3/../x", "v1.36.3-rc.1"] {
            let problem = Versions::of(bad).unwrap_err();
            assert_eq!(problem.code, Code::BundleUnknown, "{bad}");
            assert!(problem.all_hints()[0].contains(DEFAULT_KUBERNETES));
        }
    }

    #[test]
    fn a_patch_release_gets_the_etcd_that_its_own_kubeadm_asks_for() {
        let etcd = |kubernetes: &str| Versions::of(kubernetes).unwrap().etcd;
        for (kubernetes, wanted) in [
            ("v1.34.0", "3.6.4-0"),
            ("v1.34.1", "3.6.4-0"),
            ("v1.34.2", "3.6.5-0"),
            ("v1.34.10", "3.6.5-0"),
            ("v1.35.0", "3.6.6-0"),
        ] {
            assert_eq!(etcd(kubernetes), wanted, "{kubernetes}");
        }
        assert_eq!(Versions::of("v1.34.1").unwrap().etcd_module(), "v3.6.4");
        // Each row is for its known version.
        for row in ROWS {
            assert_eq!(etcd(row.4), row.1);
        }
    }
}
