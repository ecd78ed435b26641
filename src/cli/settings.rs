use std::{
    env,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, PROC_SUPER_MAGIC, access, statfs};
use serde::Deserialize;

use crate::{
    bundle::Mirrors,
    core::{Code, Problem},
};

/// Where things live on the user's computer (XDG base directories).
#[derive(Debug, Clone)]
pub struct Places {
    /// Labs, one folder each.
    pub labs: PathBuf,
    /// Booked slots: a folder for each with what ssh needs for it.
    pub slots: PathBuf,
    /// The cache as a whole: bundles, node images, Go builds.
    pub cache: PathBuf,
    /// The private machine engine.
    pub engine: PathBuf,
    /// The user's settings.
    pub config: PathBuf,
}

/// The user's settings, `config.yaml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where downloads of bundles come from instead of the projects' own sites and registries.
    #[serde(default)]
    pub mirrors: Mirrors,
}

impl Config {
    /// Reads the file; none is an empty one.
    pub fn load(places: &Places) -> Result<Self, Problem> {
        let wrong = || Problem::new(Code::ConfigFile, format!("{} is not valid", places.config.display()));
        match std::fs::read_to_string(&places.config) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Problem::new(Code::LocalFile, format!("cannot read {}", places.config.display())).because(e)),
            Ok(text) => {
                let config: Self =
                    serde_yaml::from_str_with_options(&text, serde_yaml::options! { with_snippet: false })
                        .map_err(|e| wrong().because(e))?;
                let mistakes = config.mirrors.mistakes();
                if mistakes.is_empty() { Ok(config) } else { Err(wrong().detail(mistakes)) }
            }
        }
    }
}

impl Places {
    /// From the environment: `KUBECAMP_HOME` for all of them, else XDG's variables, else the home folder.
    pub fn from_env() -> Self {
        let var = |name| {
            let path = PathBuf::from(env::var_os(name).filter(|v| !v.is_empty())?);
            // What is kept of these paths is read in other folders, too.
            Some(std::path::absolute(&path).unwrap_or(path))
        };
        let home = env::home_dir().unwrap_or_else(|| PathBuf::from("/root"));
        let config = match var("KUBECAMP_HOME") {
            Some(all) => all.join("config"),
            None => var("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")).join("kubecamp"),
        };
        let (data, cache) = match var("KUBECAMP_HOME") {
            Some(all) => (all.join("data"), var("KUBECAMP_CACHE").unwrap_or_else(|| all.join("cache"))),
            None => (
                var("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("kubecamp"),
                var("KUBECAMP_CACHE")
                    .unwrap_or_else(|| var("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("kubecamp")),
            ),
        };
        Self {
            labs: data.join("labs"),
            slots: data.join("slots"),
            engine: data.join("engine"),
            cache,
            config: config.join("config.yaml"),
        }
    }
}

/// Refuses a folder that cannot be written, or made where it is not there yet; nothing is made here.
pub fn can_write(folder: &Path) -> Result<(), Problem> {
    let there = folder.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    let fail = |why: &str| Problem::new(Code::LocalFile, format!("{} {why}", there.display()));
    if !there.is_dir() {
        return Err(fail("is not a folder"));
    }
    // Nobody makes folders there, though root is told to be able to.
    if statfs(there).is_ok_and(|of| of.f_type == PROC_SUPER_MAGIC) {
        return Err(fail("holds no files of anybody's"));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| fail("cannot be written").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_that_would_never_be_asked_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { config: dir.path().join("config.yaml"), ..Places::from_env() };
        let read = |text: &str| {
            std::fs::write(&places.config, text).unwrap();
            Config::load(&places)
        };
        let good = read("mirrors:\n  sites:\n    https://dl.k8s.io: https://m.example/k8s\n").unwrap();
        assert_eq!(good.mirrors.url("https://dl.k8s.io/x"), "https://m.example/k8s/x");
        // As an editor of Windows writes it.
        let same = read("\u{feff}mirrors:\r\n  sites:\r\n    https://dl.k8s.io: https://m.example/k8s\r\n").unwrap();
        assert_eq!(same.mirrors, good.mirrors);
        for text in ["mirrors:\n  sites:\n    dl.k8s.io: https://m.example/k8s\n", "mirrors: [a]\n", "mirror: {}\n"] {
            let refused = read(text).unwrap_err();
            assert!(refused.code == Code::ConfigFile && refused.all_hints()[0].contains("slow-links"), "{refused}");
            assert!(!refused.detail.is_empty(), "{refused}");
        }
    }

    #[test]
    fn a_folder_that_can_be_made_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        can_write(&dir.path().join("not/yet")).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for folder in [file.join("engine"), "/proc/kubecamp".into()] {
            assert_eq!(can_write(&folder).err().map(|p| p.code), Some(Code::LocalFile), "{}", folder.display());
        }
    }
}
