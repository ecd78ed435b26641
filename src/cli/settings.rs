use std::{env, path::PathBuf};

/// Where things live on the user's computer (XDG base directories).
#[derive(Debug, Clone)]
pub struct Places {
    /// Labs, one folder each.
    pub labs: PathBuf,
    /// Bundles.
    pub bundles: PathBuf,
    /// The cache as a whole: bundles, node images, Go builds.
    pub cache: PathBuf,
    /// The private machine engine.
    pub engine: PathBuf,
}

impl Places {
    /// From the environment: `KUBECAMP_HOME` for all of them, else XDG's variables, else the home folder.
    pub fn from_env() -> Self {
        let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = env::home_dir().unwrap_or_else(|| PathBuf::from("/root"));
        let (data, cache) = match var("KUBECAMP_HOME") {
            Some(all) => (all.join("data"), var("KUBECAMP_CACHE").unwrap_or_else(|| all.join("cache"))),
            None => (
                var("XDG_DATA_HOME").unwrap_or_else(|| home.join(".local/share")).join("kubecamp"),
                var("KUBECAMP_CACHE")
                    .unwrap_or_else(|| var("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("kubecamp")),
            ),
        };
        Self { labs: data.join("labs"), bundles: cache.join("bundles"), engine: data.join("engine"), cache }
    }
}
