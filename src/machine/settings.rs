//! What a machine is made of, as Incus wants it: limits, devices, the files of its first start.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    engine::{Nic, Place},
    incus::Instance,
    provider::MachineSpec,
};

/// Configuration key that names the lab.
pub(super) const LAB: &str = "user.kubecamp.lab";
/// Configuration key that names the node.
pub(super) const NODE: &str = "user.kubecamp.node";
/// Configuration key that holds the public key which root accepts.
pub(super) const KEY: &str = "user.kubecamp.key";
/// Configuration keys that the image's templates write into `/etc/kubecamp-net`.
const ADDRESS: &str = "user.kubecamp.address";
const GATEWAY: &str = "user.kubecamp.gateway";
/// Configuration key that marks a template and names it.
const IMAGE: &str = "user.kubecamp.image";

/// What kubelet and container runtimes need of a container; it is as good as root on this computer.
const RAW_LXC: &str = "lxc.apparmor.profile=unconfined\nlxc.mount.auto=proc:rw sys:rw cgroup:rw\nlxc.cap.drop=\n\
    lxc.cgroup.devices.allow=a\nlxc.cgroup2.devices.allow=a";

type Config = BTreeMap<String, String>;

fn config<const N: usize>(pairs: [(&str, &str); N]) -> Config {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Keys that may change while a machine lives.
pub(super) fn limits(spec: &MachineSpec) -> Config {
    config([("limits.cpu", &spec.cores.to_string()), ("limits.memory", &spec.memory.0.to_string())])
}

/// The key that root accepts, as a configuration key.
pub(super) fn key(spec: &MachineSpec) -> Config {
    config([(KEY, spec.authorized_key.trim())])
}

/// Every configuration key of a container that becomes a node. The image's templates read the `user.` ones when the
/// machine starts for the first time: name, address and key are in place before its first process.
pub(super) fn container(spec: &MachineSpec, nic: &Nic, address: Option<Ipv4Addr>) -> Config {
    let mut keys = limits(spec);
    keys.extend(key(spec));
    if let (Nic::Managed { gateway, prefix, .. }, Some(address)) = (nic, address) {
        keys.extend(config([(ADDRESS, &format!("{address}/{prefix}")), (GATEWAY, &gateway.to_string())]));
    }
    keys.extend(config([
        (LAB, spec.lab.as_str()),
        (NODE, spec.node.as_str()),
        (IMAGE, ""),
        ("boot.autostart", "false"),
        ("security.privileged", "true"),
        ("security.nesting", "true"),
        ("raw.lxc", RAW_LXC),
    ]));
    keys
}

/// Disk, network and `/dev/kmsg`, which kubelet reads.
pub(super) fn devices(spec: &MachineSpec, place: &Place, address: Option<Ipv4Addr>) -> BTreeMap<String, Config> {
    let root = config([("type", "disk"), ("path", "/"), ("pool", &place.pool), ("size", &spec.disk.0.to_string())]);
    let mut nic = match &place.nic {
        Nic::Managed { network, .. } => config([("type", "nic"), ("name", "eth0"), ("network", network)]),
        Nic::Other(device) => device.clone(),
    };
    if let Some(address) = address {
        nic.insert("ipv4.address".into(), address.to_string());
    }
    let kmsg = config([("type", "unix-char"), ("path", "/dev/kmsg")]);
    [("root", root), ("eth0", nic), ("kmsg", kmsg)].map(|(k, v)| (k.to_owned(), v)).into()
}

/// Keys that turn a machine into a template.
pub(super) fn template_marks(name: &str) -> Config {
    config([(IMAGE, name), (LAB, ""), (NODE, ""), (KEY, "")])
}

/// Whether an instance is a template.
pub(super) fn is_template(instance: &Instance) -> bool {
    instance.config.get(IMAGE).is_some_and(|name| !name.is_empty())
}

/// The lowest address of the network that is not in `used`.
pub(super) fn lowest_free(gateway: Ipv4Addr, prefix: u8, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let size = 1u64 << (32 - u32::from(prefix.min(32)));
    let first = u64::from(u32::from(gateway)) & !(size - 1);
    let inner = (first + 1)..(first + size).saturating_sub(1);
    inner.map(|n| Ipv4Addr::from(n as u32)).find(|a| !used.contains(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Bytes;

    fn spec() -> MachineSpec {
        MachineSpec {
            lab: "lab".parse().unwrap(),
            node: "cp1".parse().unwrap(),
            cores: 2,
            memory: Bytes::gib(4),
            disk: Bytes::gib(30),
            authorized_key: "ssh-ed25519 AAAA me\n".into(),
            image: super::super::ImageRef::Node,
        }
    }

    #[test]
    fn a_container_has_its_limits_and_says_whose_it_is() {
        let nic = Nic::Managed { network: "br".into(), gateway: Ipv4Addr::new(10, 1, 0, 1), prefix: 24 };
        let keys = container(&spec(), &nic, Some(Ipv4Addr::new(10, 1, 0, 2)));
        let get = |key: &str| keys[key].as_str();
        assert_eq!((get("limits.cpu"), get("limits.memory")), ("2", "4294967296"));
        assert_eq!((get(LAB), get(NODE), get("security.privileged")), ("lab", "cp1", "true"));
        assert_eq!((get(ADDRESS), get(GATEWAY), get(KEY)), ("10.1.0.2/24", "10.1.0.1", "ssh-ed25519 AAAA me"));
    }

    #[test]
    fn the_images_templates_read_these_keys() {
        let recipe = include_str!("../../templates/machine/node-image.sh");
        for key in [LAB, NODE, KEY, ADDRESS, GATEWAY] {
            assert!(key == LAB || recipe.contains(&format!("config_get(\"{key}\"")), "{key}");
        }
    }

    #[test]
    fn addresses_are_taken_from_below_and_end() {
        let gateway = Ipv4Addr::new(10, 1, 0, 1);
        let used: BTreeSet<_> = [gateway, Ipv4Addr::new(10, 1, 0, 2)].into();
        assert_eq!(lowest_free(gateway, 24, &used), Some(Ipv4Addr::new(10, 1, 0, 3)));
        assert_eq!(lowest_free(gateway, 30, &used), None);
    }
}
