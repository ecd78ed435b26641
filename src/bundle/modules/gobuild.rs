use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{
    recipe::{Main, Recipe},
    tool,
    tools::pkg_config_folder,
    wrapper::{Wrapper, write_if_new},
};
use crate::core::{Arch, Code, NodeId, Problem, Report};

/// The module whose version is the user's choice; those of all others follow from it.
const KUBERNETES: &str = "k8s.io/kubernetes";

/// Builds recipes with one Go toolchain for one CPU, each in a folder of its own that survives an interruption.
#[derive(Debug, Clone)]
pub struct GoBuilder {
    /// The `go` program.
    pub go: PathBuf,
    /// What `go env GOVERSION` says: part of what decides whether an output is still good.
    pub go_version: String,
    /// The C compiler for `arch`.
    pub cc: String,
    /// What the binaries are for.
    pub arch: Arch,
    /// Where the work folders are.
    pub root: PathBuf,
}

impl GoBuilder {
    /// What decides the bytes of a recipe's outputs, as short hex.
    pub fn key(&self, recipe: &Recipe) -> String {
        let all = format!("{recipe:?} {} {} {}", self.go_version, self.arch, if recipe.cgo { &self.cc } else { "" });
        hex::encode(&Sha256::digest(all.as_bytes())[..8])
    }

    /// The outputs of `recipe`, built unless they are there already.
    ///
    /// # Errors
    /// `KC-BUNDLE-BUILD` with Go's last lines.
    pub async fn build(&self, recipe: &Recipe, report: &dyn Report) -> Result<BTreeMap<String, PathBuf>, Problem> {
        let folder = self.root.join(format!("{}-{}", recipe.name, self.key(recipe)));
        let done: BTreeMap<String, PathBuf> =
            recipe.outputs().into_iter().map(|out| (out.to_owned(), folder.join("out").join(out))).collect();
        // A replaced module is a folder that changes while its owner works on it: only Go knows whether it did.
        if recipe.replaced.is_empty() && done.values().all(|path| path.is_file()) {
            return Ok(done);
        }
        let wrapper = Wrapper { recipe, folder: &folder };
        self.prepare(&wrapper, report).await?;
        self.compile(&wrapper, report).await?;
        Ok(done)
    }

    fn command(&self, folder: &Path, cgo: bool) -> Command {
        let mut command = Command::new(&self.go);
        command.current_dir(folder).env("GOOS", "linux").env("GOARCH", self.arch.as_str()).env("GOWORK", "off");
        // Whatever the user builds for: hosts may have the oldest CPU, and equal inputs are to give equal bytes.
        command.env("GOAMD64", "v1").env("GOARM64", "v8.0");
        command.env("CGO_ENABLED", if cgo { "1" } else { "0" });
        if cgo {
            command.env("CC", &self.cc);
            if let Some(folder) = pkg_config_folder(self.arch) {
                command.env("PKG_CONFIG_LIBDIR", folder);
            }
        }
        command
    }

    /// Writes the wrapper and lets Go complete its go.mod and go.sum.
    async fn prepare(&self, wrapper: &Wrapper<'_>, report: &dyn Report) -> Result<(), Problem> {
        let (recipe, folder) = (wrapper.recipe, wrapper.folder);
        let tidy = folder.join("tidy.done");
        if tidy.is_file() && recipe.replaced.is_empty() {
            return Ok(());
        }
        let here =
            |e: io::Error| Problem::new(Code::LocalFile, format!("cannot write below {}", folder.display())).because(e);
        wrapper.write_sources().map_err(here)?;
        let go_mod = self.upstream_go_mod(wrapper, report).await?;
        let text = wrapper.go_mod(&go_mod);
        let changed = write_if_new(&folder.join("go.mod.wanted"), &text).map_err(here)?;
        if changed || !folder.join("go.mod").is_file() {
            fs::write(folder.join("go.mod"), text).map_err(here)?;
        }
        report.progress(&NodeId::here(), recipe.name, 0, 0);
        let mut command = self.command(folder, recipe.cgo);
        command.args(["mod", "tidy"]);
        tool::run(recipe.name, command, report, |_| {}).await?;
        fs::write(tidy, "").map_err(here)
    }

