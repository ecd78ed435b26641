use super::largest_layout;
use crate::{
    cli::{
        args::UpArgs,
        commands::Context,
        store::{State, Where},
    },
    core::{Code, NodeId, Problem, Problems},
    inventory::{self, HostEntry},
    machine::Wanted,
    profile::{self, Lab, Layout, Profile},
};

/// Where the nodes are to be: as the command line says, its hosts still to come, else where the lab is known to be.
pub(super) fn place_of(args: &UpArgs, known: Option<&State>) -> Result<Where, Problem> {
    let named = !args.host.is_empty() || args.hosts.is_some();
    match known {
        _ if args.local => Ok(Where::Local),
        _ if named => Ok(Where::Hosts(vec![])),
        Some(state) => Ok(state.place.clone()),
        None => Err(Problem::new(Code::Usage, "nothing says where the lab's nodes are")
            .hint("Use --local for machines on this computer, or --host once per node, or --hosts FILE.")),
    }
}

/// Refuses flags that say nothing about nodes of this kind: on a lab that is known they would be passed over silently.
pub(super) fn must_concern(args: &UpArgs, place: &Where) -> Result<(), Problem> {
    let (flags, whose) = match place {
        Where::Local => (
            [("--identity", args.connect.identity.is_some()), ("--jump", args.connect.jump.is_some())],
            "hosts over SSH, and the lab's nodes are machines on this computer",
        ),
        Where::Hosts(_) => (
            [("--outbound", args.outbound), ("--machines", args.machines != Wanted::Auto)],
            "machines on this computer, and the lab's nodes are hosts",
        ),
    };
    match flags.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Problem::new(Code::Usage, format!("{flag} is for {whose}"))
            .hint(format!("Leave {flag} out, or give another lab a --name of its own."))),
        None => Ok(()),
    }
}

/// The lab that is asked for: one that is known keeps its profile unless another is named, and a flag for a single key
/// changes that key alone.
pub(super) fn lab_of(cx: &Context, args: &UpArgs, known: Option<&Lab>) -> Result<Lab, Problems> {
    let (name, mut profile) = match known {
        Some(lab) if names_no_profile(args) => (lab.name().clone(), lab.profile().clone()),
        _ => (cx.global.name.clone(), profile_of(args)?),
    };
    if let Some(mode) = args.proxy_mode {
        profile.proxy.mode = mode;
    }
    if let Some(cni) = args.cni {
        profile.network.cni = cni;
    }
    if let Some(version) = &args.kubernetes {
        profile.kubernetes.clone_from(version);
    }
    Lab::new(name, profile)
}

fn names_no_profile(args: &UpArgs) -> bool {
    args.layout.is_none() && args.profile.is_none()
}

fn profile_of(args: &UpArgs) -> Result<Profile, Problems> {
    let hosts = match &args.hosts {
        Some(file) => inventory::load(file)?.hosts.len(),
        None => args.host.len(),
    };
    let name = match (&args.profile, args.layout) {
        (Some(name), _) => name.clone(),
        (None, Some(layout)) => layout.to_string(),
        (None, None) if args.local => largest_layout(args.allow_undersized)?.to_string(),
        (None, None) => match hosts {
            1 => "1x4c12g".to_owned(),
            2 => "2x4c8g".to_owned(),
            _ => "3x2c4g".to_owned(),
        },
    };
    profile::load(&name)
}

/// The place with its hosts as the lab's nodes: those named now, or those of a lab that was reset, which may have
/// another profile by now.
pub(super) fn with_hosts(place: Where, args: &UpArgs, lab: &Lab, known: Option<&State>) -> Result<Where, Problems> {
    match place {
        Where::Hosts(hosts) if hosts.is_empty() => {
            assign(lab, hosts_of(args)?, known.is_some() && names_no_profile(args))
        }
        // Another profile for a lab that is up is refused as such, whatever its hosts.
        Where::Hosts(hosts) if known.is_some_and(|state| state.clean) => assign(lab, remembered(hosts, lab), false),
        place => Ok(place),
    }
}

fn hosts_of(args: &UpArgs) -> Result<Vec<HostEntry>, Problems> {
    match &args.hosts {
        Some(file) => Ok(inventory::load(file)?.hosts),
        None => inventory::entries(&args.host),
    }
}

/// The hosts that a lab had, each the node that it was where the profile still has all of these.
fn remembered(hosts: Vec<(NodeId, HostEntry)>, lab: &Lab) -> Vec<HostEntry> {
    let same = hosts.iter().all(|(node, _)| lab.node(node).is_some());
    hosts.into_iter().map(|(node, host)| HostEntry { node: same.then_some(node), ..host }).collect()
}

/// The hosts as the lab's nodes; it `keeps` a profile of its own where none was named now.
fn assign(lab: &Lab, hosts: Vec<HostEntry>, keeps: bool) -> Result<Where, Problems> {
    let nodes: Vec<_> = lab.nodes().iter().map(|n| n.name.clone()).collect();
    let given = hosts.len();
    let assigned = inventory::assign(&lab.layout().to_string(), &nodes, hosts).map(Where::Hosts);
    // Another layout is no way out where none that is shipped has so many nodes.
    let fits_none = lab.layout().is_shipped() && Layout::SHIPPED.iter().all(|layout| layout.nodes as usize != given);
    let own_profile = format!(
        "No shipped layout has {given} nodes. Write a profile of your own: kubecamp profile show {} > my.yaml, change \
         layout and nodes there, and give it with --profile my.yaml.",
        lab.layout()
    );
    // Whoever wants a second lab has not named this one, and would not know which layout is meant.
    let other_lab = format!(
        "The lab {} was made with layout {}: give a new one a --name of its own, or name a --layout.",
        lab.name(),
        lab.layout()
    );
    let own = |problem: Problem| match problem.code {
        Code::HostCount if keeps => problem.hint(other_lab.as_str()),
        Code::HostCount if fits_none => problem.hint(own_profile.as_str()),
        _ => problem,
    };
    assigned.map_err(|problems| problems.into_vec().into_iter().map(own).collect::<Vec<_>>().into())
}
