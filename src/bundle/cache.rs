use std::path::{Path, PathBuf};

use crate::core::Arch;

/// The folder where bundles, and what they are made of, are kept between runs.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

impl Cache {
    /// The cache in `root`, as `~/.cache/kubecamp`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Where the bundle of this version and CPU belongs.
    pub fn bundle(&self, kubernetes: &str, arch: Arch) -> PathBuf {
        self.bundles().join(format!("kubecamp-{kubernetes}-{arch}.bundle"))
    }

    /// Every finished bundle.
    pub fn bundles(&self) -> PathBuf {
        self.0.join("bundles")
    }

    /// The notes on which bundles were verified: the `memory` of [`super::Bundle::verify_once`].
    pub fn verified(&self) -> PathBuf {
        self.bundles().join("verified")
    }

    /// Outputs and work folders of builds from Go modules.
    pub fn modules(&self) -> PathBuf {
        self.0.join("build").join("modules")
    }

    /// Finished and partial downloads.
    pub fn downloads(&self) -> PathBuf {
        self.0.join("build").join("downloads")
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        &self.0
    }
}
