use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::Context;
use crate::{
    bundle::{Bundle, Cache},
    cli::{args::KubectlArgs, store::Where},
    core::{Code, Problem, Problems},
    profile::Lab,
};

/// `kubecamp kubectl`: the bundle's own kubectl with the lab's kubeconfig, from within the network namespace where
/// the lab's machines are. Passes on its exit code.
pub(super) async fn kubectl(cx: &Context, args: KubectlArgs) -> Result<u8, Problems> {
    let (lab, state) = cx.store.need(&cx.global.name)?;
    let program = program(cx, &lab, state.bundle.as_deref())?;
    let kubeconfig = cx.store.file("kubeconfig");
    if !kubeconfig.exists() {
        return Err(Problem::new(Code::LabUnknown, "the lab has no kubeconfig yet")
            .hint("Run kubecamp up first.")
            .into());
    }
    let netns = match state.place {
        Where::Local => cx.provider(&lab, &state).await?.netns().map(Path::to_owned),
        Where::Hosts(_) => None,
    };
    let mut command = Command::new(program);
    command.env("KUBECONFIG", kubeconfig).args(args.args);
    cx.stop.hand_over();
    Ok(run_in(netns.as_deref(), command)?)
}

/// Runs a program to its end with this process's terminal, from within a network namespace.
///
/// A child inherits the namespaces of the thread that starts it, so a thread of its own moves there first.
pub(super) fn run_in(netns: Option<&Path>, mut command: Command) -> Result<u8, Problem> {
    let netns = netns.map(Path::to_owned);
    let name = command.get_program().to_string_lossy().into_owned();
    let fail = |e: std::io::Error| Problem::new(Code::LocalTools, format!("{name} could not be run")).because(e);
    let worker = std::thread::spawn(move || -> std::io::Result<std::process::ExitStatus> {
        if let Some(netns) = netns {
            let file = fs::File::open(netns)?;
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )?;
        }
        command.status()
    });
    let status = worker.join().map_err(|_| Problem::new(Code::Internal, "a thread ended badly"))?.map_err(fail)?;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(70);
    Ok(u8::try_from(code).unwrap_or(70))
}

/// kubectl of the lab's own version, unpacked from the bundle once; the user's where there is no bundle.
fn program(cx: &Context, lab: &Lab, bundle: Option<&Path>) -> Result<PathBuf, Problem> {
    let cache = Cache::new(&cx.places.cache);
    let arch = super::up::this_arch()?;
    let path = bundle.map_or_else(|| cache.bundle(&lab.profile().kubernetes, arch), Path::to_owned);
    let Ok(bundle) = Bundle::open(&path) else { return Ok("kubectl".into()) };
    let Some(member) = bundle.member("kubectl") else { return Ok("kubectl".into()) };
    let blob = bundle.plain(member);
    let to = cx.places.cache.join("bin").join(format!("kubectl-{}", &blob.sha256()[..16]));
    if !to.exists() {
        bundle.unpack("kubectl", &to)?;
    }
    Ok(to)
}
