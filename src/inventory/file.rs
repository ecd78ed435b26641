use std::{collections::BTreeMap, fs, path::Path};

use super::{HostEntry, HostsFile, Spec, spec::is_user};
use crate::core::{
    Code, NodeId, Problems,
    yaml::{self, Fields, Form, Node, Place, Spot, Value, tree},
};

const BAD: Code = Code::HostsFile;

/// Loads a hosts file.
pub fn load(path: &Path) -> Result<HostsFile, Problems> {
    let name = path.display().to_string();
    let text = yaml::text(fs::File::open(path), "hosts file", &name, BAD)?;
    parse(&text, &name)
}

/// Reads a hosts file from `text`; the error has every problem of the file, each with line and column.
pub fn parse(text: &str, file_name: &str) -> Result<HostsFile, Problems> {
    let mut form = Form::new(file_name, BAD);
    let mut hosts = vec![];
    match tree(text) {
        Ok(Some(root)) => hosts = read_hosts(&mut form, &root),
        Ok(None) => {
            form.shape(Place { line: 1, column: 1 }, "the hosts file is empty");
        }
        Err(broken) => {
            form.shape(broken.place, format!("this is not YAML: {}", broken.what));
        }
    }
    form.finish()?;
    Ok(HostsFile { hosts })
}

fn read_hosts(form: &mut Form, root: &Node) -> Vec<HostEntry> {
    let Some(keys) = form.fields(root, "the hosts file", &["hosts"]) else { return vec![] };
    let Some(list) = keys.required(form, "hosts") else { return vec![] };
    let items = form.list(list, "hosts").unwrap_or_default();
    if items.is_empty() {
        form.shape(list.place, "hosts must name at least one host");
    }
    let read: Vec<_> =
        items.iter().enumerate().filter_map(|(i, item)| Some((item.place, read_host(form, item, i)?))).collect();
    refuse_twins(form, &read);
    read.into_iter().map(|(_, host)| host).collect()
}

/// A host; `None` when even its address is unreadable.
fn read_host(form: &mut Form, node: &Node, index: usize) -> Option<HostEntry> {
    // A line with nothing but the address is a host too.
    if let Value::Scalar { .. } = node.value {
        return form.parsed::<Spec>(node, "host", BAD).map(|spec| spec.value.into());
    }
    let group = format!("host {}", index + 1);
    let keys = form.fields(node, &group, &["node", "address", "user", "port", "identity", "jump", "labels"])?;
    let spec = keys.required(form, "address").and_then(|node| form.parsed::<Spec>(node, "address", BAD));
    let name = keys.optional("node").and_then(|node| form.parsed::<NodeId>(node, "node", BAD));
    let user = keys.optional("user").and_then(|node| read_user(form, node));
    let port = keys.optional("port").and_then(|node| read_port(form, node));
    let identity = keys.optional("identity").and_then(|node| form.text(node, "identity"));
    let jump = keys.optional("jump").and_then(|node| form.parsed::<Spec>(node, "jump", BAD));
    let labels = read_labels(form, &keys);
    let spec = spec?;
    let user = once(form, "user", &spec, spec.value.user.clone(), user);
    let port = once(form, "port", &spec, spec.value.port, port);
    Some(HostEntry {
        node: name.map(|name| name.value),
        address: spec.value.address,
        user,
        port,
        identity: identity.map(|path| path.value.into()),
        jump: jump.map(|jump| jump.value.to_string()),
        labels,
    })
}

/// The value of a key that the address may hold too; said twice it is refused, since one of them would be ignored.
fn once<T>(form: &mut Form, key: &str, spec: &Spot<Spec>, inside: Option<T>, own: Option<Spot<T>>) -> Option<T> {
    if let (Some(_), Some(own)) = (&inside, &own) {
        let line = spec.place.map_or(0, |place| place.line);
        form.note(BAD, own.place, format!("the {key} stands in the address too, in line {line}"));
    }
    inside.or(own.map(|own| own.value))
}

fn read_user(form: &mut Form, node: &Node) -> Option<Spot<String>> {
    let user = form.text(node, "user")?;
    if !is_user(&user.value) {
        form.note(BAD, user.place, format!("user: `{}` is not a user name", user.value));
        return None;
    }
    Some(user)
}

fn read_port(form: &mut Form, node: &Node) -> Option<Spot<u16>> {
    let port = form.count(node, "port")?;
    match u16::try_from(port.value) {
        Ok(number) if number > 0 => Some(port.with(number)),
        _ => {
            form.note(BAD, port.place, format!("port {} is not between 1 and 65535", port.value));
            None
        }
    }
}

