use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{Context, kubectl::become_in, must_have, stopped};
use crate::{
    cli::{
        args::SshArgs,
        store::{Login, Store},
    },
    core::{Code, Problem, Problems, shell},
    transport::{HostKeyPolicy, Identity, SshTarget},
};

/// `kubecamp ssh`: a shell on a node by the system's own ssh, or a command there.
pub(super) async fn ssh(cx: &Context, args: SshArgs) -> Result<u8, Problems> {
    let (lab, state) = cx.store.need(&cx.global.name)?;
    must_have(&lab, &args.node)?;
    let found = cx.target(&lab, &state, &args.node, &args.connect).await?;
    let target = found.ok_or_else(|| stopped(lab.name(), &args.node))?;
    let login = Login::of(&args.connect, Some(&state.login));
    let words =
        arguments(&cx.store, login.ssh_config.as_deref(), &target, &target.jump).map_err(|p| p.on(&args.node))?;
    let mut command = Command::new("ssh");
    command.args(words).arg("--").arg(&target.address);
    if let Some(line) = line_of(&args.command) {
        command.arg(line);
    }
    Err(become_in(target.netns.as_deref(), command).into())
}

/// The line for the remote shell: one text is one as with ssh, several are words that arrive as they are.
fn line_of(command: &[String]) -> Option<String> {
    match command {
        [] => None,
        [line] => Some(line.clone()),
        words => Some(shell::join(words)),
    }
}

/// What makes ssh reach a host as `up` did: through the same `hops`, the nearest first, each with its own keys and known
/// hosts. ssh's -J would hand a hop neither.
fn arguments(
    store: &Store,
    config: Option<&Path>,
    host: &SshTarget,
    hops: &[SshTarget],
) -> Result<Vec<String>, Problem> {
    let mut words: Vec<_> = config.into_iter().flat_map(|file| ["-F".to_owned(), file.display().to_string()]).collect();
    words.extend(["-p".to_owned(), host.port.to_string(), "-l".to_owned(), host.user.clone()]);
    let mut options = known_hosts(store, host)?;
    let keys = host.identities.iter().filter_map(Identity::file).filter(|f| f.exists());
    options.extend(keys.map(|file| format!("IdentityFile={}", word(file))));
    options.extend(host.key_name.as_ref().map(|name| format!("HostKeyAlias={name}")));
    options.extend(host.agent.as_ref().map(|socket| format!("IdentityAgent={}", word(socket))));
    if host.identities_only {
        options.push("IdentitiesOnly=yes".to_owned());
    }
    // What ssh_config says of an address must not send it another way.
    let mut way = "none".to_owned();
    if let Some((last, before)) = hops.split_last() {
        let mut ssh = vec!["ssh".to_owned()];
        ssh.extend(arguments(store, config, last, before)?);
        let to = format!("[{}]:{}", host.address, host.port);
        ssh.extend(["-W".to_owned(), to, "--".to_owned(), last.address.clone()]);
        // ssh counts its quotes and takes its tokens out, and a shell reads what is left.
        let ssh: Vec<_> = ssh.iter().map(|w| shell::quote_for_two(w)).collect();
        way = ssh.join(" ").replace('%', "%%");
    }
    options.push(format!("ProxyCommand={way}"));
    words.extend(options.into_iter().flat_map(|option| ["-o".to_owned(), option]));
    Ok(words)
}

/// A path as one word of ssh_config in which ssh finds no tokens.
pub(super) fn word(file: &Path) -> String {
    format!("\"{}\"", file.display().to_string().replace('%', "%%"))
}

