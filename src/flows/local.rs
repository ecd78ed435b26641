use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use super::prepared;
use crate::{
    bundle::Bundle,
    engine::Phase,
    machine::{LocalPlaces, Machine, Packages, ProviderSlot, Tenant},
    phases::{FetchBundle, LocalPackages, MachineEngine, Machines, PreparedImage},
};

/// What happens on the user's own computer before any host is touched.
pub struct Local {
    /// The bundle to open or build.
    pub bundle: FetchBundle,
    /// Where machines are made; `None` when the user named hosts.
    pub machines: Option<LocalPlaces>,
    /// What must be installed here first.
    pub packages: Packages,
    /// Which machines of the lab's name are its own.
    pub tenant: Tenant,
    /// The lab's private key file, and the public line that machines accept.
    pub key: (PathBuf, String),
}

/// What came of it.
#[derive(Default, Clone)]
pub struct LocalResult {
    /// The bundle.
    pub bundle: Arc<OnceLock<Arc<Bundle>>>,
    /// The engine.
    pub provider: ProviderSlot,
    /// The prepared image's name.
    pub image: Arc<OnceLock<String>>,
    /// The machines.
    pub machines: Arc<OnceLock<Vec<Machine>>>,
}

/// The bundle, and machines where they are asked for.
pub fn local(with: Local, result: &LocalResult) -> Vec<Box<dyn Phase>> {
    let Some(places) = with.machines else { return vec![Box::new(with.bundle)] };
    let cache = with.bundle.request.cache.clone();
    vec![
        Box::new(LocalPackages(with.packages)),
        Box::new(with.bundle),
        Box::new(MachineEngine { places, provider: Arc::clone(&result.provider) }),
        Box::new(PreparedImage {
            bundle: Arc::clone(&result.bundle),
            cache,
            provider: Arc::clone(&result.provider),
            key: with.key.clone(),
            flow: prepared,
            name: Arc::clone(&result.image),
        }),
        Box::new(Machines {
            authorized_key: with.key.1,
            tenant: with.tenant,
            provider: Arc::clone(&result.provider),
            image: Arc::clone(&result.image),
            machines: Arc::clone(&result.machines),
        }),
    ]
}

/// Machines without Kubernetes: `kubecamp machine make`.
pub fn bare_machines(
    places: LocalPlaces,
    packages: Packages,
    tenant: Tenant,
    authorized_key: String,
    result: &LocalResult,
) -> Vec<Box<dyn Phase>> {
    vec![
        Box::new(LocalPackages(packages)),
        Box::new(MachineEngine { places, provider: Arc::clone(&result.provider) }),
        Box::new(Machines {
            authorized_key,
            tenant,
            provider: Arc::clone(&result.provider),
            image: Arc::clone(&result.image),
            machines: Arc::clone(&result.machines),
        }),
    ]
}
