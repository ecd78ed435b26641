use std::net::Ipv4Addr;

use super::{
    Cidr, DISK_FLOOR, Layout, ProxyMode, Resource, Role, Size, Version,
    draft::{Draft, DraftMirror, DraftNode},
    layout::exact,
};
use crate::core::{
    Bytes, Code, Hint,
    yaml::{Form, Spot},
};

/// Names that mean something else: `here` the user's own computer, `localhost` each node itself.
const RESERVED: [&str; 2] = ["here", "localhost"];

/// Networks that can never carry pods or services.
const SPECIAL: [(Ipv4Addr, u8, &str); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "unspecified"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
];

/// Notes every value that is impossible alone or beside another.
pub(super) fn judge(form: &mut Form, draft: &Draft) {
    judge_version(form, draft);
    judge_layout(form, draft);
    if let Some(nodes) = &draft.nodes {
        judge_names(form, nodes);
        judge_roles(form, draft, nodes);
        for node in nodes {
            judge_size(form, draft.layout.as_ref(), nodes.len(), node);
        }
    }
    judge_networks(form, draft);
    judge_mirrors(form, &draft.mirrors);
}

/// Notes an impossible value at its place.
fn refuse<T>(form: &mut Form, at: &Spot<T>, what: String, hint: &str) {
    form.note(Code::ProfileInvalid, at.place, what).hints.push(Hint(hint.to_owned()));
}

fn judge_version(form: &mut Form, draft: &Draft) {
    let Some(version) = &draft.kubernetes else { return };
    let (least, most) = (Version::SUPPORTED.start(), Version::SUPPORTED.end());
    if !version.value.supported() {
        let what = format!("kubernetes {} is not supported", version.value);
        refuse(form, version, what, &format!("kubecamp brings up v1.{least} to v1.{most}."));
    }
    if let Some(mode) = &draft.mode
        && mode.value == ProxyMode::Nftables
        && version.value < (Version { major: 1, minor: 31, patch: 0 })
    {
        let what = format!("mode `nftables` needs Kubernetes v1.31 or newer, and this is {}", version.value);
        refuse(form, mode, what, "Choose iptables or ipvs, or a newer Kubernetes.");
    }
}

fn judge_layout(form: &mut Form, draft: &Draft) {
    let Some(layout) = &draft.layout else { return };
    let lacking: Vec<String> = layout.value.below_floor().iter().map(ToString::to_string).collect();
    if !lacking.is_empty() {
        let floor = Layout::floor(layout.value.nodes);
        let what = format!("layout {} is below the floor: {} for each node", layout.value, lacking.join(", "));
        refuse(form, layout, what, &format!("With {} nodes the smallest layout is {floor}.", layout.value.nodes));
    }
    let count = draft.nodes.as_ref().map_or(layout.value.nodes as usize, Vec::len);
    if count != layout.value.nodes as usize {
        let what = format!("layout {} has {} nodes, and {count} are listed", layout.value, layout.value.nodes);
        refuse(form, layout, what, "Change the layout's first number, or the list of nodes.");
    }
}

fn judge_names(form: &mut Form, nodes: &[DraftNode]) {
    let names: Vec<_> = nodes.iter().filter_map(|node| node.name.as_ref()).collect();
    for (i, name) in names.iter().enumerate() {
        let text = name.value.as_str();
        if let Some(first) = names[..i].iter().find(|other| other.value == name.value) {
            let line = first.place.map_or_else(String::new, |place| format!(", first in line {}", place.line));
            refuse(form, name, format!("two nodes are called `{text}`{line}"), "Give each node a name of its own.");
        }
        if RESERVED.contains(&text) {
            refuse(form, name, format!("a node cannot be called `{text}`"), "Call it `cp` or `worker-1`, for example.");
        }
    }
}

fn judge_roles(form: &mut Form, draft: &Draft, nodes: &[DraftNode]) {
    let unread = nodes.iter().any(|node| node.role.is_none());
    let planes: Vec<_> =
        nodes.iter().filter_map(|node| node.role.as_ref()).filter(|role| role.value == Role::ControlPlane).collect();
    if planes.is_empty() && !unread {
        let list = Spot { value: (), place: draft.nodes_place };
        let hint = "Give one node the role control-plane.";
        refuse(form, &list, "no node has the role `control-plane`".into(), hint);
    }
    for extra in planes.iter().skip(1) {
        let what = "a second control plane: only one is supported for now".into();
        refuse(form, extra, what, "Make this node a worker.");
    }
}