    /// The go.mod of the recipe's first module: from the user's folder where it is replaced, else from the module cache.
    async fn upstream_go_mod(&self, wrapper: &Wrapper<'_>, report: &dyn Report) -> Result<String, Problem> {
        let recipe = wrapper.recipe;
        let path = match wrapper.replaced_by(recipe.requires[0].0) {
            Some(folder) => folder.join("go.mod"),
            None => {
                let mut command = self.command(wrapper.folder, false);
                command.args(["mod", "download", "-json", &recipe.origin()]).env("GOFLAGS", "-mod=mod");
                let ran = tool::run(recipe.name, command, report, |_| {}).await;
                let json = ran.map_err(|problem| or_no_release(recipe, problem))?;
                let found: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
                PathBuf::from(found["GoMod"].as_str().unwrap_or_default())
            }
        };
        fs::read_to_string(&path).map_err(|e| {
            let what = format!("{}: {} is not a Go module's go.mod", recipe.name, path.display());
            Problem::new(Code::BundleBuild, what).because(e)
        })
    }

    async fn compile(&self, wrapper: &Wrapper<'_>, report: &dyn Report) -> Result<(), Problem> {
        let (recipe, folder, here) = (wrapper.recipe, wrapper.folder, NodeId::here());
        let mut packages: Vec<&str> = match &recipe.main {
            Main::Packages(list) => list.iter().map(|(package, _)| package.as_str()).collect(),
            Main::Source(..) => vec!["."],
        };
        packages.dedup();
        let mut list = self.command(folder, recipe.cgo);
        list.args(["list", "-deps", "-tags", recipe.tags, "-f", "{{.ImportPath}}"]).args(&packages);
        let total = tool::run(recipe.name, list, report, |_| {}).await?.lines().count() as u64;
        let fresh = folder.join("fresh");
        let io_failed =
            |e: io::Error| Problem::new(Code::LocalFile, format!("cannot write below {}", folder.display())).because(e);
        fs::create_dir_all(&fresh).map_err(io_failed)?;
        let mut build = self.command(folder, recipe.cgo);
        build.args(["build", "-v", "-trimpath", "-buildvcs=false", "-tags", recipe.tags, "-ldflags", &ldflags(recipe)]);
        build.arg("-o").arg(&fresh).args(&packages);
        let mut done = 0;
        tool::run(recipe.name, build, report, |_| {
            done = (done + 1).min(total);
            report.progress(&here, recipe.name, done, total);
        })
        .await?;
        report.progress(&here, recipe.name, total, total);
        take_outputs(recipe, &fresh, &folder.join("out")).map_err(io_failed)
    }
}

/// The problem in one line where Go was told that there is no such Kubernetes, which it says within its JSON.
fn or_no_release(recipe: &Recipe, problem: Problem) -> Problem {
    let (module, version) = &recipe.requires[0];
    let refused = ["403", "404", "410"].map(|status| format!("{version}.info: {status}"));
    let unknown =
        |line: &String| line.contains("unknown revision") || refused.iter().any(|words| line.contains(words.as_str()));
    if *module != KUBERNETES || !problem.detail.iter().any(unknown) {
        return problem;
    }
    Problem::new(Code::BundleUnknown, format!("Go finds no release {version} of Kubernetes")).hint(
        "See whether there is one: https://kubernetes.io/releases/. If so, the Go module proxy (GOPROXY) does not give it.",
    )
}

fn ldflags(recipe: &Recipe) -> String {
    let mut flags = "-s -w".to_owned();
    if recipe.cgo {
        flags.push_str(" -linkmode external -extldflags -static");
    }
    for value in &recipe.set {
        flags.push_str(" -X ");
        flags.push_str(value);
    }
    flags
}

/// Moves finished programs from the names that Go gives them to their own, so that an output is whole or absent.
fn take_outputs(recipe: &Recipe, fresh: &Path, out: &Path) -> io::Result<()> {
    fs::create_dir_all(out)?;
    match &recipe.main {
        Main::Packages(list) => {
            for (package, name) in list {
                fs::rename(fresh.join(default_name(package)), out.join(name))?;
            }
        }
        Main::Source(_, name) => fs::rename(fresh.join(recipe.name), out.join(name))?,
    }
    fs::remove_dir_all(fresh)
}

