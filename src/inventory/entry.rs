use std::{collections::BTreeMap, fmt, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::core::{NodeId, bracketed};

/// The hosts of a lab, as a hosts file lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostsFile {
    /// The hosts, each a group of keys or just an address; those without `node` take the profile's remaining nodes in order.
    #[schemars(length(min = 1), transform = or_text)]
    pub hosts: Vec<HostEntry>,
}

/// In a file a host may also be a mere text, which is its address.
fn or_text(list: &mut schemars::Schema) {
    if let Some(item) = list.remove("items") {
        list.insert("items".into(), json!({ "anyOf": [{ "type": "string" }, item] }));
    }
}

/// One host and how to reach it; what is not said comes from `~/.ssh/config`, then from SSH's own defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostEntry {
    /// The node of the profile that it becomes, as `worker-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$"))]
    pub node: Option<NodeId>,
    /// Its address, name, or alias in `~/.ssh/config`; `user@address:port` says all three at once.
    #[schemars(length(min = 1))]
    pub address: String,
    /// The user to log in as: root, or one that may use sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The port of its SSH server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The private key file to offer, `~` allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// The host to go through, written as `user@address:port` or an alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<String>,
    /// Your own notes about it, key by key, for finding it again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl HostEntry {
    /// A host of which only the address is known.
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            node: None,
            address: address.into(),
            user: None,
            port: None,
            identity: None,
            jump: None,
            labels: BTreeMap::new(),
        }
    }
}

/// The host as it is written on a command line.
impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        // Brackets also without a port: what is written here is read by ssh's rules again, which ask for them.
        f.write_str(&bracketed(&self.address))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::bless::{assert_fresh, keys_page};

    #[test]
    fn committed_schema_and_reference_are_fresh() {
        let schema = schemars::schema_for!(HostsFile);
        let json = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        assert_fresh("profiles/hosts.schema.json", &json, "inventory::entry");
        let page = keys_page("Keys of a hosts file", "src/inventory/entry.rs", "hosts", &schema);
        assert_fresh("docs/reference/hosts.md", &page, "inventory::entry");
    }
}
