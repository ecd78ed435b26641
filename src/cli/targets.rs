use std::{env, path::PathBuf, sync::Arc};

use super::{
    ask::Terminal,
    output,
    store::{Login, Store},
};
use crate::{
    core::{NodeId, Problem, Problems},
    inventory::HostEntry,
    machine::Machine,
    transport::{HostKeyPolicy, Identity, Keyring, SshTarget, Unknown, ssh},
};

/// How to connect, by the command line and what the lab remembers.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    /// How to log in.
    pub login: Login,
    /// Record unknown host keys without asking.
    pub accept_new_host_keys: bool,
}

/// How to log in to each node, or why nobody can know that.
pub type Found = Vec<(NodeId, Result<SshTarget, Problem>)>;

/// How to log in to the hosts that the user named; every problem of every host at once.
pub async fn of_hosts(
    store: &Store,
    hosts: &[(NodeId, HostEntry)],
    connect: &Connect,
) -> Result<Vec<(NodeId, SshTarget)>, Problems> {
    let (mut targets, mut found) = (vec![], vec![]);
    for (node, target) in of_each_host(store, hosts, connect).await {
        match target {
            Ok(target) => targets.push((node, target)),
            Err(problem) => found.push(problem),
        }
    }
    Problems::check(found)?;
    Ok(targets)
}

/// The same of each host by itself: one that cannot be resolved hides none of the others.
pub async fn of_each_host(store: &Store, hosts: &[(NodeId, HostEntry)], connect: &Connect) -> Found {
    let keyring = Arc::new(Keyring::new(Arc::new(Terminal)));
    let mut found = vec![];
    for (node, entry) in hosts {
        let target = of_host(store, entry, connect, &keyring).await;
        found.push((node.clone(), target.map_err(|problem| problem.on(node))));
    }
    found
}

