use std::{path::PathBuf, sync::Arc};

use crate::{
    bundle::Bundle,
    core::PhaseId,
    engine::Phase,
    phases::{
        AdmitWorkers, Binaries, ControlPlane, CoreDns, Flannel, Images, ImagesLater, JoinWorkers, Kernel, KubeProxy,
        Kubeconfig, Names, Owner, PodNetwork, Record, Runtime, SetProxyMode, Verify,
    },
};

/// What `up` needs besides the lab and its hosts.
pub struct Up {
    /// Who claims the hosts.
    pub owner: Owner,
    /// Binaries and images.
    pub bundle: Arc<Bundle>,
    /// Where the kubeconfig goes.
    pub kubeconfig: PathBuf,
    /// The address under which this computer reaches the API server.
    pub server: String,
}

/// From connected hosts that passed preflight to a lab that is proven to work.
pub fn up(with: &Up) -> Vec<Box<dyn Phase>> {
    let bundle = || Arc::clone(&with.bundle);
    vec![
        Box::new(Record { owner: with.owner.clone() }),
        Box::new(Names),
        Box::new(Kernel),
        Box::new(Binaries { bundle: bundle() }),
        Box::new(Runtime { bundle: bundle() }),
        Box::new(PodNetwork),
        Box::new(Images { bundle: bundle() }),
        Box::new(ImagesLater { bundle: bundle() }),
        Box::new(AdmitWorkers),
        Box::new(ControlPlane { extra_names: vec![with.server.clone()] }),
        Box::new(Kubeconfig { to: with.kubeconfig.clone(), server: with.server.clone() }),
        Box::new(JoinWorkers),
        Box::new(KubeProxy),
        Box::new(Flannel { bundle: bundle() }),
        Box::new(CoreDns),
        Box::new(SetProxyMode),
        Box::new(Verify { bundle: bundle() }),
    ]
}

/// The phases of [`up`] by their ids, to be told of before there is a bundle to make them with.
pub const UP: &[PhaseId] = &[
    Record::ID,
    Names::ID,
    Kernel::ID,
    Binaries::ID,
    Runtime::ID,
    PodNetwork::ID,
    Images::ID,
    ImagesLater::ID,
    AdmitWorkers::ID,
    ControlPlane::ID,
    Kubeconfig::ID,
    JoinWorkers::ID,
    KubeProxy::ID,
    Flannel::ID,
    CoreDns::ID,
    SetProxyMode::ID,
    Verify::ID,
];
