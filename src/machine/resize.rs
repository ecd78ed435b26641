use serde_json::{Value, json};

use super::{incus::Instance, provider::MachineSpec, settings};
use crate::core::{Bytes, Code, Problem};

/// How a machine that exists gets the size that is asked for now.
#[derive(Debug, PartialEq)]
pub(super) struct Resize {
    /// What changes, for Incus's `PATCH`.
    pub change: Value,
    /// The same for people: `cores from 2 to 4, disk from 30GiB to 40GiB`.
    pub words: String,
}

impl Resize {
    /// What is to change of the instance; `None` where it has the size that is asked for.
    ///
    /// # Errors
    /// `KC-LAB-DIFFERS` where its disk would have to shrink: what is on it might not fit, and not every pool can.
    pub fn of(instance: &Instance, spec: &MachineSpec) -> Result<Option<Self>, Problem> {
        let (mut config, mut words) = (settings::limits(spec), vec![]);
        config.retain(|key, wanted| instance.config.get(key).is_none_or(|has| !same(key, has, wanted)));
        for (key, wanted) in &config {
            let had = instance.config.get(key).map_or("no limit", String::as_str);
            words.push(match key.as_str() {
                settings::MEMORY => format!("memory from {} to {}", shown(had), shown(wanted)),
                _ => format!("cores from {had} to {wanted}"),
            });
        }
        let mut change = json!({"config": config});
        // A size that Incus decided itself, or that is none of ours, stays what it is.
        let root = instance.devices.get(settings::ROOT);
        if let Some((root, has)) = root.and_then(|root| Some((root, bytes(root.get("size")?)?))) {
            if spec.disk < has {
                return Err(shrinks(instance, spec, has));
            }
            if spec.disk > has {
                // Incus takes a device as a whole.
                let mut root = root.clone();
                root.insert("size".into(), spec.disk.0.to_string());
                change["devices"] = json!({settings::ROOT: root});
                words.push(format!("disk from {has} to {}", spec.disk));
            }
        }
        let words = words.join(", ");
        Ok((!words.is_empty()).then_some(Self { change, words }))
    }
}

fn shrinks(instance: &Instance, spec: &MachineSpec, has: Bytes) -> Problem {
    let what = format!("machine {} has a disk of {has}, and none can shrink to {}", instance.name, spec.disk);
    Problem::new(Code::LabDiffers, what).on(&spec.node).hint(format!(
        "Ask for a disk no smaller than that, or remove the lab's machines first: kubecamp{} down.",
        spec.lab.flag()
    ))
}

/// Whether a limit is what is wanted, also in other words: somebody may have written `4GiB` by hand.
fn same(key: &str, has: &str, wanted: &str) -> bool {
    has == wanted || (key == settings::MEMORY && bytes(has).is_some_and(|has| Some(has) == bytes(wanted)))
}

/// A size in Incus's words, as people read it.
fn shown(text: &str) -> String {
    bytes(text).map_or_else(|| text.to_owned(), |size| size.to_string())
}

/// A size as Incus writes it, `32212254720` or `30GiB`; none for a share, as `50%`.
fn bytes(text: &str) -> Option<Bytes> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().ok()?;
    let times: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(times).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::{settings::tests::spec, *};

    fn instance(cores: &str, memory: &str, disk: Value) -> Instance {
        let json = json!({"name": "lab-cp1", "status": "Running", "type": "container",
            "config": {"limits.cpu": cores, "limits.memory": memory, "user.kubecamp.lab": "lab"},
            "devices": {"root": {"path": "/", "pool": "p", "type": "disk", "size": disk}}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_what_differs_changes_and_a_disk_stays_where_it_is() {
        let same = instance("2", "4294967296", json!("32212254720"));
        assert_eq!(Resize::of(&same, &spec()).unwrap(), None);
        let by_hand = instance("2", "4GiB", json!("30GiB"));
        assert_eq!(Resize::of(&by_hand, &spec()).unwrap(), None);

        let other = instance("4", "12884901888", json!("20GiB"));
        let resize = Resize::of(&other, &spec()).unwrap().unwrap();
        assert_eq!(resize.words, "cores from 4 to 2, memory from 12GiB to 4GiB, disk from 20GiB to 30GiB");
        let root = json!({"path": "/", "pool": "p", "type": "disk", "size": "32212254720"});
        let limits = json!({"limits.cpu": "2", "limits.memory": "4294967296"});
        assert_eq!(resize.change, json!({"config": limits, "devices": {"root": root}}));

        let cores = Resize::of(&instance("1", "4294967296", json!("30GiB")), &spec()).unwrap().unwrap();
        assert_eq!(cores.change, json!({"config": {"limits.cpu": "2"}}));
    }

    #[test]
    fn a_disk_does_not_shrink_and_one_of_unknown_size_is_left_alone() {
        let problem = Resize::of(&instance("2", "4294967296", json!("40GiB")), &spec()).unwrap_err();
        assert_eq!(problem.code, Code::LabDiffers);
        assert!(problem.what.contains("lab-cp1 has a disk of 40GiB") && problem.on.is_some(), "{problem}");
        assert!(problem.all_hints()[0].contains("kubecamp down"));
        assert_eq!(Resize::of(&instance("2", "4294967296", json!("50%")), &spec()).unwrap(), None);
        let mut bare = instance("2", "4294967296", json!("1"));
        bare.devices.clear();
        assert_eq!(Resize::of(&bare, &spec()).unwrap(), None);
    }

    #[test]
    fn sizes_are_read_in_every_unit_of_incus() {
        for (text, size) in [("7", Some(7)), ("7B", Some(7)), ("2kB", Some(2000)), ("1GiB", Some(1 << 30))] {
            assert_eq!(bytes(text), size.map(Bytes), "{text}");
        }
        for text in ["", "GiB", "1.5GiB", "50%", "99999999TiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
