use std::{env, path::PathBuf, sync::Arc};

use super::{ask::Terminal, output, store::Store};
use crate::{
    core::{NodeId, Problem, Problems},
    inventory::HostEntry,
    machine::Machine,
    transport::{HostKeyPolicy, Identity, Keyring, SshTarget, Unknown, ssh},
};

/// What the command line says about connecting.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    /// Private key to offer first.
    pub identity: Option<PathBuf>,
    /// Record unknown host keys without asking.
    pub accept_new_host_keys: bool,
    /// An ssh_config file other than the user's.
    pub ssh_config: Option<PathBuf>,
    /// A host to pass through.
    pub jump: Option<String>,
}

/// How to log in to the hosts that the user named; every problem of every host at once.
pub async fn of_hosts(
    store: &Store,
    hosts: &[(NodeId, HostEntry)],
    connect: &Connect,
) -> Result<Vec<(NodeId, SshTarget)>, Problems> {
    let keyring = Arc::new(Keyring::new(Arc::new(Terminal)));
    let (mut targets, mut found) = (vec![], vec![]);
    for (node, entry) in hosts {
        match of_host(store, entry, connect, &keyring).await {
            Ok(target) => targets.push((node.clone(), target)),
            Err(problem) => found.push(problem.on(node)),
        }
    }
    Problems::check(found)?;
    Ok(targets)
}

async fn of_host(
    store: &Store,
    entry: &HostEntry,
    connect: &Connect,
    keyring: &Arc<Keyring>,
) -> Result<SshTarget, Problem> {
    let resolver = ssh::Resolver { config: connect.ssh_config.clone(), ..Default::default() };
    let resolved = resolver.resolve(&entry.to_string()).await?;
    resolved.warnings.iter().for_each(|w| output::say(&format!("warning: {w}")));
    let mut target = resolved.target;
    if let Some(identity) = entry.identity.as_ref().or(connect.identity.as_ref()) {
        target.identities.insert(0, Identity::File(expand(identity)));
    }
    if let Some(jump) = entry.jump.as_ref().or(connect.jump.as_ref()) {
        let mut hop = resolver.resolve(jump).await?.target;
        hop.identities.clone_from(&target.identities);
        target.jump = vec![hop];
    }
    let known = HostKeyPolicy::Files {
        read: known_hosts(&target),
        write: Some(store.file("known_hosts")),
        unknown: if connect.accept_new_host_keys { Unknown::Accept } else { Unknown::Ask },
    };
    for hop in &mut target.jump {
        hop.host_keys = known.clone();
        hop.keyring = Arc::clone(keyring);
    }
    target.host_keys = known;
    target.keyring = Arc::clone(keyring);
    Ok(target)
}

/// The files that ssh itself would read for this host; the lab's own comes on top.
fn known_hosts(target: &SshTarget) -> Vec<PathBuf> {
    match &target.host_keys {
        HostKeyPolicy::Files { read, write, .. } => read.iter().chain(write).cloned().collect(),
        HostKeyPolicy::Pinned(_) => vec![],
    }
}

/// `~/` is the home folder, as in ssh_config.
fn expand(path: &std::path::Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// How to log in to machines that we made: their keys are known through their engine.
pub fn of_machines(store: &Store, machines: &[Machine]) -> Result<Vec<(NodeId, SshTarget)>, Problem> {
    let (key, _) = store.key()?;
    let target = |machine: &Machine| {
        let address = machine.address.map(|a| a.to_string()).unwrap_or_default();
        let mut target = SshTarget::new("root", address, 22);
        target.identities = vec![Identity::File(key.clone())];
        target.identities_only = true;
        target.agent = None;
        target.netns.clone_from(&machine.netns);
        target.host_keys = HostKeyPolicy::Pinned(machine.host_keys.clone());
        (machine.node.clone(), target)
    };
    Ok(machines.iter().map(target).collect())
}
