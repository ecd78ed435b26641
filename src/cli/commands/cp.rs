use std::sync::Arc;

use super::{Context, sudo_password};
use crate::{
    cli::{args::CpArgs, output::Show},
    core::{Blob, Code, NodeId, Problem, Problems, Report},
    engine::Journal,
    host::Host,
    transport::{Io, SshTransport},
};

/// `kubecamp cp`: a file to a node, verified on arrival; skipped when it is there already.
pub(super) async fn cp(cx: &Context, args: CpArgs) -> Result<(), Problems> {
    let (lab, state) = cx.store.need(&cx.global.name)?;
    let (node, path) = args.to.split_once(':').filter(|(_, path)| path.starts_with('/')).ok_or_else(|| {
        Problem::new(Code::Usage, format!("`{}` is not NODE:/PATH", args.to)).hint("Write it as cp:/root/file.")
    })?;
    let node: NodeId =
        node.parse().map_err(|e| Problem::new(Code::Usage, "the node's name is not valid").because(e))?;
    let blob = Blob::from_file(&args.from)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", args.from.display())).because(e))?;
    let targets = cx.targets(&lab, &state, &args.connect).await?;
    let target: Vec<_> = targets.into_iter().filter(|(n, _)| *n == node).collect();
    if target.is_empty() {
        return Err(Problem::new(Code::Usage, format!("the lab has no running node {node}")).into());
    }
    let password = sudo_password(&args.connect)?;
    let journal = Arc::new(Journal::unkept(vec![Show::choose(cx.global.plain, false).listener(false)]));
    let sent = |n: u64| journal.progress(&node, "upload", n, blob.size());
    let io = Io { line: None, sent: Some(&sent) };
    for (node, target) in target {
        // Facts would cost more than a small file.
        let link = SshTransport::connect(target).await.map_err(|p| p.on(&node))?;
        let host = Host::open(node.clone(), Arc::new(link), password.as_ref()).await?;
        let ended = host.put(&blob, path, 0o644, io).await;
        host.close().await;
        ended.map_err(|e| e.problem().on(&node))?;
    }
    Ok(())
}
