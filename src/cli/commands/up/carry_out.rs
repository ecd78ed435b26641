use std::sync::Arc;

use super::{PREFLIGHT, Request, Site, agree_to_packages, run_here, this_arch};
use crate::{
    cli::{
        args::UpArgs,
        commands::{Context, say_times},
        output,
    },
    core::{Code, EventKind, NodeId, Problem, Problems, Report},
    engine::{Crew, Mode, Phase, Run},
    flows::{self, LocalResult},
};

/// `kubecamp up`.
pub(in crate::cli::commands) async fn up(cx: &Context, args: UpArgs) -> Result<(), Problems> {
    let mut request = Request::of(cx, args)?;
    if request.is_local() {
        request.find_packages(cx).await?;
        agree_to_packages(cx, &request.packages).await?;
    }
    let lock = cx.lock(request.known.as_ref())?;
    let journal = cx.journal()?;
    if request.is_local() {
        // Machines are found again by their lab's name, so it is there before the first of them. There is no cluster on
        // them yet: who is refused now, as for a disk that cannot shrink, may ask for something else.
        let known = request.known.as_ref().map(|(_, state)| state);
        cx.store.save(&request.lab, &request.state().until_changed(known))?;
    }
    let run = Run::new(request.lab.clone(), Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
    let ended = carry_out(cx, &request, &run).await;
    let ended = cx.end(&run, ended);
    drop(lock);
    ended?;
    finish(cx, &request, &run);
    Ok(())
}

/// Says where the time went and what to do next.
fn finish(cx: &Context, request: &Request, run: &Run) {
    if run.summary().changed > 0 {
        say_times(&run.journal);
    }
    let name = request.lab.name();
    let flag = if name.as_str() == "lab" { String::new() } else { format!(" --name {name}") };
    output::say(&format!(
        "The lab {name} is ready: {} with {} and kube-proxy in {} mode.\nNext:\n  kubecamp{flag} kubectl -- get nodes\n  kubecamp{flag} ssh {}\n  export KUBECONFIG={}\n  kubecamp{flag} reset    gives the machines back clean",
        request.lab.layout(),
        request.lab.profile().network.cni,
        request.lab.profile().proxy.mode,
        request.lab.control_plane().name,
        cx.store.file("kubeconfig").display(),
    ));
}

async fn carry_out(cx: &Context, request: &Request, run: &Run) -> Result<(), Problems> {
    let result = LocalResult::default();
    let local = request.local_phases(cx, &result, run.mode, this_arch()?)?;
    announce(request, run, &local);
    // Machines must be made before they can be asked; hosts are asked before a bundle is built for them.
    if request.is_local() {
        run_here(run, &local).await?;
    }
    let site = Site::open(cx, request, run, &result).await?;
    let ended = async {
        let bundle = site.bundle(&result).await?;
        site.change(&bundle.ok_or_else(|| Problem::new(Code::Internal, "the bundle did not get ready"))?).await
    };
    let ended = ended.await;
    site.close().await;
    ended
}

/// Tells every phase to come, in the order in which they come.
fn announce(request: &Request, run: &Run, local: &[Box<dyn Phase>]) {
    let mut nodes = vec![NodeId::here()];
    nodes.extend(request.lab.nodes().iter().map(|n| n.name.clone()));
    let local: Vec<_> = local.iter().map(|p| p.id()).collect();
    let (before, after) = if request.is_local() { (local, vec![]) } else { (vec![], local) };
    let phases = [before, vec![Crew::CONNECT, PREFLIGHT], after, flows::UP.to_vec()].concat();
    run.journal.event(EventKind::RunStarted { flow: "up".into(), lab: request.lab.name().clone(), nodes, phases });
}
