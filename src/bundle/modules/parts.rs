use std::{collections::BTreeMap, fs, io, path::PathBuf};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{
    base::{BASE_INPUTS, base_layer},
    gobuild::GoBuilder,
    recipe::{Recipe, recipes},
    tool,
    tools::Tools,
};
use crate::{
    bundle::{
        catalogue::{Entry, catalogue},
        image::{LAYERS, Layer, Start, write_image},
        layer::Files,
        manifest::Origins,
        versions::Versions,
        write::Part,
    },
    core::{Arch, Code, NodeId, Problem, Report},
};

/// What to build from Go modules.
#[derive(Debug, Clone)]
pub struct Job {
    /// The versions of everything.
    pub versions: Versions,
    /// The CPU.
    pub arch: Arch,
    /// Modules that are replaced by a folder.
    pub replace: Vec<(String, PathBuf)>,
    /// Where outputs are kept between builds.
    pub root: PathBuf,
    /// Where images are put together, for this build only.
    pub scratch: PathBuf,
}

/// What was built: a file and its origin, by the name of the program.
type Built = BTreeMap<String, (PathBuf, String)>;

impl Job {
    fn plan(&self) -> Result<(GoBuilder, Vec<Recipe>), Problem> {
        let Tools { go, go_version, cc } = Tools::find(self.arch)?;
        let builder = GoBuilder { go, go_version, cc, arch: self.arch, root: self.root.clone() };
        let mut all = recipes(&self.versions, self.arch);
        replace_in(&mut all, &self.replace);
        Ok((builder, all))
    }
}

/// What decides the parts' bytes; none while a module is replaced by a folder, which may change at any time.
///
/// # Errors
/// `KC-BUNDLE-TOOLS`: the Go toolchain is one of the inputs.
pub fn inputs(job: &Job) -> Result<Option<String>, Problem> {
    let (builder, all) = job.plan()?;
    let keys: Vec<String> = all.iter().map(|recipe| builder.key(recipe)).collect();
    let text = format!(
        "{keys:?} {:?} {PAUSE} {BASE_INPUTS} {LAYERS} {}",
        catalogue(&job.versions, Origins::Modules),
        job.arch
    );
    Ok(job.replace.is_empty().then_some(text))
}

/// pause, the one program that is ours.
const PAUSE: &str = include_str!("files/pause.c");

/// Builds every part of the bundle; what is there from an earlier or interrupted build is kept.
///
/// # Errors
/// `KC-BUNDLE-TOOLS` when tools lack, `KC-BUNDLE-BUILD` when one of them fails.
pub async fn make(job: &Job, report: &dyn Report) -> Result<Vec<Part>, Problem> {
    let (builder, all) = job.plan()?;
    let (here, total) = (NodeId::here(), all.len() as u64 + 3);
    let mut built = Built::new();
    let mut done = 0;
    let mut step = |report: &dyn Report| {
        report.progress(&here, "bundle", done, total);
        done += 1;
    };
    for recipe in &all {
        step(report);
        let outputs = builder.build(recipe, report).await?;
        built.extend(outputs.into_iter().map(|(name, file)| (output_name(recipe, name), (file, recipe.provenance()))));
    }
    step(report);
    built.insert("pause".to_owned(), (pause(&builder, report).await?, "kubecamp".to_owned()));
    step(report);
    let base = base_layer(job.arch, &job.root, report).await?;
    step(report);
    let images = Images { folder: job.scratch.clone(), arch: job.arch, base, built };
    let entries = catalogue(&job.versions, Origins::Modules);
    let parts = tokio::task::spawn_blocking(move || images.parts(entries)).await;
    let parts = parts
        .map_err(io::Error::other)
        .and_then(|r| r)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot write below {}", job.root.display())).because(e))?;
    report.progress(&NodeId::here(), "bundle", total, total);
    Ok(parts)
}

/// CNI plugins have members of their own kind of name, since flannel is both a plugin and a daemon.
fn output_name(recipe: &Recipe, output: String) -> String {
    if recipe.name.starts_with("cni") { format!("cni-{output}") } else { output }
}

