//! The steps that steps of other phases wait for: named in this one place.

/// On the control plane there is a CA to sign with.
pub(super) const CA: &str = "ca";

/// On the control plane kubeadm init is through.
pub(super) const INIT: &str = "init";

/// A worker has joined.
pub(super) const JOIN: &str = "join";

/// On the control plane the image of kube-proxy is there.
pub(super) const IMPORT_KUBE_PROXY: &str = "import-kube-proxy";

/// On the control plane the image of flannel is there.
pub(super) const IMPORT_FLANNEL: &str = "import-flannel";

/// On the control plane the image of CoreDNS is there, and with it all of the bundle's images.
pub(super) const IMPORT_COREDNS: &str = "import-coredns";

/// The control plane has asked the workers' pods to end.
pub(super) const DRAIN: &str = "drain";