/// What `go build` calls the program of a main package.
fn default_name(package: &str) -> &str {
    let is_major = |part: &str| part.strip_prefix('v').is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    package.rsplit('/').find(|part| !is_major(part)).unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_names_programs_by_their_path() {
        assert_eq!(default_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(default_name("github.com/opencontainers/runc"), "runc");
        assert_eq!(default_name("k8s.io/kubernetes/cmd/kube-proxy"), "kube-proxy");
    }

    #[test]
    fn programs_are_for_the_oldest_cpu_whatever_the_user_builds_for() {
        let [go, root] = ["go", "/nowhere"].map(PathBuf::from);
        let (go_version, cc, arch) = ("go1.26.8".to_owned(), "gcc".to_owned(), Arch::Amd64);
        let command = GoBuilder { go, go_version, cc, arch, root }.command(Path::new("/"), false);
        for (name, value) in [("GOAMD64", "v1"), ("GOARM64", "v8.0"), ("GOWORK", "off")] {
            let set = command.as_std().get_envs().find(|(set, _)| *set == name).and_then(|(_, value)| value);
            assert_eq!(set.and_then(|value| value.to_str()), Some(value), "{name}");
        }
    }

    #[test]
    fn a_release_that_there_is_not_is_told_in_one_line() {
        use crate::bundle::{modules::recipe::recipes, versions::Versions};
        let all = recipes(&Versions::of("v1.37.99").unwrap(), Arch::Amd64);
        let of = |module: &str| all.iter().find(|recipe| recipe.requires[0].0 == module).unwrap();
        let failed = |line: &str| Problem::new(Code::BundleBuild, "kubernetes: go failed").detail(["{", line, "}"]);
        let gone = "\"Error\": \"k8s.io/kubernetes@v1.37.99: invalid version: unknown revision v1.37.99\"";
        let refused = "\"Error\": \"reading https://proxy/k8s.io/kubernetes/@v/v1.37.99.info: 403 Forbidden\"";
        for line in [gone, refused] {
            let told = or_no_release(of(KUBERNETES), failed(line));
            assert_eq!((told.code, told.detail.len()), (Code::BundleUnknown, 0), "{told}");
            assert_eq!(told.what, "Go finds no release v1.37.99 of Kubernetes");
            assert!(told.all_hints()[0].contains("kubernetes.io/releases"), "{told}");
        }
        assert_eq!(or_no_release(of(KUBERNETES), failed("i/o timeout")).code, Code::BundleBuild);
        let other = all.iter().find(|recipe| recipe.requires[0].0 != KUBERNETES).unwrap();
        assert_eq!(or_no_release(other, failed(gone)).code, Code::BundleBuild, "its version is not the user's");
    }

    #[tokio::test]
    #[ignore = "asks the Go proxy for a few hundred modules"]
    async fn every_known_version_resolves() {
        use crate::bundle::{known_versions, modules::recipe::recipes, modules::tools::Tools, versions::Versions};
        let folder = tempfile::tempdir().unwrap();
        let arch = Arch::Amd64;
        let Tools { go, go_version, cc } = Tools::find(arch).unwrap();
        let builder = GoBuilder { go, go_version, cc, arch, root: folder.path().to_owned() };
        for version in known_versions() {
            for recipe in recipes(&Versions::of(version).unwrap(), arch) {
                let at = folder.path().join(format!("{}-{}", recipe.name, builder.key(&recipe)));
                let wrapper = Wrapper { recipe: &recipe, folder: &at };
                let done = builder.prepare(&wrapper, &crate::core::Quiet).await;
                assert!(done.is_ok(), "{version}: {}", done.unwrap_err());
                let resolved = fs::read_to_string(at.join("go.mod")).unwrap();
                for (module, version) in &recipe.requires {
                    assert!(resolved.contains(&format!("{module} {version}\n")), "{module} is not {version}");
                }
            }
        }
    }
}
