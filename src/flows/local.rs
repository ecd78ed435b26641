use std::sync::{Arc, OnceLock};

use crate::{
    bundle::Bundle,
    engine::Phase,
    machine::Machine,
    phases::{FetchBundle, LocalPackages, LocalPlaces, Machines, ProviderSlot},
};

/// What happens on the user's own computer before any host is touched.
pub struct Local {
    /// The bundle to open or build.
    pub bundle: FetchBundle,
    /// Where machines are made; `None` when the user named hosts.
    pub machines: Option<LocalPlaces>,
    /// The public key that machines accept.
    pub authorized_key: String,
}

/// What came of it.
#[derive(Default, Clone)]
pub struct LocalResult {
    /// The bundle.
    pub bundle: Arc<OnceLock<Arc<Bundle>>>,
    /// The engine.
    pub provider: ProviderSlot,
    /// The machines.
    pub machines: Arc<OnceLock<Vec<Machine>>>,
}

/// The bundle, and machines where they are asked for.
pub fn local(with: Local, result: &LocalResult) -> Vec<Box<dyn Phase>> {
    let Some(places) = with.machines else { return vec![Box::new(with.bundle)] };
    vec![
        Box::new(LocalPackages),
        Box::new(with.bundle),
        Box::new(Machines {
            places,
            authorized_key: with.authorized_key,
            provider: Arc::clone(&result.provider),
            machines: Arc::clone(&result.machines),
        }),
    ]
}
