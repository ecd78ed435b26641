use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, Layout};
use crate::core::{Bytes, NodeId};

/// What a lab should be: nodes and sizes, Kubernetes version, networks, proxy mode. No addresses, no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// How many nodes there are and what each has at least, as `3x2c4g`: node count x cores c memory GiB g.
    #[schemars(with = "String", regex(pattern = r"^[1-9][0-9]*x[1-9][0-9]*c[1-9][0-9]*g$"))]
    pub layout: Layout,
    /// Kubernetes version, as `v1.36.3`; v1.34 to v1.37 are supported.
    #[schemars(regex(pattern = r"^v1\.3[4-7]\.(0|[1-9][0-9]*)$"))]
    pub kubernetes: String,
    /// The nodes, of which exactly one is the control plane, where kubeadm init runs.
    #[schemars(length(min = 1))]
    pub nodes: Vec<NodeSpec>,
    /// Pod and service networks and the CNI.
    pub network: Network,
    /// kube-proxy.
    pub proxy: Proxy,
    /// Where container images come from when they are not in the bundle; tried in order.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
}

/// One node of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeSpec {
    /// Its name in the lab and in Kubernetes: at most 32 lower-case letters, digits and inner hyphens.
    #[schemars(with = "String", regex(pattern = r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"))]
    pub name: NodeId,
    /// What it runs.
    pub role: Role,
    /// Its cores.
    #[schemars(range(min = 1))]
    pub cores: u32,
    /// Its memory, as `4GiB`.
    #[schemars(with = "String", regex(pattern = r"^[1-9][0-9]*(GiB|MiB)$"))]
    pub memory: Bytes,
    /// Its disk, as `30GiB`.
    #[schemars(with = "String", regex(pattern = r"^[1-9][0-9]*(GiB|MiB)$"))]
    pub disk: Bytes,
}

/// What a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// API server, etcd, scheduler, controller manager; pods too when it is the only node.
    ControlPlane,
    /// Pods only.
    Worker,
}

/// Networks of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Network {
    /// Pod network, as `10.244.0.0/16`; each node gets a /24 of it.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"))]
    pub pods: Cidr,
    /// Service network, as `10.96.0.0/16`, between /12 and /24.
    #[schemars(with = "String", regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"))]
    pub services: Cidr,
    /// How pods of different nodes reach each other.
    pub cni: Cni,
}

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cni {
    /// flannel with VXLAN.
    Flannel,
    /// The stock bridge plugin and one static route per node: nothing runs, everything can be read.
    Bridge,
}

/// kube-proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Proxy {
    /// Its mode, always written explicitly into its configuration.
    pub mode: ProxyMode,
}

/// How kube-proxy programs the kernel. `userspace` was removed in Kubernetes v1.26 and `kernelspace` is
/// for Windows only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyMode {
    /// Chains of the iptables nat table.
    Iptables,
    /// The kernel's load balancer; needs ip_vs modules.
    Ipvs,
    /// One nftables table with maps; needs Linux 5.13.
    Nftables,
}

/// Where the images of one registry come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mirror {
    /// The registry's host, as `registry.k8s.io`.
    #[schemars(length(min = 1))]
    pub registry: String,
    /// Mirror URLs in the order they are tried, as `https://mirror.example/v2/k8s`.
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://")))]
    pub endpoints: Vec<String>,
}

impl Role {
    /// Every role, as profiles write it.
    pub(super) const WORDS: [(&'static str, Self); 2] =
        [("control-plane", Self::ControlPlane), ("worker", Self::Worker)];
}

impl Cni {
    /// Every CNI, as profiles write it.
    pub(super) const WORDS: [(&'static str, Self); 2] = [("flannel", Self::Flannel), ("bridge", Self::Bridge)];
}

impl ProxyMode {
    /// Why a word is none of the modes, when it is one that kube-proxy had or has elsewhere.
    pub fn why_not(word: &str) -> Option<&'static str> {
        match word.to_lowercase().as_str() {
            "userspace" => Some("mode `userspace` was removed from kube-proxy in Kubernetes v1.26"),
            "kernelspace" => Some("mode `kernelspace` exists on Windows nodes only, and kubecamp's nodes run Linux"),
            _ => None,
        }
    }

    /// Every mode, as profiles write it.
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("iptables", Self::Iptables), ("ipvs", Self::Ipvs), ("nftables", Self::Nftables)];

    /// The mode as kube-proxy writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Cni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flannel => "flannel",
            Self::Bridge => "bridge",
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        })
    }
}
