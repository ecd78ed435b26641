//! Belongs: one file per phase: which steps a node needs for one part of a flow.
//! Never: another phase, doing a step, the order of phases.
//! Start here: `kernel.rs`, the smallest.

mod binaries;
mod cni;
mod control_plane;
mod images;
mod join_workers;
mod kernel;
mod kubeconfig;
mod names;
mod proxy_mode;
mod record;
mod runtime;
mod verify;

pub use binaries::Binaries;
pub use cni::ClusterNetwork;
pub use control_plane::ControlPlane;
pub use images::Images;
pub use join_workers::JoinWorkers;
pub use kernel::Kernel;
pub use kubeconfig::Kubeconfig;
pub use names::Names;
pub use proxy_mode::ProxyModePhase;
pub use record::Record;
pub use runtime::Runtime;
pub use verify::Verify;