/// Tells each recipe which replacements concern it: one of a module that some recipe is about leaves the others, and what
/// was built of them, alone. Of two that take programs from versions of one module, it concerns the one whose programs
/// the folder has.
fn replace_in(all: &mut [Recipe], replace: &[(String, PathBuf)]) {
    let is_about = |recipe: &Recipe, module: &str| {
        let staged = recipe.staging.is_some() && module.starts_with("k8s.io/");
        staged || recipe.requires.iter().any(|(m, _)| *m == module)
    };
    for (module, folder) in replace {
        let about = |recipe: &Recipe| is_about(recipe, module);
        let has = |recipe: &Recipe| about(recipe) && recipe.has_programs(module, folder);
        let (some_about, some_has) = (all.iter().any(about), all.iter().any(has));
        // Where the folder has nobody's programs, Go says what it lacks.
        let concerns = |recipe: &Recipe| if some_has { has(recipe) } else { !some_about || about(recipe) };
        for recipe in all.iter_mut().filter(|recipe| concerns(recipe)) {
            recipe.replaced.push((module.clone(), folder.clone()));
        }
    }
}

/// Compiles pause.
async fn pause(builder: &GoBuilder, report: &dyn Report) -> Result<PathBuf, Problem> {
    let key = hex::encode(&Sha256::digest(format!("{PAUSE}{}", builder.cc))[..8]);
    let folder = builder.root.join(format!("pause-{key}"));
    let (source, fresh, out) = (folder.join("pause.c"), folder.join("fresh"), folder.join("pause"));
    let failed = |e| Problem::new(Code::LocalFile, format!("cannot write below {}", folder.display())).because(e);
    if !out.is_file() {
        fs::create_dir_all(&folder).and_then(|()| fs::write(&source, PAUSE)).map_err(failed)?;
        let mut command = Command::new(&builder.cc);
        command.current_dir(&folder).args([
            "-Os",
            "-static",
            "-s",
            "-Wall",
            "-Wl,--build-id=none",
            "-o",
            "fresh",
            "pause.c",
        ]);
        tool::run("pause", command, report, |_| {}).await?;
        fs::rename(fresh, &out).map_err(failed)?;
    }
    Ok(out)
}

/// Turns programs into the parts of a bundle: binaries as they are, images around them.
struct Images {
    folder: PathBuf,
    arch: Arch,
    base: PathBuf,
    built: Built,
}

impl Images {
    fn parts(&self, entries: Vec<Entry>) -> io::Result<Vec<Part>> {
        fs::create_dir_all(&self.folder)?;
        let base = Layer::of_tar(&self.base, &self.folder.join("base.tar.zst"))?;
        entries.into_iter().map(|entry| self.part(&entry, &base)).collect()
    }

    fn part(&self, entry: &Entry, base: &Layer) -> io::Result<Part> {
        let Some(reference) = entry.image() else {
            let (file, origin) = self.program(&entry.name)?;
            return Ok(entry.part(file.clone(), origin.clone()));
        };
        let (layout, start) = image_of(&entry.name);
        let on_base = matches!(entry.name.as_str(), "kube-proxy" | "flannel");
        let mut files = Files::default();
        if !on_base {
            files.folder("tmp", 0o1777);
            super::add_users(&mut files);
        }
        for (program, path) in layout {
            files.file(&path, 0o755, &self.program(&program)?.0);
        }
        let own = self.folder.join(format!("{}.layer.tar", entry.name));
        files.write(&own)?;
        let own_layer = Layer::of_tar(&own, &self.folder.join(format!("{}.layer.tar.zst", entry.name)))?;
        fs::remove_file(own)?;
        let layers = if on_base { vec![base.clone(), own_layer] } else { vec![own_layer] };
        let image = self.folder.join(format!("{}.tar", entry.name));
        write_image(reference, self.arch, &layers, &start, &image)?;
        let program = if entry.name == "flannel" { "flanneld" } else { &entry.name };
        Ok(entry.part(image, self.program(program)?.1.clone()))
    }

    fn program(&self, name: &str) -> io::Result<&(PathBuf, String)> {
        self.built.get(name).ok_or_else(|| io::Error::other(format!("no recipe builds {name}")))
    }
}