fn judge_size(form: &mut Form, layout: Option<&Spot<Layout>>, count: usize, node: &DraftNode) {
    let floor = Layout::floor(u32::try_from(count).unwrap_or(u32::MAX));
    let want = layout.map_or(floor, |layout| layout.value);
    // What could not be read is not judged: it counts as enough.
    let have = Size {
        cores: node.cores.as_ref().map_or(u32::MAX, |cores| cores.value),
        memory: node.memory.as_ref().map_or(Bytes(u64::MAX), |memory| memory.value),
        disk: node.disk.as_ref().map_or(Bytes(u64::MAX), |disk| disk.value),
    };
    for short in exact(&want.size(), &have) {
        let place = match short.what {
            Resource::Cores => node.cores.as_ref().and_then(|cores| cores.place),
            Resource::Memory => node.memory.as_ref().and_then(|memory| memory.place),
            Resource::Disk => node.disk.as_ref().and_then(|disk| disk.place),
        };
        let name = node.name.as_ref().map_or_else(|| "a node".to_owned(), |name| format!("node `{}`", name.value));
        let rule = match short.what {
            Resource::Disk => format!("every node needs {DISK_FLOOR}"),
            _ => format!("layout {want} asks {} for each node", short.want_text()),
        };
        let noun =
            if (short.what, short.have) == (Resource::Cores, 1) { "core".into() } else { short.what.to_string() };
        let what = format!("{name} has {} {noun}: {rule}", short.have_text());
        refuse(form, &Spot { value: (), place }, what, &format!("Raise it to {} at least.", short.want_text()));
    }
}

fn judge_networks(form: &mut Form, draft: &Draft) {
    for (key, network) in [("pods", &draft.pods), ("services", &draft.services)] {
        if let Some(network) = network {
            judge_special(form, key, network);
        }
    }
    if let Some(pods) = &draft.pods {
        let nodes = draft.nodes.as_ref().map_or(1, Vec::len) as u64;
        if pods.value.prefix() < 8 || pods.value.part(24, nodes.saturating_sub(1)).is_none() {
            let what = format!("pods {} has no /24 for each of {nodes} nodes", pods.value);
            refuse(form, pods, what, "Use a network between /8 and /16, as 10.244.0.0/16.");
        }
    }
    if let Some(services) = &draft.services
        && !(12..=24).contains(&services.value.prefix())
    {
        let what = format!("services {} is not between /12 and /24", services.value);
        refuse(form, services, what, "Use a network as 10.96.0.0/16.");
    }
    if let (Some(pods), Some(services)) = (&draft.pods, &draft.services)
        && pods.value.overlaps(services.value)
    {
        let what = format!("services {} overlaps pods {}", services.value, pods.value);
        refuse(form, services, what, "Choose two networks apart, as 10.244.0.0/16 and 10.96.0.0/16.");
    }
}

fn judge_special(form: &mut Form, key: &str, network: &Spot<Cidr>) {
    for (base, prefix, name) in SPECIAL {
        if Cidr::around(base, prefix).is_some_and(|special| special.overlaps(network.value)) {
            let what = format!("{key} {} holds {name} addresses ({base}/{prefix})", network.value);
            refuse(form, network, what, "Use a private network, as one within 10.0.0.0/8.");
            return;
        }
    }
}

fn judge_mirrors(form: &mut Form, mirrors: &[DraftMirror]) {
    let registries: Vec<_> = mirrors.iter().filter_map(|mirror| mirror.registry.as_ref()).collect();
    for (i, registry) in registries.iter().enumerate() {
        if !is_host(&registry.value) {
            let what = format!("registry `{}` is not a host name", registry.value);
            refuse(form, registry, what, "Write the host alone, as registry.k8s.io, without https:// and path.");
        } else if registries[..i].iter().any(|other| other.value == registry.value) {
            let what = format!("registry `{}` stands twice", registry.value);
            refuse(form, registry, what, "List all endpoints of a registry in one entry.");
        }
    }
    for endpoint in mirrors.iter().filter_map(|mirror| mirror.endpoints.as_ref()).flatten() {
        if let Err(why) = check_url(&endpoint.value) {
            // The text itself stays out of the message where it may hold a password.
            refuse(form, endpoint, format!("an endpoint {why}"), "Write it as https://mirror.example.org/path.");
        }
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.len() <= 253 && host.split('.').all(label) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn check_url(text: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("has the scheme `{}`, and only http and https work", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password, and profiles hold no secrets".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment, which registries do not take".into());
    }
    Ok(())
}
