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
    let known = known_hosts(cx, &target)?;
    let mut command = Command::new("ssh");
    command.arg("-p").arg(target.port.to_string());
    command.args(["-o", &format!("UserKnownHostsFile={known}")]);
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