async fn of_host(
    store: &Store,
    entry: &HostEntry,
    connect: &Connect,
    keyring: &Arc<Keyring>,
) -> Result<SshTarget, Problem> {
    let resolver = ssh::Resolver { config: connect.login.ssh_config.clone(), ..Default::default() };
    let own_way = entry.jump.is_some() || connect.login.jump.is_some();
    let resolved = ssh::Resolver { own_way, ..resolver.clone() }.resolve(&entry.to_string()).await?;
    resolved.warnings.iter().for_each(|w| output::say(&format!("warning: {w}")));
    let mut target = resolved.target;
    let named = entry.identity.as_ref().or(connect.login.identity.as_ref()).map(|file| Identity::File(expand(file)));
    target.identities.splice(0..0, named.clone());
    if connect.login.jump.as_deref() == Some("none") {
        target.jump.clear();
    } else if let Some(jump) = entry.jump.as_ref().or(connect.login.jump.as_ref()) {
        let resolved = resolver.resolve(jump).await?;
        resolved.warnings.iter().for_each(|w| output::say(&format!("warning: {w}")));
        let mut gate = resolved.target;
        // What ssh_config says of the gate stays: its keys, its known hosts, the way to it.
        gate.identities.splice(0..0, named);
        target.jump = std::mem::take(&mut gate.jump);
        target.jump.push(gate);
    }
    let unknown = if connect.accept_new_host_keys { Unknown::Accept } else { Unknown::Ask };
    let mut hops = std::mem::take(&mut target.jump);
    for hop in hops.iter_mut().chain([&mut target]) {
        hop.host_keys =
            HostKeyPolicy::Files { read: known_hosts(hop), write: Some(store.file("known_hosts")), unknown };
        hop.keyring = Arc::clone(keyring);
    }
    target.jump = hops;
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
pub(super) fn expand(path: &std::path::Path) -> PathBuf {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::inventory::Spec;

    async fn of(config: &str, host: &str, login: Login) -> SshTarget {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config"), config).unwrap();
        let login = Login { ssh_config: Some(dir.path().join("config")), ..login };
        let connect = Connect { login, ..Connect::default() };
        let entry = host.parse::<Spec>().unwrap().into();
        let store = Store::of(Path::new("/labs"), &"lab".parse().unwrap());
        of_host(&store, &entry, &connect, &Arc::default()).await.unwrap()
    }

    const CONFIG: &str = "Host gate\n HostName gate.example.org\n User g\n IdentityFile /keys/gate\n \
        UserKnownHostsFile /known/gate\n ProxyJump outer\n\
        Host outer\n HostName outer.example.org\n Port 2222\n IdentityFile /keys/outer\n\
        Host inner\n HostName 192.0.2.7\n User root\n IdentityFile /keys/inner\n UserKnownHostsFile /known/inner\n \
        ProxyJump elsewhere\n";

    fn keys(target: &SshTarget) -> Vec<&Path> {
        target.identities.iter().filter_map(Identity::file).collect()
    }

    fn known(target: &SshTarget) -> (Vec<PathBuf>, Option<PathBuf>) {
        match &target.host_keys {
            HostKeyPolicy::Files { read, write, .. } => (read.clone(), write.clone()),
            HostKeyPolicy::Pinned(_) => panic!("not files"),
        }
    }

    #[tokio::test]
    async fn a_jump_host_is_what_ssh_config_says_of_it() {
        let jump = Login { jump: Some("gate".into()), ..Login::default() };
        let target = of(CONFIG, "inner", jump.clone()).await;
        assert_eq!(target.name(), "root@192.0.2.7");
        let hops: Vec<_> = target.jump.iter().map(|h| (h.address.as_str(), h.port)).collect();
        assert_eq!(hops, [("outer.example.org", 2222), ("gate.example.org", 22)], "--jump wins, and has its own jump");
        assert_eq!(keys(&target), [Path::new("/keys/inner")]);
        assert_eq!(
            target.jump.iter().map(keys).collect::<Vec<_>>(),
            [[Path::new("/keys/outer")], [Path::new("/keys/gate")]]
        );
        for (hop, file) in [(&target, "/known/inner"), (&target.jump[1], "/known/gate")] {
            let (read, write) = known(hop);
            assert!(read.contains(&file.into()), "{read:?} lacks {file}");
            assert_eq!(write, Some("/labs/lab/known_hosts".into()));
        }
        assert!(!known(&target.jump[1]).0.contains(&"/known/inner".into()), "another host's file is not the gate's");

        let none = Login { jump: Some("none".into()), ..Login::default() };
        assert!(of(CONFIG, "inner", none).await.jump.is_empty(), "as with ssh -J none");

        let target = of(CONFIG, "inner", Login { identity: Some("/keys/mine".into()), ..jump }).await;
        let (mine, gate) = (Path::new("/keys/mine"), Path::new("/keys/gate"));
        assert_eq!(keys(&target), [mine, Path::new("/keys/inner")]);
        assert_eq!(keys(&target.jump[1]), [mine, gate], "a named key comes first, the gate's own after it");
    }

    #[tokio::test]
    async fn a_way_that_is_given_counts_instead_of_a_command_of_ssh_config() {
        let config = "Host inner\n HostName 192.0.2.7\n ProxyCommand ssh -W %h:%p gate\nHost gate\n User g\n";
        for (jump, hops) in [("none", 0), ("gate", 1)] {
            let target = of(config, "root@inner", Login { jump: Some(jump.into()), ..Login::default() }).await;
            assert_eq!((target.name().as_str(), target.jump.len()), ("root@192.0.2.7", hops), "{jump}");
        }
    }

    #[tokio::test]
    async fn an_address_of_ipv6_needs_no_port() {
        for host in ["root@2001:db8::1", "root@[2001:db8::1]", "root@[2001:db8::1]:2222"] {
            let target = of("", host, Login::default()).await;
            let port = if host.ends_with("2222") { 2222 } else { 22 };
            assert_eq!((target.address.as_str(), target.port), ("2001:db8::1", port));
        }
    }

    proptest! {
        /// What a host is written as by one reader is read by the other.
        #[test]
        fn every_host_that_is_taken_can_be_resolved(
            text in "([a-z@.,_-]{1,6}@)?(\\[?[0-9a-f:.]{1,12}\\]?|[A-Za-z0-9._-]{1,10})(:[0-9]{1,5})?|\\PC{1,20}",
            ip in any::<std::net::Ipv6Addr>(),
            port in proptest::option::of(1u16..),
        ) {
            let six = port.map_or_else(|| ip.to_string(), |port| format!("[{ip}]:{port}"));
            for text in [text, six.clone(), format!("me@{six}")] {
                let Ok(spec) = text.parse::<Spec>() else { continue };
                let read = ssh::Spec::parse(&HostEntry::from(spec.clone()).to_string()).unwrap();
                prop_assert_eq!((read.user, read.host, read.port), (spec.user, spec.address, spec.port));
            }
        }
    }
}
