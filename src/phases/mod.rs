//! Belongs: one file per phase: which steps a node needs for one part of a flow.
//! Never: another phase, doing a step, the order of phases.
//! Start here: `kernel.rs`, the smallest.

mod binaries;
mod control_plane;
mod flannel;
mod images;
mod join_workers;
mod kernel;
mod kubeconfig;
mod names;
mod pod_network;
mod proxy_mode;
mod record;
mod runtime;
mod verify;

pub use binaries::Binaries;
pub use control_plane::ControlPlane;
pub use flannel::Flannel;
pub use images::Images;
pub use join_workers::JoinWorkers;
pub use kernel::Kernel;
pub use kubeconfig::Kubeconfig;
pub use names::Names;
pub use pod_network::PodNetwork;
pub use proxy_mode::SetProxyMode;
pub use record::Record;
pub use runtime::Runtime;
pub use verify::Verify;