fn read_labels(form: &mut Form, keys: &Fields<'_>) -> BTreeMap<String, String> {
    let Some(node) = keys.optional("labels") else { return BTreeMap::new() };
    let Value::Map(pairs) = &node.value else {
        form.shape(node.place, format!("labels must be a group of keys, not {}", node.kind()));
        return BTreeMap::new();
    };
    let mut labels = BTreeMap::new();
    for (key, value) in pairs {
        if let (Some(key), Some(value)) = (form.text(key, "a label"), form.text(value, "a label's value"))
            && labels.insert(key.value.clone(), value.value).is_some()
        {
            form.note(BAD, key.place, format!("label `{}` stands twice", key.value));
        }
    }
    labels
}

fn refuse_twins(form: &mut Form, hosts: &[(Place, HostEntry)]) {
    for (i, (place, host)) in hosts.iter().enumerate() {
        for (first, other) in &hosts[..i] {
            if host.same_machine(other) {
                form.note(BAD, Some(*place), format!("host {} stands twice, first in line {}", host, first.line));
            } else if let Some(node) = host.node.as_ref().filter(|node| other.node.as_ref() == Some(node)) {
                form.note(
                    BAD,
                    Some(*place),
                    format!("two hosts are to be node `{node}`, first in line {}", first.line),
                );
            } else {
                continue;
            }
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GUIDE: &str = include_str!("../../docs/guide/hosts.md");

    fn told(text: &str) -> String {
        let problems = parse(text, "hosts.yaml").unwrap_err();
        let line = |p: &crate::core::Problem| {
            let at = p.at.as_ref().map_or("-".to_owned(), |at| format!("{}:{}", at.line, at.column));
            format!("{at} {} {}", p.code, p.what)
        };
        problems.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_of_the_guide_is_right() {
        let example = GUIDE.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let hosts = parse(example, "hosts.yaml").unwrap().hosts;
        assert_eq!(hosts.len(), 3);
        assert_eq!(hosts[0].user.as_deref(), Some("root"));
        assert_eq!(hosts[1].port, Some(2222));
        assert_eq!(hosts[2].to_string(), "lab-vm-3");
        let again = serde_yaml::to_string(&HostsFile { hosts: hosts.clone() }).unwrap();
        assert_eq!(parse(&again, "again").unwrap().hosts, hosts);
    }

    const MISTAKES: &str = "\
hosts:
  - {node: CP, adress: 'root@192.0.2.10', user: ubuntu, prot: 22}
  - {address: '-oX', port: 70000, identity: [a], labels: x}
  - root@192.0.2.10
  - {user: 'a b', jump: 'x y', port: '22'}
  - {node: worker-1, address: a, labels: {rack: 1, rack: 2}}
  - {node: worker-1, address: b}
colour: blue
";

    #[test]
    fn every_problem_is_told_at_once() {
        insta::assert_snapshot!(told(MISTAKES));
    }

    #[test]
    fn files_of_other_systems_are_read() {
        let example =
            "# mine\nhosts:\n  - address: root@192.0.2.10\n    node: cp\n    labels: {rack: a}\n  - 'lab-vm-3'\n";
        let hosts = parse(example, "unix").unwrap().hosts;
        for text in [example.replace('\n', "\r\n"), format!("\u{feff}{example}")] {
            assert_eq!(parse(&text, "other").unwrap().hosts, hosts, "{text:?}");
        }
        let both = |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(parse(&both(example), "both").unwrap().hosts, hosts);
        assert_eq!(told(&both(MISTAKES)), told(MISTAKES));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts.yaml");
        std::fs::write(&path, both(example)).unwrap();
        assert_eq!(load(&path).unwrap().hosts, hosts);
    }

    #[test]
    fn what_is_no_hosts_file_is_refused() {
        for (text, expected) in [
            ("", "1:1 KC-HOSTS-FILE the hosts file is empty"),
            ("hosts: []", "hosts must name at least one host"),
            ("hosts:", "key `hosts` has no value"),
            ("- a", "the hosts file must be a group of keys, not a list"),
            ("hosts: [", "this is not YAML"),
        ] {
            assert!(told(text).contains(expected), "{text:?}: {}", told(text));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(hosts:)?\\PC*") {
            if let Err(problems) = parse(&text, "any") {
                prop_assert!(problems.iter().all(|problem| problem.at.is_some()));
            }
        }
    }
}
