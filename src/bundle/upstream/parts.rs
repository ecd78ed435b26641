use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Mirrors,
    archive::{extract, make_executable},
    download::{Downloads, shown},
    registry::Registry,
    releases::{Release, flannel_cni_image, releases},
};
use crate::{
    bundle::{
        catalogue::{Entry, catalogue},
        manifest::Origins,
        versions::Versions,
        write::Part,
    },
    core::{Arch, Code, NodeId, Problem, Report},
};

/// Downloads at a time: enough for a fast link, polite to a mirror.
const AT_ONCE: usize = 4;

/// What to fetch.
#[derive(Debug, Clone)]
pub struct Job {
    /// The versions of everything.
    pub versions: Versions,
    /// The CPU.
    pub arch: Arch,
    /// Where to fetch from instead.
    pub mirrors: Mirrors,
    /// Where downloads are kept.
    pub folder: PathBuf,
    /// Where they are unpacked, for this build only.
    pub scratch: PathBuf,
    /// The wait after a first failure.
    pub pause: Duration,
}

/// Programs and images that are here: file and origin by name.
type Here = BTreeMap<String, (PathBuf, String)>;

/// Fetches every part of the bundle; what arrived in an earlier or interrupted run is kept.
///
/// # Errors
/// `KC-DOWNLOAD` and `KC-DOWNLOAD-DIGEST`.
pub async fn make(job: &Job, report: &dyn Report) -> Result<Vec<Part>, Problem> {
    let downloads = Downloads::new(job.folder.clone(), job.pause)?;
    let registry = Registry::new(&job.mirrors, &downloads);
    let entries = catalogue(&job.versions, Origins::Upstream);
    let all = releases(&job.versions, job.arch);
    let images: Vec<&str> = entries.iter().filter_map(Entry::image).collect();
    let flannel_cni = flannel_cni_image(&job.versions);
    let total = (all.len() + images.len()) as u64 + 1;
    let fetch = Fetch { job, downloads: &downloads, registry: &registry, report, done: AtomicU64::new(0), total };
    fetch.count(0);
    // Collected first: a closure inside the stream would tie the future to one lifetime, and it could not be spawned.
    let releases: Vec<_> = all.iter().map(|release| fetch.release(release)).collect();
    let pulls: Vec<_> = images.iter().map(|image| fetch.image(image)).collect();
    let from_releases = stream::iter(releases).buffer_unordered(AT_ONCE);
    let from_registries = stream::iter(pulls).buffer_unordered(AT_ONCE);
    let (programs, images, plugin): (Vec<Here>, Vec<Here>, Here) =
        tokio::try_join!(from_releases.try_collect(), from_registries.try_collect(), fetch.flannel_cni(&flannel_cni))?;
    let here: Here = programs.into_iter().chain(images).flatten().chain(plugin).collect();
    entries.iter().map(|entry| part(entry, &here)).collect()
}

fn part(entry: &Entry, here: &Here) -> Result<Part, Problem> {
    let key = entry.image().unwrap_or(&entry.name);
    let (file, origin) =
        here.get(key).ok_or_else(|| Problem::new(Code::Internal, format!("no release holds {}", entry.name)))?;
    Ok(entry.part(file.clone(), origin.clone()))
}

struct Fetch<'a> {
    job: &'a Job,
    downloads: &'a Downloads,
    registry: &'a Registry<'a>,
    report: &'a dyn Report,
    done: AtomicU64,
    total: u64,
}

impl Fetch<'_> {
    fn count(&self, more: u64) {
        let done = self.done.fetch_add(more, Ordering::Relaxed) + more;
        self.report.progress(&NodeId::here(), "bundle", done, self.total);
    }

    async fn release(&self, release: &Release) -> Result<Here, Problem> {
        let mirrors = &self.job.mirrors;
        let sums_url = mirrors.url(&release.sums);
        let sums = self.downloads.text(&sums_url, self.report).await?;
        let sha256 = release.digest_in(&sums).ok_or_else(|| {
            let what = format!("{} holds no checksum of {}", shown(&sums_url), release.file_name());
            Problem::new(Code::Download, what)
        })?;
        let url = mirrors.url(&release.url);
        let file = self.downloads.file(&url, release.file_name(), &sha256, self.report).await?;
        let programs = release.programs.clone();
        let folder = self.folder("programs", &sha256)?;
        let here = blocking(&self.job.scratch, move || unpack(&file, &programs, &folder)).await?;
        self.count(1);
        Ok(here.into_iter().map(|(name, file)| (name, (file, release.url.clone()))).collect())
    }

    async fn image(&self, image: &str) -> Result<Here, Problem> {
        let pulled = self.registry.pull(image, self.job.arch, self.report).await?;
        let to = self.folder("images", self.job.arch.as_str())?.join(format!("{}.tar", image.replace(['/', ':'], "_")));
        let (name, arch, out) = (image.to_owned(), self.job.arch, to.clone());
        blocking(&self.job.scratch, move || pulled.write(&name, arch, &out)).await?;
        self.count(1);
        Ok([(image.to_owned(), (to, image.to_owned()))].into())
    }

    /// The CNI plugin `flannel` out of its image: the highest layer that has it.
    async fn flannel_cni(&self, image: &str) -> Result<Here, Problem> {
        let pulled = self.registry.pull(image, self.job.arch, self.report).await?;
        let to = self.folder("programs", self.job.arch.as_str())?.join("cni-flannel");
        let out = to.clone();
        blocking(&self.job.scratch, move || {
            let mut found = Err(io::Error::from(io::ErrorKind::NotFound));
            for layer in pulled.layers.iter().rev() {
                found = extract(layer, &[("flannel", out.clone())]);
                if found.is_ok() {
                    break;
                }
            }
            found
        })
        .await?;
        self.count(1);
        Ok([("cni-flannel".to_owned(), (to, image.to_owned()))].into())
    }

    fn folder(&self, kind: &str, key: &str) -> Result<PathBuf, Problem> {
        let folder = self.job.scratch.join(kind).join(key);
        fs::create_dir_all(&folder).map_err(|e| unwritable(&folder, e))?;
        Ok(folder)
    }
}

fn unpack(file: &Path, programs: &[(String, String)], folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    if let [(inside, name)] = programs
        && inside.is_empty()
    {
        make_executable(file)?;
        return Ok(vec![(name.clone(), file.to_owned())]);
    }
    let places: Vec<_> = programs.iter().map(|(inside, name)| (inside.as_str(), folder.join(name))).collect();
    extract(file, &places)?;
    Ok(programs.iter().zip(places).map(|((_, name), (_, to))| (name.clone(), to)).collect())
}

fn unwritable(folder: &Path, e: io::Error) -> Problem {
    Problem::new(Code::LocalFile, format!("cannot unpack below {}", folder.display())).because(e)
}

async fn blocking<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).and_then(|r| r).map_err(|e| unwritable(folder, e))
}
