use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::{Bytes, NodeId};

/// What a lab should be: nodes and sizes, Kubernetes version, networks, proxy mode. No addresses, no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Profile {
    /// Layout name, as `3x2c4g`: node count x cores c memory GiB g.
    pub layout: String,
    /// Kubernetes version, as `v1.36.3`.
    pub kubernetes: String,
    /// The nodes; the first control plane is where kubeadm init runs.
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
    /// Its name in the lab and in Kubernetes.
    #[schemars(with = "String")]
    pub name: NodeId,
    /// What it runs.
    pub role: Role,
    /// Cores.
    pub cores: u32,
    /// Memory, as `4GiB`.
    #[schemars(with = "String")]
    pub memory: Bytes,
    /// Disk, as `30GiB`.
    #[schemars(with = "String")]
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
    pub pods: String,
    /// Service network, as `10.96.0.0/16`.
    pub services: String,
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

/// How kube-proxy programs the kernel. `userspace` ended with Kubernetes 1.25 and `kernelspace` is Windows only.
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
    pub registry: String,
    /// Mirror URLs in the order they are tried, as `https://mirror.example/v2/k8s`.
    pub endpoints: Vec<String>,
}

impl ProxyMode {
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
