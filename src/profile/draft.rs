use super::{Cidr, Cni, Layout, Mirror, Network, NodeSpec, Profile, Proxy, ProxyMode, Role, Version};
use crate::core::{
    Bytes, Code, Hint, NodeId, Problems,
    yaml::{Form, Node, Place, Spot},
};

/// A profile of which any part may be missing or wrong, so that the rules can judge the rest.
#[derive(Default)]
pub(super) struct Draft {
    pub layout: Option<Spot<Layout>>,
    pub kubernetes: Option<Spot<Version>>,
    pub nodes: Option<Vec<DraftNode>>,
    /// Where the list of nodes begins.
    pub nodes_place: Option<Place>,
    pub pods: Option<Spot<Cidr>>,
    pub services: Option<Spot<Cidr>>,
    pub cni: Option<Spot<Cni>>,
    pub mode: Option<Spot<ProxyMode>>,
    pub mirrors: Vec<DraftMirror>,
}

#[derive(Default)]
pub(super) struct DraftNode {
    pub name: Option<Spot<NodeId>>,
    pub role: Option<Spot<Role>>,
    pub cores: Option<Spot<u32>>,
    pub memory: Option<Spot<Bytes>>,
    pub disk: Option<Spot<Bytes>>,
}

#[derive(Default)]
pub(super) struct DraftMirror {
    pub registry: Option<Spot<String>>,
    pub endpoints: Option<Vec<Spot<String>>>,
}

impl Draft {
    /// Reads what can be read; everything else is noted in `form`.
    pub fn read(form: &mut Form, root: &Node) -> Self {
        let known = ["layout", "kubernetes", "nodes", "network", "proxy", "mirrors"];
        let Some(keys) = form.fields(root, "the profile", &known) else { return Self::default() };
        let bad = Code::ProfileInvalid;
        let layout = keys.required(form, "layout").and_then(|node| form.parsed(node, "layout", bad));
        let kubernetes = keys.required(form, "kubernetes").and_then(|node| form.parsed(node, "kubernetes", bad));
        let mut draft = Self { layout, kubernetes, ..Self::default() };
        if let Some(node) = keys.required(form, "nodes") {
            draft.nodes_place = Some(node.place);
            draft.nodes = form
                .list(node, "nodes")
                .map(|items| items.iter().enumerate().map(|(i, item)| read_node(form, item, i)).collect());
        }
        if let Some(node) = keys.required(form, "network") {
            draft.read_network(form, node);
        }
        if let Some(node) = keys.required(form, "proxy") {
            let mode = form.fields(node, "proxy", &["mode"]).and_then(|keys| keys.required(form, "mode"));
            draft.mode = mode.and_then(|node| read_mode(form, node));
        }
        if let Some(items) = keys.optional("mirrors").and_then(|node| form.list(node, "mirrors")) {
            draft.mirrors = items.iter().map(|item| read_mirror(form, item)).collect();
        }
        draft
    }

    fn read_network(&mut self, form: &mut Form, node: &Node) {
        let Some(keys) = form.fields(node, "network", &["pods", "services", "cni"]) else { return };
        let bad = Code::ProfileInvalid;
        self.pods = keys.required(form, "pods").and_then(|node| form.parsed(node, "pods", bad));
        self.services = keys.required(form, "services").and_then(|node| form.parsed(node, "services", bad));
        self.cni = keys.required(form, "cni").and_then(|node| form.choice(node, "cni", bad, &Cni::WORDS));
    }

    /// The profile, if nothing is missing.
    pub fn complete(self) -> Option<Profile> {
        let mirrors = self.mirrors.into_iter().map(|mirror| {
            let endpoints = mirror.endpoints?.into_iter().map(|endpoint| endpoint.value).collect();
            Some(Mirror { registry: mirror.registry?.value, endpoints })
        });
        let nodes = self.nodes?.into_iter().map(|node| {
            Some(NodeSpec {
                name: node.name?.value,
                role: node.role?.value,
                cores: node.cores?.value,
                memory: node.memory?.value,
                disk: node.disk?.value,
            })
        });
        Some(Profile {
            layout: self.layout?.value,
            kubernetes: self.kubernetes?.value.to_string(),
            nodes: nodes.collect::<Option<_>>()?,
            network: Network { pods: self.pods?.value, services: self.services?.value, cni: self.cni?.value },
            proxy: Proxy { mode: self.mode?.value },
            mirrors: mirrors.collect::<Option<_>>()?,
        })
    }

