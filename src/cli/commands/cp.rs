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
    // A file that cannot be read is told before anyone is asked for anything.
    let blob = Blob::hashing(&args.from)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", args.from.display())).because(e))?;
    let Some(target) = cx.target(&lab, &state, &node, &args.connect).await? else {
        return Err(Problem::new(Code::Usage, format!("the lab has no running node {node}")).into());
    };
    let password = sudo_password(&args.connect).await?;
    // Facts would cost more than a small file.
    let link = SshTransport::connect(target).await.map_err(|p| p.on(&node))?;
    let host = Host::open(node.clone(), Arc::new(link), Some(&password)).await?;
    // Once there may be a part of the file, Ctrl-C still lets the host remove it.
    cx.stop.in_order();
    let put = async {
        let journal = Arc::new(Journal::unkept(vec![Show::choose(cx.global.plain, false).listener(false)]));
        let sent = |n: u64| journal.progress(&node, "upload", n, blob.size());
        let io = Io { line: None, sent: Some(&sent) };
        host.put(&blob, path, 0o644, io).await.map_err(|e| e.problem().on(&node).into())
    };
    let ended = cx.stop.unless_stopped(put).await;
    host.close().await;
    ended.map(drop)
}
