use std::{collections::BTreeSet, net::Ipv4Addr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Cidr, Cni, Layout, NodeSpec, Profile, Role, Size, draft};
use crate::core::{Code, LabName, NodeId, Problem, Problems};

/// The version of the stored form; a reader refuses another one.
const FORMAT: u32 = 1;

/// The version of a form in which something of a lab is kept.
///
/// It is read first, and nothing else with it: a newer form may have keys that nobody knows here.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Format {
    format: u32,
}

/// A named lab and what it rests on: what flows work from.
///
/// A profile that is asked for has passed every rule. One that is read back passed those of the version that stored it: a lab
/// that would not be brought up any more must still be seen and reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "Stored")]
pub struct Lab {
    name: LabName,
    profile: Profile,
    control_plane: usize,
    api_service_ip: Ipv4Addr,
    dns_service_ip: Ipv4Addr,
}

/// The form of `lab.yaml`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Stored {
    format: u32,
    name: LabName,
    profile: Profile,
}

impl Lab {
    /// The lab called `name`; the error has every rule that the profile breaks.
    pub fn new(name: LabName, profile: Profile) -> Result<Self, Problems> {
        draft::check(&profile)?;
        let lab = Self::of(name, profile);
        lab.map_err(|why| Problem::new(Code::Internal, format!("a checked profile is no lab: {why}")).into())
    }

    /// The lab without a judgement of its profile, but for what everything that a lab answers rests on.
    fn of(name: LabName, profile: Profile) -> Result<Self, String> {
        let (nodes, network) = (&profile.nodes, &profile.network);
        if nodes.iter().map(|node| &node.name).collect::<BTreeSet<_>>().len() != nodes.len() {
            return Err("two of its nodes have the same name".into());
        }
        let mut planes = nodes.iter().enumerate().filter(|(_, node)| node.role == Role::ControlPlane);
        let (Some((control_plane, _)), None) = (planes.next(), planes.next()) else {
            return Err("not exactly one of its nodes is the control plane".into());
        };
        if network.pods.part(24, nodes.len() as u64 - 1).is_none() {
            return Err(format!("its pod network {} has no /24 for each node", network.pods));
        }
        let service = |n: u64| {
            let none = || format!("its service network {} has no address number {n}", network.services);
            network.services.nth(n).ok_or_else(none)
        };
        let (api_service_ip, dns_service_ip) = (service(1)?, service(10)?);
        Ok(Self { name, profile, control_plane, api_service_ip, dns_service_ip })
    }

    /// Reads the text of a `lab.yaml`.
    ///
    /// # Errors
    /// `KC-LAB-NEWER` where a newer kubecamp wrote it, else `KC-LOCAL-FILE`.
    pub fn from_yaml(text: &str) -> Result<Self, Problem> {
        read::<Format>(text)?.at_most(FORMAT)?;
        let stored: Stored = read(text)?;
        if stored.format != FORMAT {
            return Err(damaged().detail([format!("there is no format {}", stored.format)]));
        }
        Self::of(stored.name, stored.profile).map_err(|why| damaged().detail([why]))
    }

    /// The text of its `lab.yaml`.
    pub fn to_yaml(&self) -> Result<String, Problem> {
        serde_yaml::to_string(self)
            .map_err(|error| Problem::new(Code::Internal, "the lab cannot be written as YAML").because(error))
    }

    /// Its name.
    pub fn name(&self) -> &LabName {
        &self.name
    }

    /// Its profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Its layout.
    pub fn layout(&self) -> Layout {
        self.profile.layout
    }

    /// Its nodes in the profile's order.
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.profile.nodes
    }

    /// The node of this name.
    pub fn node(&self, name: &NodeId) -> Option<&NodeSpec> {
        self.nodes().iter().find(|node| node.name == *name)
    }

    /// The node where kubeadm init runs.
    pub fn control_plane(&self) -> &NodeSpec {
        &self.profile.nodes[self.control_plane]
    }

    /// The nodes that join, in the profile's order; none in a lab of one node.
    pub fn workers(&self) -> impl Iterator<Item = &NodeSpec> {
        self.nodes().iter().filter(|node| node.role == Role::Worker)
    }

    /// The /24 of the pod network that the node has.
    ///
    /// With flannel the control plane has the first one, wherever the profile names it: flannel takes the network that is on the
    /// Node, the controller manager gives a Node without one the first that is free, and the control plane's is made before the
    /// workers' are. With the bridge CNI the control plane's Node gets one in the same way, but nobody reads it there: the plugin
    /// takes its network from the file that kubecamp writes on the node, and the routes go by the same. So each node has that of
    /// its place in the profile: labs that are up have it so in their files.
    pub fn pod_cidr_of(&self, node: &NodeId) -> Option<Cidr> {
        let place = self.nodes().iter().position(|spec| spec.name == *node)?;
        let index = match self.profile.network.cni {
            Cni::Flannel if place == self.control_plane => 0,
            Cni::Flannel if place < self.control_plane => place + 1,
            Cni::Flannel | Cni::Bridge => place,
        };
        self.pod_cidr().part(24, index as u64)
    }

    /// The pod network.
    pub fn pod_cidr(&self) -> Cidr {
        self.profile.network.pods
    }

    /// The service network.
    pub fn service_cidr(&self) -> Cidr {
        self.profile.network.services
    }

    /// The address of Service `kubernetes`: the first of the service network, as kubeadm takes it.
    pub fn api_service_ip(&self) -> Ipv4Addr {
        self.api_service_ip
    }

    /// The address of Service `kube-dns`: the tenth of the service network, as kubeadm takes it.
    pub fn dns_service_ip(&self) -> Ipv4Addr {
        self.dns_service_ip
    }
}