    /// A profile that already is one, for the rules to judge it again without a file.
    pub fn of(form: &mut Form, profile: &Profile) -> Self {
        let kubernetes = profile.kubernetes.parse().map_err(|error: String| {
            // It may have come from a flag: there is no line to be named.
            let hint = Hint("Write it with all three numbers, as in --kubernetes v1.36.3.".into());
            form.note(Code::ProfileInvalid, None, format!("kubernetes: {error}")).hints.push(hint);
        });
        let node = |node: &NodeSpec| DraftNode {
            name: Some(Spot::nowhere(node.name.clone())),
            role: Some(Spot::nowhere(node.role)),
            cores: Some(Spot::nowhere(node.cores)),
            memory: Some(Spot::nowhere(node.memory)),
            disk: Some(Spot::nowhere(node.disk)),
        };
        let mirror = |mirror: &Mirror| DraftMirror {
            registry: Some(Spot::nowhere(mirror.registry.clone())),
            endpoints: Some(mirror.endpoints.iter().cloned().map(Spot::nowhere).collect()),
        };
        Self {
            layout: Some(Spot::nowhere(profile.layout)),
            kubernetes: kubernetes.ok().map(Spot::nowhere),
            nodes: Some(profile.nodes.iter().map(node).collect()),
            nodes_place: None,
            pods: Some(Spot::nowhere(profile.network.pods)),
            services: Some(Spot::nowhere(profile.network.services)),
            cni: Some(Spot::nowhere(profile.network.cni)),
            mode: Some(Spot::nowhere(profile.proxy.mode)),
            mirrors: profile.mirrors.iter().map(mirror).collect(),
        }
    }
}

fn read_node(form: &mut Form, node: &Node, index: usize) -> DraftNode {
    let group = format!("node {}", index + 1);
    let Some(keys) = form.fields(node, &group, &["name", "role", "cores", "memory", "disk"]) else {
        return DraftNode::default();
    };
    let bad = Code::ProfileInvalid;
    DraftNode {
        name: keys.required(form, "name").and_then(|node| form.parsed(node, "name", bad)),
        role: keys.required(form, "role").and_then(|node| form.choice(node, "role", bad, &Role::WORDS)),
        cores: keys.required(form, "cores").and_then(|node| form.count(node, "cores")),
        memory: keys.required(form, "memory").and_then(|node| form.parsed(node, "memory", bad)),
        disk: keys.required(form, "disk").and_then(|node| form.parsed(node, "disk", bad)),
    }
}

fn read_mirror(form: &mut Form, node: &Node) -> DraftMirror {
    let Some(keys) = form.fields(node, "a mirror", &["registry", "endpoints"]) else { return DraftMirror::default() };
    let registry = keys.required(form, "registry").and_then(|node| form.text(node, "registry"));
    let list = keys.required(form, "endpoints").and_then(|node| {
        let items = form.list(node, "endpoints")?;
        if items.is_empty() {
            form.shape(node.place, "endpoints must name at least one URL");
        }
        Some(items)
    });
    let endpoints = list.map(|items| items.iter().filter_map(|item| form.text(item, "an endpoint")).collect());
    DraftMirror { registry, endpoints }
}

/// A mode, with the reason when it is one that kube-proxy had or has elsewhere.
fn read_mode(form: &mut Form, node: &Node) -> Option<Spot<ProxyMode>> {
    let text = form.text(node, "mode")?;
    let Some(why) = ProxyMode::why_not(&text.value) else {
        return form.choice(node, "mode", Code::ProfileInvalid, &ProxyMode::WORDS);
    };
    let hint = Hint("Choose iptables, ipvs or nftables.".into());
    form.note(Code::ProfileInvalid, text.place, why).hints.push(hint);
    None
}

/// What the rules find wrong with a profile that came from no file.
pub(super) fn check(profile: &Profile) -> Result<(), Problems> {
    let mut form = Form::new("", Code::ProfileSyntax);
    let draft = Draft::of(&mut form, profile);
    super::rules::judge(&mut form, &draft);
    form.finish()
}
