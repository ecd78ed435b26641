//! Belongs: one file per phase: which steps a node needs for one part of a flow.
//! Never: another phase, doing a step, the order of phases.
//! Start here: `kernel.rs`, the smallest.

mod binaries;
mod control_plane;
mod fetch_bundle;
mod flannel;
mod images;
mod join_workers;
mod kernel;
mod kubeconfig;
mod local_packages;
mod machines;
mod names;
mod pod_network;
pub mod preflight;
mod proxy_mode;
mod record;
mod runtime;
mod verify;

pub use binaries::Binaries;
pub use control_plane::ControlPlane;
pub use fetch_bundle::FetchBundle;
pub use flannel::Flannel;
pub use images::Images;
pub use join_workers::JoinWorkers;
pub use kernel::Kernel;
pub use kubeconfig::Kubeconfig;
pub use local_packages::LocalPackages;
pub use machines::{LocalPlaces, Machines, ProviderSlot, provider_in, running_place};
pub use names::Names;
pub use pod_network::PodNetwork;
pub use proxy_mode::SetProxyMode;
pub use record::Record;
pub use runtime::Runtime;
pub use verify::Verify;
