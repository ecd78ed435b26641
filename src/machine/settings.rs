//! What a machine is made of, as Incus wants it: limits, devices, the files of its first start.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::{
    engine::Nic,
    incus::Instance,
    provider::{Kind, MachineSpec},
};

/// Configuration key that names the lab.
pub(super) const LAB: &str = "user.kubecamp.lab";
/// Configuration key that tells the lab from others of its name.
pub(super) const LAB_ID: &str = "user.kubecamp.lab-id";
/// Configuration key that names the node.
pub(super) const NODE: &str = "user.kubecamp.node";
/// Configuration key that holds the public key which root accepts.
pub(super) const KEY: &str = "user.kubecamp.key";
/// Configuration key that holds a virtual machine's public host key, once it is known.
pub(super) const HOST_KEY: &str = "user.kubecamp.host-key";
/// Configuration key with further words for qemu.
const RAW_QEMU: &str = "raw.qemu";
/// Configuration keys that the image's templates write into `/etc/kubecamp-net`.
const ADDRESS: &str = "user.kubecamp.address";
const GATEWAY: &str = "user.kubecamp.gateway";
/// Configuration key that marks a template and names it.
const IMAGE: &str = "user.kubecamp.image";

/// Configuration key of the memory that a machine may use.
pub(super) const MEMORY: &str = "limits.memory";
/// The device that is a machine's disk.
pub(super) const ROOT: &str = "root";

/// What kubelet and container runtimes need of a container; it is as good as root on this computer.
const RAW_LXC: &str = "lxc.apparmor.profile=unconfined\nlxc.mount.auto=proc:rw sys:rw cgroup:rw\nlxc.cap.drop=\n\
    lxc.cgroup.devices.allow=a\nlxc.cgroup2.devices.allow=a";

/// Bytes of an Ed25519 public key as SSH writes it.
const ED25519: usize = 51;

type Config = BTreeMap<String, String>;

