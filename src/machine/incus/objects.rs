use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Configuration keys and devices: Incus has only text values.
pub type Config = BTreeMap<String, String>;

/// Incus itself, from `GET /1.0`.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    /// `trusted` when this user may use the API.
    #[serde(default)]
    pub auth: String,
    /// What this version can do beyond the first one.
    #[serde(default)]
    pub api_extensions: Vec<String>,
    /// Version, drivers and kernel.
    #[serde(default)]
    pub environment: Environment,
}

/// Version, drivers and kernel of an Incus.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Environment {
    /// Incus's version.
    #[serde(default)]
    pub server_version: String,
    /// Instance drivers that work, as `lxc | qemu`.
    #[serde(default)]
    pub driver: String,
}

/// A background operation.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Operation {
    pub status_code: u32,
    #[serde(default)]
    pub err: String,
    #[serde(default)]
    pub metadata: Value,
}

/// An instance as Incus lists it.
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// `Running`, `Stopped`, `Frozen`, `Error`.
    pub status: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was made, as Incus writes it.
    #[serde(default)]
    pub created_at: String,
    /// Its own configuration keys.
    #[serde(default)]
    pub config: Config,
    /// Its own devices.
    #[serde(default)]
    pub devices: BTreeMap<String, Config>,
    /// Present in lists that ask for it.
    #[serde(default)]
    pub state: Option<InstanceState>,
}

/// What runs in an instance.
#[derive(Debug, Clone, Deserialize)]
pub struct InstanceState {
    /// The process id of its init, 0 when it does not run.
    #[serde(default)]
    pub pid: i64,
    /// Its network interfaces.
    #[serde(default)]
    pub network: Option<BTreeMap<String, Interface>>,
}

/// A network interface of an instance.
#[derive(Debug, Clone, Deserialize)]
pub struct Interface {
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, Deserialize)]
pub struct Address {
    /// `inet` or `inet6`.
    pub family: String,
    /// The address without prefix length.
    pub address: String,
    /// `global`, `link` or `local`.
    pub scope: String,
}

/// A snapshot of an instance.
#[derive(Debug, Clone, Deserialize)]
pub struct Snapshot {
    /// Its name, without the instance's.
    pub name: String,
}

/// Where a new instance's disk comes from.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Source {
    /// An image of this Incus.
    Image {
        /// The image's fingerprint.
        fingerprint: String,
    },
    /// Another, stopped instance.
    Copy {
        /// Its name.
        source: String,
        /// Whether to leave its snapshots behind.
        instance_only: bool,
    },
}

/// A request for a new instance.
///
/// It takes nothing from profiles, so that it is the same on every Incus.
#[derive(Debug, Clone, Serialize)]
pub struct NewInstance {
    /// Its name.
    pub name: String,
    /// `container` or `virtual-machine`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Configuration keys.
    pub config: Config,
    /// Devices.
    pub devices: BTreeMap<String, Config>,
    /// Always empty.
    pub profiles: Vec<String>,
    /// Where its disk comes from.
    pub source: Source,
}

/// A network as Incus lists it.
#[derive(Debug, Clone, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Whether Incus runs it.
    #[serde(default)]
    pub managed: bool,
    /// `bridge` and others.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Its configuration keys.
    #[serde(default)]
    pub config: Config,
}

/// A storage pool as Incus lists it.
#[derive(Debug, Clone, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `btrfs`, `zfs`, `dir` and others.
    pub driver: String,
}

/// How full a storage pool is.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PoolResources {
    /// Its bytes.
    pub space: Space,
}

/// The bytes of a storage pool.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Space {
    /// What is taken.
    #[serde(default)]
    pub used: u64,
    /// All of them.
    #[serde(default)]
    pub total: u64,
}

/// A profile as Incus lists it.
#[derive(Debug, Clone, Deserialize)]
pub struct Profile {
    /// Its devices.
    #[serde(default)]
    pub devices: BTreeMap<String, Config>,
}

/// An address that a network has given away.
#[derive(Debug, Clone, Deserialize)]
pub struct Lease {
    /// The address, of either family.
    pub address: String,
}

/// What an alias points to.
#[derive(Debug, Clone, Deserialize)]
pub struct Alias {
    /// The image's fingerprint.
    pub target: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_shape_that_incus_reads() {
        let new = NewInstance {
            name: "lab-cp1".into(),
            kind: "container",
            config: [("limits.cpu".to_owned(), "2".to_owned())].into(),
            devices: BTreeMap::new(),
            profiles: vec![],
            source: Source::Copy { source: "template".into(), instance_only: true },
        };
        let json = serde_json::to_value(&new).unwrap();
        assert_eq!(json["type"], "container");
        assert_eq!(json["profiles"], serde_json::json!([]));
        assert_eq!(json["source"], serde_json::json!({"type": "copy", "source": "template", "instance_only": true}));
        let image = serde_json::to_value(Source::Image { fingerprint: "abc".into() }).unwrap();
        assert_eq!(image, serde_json::json!({"type": "image", "fingerprint": "abc"}));
    }

    #[test]
    fn a_listed_instance_is_read() {
        let text = r#"{"name":"lab-n1","status":"Running","type":"container","config":{"user.kubecamp.lab":"lab"},
            "devices":{"eth0":{"type":"nic"}},"state":{"pid":7,"network":{"eth0":{"addresses":
            [{"family":"inet","address":"10.0.0.2","netmask":"24","scope":"global"}],"hwaddr":"x"}}},"unknown":1}"#;
        let instance: Instance = serde_json::from_str(text).unwrap();
        let state = instance.state.unwrap();
        assert_eq!(state.network.unwrap()["eth0"].addresses[0].address, "10.0.0.2");
    }
}
