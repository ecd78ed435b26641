use std::process::Command;

use super::{Context, kubectl::run_in};
use crate::{
    cli::args::SshArgs,
    core::{Code, Problem, Problems, shell},
    transport::{HostKeyPolicy, Identity, SshTarget},
};

/// `kubecamp ssh`: a shell on a node by the system's own ssh, or a command there.
pub(super) async fn ssh(cx: &Context, args: SshArgs) -> Result<u8, Problems> {
    let (lab, state) = cx.store.need(&cx.global.name)?;
    if lab.node(&args.node).is_none() {
        let names: Vec<_> = lab.nodes().iter().map(|n| n.name.to_string()).collect();
        return Err(Problem::new(Code::Usage, format!("the lab has no node {}", args.node))
            .hint(format!("Its nodes are {}.", names.join(", ")))
            .into());
    }
    let found = cx.target(&lab, &state, &args.node, &args.connect).await?;
    let target = found.ok_or_else(|| {
        Problem::new(Code::MachineStart, "the machine does not run")
            .on(&args.node)
            .hint("Bring the lab up again: kubecamp up.")
    })?;
    let known = known_hosts(cx, &target).map_err(|p| p.on(&args.node))?;
    let mut command = Command::new("ssh");
    command.arg("-p").arg(target.port.to_string());
    command.args(["-o", &format!("UserKnownHostsFile={known}")]);
    if matches!(target.host_keys, HostKeyPolicy::Pinned(_)) {
        // The engine has told all of a machine's keys: another one is nothing to ask the user about.
        command.args(["-o", "StrictHostKeyChecking=yes"]);
    }
    for file in target.identities.iter().filter_map(Identity::file).filter(|f| f.exists()) {
        command.arg("-i").arg(file);
    }
    let jumps: Vec<_> = target.jump.iter().map(SshTarget::name).collect();
    if !jumps.is_empty() {
        command.arg("-J").arg(jumps.join(","));
    }
    command.arg("-l").arg(&target.user).arg("--").arg(&target.address);
    match args.command.as_slice() {
        [] => {}
        // One text is a line for the remote shell, as with ssh; several are words that arrive as they are.
        [line] => {
            command.arg(line);
        }
        words => {
            command.arg(shell::join(words));
        }
    }
    cx.stop.hand_over();
    Ok(run_in(target.netns.as_deref(), command)?)
}

/// The files that hold the host's key; keys known from the engine are written to one.
fn known_hosts(cx: &Context, target: &SshTarget) -> Result<String, Problem> {
    match &target.host_keys {
        HostKeyPolicy::Pinned(keys) if keys.is_empty() => {
            let what = "the machine does not tell its SSH keys, so nobody can know that it is the right one";
            Err(Problem::new(Code::MachineStart, what)
                .hint("Try again in a moment; if it stays so, kubecamp up looks at the machine, and down removes it."))
        }
        HostKeyPolicy::Pinned(keys) => {
            let lines: String = keys.iter().map(|k| format!("{} {k}\n", target.address)).collect();
            let name = format!("known_hosts.{}", target.address);
            cx.store.write(&name, &lines)?;
            Ok(format!("\"{}\"", cx.store.file(&name).display()))
        }
        HostKeyPolicy::Files { read, write, .. } => {
            let files: Vec<_> = read.iter().chain(write).map(|f| format!("\"{}\"", f.display())).collect();
            Ok(files.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_trusted_by_its_own_keys_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let mut target = SshTarget::new("root", "192.0.2.1", 22);
        target.host_keys = HostKeyPolicy::Pinned(vec![]);
        let refused = known_hosts(&cx, &target).unwrap_err();
        assert_eq!(refused.code, Code::MachineStart);
        assert!(!cx.store.file("known_hosts.192.0.2.1").exists(), "an empty file would let ssh ask");
        target.host_keys = HostKeyPolicy::Pinned(vec!["ssh-ed25519 AAAA".into()]);
        let file = cx.store.file("known_hosts.192.0.2.1");
        assert_eq!(known_hosts(&cx, &target).unwrap(), format!("\"{}\"", file.display()));
        assert_eq!(std::fs::read_to_string(file).unwrap(), "192.0.2.1 ssh-ed25519 AAAA\n");
    }
}
