use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{cli::store::Where, inventory::HostEntry, profile::Lab};

/// What is asked of a lab that is otherwise by now: a line for each key, as `proxy.mode: iptables, asked nftables`.
pub(super) fn differences(old: (&Lab, &Where), asked: (&Lab, &Where)) -> Vec<String> {
    let (was, wanted) = (keys(old.0, old.1), keys(asked.0, asked.1));
    let other_nodes = old.0.layout() != asked.0.layout();
    let all: BTreeSet<&String> = was.keys().chain(wanted.keys()).collect();
    let text = |keys: &BTreeMap<String, String>, key: &str| keys.get(key).cloned().unwrap_or_else(|| "none".to_owned());
    all.into_iter()
        .filter(|key| was.get(*key) != wanted.get(*key))
        // The layout says it in one line.
        .filter(|key| !(other_nodes && key.starts_with("nodes.")))
        .map(|key| format!("{key}: {}, asked {}", text(&was, key), text(&wanted, key)))
        .collect()
}

/// Everything that a lab is, key by key, as people write it.
fn keys(lab: &Lab, place: &Where) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::from([("name".to_owned(), lab.name().to_string())]);
    flatten("", &serde_json::to_value(lab.profile()).unwrap_or_default(), &mut keys);
    let place = match place {
        Where::Local => "machines on this computer",
        Where::Hosts(hosts) => {
            keys.extend(hosts.iter().map(|(node, host)| (format!("host of {node}"), host_text(host))));
            "hosts"
        }
    };
    keys.insert("place".to_owned(), place.to_owned());
    keys
}

/// A host with all by which two entries may differ.
fn host_text(host: &HostEntry) -> String {
    let mut text = host.to_string();
    if let Some(jump) = &host.jump {
        text.push_str(&format!(" through {jump}"));
    }
    if let Some(identity) = &host.identity {
        text.push_str(&format!(" with the key {}", identity.display()));
    }
    for (key, value) in &host.labels {
        text.push_str(&format!(" ({key}: {value})"));
    }
    text
}

/// The values below `value` by their paths, as `network.cni`; what stands in a list goes by its own name.
fn flatten(path: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                flatten(&below(name), value, keys);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (i, value) in list.iter().enumerate() {
                let named = ["name", "registry"].into_iter().find_map(|key| value.get(key)?.as_str());
                let name = named.map_or_else(|| i.to_string(), str::to_owned);
                flatten(&below(&name), value, keys);
            }
        }
        Value::Array(list) if list.is_empty() => {}
        Value::Array(list) => {
            let each: Vec<String> = list.iter().map(text_of).collect();
            keys.insert(path.to_owned(), each.join(", "));
        }
        value => {
            keys.insert(path.to_owned(), text_of(value));
        }
    }
}

/// A plain value without the quotes of JSON.
fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::NodeId,
        profile::{self, Mirror, Profile, ProxyMode},
    };

    fn lab(layout: &str, change: impl FnOnce(&mut Profile)) -> Lab {
        let mut profile = profile::load(layout).unwrap();
        change(&mut profile);
        Lab::new("lab".parse().unwrap(), profile).unwrap()
    }

    fn on(hosts: &[(&str, &str)]) -> Where {
        let pair = |(node, host): &(&str, &str)| (node.parse::<NodeId>().unwrap(), HostEntry::at(*host));
        Where::Hosts(hosts.iter().map(pair).collect())
    }

    #[test]
    fn each_key_is_named_with_what_it_is_and_what_was_asked() {
        let old = lab("2x4c8g", |profile| profile.proxy.mode = ProxyMode::Iptables);
        let mirror = Mirror { registry: "docker.io".into(), endpoints: vec!["https://a".into(), "https://b".into()] };
        let new = lab("2x4c8g", |profile| {
            profile.proxy.mode = ProxyMode::Nftables;
            profile.kubernetes = "v1.35.4".into();
            profile.nodes[1].memory = crate::core::Bytes::gib(16);
            profile.mirrors.push(mirror);
        });
        let found = differences((&old, &on(&[("cp", "a")])), (&new, &on(&[("cp", "b"), ("worker-1", "c")])));
        for line in [
            "proxy.mode: iptables, asked nftables",
            "mirrors.docker.io.endpoints: none, asked https://a, https://b",
            "nodes.worker-1.memory: 8GiB, asked 16GiB",
            "host of cp: a, asked b",
            "host of worker-1: none, asked c",
        ] {
            assert!(found.contains(&line.to_owned()), "{line}: {found:?}");
        }
        assert!(found.iter().any(|line| line.ends_with(", asked v1.35.4")), "{found:?}");
        assert_eq!(differences((&old, &Where::Local), (&old, &Where::Local)), [""; 0]);
    }

    #[test]
    fn another_layout_and_another_place_are_a_line_each() {
        let (old, new) = (lab("2x4c8g", |_| {}), lab("1x4c12g", |_| {}));
        let found = differences((&old, &Where::Local), (&new, &on(&[])));
        let wanted = ["layout: 2x4c8g, asked 1x4c12g", "place: machines on this computer, asked hosts"];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_host_is_told_with_the_way_to_it() {
        let way = |jump: &str| HostEntry { jump: Some(jump.into()), ..HostEntry::at("a") };
        let at = |jump: &str| Where::Hosts(vec![("cp".parse().unwrap(), way(jump))]);
        let one = lab("1x4c12g", |_| {});
        let found = differences((&one, &at("gate")), (&one, &at("other")));
        assert_eq!(found, ["host of cp: a through gate, asked a through other"]);
    }
}