fn config<const N: usize>(pairs: [(&str, &str); N]) -> Config {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Keys that may change while a machine lives.
pub(super) fn limits(spec: &MachineSpec) -> Config {
    config([("limits.cpu", &spec.cores.to_string()), (MEMORY, &spec.memory.0.to_string())])
}

/// The key that root accepts, as a configuration key.
pub(super) fn key(spec: &MachineSpec) -> Config {
    config([(KEY, spec.authorized_key.trim())])
}

/// Which lab it is, as a configuration key.
pub(super) fn lab_id(spec: &MachineSpec) -> Config {
    config([(LAB_ID, spec.tenant.id.as_str())])
}

/// Every configuration key of a machine that becomes a node.
///
/// A container's image has templates that read the `user.` ones when the machine starts for the first time: name,
/// address and key are in place before its first process. A virtual machine gets the same as a systemd credential.
pub(super) fn node(spec: &MachineSpec, kind: Kind, nic: &Nic, address: Option<Ipv4Addr>) -> Config {
    let mut keys = owned(spec, nic, address);
    match kind {
        Kind::Container => {
            keys.extend(config([("security.privileged", "true"), ("security.nesting", "true"), ("raw.lxc", RAW_LXC)]));
        }
        Kind::Vm => {
            let qemu = credential(&keys);
            // The boot loader is not signed by anybody whom the firmware knows.
            keys.extend(config([("security.secureboot", "false"), (RAW_QEMU, &qemu), (HOST_KEY, "")]));
        }
    }
    keys
}

/// What a virtual machine with these keys is told through SMBIOS: qemu's words for the systemd credential
/// `kubecamp.machine`.
///
/// It stands in the process list, and nothing in it is secret.
pub(super) fn credential(keys: &Config) -> String {
    let get = |key: &str| keys.get(key).map_or("", String::as_str);
    let (node, address, gateway, key) = (get(NODE), get(ADDRESS), get(GATEWAY), get(KEY));
    let text = format!("NODE={node}\nADDRESS={address}\nGATEWAY={gateway}\nKEY={key}\n");
    let text = BASE64_STANDARD.encode(text);
    format!("-smbios type=11,value=io.systemd.credential.binary:kubecamp.machine={text}")
}

/// What changes when a virtual machine is to let another key in, from its next start on.
pub(super) fn another_key(instance: &Instance, spec: &MachineSpec) -> Config {
    let mut keys = instance.config.clone();
    keys.extend(key(spec));
    let qemu = credential(&keys);
    let mut change = key(spec);
    change.extend(config([(RAW_QEMU, &qemu)]));
    change
}

/// Limits, whose machine it is, and what it is told.
fn owned(spec: &MachineSpec, nic: &Nic, address: Option<Ipv4Addr>) -> Config {
    let mut keys = limits(spec);
    keys.extend(key(spec));
    keys.extend(lab_id(spec));
    if let (Nic::Managed { gateway, prefix, .. }, Some(address)) = (nic, address) {
        keys.extend(config([(ADDRESS, &format!("{address}/{prefix}")), (GATEWAY, &gateway.to_string())]));
    }
    keys.extend(config([
        (LAB, spec.lab.as_str()),
        (NODE, spec.node.as_str()),
        (IMAGE, ""),
        ("boot.autostart", "false"),
    ]));
    keys
}

/// Disk, network and a container's `/dev/kmsg`, which kubelet reads.
pub(super) fn devices(
    spec: &MachineSpec,
    kind: Kind,
    pool: &str,
    nic: &Nic,
    address: Option<Ipv4Addr>,
) -> BTreeMap<String, Config> {
    let root = config([("type", "disk"), ("path", "/"), ("pool", pool), ("size", &spec.disk.0.to_string())]);
    let mut nic = match nic {
        Nic::Managed { network, .. } => config([("type", "nic"), ("name", "eth0"), ("network", network)]),
        Nic::Other(device) => device.clone(),
    };
    if let Some(address) = address {
        nic.insert("ipv4.address".into(), address.to_string());
    }
    let mut devices: BTreeMap<_, _> = [(ROOT, root), ("eth0", nic)].map(|(k, v)| (k.to_owned(), v)).into();
    if kind == Kind::Container {
        devices.insert("kmsg".into(), config([("type", "unix-char"), ("path", "/dev/kmsg")]));
    }
    devices
}

/// Keys that turn a machine into a template.
pub(super) fn template_marks(name: &str) -> Config {
    config([(IMAGE, name), (LAB, ""), (LAB_ID, ""), (NODE, ""), (KEY, ""), (HOST_KEY, "")])
}

/// The host key that a virtual machine wrote to its console, the last one that is whole: the kernel may write between.
pub(super) fn host_key_on(console: &str) -> Option<String> {
    let whole = |line: &str| {
        let (_, key) = line.split_once("kubecamp-host-key: ")?;
        let mut words = key.split_whitespace();
        let (kind, text) = (words.next()?, words.next()?);
        let bytes = BASE64_STANDARD.decode(text).ok()?;
        (kind == "ssh-ed25519" && bytes.len() == ED25519).then(|| format!("{kind} {text}"))
    };
    console.lines().rev().find_map(whole)
}

/// Whether an instance is a virtual machine.
pub(super) fn kind_of(instance: &Instance) -> Kind {
    if instance.kind == "virtual-machine" { Kind::Vm } else { Kind::Container }
}

/// The name that an instance was published under; none for one that is no template.
pub(super) fn image_of(instance: &Instance) -> Option<&str> {
    instance.config.get(IMAGE).map(String::as_str).filter(|name| !name.is_empty())
}

/// The lowest address of the network that is not in `used`.
pub(super) fn lowest_free(gateway: Ipv4Addr, prefix: u8, used: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let size = 1u64 << (32 - u32::from(prefix.min(32)));
    let first = u64::from(u32::from(gateway)) & !(size - 1);
    let inner = (first + 1)..(first + size).saturating_sub(1);
    inner.map(|n| Ipv4Addr::from(n as u32)).find(|a| !used.contains(a))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        core::{Bytes, LabId},
        machine::Tenant,
    };

    /// A machine of the tests, here and of the provider's.
    pub(in crate::machine) fn spec() -> MachineSpec {
        MachineSpec {
            lab: "lab".parse().unwrap(),
            tenant: Tenant { id: LabId::new("aaaa"), known: true, takes_over: false },
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
        let keys = node(&spec(), Kind::Container, &nic, Some(Ipv4Addr::new(10, 1, 0, 2)));
        let get = |key: &str| keys[key].as_str();
        assert_eq!((get("limits.cpu"), get("limits.memory")), ("2", "4294967296"));
        assert_eq!((get(LAB), get(LAB_ID), get(NODE), get("security.privileged")), ("lab", "aaaa", "cp1", "true"));
        assert_eq!((get(ADDRESS), get(GATEWAY), get(KEY)), ("10.1.0.2/24", "10.1.0.1", "ssh-ed25519 AAAA me"));
    }

    #[test]
    fn a_virtual_machine_is_told_what_it_is_and_shares_nothing() {
        let nic = Nic::Managed { network: "br".into(), gateway: Ipv4Addr::new(10, 1, 0, 1), prefix: 24 };
        let address = Some(Ipv4Addr::new(10, 1, 0, 2));
        let keys = node(&spec(), Kind::Vm, &nic, address);
        assert_eq!((keys["limits.cpu"].as_str(), keys["security.secureboot"].as_str()), ("2", "false"));
        assert!(!keys.contains_key("security.privileged") && !keys.contains_key("raw.lxc"));
        let words = keys[RAW_QEMU].strip_prefix("-smbios type=11,value=io.systemd.credential.binary:kubecamp.machine=");
        let text = BASE64_STANDARD.decode(words.unwrap()).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "NODE=cp1\nADDRESS=10.1.0.2/24\nGATEWAY=10.1.0.1\nKEY=ssh-ed25519 AAAA me\n");
        // The image reads these lines, and this credential.
        let disk = include_str!("../../templates/machine/vm-disk.sh");
        for name in text.lines().filter_map(|l| l.split_once('=')).map(|(name, _)| name) {
            assert!(disk.contains(&format!("$(get {name})")), "{name}");
        }
        assert!(disk.contains("LoadCredential=kubecamp.machine\n"));

        let devices = devices(&spec(), Kind::Vm, "pool", &nic, address);
        assert_eq!(devices.keys().collect::<Vec<_>>(), ["eth0", "root"]);
        assert_eq!(devices["root"]["size"], Bytes::gib(30).0.to_string());
        assert_eq!(devices["eth0"]["ipv4.address"], "10.1.0.2");
    }

    #[test]
    fn another_key_is_told_with_all_the_rest() {
        let nic = Nic::Managed { network: "br".into(), gateway: Ipv4Addr::new(10, 1, 0, 1), prefix: 24 };
        let keys = node(&spec(), Kind::Vm, &nic, Some(Ipv4Addr::new(10, 1, 0, 2)));
        let json = serde_json::json!({"name": "x", "status": "Running", "type": "virtual-machine", "config": keys});
        let instance: Instance = serde_json::from_value(json).unwrap();
        assert_eq!(kind_of(&instance), Kind::Vm);
        assert_eq!(another_key(&instance, &spec())[RAW_QEMU], keys[RAW_QEMU]);
        let other = MachineSpec { authorized_key: "ssh-ed25519 BBBB you".into(), ..spec() };
        let change = another_key(&instance, &other);
        assert_eq!(change.keys().collect::<Vec<_>>(), [RAW_QEMU, KEY]);
        let text = BASE64_STANDARD.decode(change[RAW_QEMU].rsplit_once("machine=").unwrap().1).unwrap();
        assert!(text.starts_with(b"NODE=cp1\nADDRESS=10.1.0.2/24\n") && text.ends_with(b"KEY=ssh-ed25519 BBBB you\n"));
    }

    #[test]
    fn a_host_key_is_found_among_a_consoles_noise() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPgQFc8zDQmswu6VtXXF9tinN/YQnqJ0ftWy5q5ssAmI";
        let console = format!(
            "\x1b[2JBdsDxe: starting Boot0001\r\n\r\nkubecamp-host-key: {key} \r\r\n\
             kubecamp-host-key: ssh-ed25519 AAAAC3Nza[    9.1] link is up\r\n"
        );
        assert_eq!(host_key_on(&console).as_deref(), Some(key));
        assert_eq!(host_key_on("kubecamp-host-key: ssh-rsa AAAA\n"), None);
        assert_eq!(host_key_on(""), None);
        let disk = include_str!("../../templates/machine/vm-disk.sh");
        assert!(disk.contains("kubecamp-host-key: %%s"));
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
