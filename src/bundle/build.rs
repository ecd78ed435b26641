use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Bundle, Cache,
    manifest::Origins,
    modules,
    versions::Versions,
    write::{self, Packed, Part, Title},
};
use crate::core::{Arch, Code, NodeId, Problem, Problems, Report};

/// What bundle to make, and from what.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The Kubernetes version, as `v1.36.3`.
    pub kubernetes: String,
    /// The CPU.
    pub arch: Arch,
    /// Where the parts come from.
    pub source: Source,
    /// Go modules to take from a folder instead, as `k8s.io/kubernetes` and a patched tree; implies modules.
    pub replace: Vec<(String, PathBuf)>,
    /// The file to write; none for its place in the cache.
    pub out: Option<PathBuf>,
    /// Where downloads, outputs and finished bundles are kept.
    pub cache: Cache,
}

/// Where the parts of a bundle should come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Upstream where it answers within seconds, else modules.
    Auto,
    /// The projects' release sites and registries.
    Upstream,
    /// Go modules, built here.
    Modules,
}

/// Makes the bundle that `request` describes and returns its file; does nothing when it is there already.
///
/// # Errors
/// `KC-BUNDLE-UNKNOWN`, `KC-BUNDLE-TOOLS`, `KC-BUNDLE-BUILD`, `KC-DOWNLOAD`, `KC-DOWNLOAD-DIGEST`.
pub async fn build(request: BuildRequest, report: &dyn Report) -> Result<PathBuf, Problems> {
    let versions = Versions::of(&request.kubernetes)?;
    let out = request.out.clone().unwrap_or_else(|| request.cache.bundle(&request.kubernetes, request.arch));
    let job =
        modules::Job { versions, arch: request.arch, replace: request.replace.clone(), root: request.cache.modules() };
    let parts = modules::make(&job, report).await?;
    let title = Title {
        kubernetes: request.kubernetes.clone(),
        arch: request.arch,
        source: Origins::Modules,
        replaced: request.replace.iter().map(|(module, _)| module.clone()).collect(),
    };
    pack(title, parts, &out, &request.cache, report).await?;
    Ok(out)
}

/// Compresses the parts, several at once, and writes the bundle.
async fn pack(title: Title, parts: Vec<Part>, out: &Path, cache: &Cache, report: &dyn Report) -> Result<(), Problem> {
    let failed = |e: io::Error| Problem::new(Code::LocalFile, format!("cannot write {}", out.display())).because(e);
    let work = cache.root().join("build");
    fs::create_dir_all(&work).map_err(failed)?;
    let work = tempfile::tempdir_in(work).map_err(failed)?;
    let (here, total) = (NodeId::here(), parts.len() as u64);
    let slots =
        std::sync::Arc::new(tokio::sync::Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)));
    let mut tasks = tokio::task::JoinSet::new();
    for part in parts {
        let (to, slots) = (work.path().to_owned(), std::sync::Arc::clone(&slots));
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            tokio::task::spawn_blocking(move || part.pack(&to)).await.map_err(io::Error::other)?
        });
    }
    let mut packed: Vec<Packed> = vec![];
    while let Some(done) = tasks.join_next().await {
        packed.push(done.map_err(io::Error::other).and_then(|r| r).map_err(failed)?);
        report.progress(&here, "compress", packed.len() as u64, total);
    }
    let to = out.to_owned();
    let written = tokio::task::spawn_blocking(move || write::write(title, packed, &to)).await;
    written.map_err(io::Error::other).and_then(|r| r).map_err(failed)?;
    // Its digests were computed from the very bytes that were written.
    Bundle::open(out)?.remember(&cache.verified());
    Ok(())
}