/// Which programs an image holds and where, and how it starts: as the projects' own images have it.
fn image_of(name: &str) -> (Vec<(String, String)>, Start) {
    let one = |program: &str, path: &str| vec![(program.to_owned(), path.to_owned())];
    let start = |entrypoint: &str| Start { entrypoint: vec![entrypoint.to_owned()], ..Start::default() };
    match name {
        "coredns" => (one("coredns", "coredns"), start("/coredns")),
        "pause" => (one("pause", "pause"), Start { user: "65535:65535".to_owned(), ..start("/pause") }),
        "flannel" => (one("flanneld", "opt/bin/flanneld"), start("/opt/bin/flanneld")),
        "etcd" => {
            let programs = ["etcd", "etcdctl", "etcdutl"];
            let files = programs.map(|p| (p.to_owned(), format!("usr/local/bin/{p}"))).to_vec();
            (files, Start::default())
        }
        "kube-proxy" => (one("kube-proxy", "usr/local/bin/kube-proxy"), Start::default()),
        other => (one(other, &format!("usr/local/bin/{other}")), start(&format!("/usr/local/bin/{other}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bundle::{DEFAULT_KUBERNETES, modules::recipe::Main};

    #[test]
    fn a_replacement_reaches_the_recipes_that_it_concerns() {
        let replaced = |module: &str| {
            let mut all = recipes(&Versions::of(DEFAULT_KUBERNETES).unwrap(), Arch::Amd64);
            let count = all.len();
            replace_in(&mut all, &[(module.to_owned(), PathBuf::from("/x"))]);
            assert!(
                all.iter().all(|r| r.provenance().ends_with(&format!(", replaced: {module}")) != r.replaced.is_empty())
            );
            let names: Vec<_> = all.iter().filter(|r| !r.replaced.is_empty()).map(|r| r.name).collect();
            (names.len() == count, names)
        };
        assert_eq!(replaced("k8s.io/kubernetes").1, ["kubernetes"]);
        assert_eq!(replaced("k8s.io/kube-proxy").1, ["kubernetes"]);
        assert_eq!(replaced("go.etcd.io/etcd/etcdctl/v3").1, ["etcd"]);
        assert!(replaced("golang.org/x/net").0);
    }

    #[test]
    fn a_replacement_is_of_the_version_whose_programs_it_has() {
        const CNI: &str = "github.com/containernetworking/plugins";
        let replaced = |folder: &Path| {
            let mut all = recipes(&Versions::of(DEFAULT_KUBERNETES).unwrap(), Arch::Amd64);
            replace_in(&mut all, &[(CNI.to_owned(), folder.to_owned())]);
            all.into_iter().filter(|r| !r.replaced.is_empty()).map(|r| r.name).collect::<Vec<_>>()
        };
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(replaced(folder.path()), ["cni", "cni-flannel"], "Go says what an empty folder lacks");
        fs::create_dir_all(folder.path().join("plugins/meta/flannel")).unwrap();
        assert_eq!(replaced(folder.path()), ["cni-flannel"], "a version of before that plugin was moved away");
        fs::remove_dir(folder.path().join("plugins/meta/flannel")).unwrap();
        let all = recipes(&Versions::of(DEFAULT_KUBERNETES).unwrap(), Arch::Amd64);
        let Main::Packages(programs) = &all.iter().find(|r| r.name == "cni").unwrap().main else { panic!() };
        for (package, _) in programs {
            fs::create_dir_all(folder.path().join(package.strip_prefix(CNI).unwrap().trim_start_matches('/'))).unwrap();
        }
        assert_eq!(replaced(folder.path()), ["cni"]);
    }

    #[test]
    fn every_entry_has_a_recipe() {
        let versions = Versions::of(DEFAULT_KUBERNETES).unwrap();
        let mut programs: Vec<String> = vec!["pause".to_owned()];
        for recipe in recipes(&versions, Arch::Amd64) {
            programs.extend(recipe.outputs().into_iter().map(|out| output_name(&recipe, out.to_owned())));
        }
        for entry in catalogue(&versions, Origins::Modules) {
            let needed = match entry.image() {
                Some(_) => image_of(&entry.name).0.into_iter().map(|(program, _)| program).collect(),
                None => vec![entry.name.clone()],
            };
            assert!(needed.iter().all(|p| programs.contains(p)), "{}: {needed:?}", entry.name);
        }
    }
}
