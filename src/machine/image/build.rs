use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::geteuid;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::recipe::{Recipe, SCRIPT, refused};
use crate::core::{Code, EventKind, NodeId, Problem, Report};

/// Lines of the build's output that a problem shows.
const TAIL: usize = 15;
/// Runs what follows in namespaces that end with it, mounts and processes; one pipe keeps all of its words in order.
const UNSHARED: &str = "exec 2>&1; exec unshare --mount --propagation private --pid --fork --kill-child sh -c \"$1\"";
/// The script's steps, for progress.
const STEPS: [&str; 6] = ["packages", "settings", "kernel", "disk", "pack", "done"];

/// The node images in one cache folder.
#[derive(Debug, Clone)]
pub struct NodeImage {
    cache: PathBuf,
    recipe: Recipe,
}

impl NodeImage {
    /// The image of `recipe`, kept in the folder `cache`; nothing is built yet.
    pub fn new(cache: &Path, recipe: Recipe) -> Self {
        Self { cache: cache.to_owned(), recipe }
    }

    /// What the image is built from.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The file that holds it once it is built: a unified Incus image.
    pub fn file(&self) -> PathBuf {
        self.cache.join(format!("{}.tar.zst", self.recipe.alias()))
    }

    /// The image's file, built first if it is not there.
    ///
    /// Needs root and mmdebstrap.
    ///
    /// A run that is killed leaves no image and no mounts, only a work folder that the next build removes.
    pub async fn ensure(&self, report: &dyn Report) -> Result<PathBuf, Problem> {
        let file = self.file();
        if file.is_file() {
            return Ok(file);
        }
        must_be_root(geteuid().is_root())?;
        let local = |e| Problem::new(Code::LocalFile, format!("{} cannot be written", self.cache.display())).because(e);
        fs::create_dir_all(&self.cache).map_err(local)?;
        remove_old_work(&self.cache);
        let work = tempfile::Builder::new().prefix(&work_prefix(std::process::id())).tempdir_in(&self.cache);
        let work = work.map_err(local)?;
        let part = work.path().join("image.part");
        self.build(work.path(), &part, report).await?;
        fs::rename(&part, &file).map_err(local)?;
        Ok(file)
    }

    async fn build(&self, work: &Path, out: &Path, report: &dyn Report) -> Result<(), Problem> {
        let sources = self.recipe.sources.as_ref().map_err(|why| {
            let file = self.file().display().to_string();
            refused(why.clone())
                .hint(format!("Name one there, or copy {file} from a computer whose kubecamp has made it."))
        })?;
        let mut command = Command::new("sh");
        command
            .args(["-c", UNSHARED, "node-image", SCRIPT])
            .env("SUITE", &self.recipe.suite)
            .env("ARCH", &self.recipe.arch)
            .env("MACHINE", self.recipe.machine)
            .env("SOURCES", sources.join("\n"))
            .env("PACKAGES", self.recipe.packages())
            .env("VM_DISK", self.recipe.disk())
            .env("KEY", self.recipe.alias())
            .env("WORK", work)
            .env("OUT", out)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let broken = |e| Problem::new(Code::EngineImage, "the build of the node image could not be run").because(e);
        let mut child = command.spawn().map_err(broken)?;
        let tail = follow(&mut child, report).await;
        let status = child.wait().await.map_err(broken)?;
        if status.success() && out.is_file() {
            return Ok(());
        }
        let what = format!("the node image of {} could not be built", self.recipe.suite);
        Err(Problem::new(Code::EngineImage, what).detail(tail))
    }
}

/// The image's files belong to root and to the system's users, which only root can give them.
fn must_be_root(is_root: bool) -> Result<(), Problem> {
    if is_root {
        return Ok(());
    }
    Err(Problem::new(Code::LocalRoot, "the node image is not there yet, and building it needs root").hint(
        "Run with sudo. Once the image is in your Incus nobody needs root for it: sudo kubecamp machine make --name \
         image, then sudo kubecamp down --name image.",
    ))
}

/// Passes the output on; returns its last lines. The child's standard input stays open until it ends.
async fn follow(child: &mut Child, report: &dyn Report) -> Vec<String> {
    let here = NodeId::here();
    let mut tail = vec![];
    report.progress(&here, "node image", 0, STEPS.len() as u64);
    let Some(stdout) = child.stdout.take() else { return tail };
    let _open = child.stdin.take();
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(step) = line.strip_prefix("kc-step ") {
            let at = STEPS.iter().position(|s| *s == step).unwrap_or_default();
            report.progress(&here, "node image", at as u64 + 1, STEPS.len() as u64);
            continue;
        }
        if tail.len() == TAIL {
            tail.remove(0);
        }
        tail.push(line.clone());
        report.event(EventKind::Output { on: here.clone(), line });
    }
    tail
}

fn work_prefix(pid: u32) -> String {
    format!("build-{pid}-")
}

/// Work folders of builds whose kubecamp is gone.
fn remove_old_work(cache: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("build-").and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::core::Quiet;

    #[test]
    fn who_is_not_root_is_told_so_before_the_build() {
        must_be_root(true).unwrap();
        let problem = must_be_root(false).unwrap_err();
        assert_eq!(problem.code, Code::LocalRoot);
        assert!(problem.what.contains("needs root") && problem.all_hints()[0].contains("sudo kubecamp machine make"));
    }

    #[tokio::test]
    async fn an_image_that_is_there_needs_no_mirror() {
        let cache = tempfile::tempdir().unwrap();
        let sources = Err("no mirror".to_owned());
        let image = NodeImage::new(cache.path(), Recipe { sources, ..Recipe::here(None).unwrap() });
        if geteuid().is_root() {
            let problem = image.ensure(&Quiet).await.unwrap_err();
            assert_eq!((problem.code, &problem.detail), (Code::EngineImage, &vec!["no mirror".to_owned()]));
            assert!(problem.all_hints()[0].contains(&image.file().display().to_string()), "{problem:?}");
        }
        fs::write(image.file(), "").unwrap();
        assert_eq!(image.ensure(&Quiet).await.unwrap(), image.file());
    }

    #[test]
    fn what_the_build_says_on_standard_error_is_evidence_too() {
        let bin = tempfile::tempdir().unwrap();
        let sham = bin.path().join("unshare");
        fs::write(&sham, "#!/bin/sh\necho \"$#: unshare failed: Operation not permitted\" >&2\nexit 1\n").unwrap();
        fs::set_permissions(&sham, Permissions::from_mode(0o755)).unwrap();
        let mut sh = std::process::Command::new("/bin/sh");
        let out = sh.args(["-c", UNSHARED, "node-image", "echo \"a  b\""]).env("PATH", bin.path()).output().unwrap();
        // Eight words of ours, and the script as one.
        assert_eq!(String::from_utf8(out.stdout).unwrap(), "9: unshare failed: Operation not permitted\n");
        assert!(!out.status.success() && out.stderr.is_empty());
    }

    #[test]
    fn only_the_work_of_dead_builds_is_removed() {
        let cache = tempfile::tempdir().unwrap();
        let own = cache.path().join(work_prefix(std::process::id()) + "a");
        let dead = cache.path().join(work_prefix(u32::MAX) + "b");
        fs::create_dir(&own).unwrap();
        fs::create_dir(&dead).unwrap();
        remove_old_work(cache.path());
        assert!(own.exists() && !dead.exists());
    }
}
