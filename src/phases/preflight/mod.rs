//! Belongs: what must be true of all hosts before anything is changed; every problem of every host at once.
//! Never: changing or connecting to anything but by reading scripts.
//! Start here: `check` here, then `host.rs` (one host), `fleet.rs`, `apart.rs` (each other), `cluster.rs` (a lab there is).

mod apart;
mod cluster;
mod fleet;
mod host;

use std::{collections::BTreeMap, sync::Arc};

use super::{Claim, Owner};
use crate::{
    core::{Arch, Code, NodeId, Problem},
    host::{Facts, Host},
    profile::Lab,
};

/// What the user allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowances {
    /// Hosts that bear the lab's name and another id are taken over.
    pub take_over: bool,
    /// Hosts smaller than their layout are only warned about.
    pub undersized: bool,
}

/// What preflight found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What stops the run.
    pub problems: Vec<Problem>,
    /// What should be looked at.
    pub warnings: Vec<Problem>,
}

/// Looks at all hosts: sizes, systems, ports, left-overs, each other.
pub async fn check(
    lab: &Lab,
    owner: &Owner,
    hosts: &BTreeMap<NodeId, Arc<Host>>,
    fleet: &BTreeMap<NodeId, Facts>,
    bundle_arch: Arch,
    allow: Allowances,
) -> Findings {
    let mut found = from_facts(lab, owner, fleet, bundle_arch, allow);
    let apart = apart::look(lab, hosts, fleet).await;
    found.problems.extend(apart.problems);
    found.warnings.extend(apart.warnings);
    found
}

/// The part that needs nothing but facts.
pub fn from_facts(
    lab: &Lab,
    owner: &Owner,
    fleet: &BTreeMap<NodeId, Facts>,
    bundle_arch: Arch,
    allow: Allowances,
) -> Findings {
    let (mut found, mut begun) = (Findings::default(), true);
    for node in lab.nodes() {
        let Some(facts) = fleet.get(&node.name) else { continue };
        let claim = match owner.claim(lab.name(), facts) {
            Claim::Other(name) if allow.take_over && name == lab.name().as_str() => {
                let what = "the host bore another lab's id and is taken over";
                let hint = "Whoever else drives a lab there will find it refused from now on.";
                found.warnings.push(Problem::new(Code::HostTaken, what).hint(hint).on(&node.name));
                Claim::Ours
            }
            claim => claim,
        };
        begun &= claim == Claim::Ours;
        let one = host::problems(lab, node, facts, &claim, bundle_arch);
        found.problems.extend(one.problems.into_iter().map(|p| p.on(&node.name)));
        found.warnings.extend(one.warnings.into_iter().map(|p| p.on(&node.name)));
        if claim == Claim::Ours && node.name == lab.control_plane().name {
            found.problems.extend(cluster::lost(lab, fleet).into_iter().chain(cluster::moved(lab, fleet)));
        }
    }
    if let Some(small) = fleet::too_small(lab, fleet) {
        if allow.undersized { found.warnings.push(small) } else { found.problems.push(small) }
    }
    found.problems.extend(fleet::twins(fleet));
    found.problems.extend(fleet::unlinked(lab, fleet));
    found.problems.extend(fleet::clocks(fleet));
    if let Some((off, is_invalid)) = fleet::clock_here(fleet) {
        // A lab that is there has its certificates, and a machine's clock may have stood while this computer slept.
        if begun || !is_invalid { found.warnings.push(off) } else { found.problems.push(off) }
    }
    // Clones of one container image share what the image has; then only the address tells them apart.
    found.problems.sort_by_key(|p| (p.code != Code::HostOs, p.on.clone()));
    found
}

#[cfg(test)]
mod tests;
