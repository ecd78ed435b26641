use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use crate::{
    bundle::{BuildRequest, Bundle, build, lacking_packages},
    core::{Code, PhaseId, Problem, Problems, Quiet, Report},
    engine::{Change, Check, Phase, Step, Task, View},
};

/// Opens and verifies the bundle, building it first where it is not there.
pub struct FetchBundle {
    /// A file that the user named; none for the cache's.
    pub file: Option<PathBuf>,
    /// What to build when there is none.
    pub request: BuildRequest,
    /// Where the opened bundle is put for the phases that follow.
    pub slot: Arc<OnceLock<Arc<Bundle>>>,
}

impl FetchBundle {
    fn path(&self) -> PathBuf {
        self.file.clone().unwrap_or_else(|| self.request.cache.bundle(&self.request.kubernetes, self.request.arch))
    }

    /// Whether there is none yet.
    pub fn is_to_be_built(&self) -> bool {
        self.file.is_none() && !self.path().exists()
    }

    /// The Debian packages that building it needs and this computer lacks; none where nothing is to be built.
    pub async fn lacking_packages(&self) -> Result<Vec<String>, Problem> {
        if self.is_to_be_built() { lacking_packages(&self.request).await } else { Ok(vec![]) }
    }
}

#[async_trait]
impl Phase for FetchBundle {
    fn id(&self) -> PhaseId {
        PhaseId::new("fetch-bundle")
    }

    fn title(&self) -> &'static str {
        "get the bundle ready"
    }

    async fn steps(&self, _: &View<'_>) -> Result<Vec<Step>, Problem> {
        let path = self.path();
        let title =
            if path.exists() { format!("open {}", path.display()) } else { format!("build {}", path.display()) };
        let task =
            Fetch { path, named: self.file.is_some(), request: self.request.clone(), slot: Arc::clone(&self.slot) };
        Ok(vec![Step::new("bundle", title, Check::Never, Change::Task(Arc::new(task)))])
    }
}

struct Fetch {
    path: PathBuf,
    named: bool,
    request: BuildRequest,
    slot: Arc<OnceLock<Arc<Bundle>>>,
}

impl Fetch {
    /// Opens it and checks that it is for this lab; only a file that nobody has altered gets into the slot.
    async fn open(&self) -> Result<(), Problem> {
        self.read().await.map_err(|problem| self.with_way_out(problem))
    }

    /// Says how to get another where nobody named the file: an older version made it, or something damaged it since.
    fn with_way_out(&self, problem: Problem) -> Problem {
        if self.named || !matches!(problem.code, Code::BundleBroken | Code::BundleFormat) {
            return problem;
        }
        let (kubernetes, arch) = (&self.request.kubernetes, self.request.arch);
        problem.hint(format!("Make it anew: kubecamp bundle build --kubernetes {kubernetes} --arch {arch}."))
    }

    async fn read(&self) -> Result<(), Problem> {
        let bundle = Bundle::open(&self.path)?;
        bundle.check_fits(&self.request.kubernetes, self.request.arch)?;
        let verified = self.request.cache.verified();
        // Aside, so that Ctrl-C is heard and the terminal drawn meanwhile.
        let opened = spawn_blocking(move || bundle.verify_once(&verified, &Quiet).map(|()| bundle));
        let opened = opened.await.map_err(|e| Problem::new(Code::Internal, "verifying ended badly").because(e))?;
        let _ = self.slot.set(Arc::new(opened?));
        Ok(())
    }
}

#[async_trait]
impl Task for Fetch {
    async fn done(&self) -> Result<bool, Problem> {
        if !self.named && !self.path.exists() {
            return Ok(false);
        }
        self.open().await?;
        Ok(true)
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        let first = |problems: Problems| {
            let mut all = problems.into_vec();
            let mut problem = if all.is_empty() {
                Problem::new(Code::Internal, "the build failed without a problem")
            } else {
                all.remove(0)
            };
            problem.detail.extend(all.iter().map(ToString::to_string));
            problem
        };
        build(self.request.clone(), report).await.map_err(first)?;
        self.open().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bundle::{Asked, Cache, DEFAULT_KUBERNETES, Mirrors, Source},
        core::Arch,
    };

    #[tokio::test]
    async fn a_bundle_that_nobody_named_is_refused_with_the_way_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bundle");
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        let request = BuildRequest {
            kubernetes: DEFAULT_KUBERNETES.to_owned(),
            arch: Arch::Arm64,
            source: Source::Auto,
            replace: vec![],
            out: None,
            cache: Cache::new(folder.path()),
            mirrors: Mirrors::default(),
            asked: Asked::default(),
        };
        for (named, hint) in [
            (false, format!("Make it anew: kubecamp bundle build --kubernetes {DEFAULT_KUBERNETES} --arch arm64.")),
            (true, Code::BundleFormat.hint().to_owned()),
        ] {
            let fetch = Fetch { path: path.clone(), named, request: request.clone(), slot: Arc::default() };
            let problem = fetch.done().await.unwrap_err();
            assert_eq!((problem.code, problem.all_hints()), (Code::BundleFormat, vec![hint]));
        }
    }
}
