use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use super::recipe::{Main, Recipe};

/// The little module around a recipe's modules, in a folder of its own.
pub struct Wrapper<'a> {
    /// What it builds.
    pub recipe: &'a Recipe,
    /// Where it is.
    pub folder: &'a Path,
}

impl Wrapper<'_> {
    /// The user's folder that replaces `module`.
    pub fn replaced_by(&self, module: &str) -> Option<&Path> {
        self.recipe.replaced.iter().find(|(m, _)| m == module).map(|(_, folder)| folder.as_path())
    }

    /// Writes everything but go.mod.
    pub fn write_sources(&self) -> io::Result<()> {
        fs::create_dir_all(self.folder)?;
        match &self.recipe.main {
            Main::Packages(list) => {
                let mut text = "//go:build tools\n\npackage tools\n\nimport (\n".to_owned();
                list.iter().for_each(|(package, _)| _ = writeln!(text, "\t_ \"{package}\""));
                write_if_new(&self.folder.join("tools.go"), &(text + ")\n"))?;
            }
            Main::Source(text, _) => _ = write_if_new(&self.folder.join("main.go"), text)?,
        }
        for stub in &self.recipe.stubs {
            let folder = self.folder.join(stub.folder);
            write_if_new(&folder.join("go.mod"), &format!("module {}\n\ngo 1.20\n", stub.module))?;
            for (name, text) in stub.files {
                write_if_new(&folder.join(name), text)?;
            }
        }
        Ok(())
    }

    /// The wrapper's go.mod before `go mod tidy`, given the go.mod of the recipe's first module.
    pub fn go_mod(&self, upstream: &str) -> String {
        let go = upstream.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1.24").trim();
        let mut text = format!("module kubecamp.local/{}\n\ngo {go}\n\nrequire (\n", self.recipe.name);
        self.recipe.requires.iter().for_each(|(module, version)| _ = writeln!(text, "\t{module} {version}"));
        text.push_str(")\n\nreplace (\n");
        self.replacements(upstream).iter().for_each(|(module, to)| _ = writeln!(text, "\t{module} => {to}"));
        text + ")\n"
    }

    fn replacements(&self, upstream: &str) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = vec![];
        let quoted = |path: &Path| format!("{:?}", path.to_string_lossy());
        for (module, folder) in &self.recipe.replaced {
            all.push((module.clone(), quoted(folder)));
        }
        if let Some(version) = &self.recipe.staging {
            let tree = self.replaced_by(self.recipe.requires[0].0);
            for (module, path) in staged(upstream) {
                // A copy of the released module is a tree without them.
                let own = tree.map(|tree| tree.join(path)).filter(|folder| folder.is_dir());
                let to = own.map_or_else(|| format!("{module} {version}"), |folder| quoted(&folder));
                all.push((module.to_owned(), to));
            }
        }
        let stubs = self.recipe.stubs.iter().map(|stub| (stub.module.to_owned(), format!("./{}", stub.folder)));
        all.extend(stubs);
        // The user's folders come first and win.
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|(module, _)| seen.insert(module.clone()));
        all
    }
}

/// The modules that Kubernetes' own tree takes from its staging folders, with those folders.
fn staged(go_mod: &str) -> impl Iterator<Item = (&str, &str)> {
    go_mod.lines().filter_map(|line| {
        let (module, path) = line.trim().trim_start_matches("replace ").split_once(" => ")?;
        let path = path.trim().strip_prefix("./")?;
        path.starts_with("staging/").then_some((module.trim(), path))
    })
}

/// Writes `text` unless the file says it already, so that Go sees no newer file; whether it wrote.
pub fn write_if_new(path: &Path, text: &str) -> io::Result<bool> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    fs::create_dir_all(path.parent().map_or_else(PathBuf::new, Path::to_owned))?;
    fs::write(path, text)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bundle::{DEFAULT_KUBERNETES, modules::recipe::recipes, versions::Versions},
        core::Arch,
    };

    const UPSTREAM: &str = "module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/x => ./staging/src/k8s.io/x\n)\n";

    fn go_mod(replaced: &[(&str, &str)]) -> String {
        let mut recipe = recipes(&Versions::of(DEFAULT_KUBERNETES).unwrap(), Arch::Amd64).remove(0);
        recipe.replaced = replaced.iter().map(|(m, to)| ((*m).to_owned(), PathBuf::from(to))).collect();
        Wrapper { recipe: &recipe, folder: Path::new("/w") }.go_mod(UPSTREAM)
    }

    #[test]
    fn staging_folders_become_released_versions() {
        let text = go_mod(&[]);
        assert!(text.contains("\ngo 1.26.0\n") && text.contains("\tk8s.io/kubernetes v1.36.3\n"), "{text}");
        assert!(text.contains("\tk8s.io/api => k8s.io/api v0.36.3\n"), "{text}");
    }

    #[test]
    fn a_replaced_tree_brings_its_own_staging_folders() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path().to_str().unwrap();
        for name in ["api", "x"] {
            fs::create_dir_all(tree.path().join("staging/src/k8s.io").join(name)).unwrap();
        }
        let text = go_mod(&[("k8s.io/kubernetes", root), ("k8s.io/x", "/home/t/x")]);
        assert!(text.contains(&format!("\tk8s.io/kubernetes => \"{root}\"\n")), "{text}");
        assert!(text.contains(&format!("\tk8s.io/api => \"{root}/staging/src/k8s.io/api\"\n")), "{text}");
        assert!(text.contains("\tk8s.io/x => \"/home/t/x\"\n") && !text.contains("staging/src/k8s.io/x"), "{text}");
    }

    #[test]
    fn a_copy_of_the_module_has_no_staging_folders_and_takes_what_was_released() {
        let tree = tempfile::tempdir().unwrap();
        let text = go_mod(&[("k8s.io/kubernetes", tree.path().to_str().unwrap())]);
        assert!(text.contains("\tk8s.io/api => k8s.io/api v0.36.3\n"), "{text}");
    }
}