impl NodeSpec {
    /// What it has, for comparing with a real machine.
    pub fn size(&self) -> Size {
        Size { cores: self.cores, memory: self.memory, disk: self.disk }
    }
}

impl From<Lab> for Stored {
    fn from(lab: Lab) -> Self {
        Self { format: FORMAT, name: lab.name, profile: lab.profile }
    }
}

impl Format {
    /// Refuses what a newer kubecamp wrote, where this one reads the forms up to `newest`.
    ///
    /// # Errors
    /// `KC-LAB-NEWER`.
    pub fn at_most(self, newest: u32) -> Result<(), Problem> {
        if self.format <= newest {
            return Ok(());
        }
        let why = format!("it has format {}, and this version reads {newest}", self.format);
        Err(Problem::new(Code::LabNewer, "the stored lab was written by a newer kubecamp").detail([why]))
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { with_snippet: false })
        .map_err(|error| damaged().because(error))
}

fn damaged() -> Problem {
    Problem::new(Code::LocalFile, "the stored lab is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::load;

    fn lab(profile: &str) -> Lab {
        Lab::new("team7".parse().unwrap(), load(profile).unwrap()).unwrap()
    }

    #[test]
    fn a_lab_knows_its_nodes_and_addresses() {
        let lab = lab("3x2c4g");
        assert_eq!(lab.control_plane().name.as_str(), "cp");
        assert_eq!(lab.workers().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["worker-1", "worker-2"]);
        let second = lab.pod_cidr_of(&"worker-1".parse().unwrap()).unwrap();
        assert_eq!(second.to_string(), "10.244.1.0/24");
        assert_eq!(lab.pod_cidr_of(&NodeId::here()), None);
        assert_eq!(lab.api_service_ip().to_string(), "10.96.0.1");
        assert_eq!(lab.dns_service_ip().to_string(), "10.96.0.10");
    }

    #[test]
    fn the_control_plane_has_the_first_pod_network_of_flannel_wherever_it_is_named() {
        for (cni, first, wanted) in [
            (Cni::Flannel, 0, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]),
            (Cni::Flannel, 1, ["10.244.0.0/24", "10.244.2.0/24", "10.244.1.0/24"]),
            (Cni::Flannel, 2, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]),
            (Cni::Bridge, 2, ["10.244.2.0/24", "10.244.0.0/24", "10.244.1.0/24"]),
        ] {
            let mut profile = load("3x2c4g").unwrap();
            profile.network.cni = cni;
            profile.nodes.rotate_right(first);
            let lab = Lab::new("lab".parse().unwrap(), profile).unwrap();
            assert_eq!(lab.nodes()[first].name.as_str(), "cp");
            let pods = ["cp", "worker-1", "worker-2"].map(|node| lab.pod_cidr_of(&node.parse().unwrap()).unwrap());
            assert_eq!(pods.map(|cidr| cidr.to_string()), wanted, "{cni:?} {first}");
        }
    }

    #[test]
    fn lab_yaml_reads_back_and_refuses_other_formats() {
        for name in crate::profile::shipped() {
            let lab = lab(&name);
            let text = lab.to_yaml().unwrap();
            assert!(text.starts_with("format: 1\n"), "{text}");
            assert_eq!(Lab::from_yaml(&text).unwrap(), lab);
            // Whatever else it holds by then.
            let newer = Lab::from_yaml(&text.replace("format: 1", "format: 2\nsites: [a]")).unwrap_err();
            assert!(newer.code == Code::LabNewer && newer.to_string().contains("format 2"), "{newer}");
            let none = Lab::from_yaml(&text.replace("format: 1", "format: 0")).unwrap_err();
            assert!(none.code == Code::LocalFile && none.to_string().contains("format 0"), "{none}");
        }
    }

    #[test]
    fn a_lab_that_would_be_brought_up_no_more_still_reads_back() {
        let text = lab("3x2c4g").to_yaml().unwrap();
        let old = Lab::from_yaml(&text.replace("v1.36.3", "v1.20.0")).unwrap();
        assert_eq!((old.profile().kubernetes.as_str(), old.workers().count()), ("v1.20.0", 2));
        let refused = Lab::new(old.name().clone(), old.profile().clone()).unwrap_err();
        assert!(refused.iter().all(|p| p.code == Code::ProfileInvalid), "{refused}");
        // What every lab rests on is there all the same.
        for (was, is, why) in [
            ("role: worker", "role: control-plane", "control plane"),
            ("role: control-plane", "role: worker", "control plane"),
            ("name: worker-2", "name: worker-1", "same name"),
            ("10.244.0.0/16", "10.244.0.0/23", "10.244.0.0/23"),
            ("10.96.0.0/16", "10.96.0.0/29", "10.96.0.0/29"),
        ] {
            assert!(text.contains(was), "{was}: {text}");
            let damaged = Lab::from_yaml(&text.replace(was, is)).unwrap_err();
            assert!(damaged.code == Code::LocalFile && damaged.detail[0].contains(why), "{damaged}");
        }
    }

    #[test]
    fn a_changed_profile_is_judged_again() {
        let mut profile = load("3x2c4g").unwrap();
        profile.kubernetes = "v1.20.0".into();
        profile.nodes[1].name = profile.nodes[0].name.clone();
        let problems = Lab::new("lab".parse().unwrap(), profile).unwrap_err().into_vec();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems.iter().all(|p| p.at.is_none()));
    }
}
