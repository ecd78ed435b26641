use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::{
    Bundle, Cache,
    manifest::{FORMAT, Origins},
    modules,
    upstream::{self, Mirrors, Silence},
    versions::{Versions, known_beside},
    write::{self, Packed, Part, Title},
};
use crate::core::{Arch, Code, NodeId, Problem, Problems, Report};

/// The wait after a download's first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

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
    /// Where downloads come from instead.
    pub mirrors: Mirrors,
    /// What sites said when they were asked; requests for one bundle that share it ask them once.
    pub asked: Asked,
}

impl BuildRequest {
    /// A patched bundle has a name of its own: nobody should get it without asking for it.
    fn default_out(&self) -> PathBuf {
        let usual = self.cache.bundle(&self.kubernetes, self.arch);
        if self.replace.is_empty() { usual } else { usual.with_extension("patched.bundle") }
    }
}

/// What the sites of a bundle answered, the same for all its clones.
#[derive(Debug, Clone, Default)]
pub struct Asked(Arc<OnceCell<Silence>>);

/// Where the parts of a bundle should come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Upstream where each of its sites answers within seconds, else modules.
    Auto,
    /// The projects' release sites and registries.
    Upstream,
    /// Go modules, built here.
    Modules,
}

/// A bundle that is at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its file.
    pub path: PathBuf,
    /// Whether it was made now; else it was there already, of these very inputs.
    pub made: bool,
}

/// Makes the bundle that `request` describes; does nothing when it is there already.
///
/// # Errors
/// `KC-BUNDLE-UNKNOWN`, `KC-BUNDLE-TOOLS`, `KC-BUNDLE-BUILD`, `KC-DOWNLOAD`, `KC-DOWNLOAD-DIGEST`.
pub async fn build(request: BuildRequest, report: &dyn Report) -> Result<Built, Problems> {
    let versions = Versions::of(&request.kubernetes)?;
    let out = request.out.clone().unwrap_or_else(|| request.default_out());
    let (_lock, scratch) = workplace(&request.cache, report).await?;
    // A bundle that needs nothing fetched needs no network either, and no site that is slow just now replaces it.
    if request.source == Source::Auto && request.replace.is_empty() {
        let fetched = Recipe::Upstream(upstream_job(&request, versions.clone(), scratch.path())).inputs()?;
        if let Some(built) = at_hand(&out, fetched.as_deref(), &request.cache, report) {
            return Ok(built);
        }
    }
    let can_build = || modules::check_go(request.arch).is_ok() && modules::missing_tools(request.arch).is_empty();
    let recipe = choose(&request, versions, scratch.path(), can_build, report).await?;
    let inputs = recipe.inputs()?;
    if let Some(built) = at_hand(&out, inputs.as_deref(), &request.cache, report) {
        return Ok(built);
    }
    let parts = match &recipe {
        Recipe::Upstream(job) => upstream::make(job, report).await?,
        Recipe::Modules(job) => modules::make(job, report).await?,
    };
    check_images(&parts, &request).await?;
    let title = Title {
        kubernetes: request.kubernetes.clone(),
        arch: request.arch,
        source: recipe.origins(),
        replaced: request.replace.iter().map(|(module, _)| module.clone()).collect(),
    };
    let bundle = pack(title, parts, &out, scratch.path(), &request.cache, report).await?;
    if let Some(inputs) = inputs {
        // Without the note the next build only takes longer.
        let _ = fs::write(made_note(&bundle, &request.cache), inputs);
    }
    Ok(Built { path: out, made: true })
}

/// Which release sites and registries, or mirrors of them, do not answer within seconds or do not have the versions of
/// `request`, in words; none where all is well.
pub async fn silent_sites(request: &BuildRequest) -> Result<Option<String>, Problem> {
    let versions = Versions::of(&request.kubernetes)?;
    let silence = upstream::silent(&upstream_job(request, versions, &request.cache.root().join("build"))).await;
    Ok(if silence.is_none() { None } else { Some(silence.told()) })
}

/// The Debian packages that must still be installed before `request` can be built here; none where upstream answers.
///
/// # Errors
/// `KC-BUNDLE-TOOLS` when Go is missing too, which is no package.
pub async fn lacking_packages(request: &BuildRequest) -> Result<Vec<String>, Problem> {
    let versions = Versions::of(&request.kubernetes)?;
    let fetch = upstream_job(request, versions, &request.cache.root().join("build"));
    let way = Way::find(request, &fetch).await;
    if matches!(&way, Way::Upstream) {
        return Ok(vec![]);
    }
    match (modules::check_go(request.arch), way) {
        (Ok(()), _) => Ok(modules::missing_tools(request.arch)),
        (Err(_), Way::Silent(silence)) if !silence.is_total => Ok(vec![]),
        (Err(problem), Way::Silent(silence)) => Err(problem.detail([silence.told()])),
        (Err(problem), _) => Err(problem),
    }
}