/// The options by which ssh knows the host: the files that hold its key. Keys known from the engine are written to one,
/// and no others are trusted, or asked about.
fn known_hosts(store: &Store, target: &SshTarget) -> Result<Vec<String>, Problem> {
    let files = |files: &[PathBuf]| {
        let words: Vec<_> = files.iter().map(|f| word(f)).collect();
        format!("UserKnownHostsFile={}", words.join(" "))
    };
    match &target.host_keys {
        HostKeyPolicy::Pinned(keys) if keys.is_empty() => {
            let what = "the machine does not tell its host keys, so nobody can tell whether it is the right one";
            Err(Problem::new(Code::MachineStart, what)
                .hint("See its state with kubecamp machine list, and run the same command again once it is up."))
        }
        HostKeyPolicy::Pinned(keys) => {
            let lines: String = keys.iter().map(|k| format!("{} {k}\n", target.address)).collect();
            let name = format!("known_hosts.{}", target.address);
            store.write(&name, &lines)?;
            Ok(vec![files(&[store.file(&name)]), "StrictHostKeyChecking=yes".to_owned()])
        }
        HostKeyPolicy::Files { read, write, .. } => {
            let all: Vec<_> = read.iter().chain(write).cloned().collect();
            Ok(vec![files(&all)])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Unknown;

    /// The words of the ssh that a ProxyCommand starts, as another ssh and then a shell read them.
    fn started(words: &[String]) -> Vec<String> {
        let way = value(words, "ProxyCommand=");
        assert!(!way.contains('\\'), "ssh reads it in another way than a shell: {way}");
        assert!(!way.replace("%%", "").contains('%'), "{way}");
        let script =
            format!("ssh() {{ for w in \"$@\"; do printf '%s\\0' \"$w\"; done; }}\n{}", way.replace("%%", "%"));
        let out = Command::new("sh").arg("-c").arg(script).output().unwrap();
        String::from_utf8(out.stdout).unwrap().split_terminator('\0').map(str::to_owned).collect()
    }

    fn value<'a>(words: &'a [String], start: &str) -> &'a str {
        words.iter().find_map(|w| w.strip_prefix(start)).unwrap_or_else(|| panic!("no {start} in {words:?}"))
    }

    #[test]
    fn every_hop_gets_its_own_keys_and_known_hosts_and_the_way_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::of(dir.path(), &"lab".parse().unwrap());
        let host = |name: &str, port| {
            let key = dir.path().join(format!("it's {name} at 100%"));
            std::fs::write(&key, "").unwrap();
            let mut host = SshTarget::new(format!("at-{name}"), format!("{name}.example.org"), port);
            host.identities = vec![Identity::File(key)];
            let write = Some(format!("/known hosts/{name}").into());
            host.host_keys = HostKeyPolicy::Files { read: vec![], write, unknown: Unknown::Refuse };
            host
        };
        let mut target = host("inner", 22);
        target.jump = vec![host("outer", 2222), host("gate", 22)];
        target.jump[1].key_name = Some("door".into());
        let inner = arguments(&store, Some(Path::new("/my config")), &target, &target.jump).unwrap();
        let gate = started(&inner);
        let outer = started(&gate);
        for (words, name, port) in [(&inner, "inner", "22"), (&gate, "gate", "22"), (&outer, "outer", "2222")] {
            let after = |flag: &str| words[words.iter().position(|w| w == flag).unwrap() + 1].as_str();
            let user = format!("at-{name}");
            assert_eq!([after("-F"), after("-p"), after("-l")], ["/my config", port, user.as_str()]);
            assert!(value(words, "IdentityFile=").ends_with(&format!("/it's {name} at 100%%\"")), "{words:?}");
            assert_eq!(value(words, "UserKnownHostsFile="), format!("\"/known hosts/{name}\""));
        }
        assert!(
            gate.ends_with(&["-W", "[inner.example.org]:22", "--", "gate.example.org"].map(str::to_owned)),
            "{gate:?}"
        );
        assert!(outer.ends_with(&["-W", "[gate.example.org]:22", "--", "outer.example.org"].map(str::to_owned)));
        assert_eq!((value(&gate, "HostKeyAlias="), value(&outer, "ProxyCommand=")), ("door", "none"));
    }

    #[test]
    fn one_text_is_a_line_and_several_are_words() {
        let line = |words: &[&str]| line_of(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(line(&[]), None);
        assert_eq!(line(&["cd /root; kubectl get ns"]).unwrap(), "cd /root; kubectl get ns");
        assert_eq!(line(&["kubectl", "get", "ns"]).unwrap(), "kubectl get ns");
        assert_eq!(line(&["sh", "-c", "echo hi"]).unwrap(), "sh -c 'echo hi'");
    }

    #[test]
    fn a_machine_that_tells_no_keys_is_not_trusted_blindly() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::of(dir.path(), &"lab".parse().unwrap());
        let mut target = SshTarget::new("root", "192.0.2.7", 22);
        target.host_keys = HostKeyPolicy::Pinned(vec![]);
        let refused = known_hosts(&store, &target).unwrap_err();
        assert!(refused.code == Code::MachineStart && !refused.hints.is_empty(), "{refused}");
        target.host_keys = HostKeyPolicy::Pinned(vec!["ssh-ed25519 AAAA".to_owned()]);
        let options = known_hosts(&store, &target).unwrap();
        let file = store.file("known_hosts.192.0.2.7");
        assert_eq!(
            options,
            [format!("UserKnownHostsFile=\"{}\"", file.display()), "StrictHostKeyChecking=yes".to_owned()]
        );
        assert_eq!(std::fs::read_to_string(file).unwrap(), "192.0.2.7 ssh-ed25519 AAAA\n");
    }
}
