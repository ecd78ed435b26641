use std::{collections::BTreeMap, sync::Arc};

use super::{Request, Site, agree_to_packages};
use crate::{
    cli::{args::UpArgs, commands::Context, output},
    core::{EventKind, NodeId, Outcome, Problems, Report},
    engine::{Journal, Lock, Mode, Run, run_flow},
    flows::LocalResult,
    render::summary_text,
};

/// `kubecamp up`.
pub(in crate::cli::commands) async fn up(cx: &Context, args: UpArgs) -> Result<(), Problems> {
    let mut request = Request::of(cx, args)?;
    request.check_bundle()?;
    if request.is_local() {
        request.find_packages(cx).await?;
        agree_to_packages(cx, &request.packages).await?;
    }
    let lock = Lock::take(cx.store.folder())?;
    let journal = cx.journal()?;
    if request.is_local() {
        // Machines are found again by their lab's name, so it is there before the first of them.
        cx.store.save(&request.lab, &request.state())?;
    }
    let run = Run::new(request.lab.clone(), Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
    let ended = carry_out(cx, &request, &run).await;
    run.ended(match &ended {
        Ok(()) => Outcome::Changed,
        Err(problems) if problems.class() == crate::core::Class::Cancelled => Outcome::Skipped,
        Err(_) => Outcome::Failed,
    });
    drop(lock);
    finish(cx, &request, &journal, &run, ended)
}

/// Says where the time went and what to do next.
fn finish(
    cx: &Context,
    request: &Request,
    journal: &Journal,
    run: &Run,
    ended: Result<(), Problems>,
) -> Result<(), Problems> {
    let path = cx.store.file("runs").join(format!("{}.ndjson", journal.run()));
    if let Err(problems) = ended {
        let mut all = problems.into_vec();
        if let Some(last) = all.last_mut() {
            *last = last.clone().detail([format!("run log: {}", path.display())]);
        }
        return Err(all.into());
    }
    if run.summary().changed > 0
        && let Ok(events) = crate::engine::read_journal(&path)
    {
        output::say(&summary_text(&events, false));
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
    Ok(())
}

async fn carry_out(cx: &Context, request: &Request, run: &Run) -> Result<(), Problems> {
    let result = LocalResult::default();
    let local = request.local_phases(cx, &result, run.mode)?;
    let here = NodeId::here();
    announce(request, run, &local);
    run_flow(run, &local, &[here], &BTreeMap::new(), &BTreeMap::new()).await?;
    let site = Site::open(cx, request, run, &result).await?;
    let ended = match site.fit().await {
        Ok(()) => site.change().await,
        refused => refused,
    };
    site.close().await;
    ended
}

fn announce(request: &Request, run: &Run, local: &[Box<dyn crate::engine::Phase>]) {
    let mut nodes = vec![NodeId::here()];
    nodes.extend(request.lab.nodes().iter().map(|n| n.name.clone()));
    run.journal.event(EventKind::RunStarted {
        flow: "up".into(),
        lab: request.lab.name().clone(),
        nodes,
        phases: local.iter().map(|p| p.id()).collect(),
    });
}