/// Pause between two looks at whether another build has ended.
const LOOK: Duration = Duration::from_millis(200);

/// How the folders of single builds begin.
const SCRATCH: &str = "scratch-";

/// The lock that keeps a second build in the same cache waiting, and a folder for this build only.
async fn workplace(cache: &Cache, report: &dyn Report) -> Result<(fs::File, tempfile::TempDir), Problem> {
    let folder = cache.root().join("build");
    let failed =
        |e: io::Error| Problem::new(Code::LocalFile, format!("cannot write below {}", folder.display())).because(e);
    fs::create_dir_all(&folder).map_err(failed)?;
    let lock = fs::File::create(folder.join("lock")).map_err(failed)?;
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::Error(e)) => return Err(failed(e)),
            // Looked at again and again: a thread that waits in the kernel would not hear of Ctrl-C.
            Err(fs::TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut told, true) {
                    report.note(&NodeId::here(), "waiting for another bundle build to end");
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
    drop_left_over(&folder);
    Ok((lock, tempfile::Builder::new().prefix(SCRATCH).tempdir_in(&folder).map_err(failed)?))
}

/// Removes what builds that were killed left, gigabytes at times: whoever holds the lock is alone here.
fn drop_left_over(folder: &Path) {
    let left = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in left.filter(|e| e.file_name().to_string_lossy().starts_with(SCRATCH)) {
        // One that stays only takes room.
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// The source that was chosen, with what it needs to know.
enum Recipe {
    Upstream(upstream::Job),
    Modules(modules::Job),
}

impl Recipe {
    fn origins(&self) -> Origins {
        match self {
            Self::Upstream(_) => Origins::Upstream,
            Self::Modules(_) => Origins::Modules,
        }
    }

    /// What decides the bundle's content; none when only a build can tell.
    fn inputs(&self) -> Result<Option<String>, Problem> {
        let text = match self {
            Self::Upstream(job) => format!("upstream {FORMAT} {:?} {}", job.versions, job.arch),
            Self::Modules(job) => match modules::inputs(job)? {
                Some(text) => format!("modules {FORMAT} {text}"),
                None => return Ok(None),
            },
        };
        Ok(Some(hex::encode(Sha256::digest(text))))
    }
}

async fn choose(
    request: &BuildRequest,
    versions: Versions,
    scratch: &Path,
    can_build: impl Fn() -> bool,
    report: &dyn Report,
) -> Result<Recipe, Problem> {
    let fetch = upstream_job(request, versions.clone(), scratch);
    match Way::find(request, &fetch).await {
        Way::Upstream => return Ok(Recipe::Upstream(fetch)),
        // A slow site is better than tools that are not here.
        Way::Silent(silence) if !silence.is_total && !can_build() => {
            let text = format!("{}: fetched all the same, as building needs tools that are missing", silence.told());
            report.note(&NodeId::here(), &text);
            return Ok(Recipe::Upstream(fetch));
        }
        Way::Silent(silence) => {
            report.note(&NodeId::here(), &format!("{}: building from Go modules", silence.told()));
        }
        Way::Modules => {}
    }
    let replace = request.replace.iter().map(|(module, folder)| Ok((module.clone(), absolute(folder)?)));
    let replace = replace.collect::<Result<_, Problem>>()?;
    let (arch, root, scratch) = (request.arch, request.cache.modules(), scratch.to_owned());
    Ok(Recipe::Modules(modules::Job { versions, arch, replace, root, scratch }))
}

fn upstream_job(request: &BuildRequest, versions: Versions, scratch: &Path) -> upstream::Job {
    upstream::Job {
        versions,
        arch: request.arch,
        mirrors: request.mirrors.clone(),
        folder: request.cache.downloads(),
        scratch: scratch.to_owned(),
        pause: FIRST_PAUSE,
    }
}

/// By what was asked, and by what answers, where the parts come from.
enum Way {
    /// Fetched.
    Upstream,
    /// Built.
    Modules,
    /// Left to kubecamp, and these did not answer, or not with what is needed.
    Silent(Silence),
}

impl Way {
    async fn find(request: &BuildRequest, fetch: &upstream::Job) -> Self {
        match request.source {
            _ if !request.replace.is_empty() => Self::Modules,
            Source::Modules => Self::Modules,
            Source::Upstream => Self::Upstream,
            Source::Auto => match request.asked.0.get_or_init(|| upstream::silent(fetch)).await {
                silence if silence.is_none() => Self::Upstream,
                silence => Self::Silent(silence.clone()),
            },
        }
    }
}

fn absolute(folder: &Path) -> Result<PathBuf, Problem> {
    let missing = |e| Problem::new(Code::LocalFile, format!("cannot read {}", folder.display())).because(e);
    let folder = folder.canonicalize().map_err(missing)?;
    if folder.join("go.mod").is_file() {
        return Ok(folder);
    }
    Err(Problem::new(Code::LocalFile, format!("{} is not a Go module: it has no go.mod", folder.display())))
}

/// The bundle, where it is there already.
fn at_hand(out: &Path, inputs: Option<&str>, cache: &Cache, report: &dyn Report) -> Option<Built> {
    inputs.filter(|inputs| is_made_of(out, inputs, cache, report))?;
    report.note(&NodeId::here(), &format!("{} is there already, whole and of these inputs", out.display()));
    Some(Built { path: out.to_owned(), made: false })
}

/// Whether the file is a whole bundle that was made of these inputs.
fn is_made_of(out: &Path, inputs: &str, cache: &Cache, report: &dyn Report) -> bool {
    let Ok(bundle) = Bundle::open(out) else { return false };
    fs::read_to_string(made_note(&bundle, cache)).is_ok_and(|note| note == inputs)
        && bundle.verify_once(&cache.verified(), report).is_ok()
}

fn made_note(bundle: &Bundle, cache: &Cache) -> PathBuf {
    cache.verified().join(format!("{}.inputs", bundle.id()))
}

/// Asks the new kubeadm which images it wants: the table of versions must not drift away from it.
async fn check_images(parts: &[Part], request: &BuildRequest) -> Result<(), Problem> {
    if Arch::from_uname(std::env::consts::ARCH) != Some(request.arch) {
        return Ok(());
    }
    let Some(kubeadm) = parts.iter().find(|p| p.name == "kubeadm") else { return Ok(()) };
    let failed = |what: &str| Problem::new(Code::BundleBuild, format!("kubeadm {}: {what}", request.kubernetes));
    let mut command = tokio::process::Command::new(&kubeadm.file);
    command.args(["config", "images", "list", "--kubernetes-version", &request.kubernetes]).kill_on_drop(true);
    let out = command.output().await.map_err(|e| failed("it does not run").because(e))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let has: Vec<&String> = parts.iter().flat_map(|p| &p.images).collect();
    let lacks: Vec<&str> = text.lines().filter(|image| !has.iter().any(|h| h == image)).collect();
    if !out.status.success() || text.trim().is_empty() {
        return Err(failed("it does not list its images").detail(String::from_utf8_lossy(&out.stderr).lines()));
    }
    if !lacks.is_empty() {
        let problem = failed("it wants other images than the bundle would hold").detail(lacks);
        // Nothing that the user could mend: a later patch release may ask for what the table does not know.
        return Err(match known_beside(&request.kubernetes).filter(|known| *known != request.kubernetes) {
            Some(known) => problem.hint(format!("Ask for {known}, which is known to fit.")),
            None => problem,
        });
    }
    Ok(())
}

/// Compresses the parts, several at once, and writes the bundle.
async fn pack(
    title: Title,
    parts: Vec<Part>,
    out: &Path,
    scratch: &Path,
    cache: &Cache,
    report: &dyn Report,
) -> Result<Bundle, Problem> {
    let failed = |e: io::Error| Problem::new(Code::LocalFile, format!("cannot write {}", out.display())).because(e);
    let work = scratch.join("packed");
    fs::create_dir_all(&work).map_err(failed)?;
    let (here, total) = (NodeId::here(), parts.len() as u64);
    let slots = Arc::new(tokio::sync::Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from)));
    let usual = cache.bundle(&title.kubernetes, title.arch);
    let earlier: Vec<Bundle> = [out, &usual].into_iter().filter_map(|path| Bundle::open(path).ok()).collect();
    let earlier = Arc::new(earlier);
    let mut tasks = tokio::task::JoinSet::new();
    for part in parts {
        let (to, slots) = (work.clone(), Arc::clone(&slots));
        let earlier = Arc::clone(&earlier);
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await.map_err(io::Error::other)?;
            tokio::task::spawn_blocking(move || part.pack(&to, &earlier)).await.map_err(io::Error::other)?
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
    let bundle = Bundle::open(out)?;
    bundle.remember(&cache.verified());
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bundle::{
            DEFAULT_KUBERNETES,
            upstream::fake::{Fake, Notes},
        },
        core::Quiet,
    };

    #[tokio::test]
    async fn one_site_that_does_not_answer_is_enough_for_modules() {
        let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
        let versions = Versions::of(DEFAULT_KUBERNETES).unwrap();
        fake.publish(&versions, Arch::Amd64);
        let request = |source, mirrors| BuildRequest {
            kubernetes: DEFAULT_KUBERNETES.to_owned(),
            arch: Arch::Amd64,
            source,
            replace: vec![],
            out: None,
            cache: Cache::new(folder.path()),
            mirrors,
            asked: Asked::default(),
        };
        let notes = Notes::default();
        let chosen =
            choose(&request(Source::Auto, fake.mirrors()), versions.clone(), folder.path(), || true, &notes).await;
        assert!(matches!(chosen.unwrap(), Recipe::Upstream(_)));
        for site in ["dl.k8s.io", "github.com", "registry.k8s.io", "ghcr.io"] {
            let mut mirrors = fake.mirrors();
            let nobody = "http://127.0.0.1:1/none".to_owned();
            match site {
                "dl.k8s.io" | "github.com" => mirrors.sites.insert(format!("https://{site}"), nobody),
                _ => mirrors.registries.insert(site.to_owned(), nobody),
            };
            let auto = request(Source::Auto, mirrors.clone());
            let chosen = choose(&auto, versions.clone(), folder.path(), || true, &notes).await.unwrap();
            assert!(matches!(chosen, Recipe::Modules(_)), "{site}");
            let told = notes.0.lock().unwrap().pop().unwrap();
            let silent = format!("no answer within seconds from {site} (its mirror 127.0.0.1:1)");
            assert!(told.starts_with(&format!("{silent}: building")), "{told}");
            // It may only be slow, and nothing can be built here.
            let chosen = choose(&auto, versions.clone(), folder.path(), || false, &notes).await.unwrap();
            assert!(matches!(chosen, Recipe::Upstream(_)), "{site}");
            let told = notes.0.lock().unwrap().pop().unwrap();
            assert!(told.starts_with(&format!("{silent}: fetched all the same")), "{told}");
            // Who asks for upstream gets upstream, or hears what failed.
            let asked = request(Source::Upstream, mirrors);
            let chosen = choose(&asked, versions.clone(), folder.path(), || true, &notes).await.unwrap();
            assert!(matches!(chosen, Recipe::Upstream(_)), "{site}");
        }
        assert!(notes.0.lock().unwrap().is_empty());
        let mut nothing = fake.mirrors();
        nothing
            .sites
            .values_mut()
            .chain(nothing.registries.values_mut())
            .for_each(|m| *m = "http://127.0.0.1:1/none".into());
        let offline = request(Source::Auto, nothing);
        let chosen = choose(&offline, versions.clone(), folder.path(), || false, &notes).await.unwrap();
        assert!(matches!(chosen, Recipe::Modules(_)), "who is offline hears what building needs");
        assert!(Code::Download.hint().contains("kubecamp bundle build --source modules"));
    }

    #[tokio::test]
    async fn sites_are_asked_once_for_packages_and_build() {
        let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
        let versions = Versions::of(DEFAULT_KUBERNETES).unwrap();
        fake.publish(&versions, Arch::Amd64);
        let request = BuildRequest {
            kubernetes: DEFAULT_KUBERNETES.to_owned(),
            arch: Arch::Amd64,
            source: Source::Auto,
            replace: vec![],
            out: None,
            cache: Cache::new(folder.path()),
            mirrors: fake.mirrors(),
            asked: Asked::default(),
        };
        assert!(lacking_packages(&request).await.unwrap().is_empty(), "upstream needs none");
        let seen = || fake.state.lock().unwrap().seen.len();
        let before = seen();
        let again = BuildRequest { asked: request.asked.clone(), ..request };
        let chosen = choose(&again, versions.clone(), folder.path(), || false, &Quiet).await.unwrap();
        assert!(matches!(chosen, Recipe::Upstream(_)) && before > 0 && seen() == before);
        // Another run asks anew.
        let other = BuildRequest { asked: Asked::default(), ..again };
        choose(&other, versions, folder.path(), || false, &Quiet).await.unwrap();
        assert!(seen() > before);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_for_another_build_leaves_the_turn_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let first = workplace(&cache, &Quiet).await.unwrap();
        assert!(tokio::time::timeout(LOOK / 2, workplace(&cache, &Quiet)).await.is_err(), "the first is at it");
        drop(first);
        tokio::time::timeout(Duration::from_secs(10), workplace(&cache, &Quiet)).await.unwrap().unwrap();
    }
}
