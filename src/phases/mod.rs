//! Belongs: one file per phase: which steps a node needs for one part of a flow.
//! Never: another phase's work (its names and places may be used), doing a step, the order of phases.
//! Start here: `kernel.rs`, the smallest.

mod admit_workers;
mod begin_reset;
mod binaries;
mod clean_network;
mod control_plane;
mod coredns;
mod drain;
mod fetch_bundle;
mod flannel;
mod gate_agent;
mod gate_door;
mod gate_group;
mod gate_host;
mod gate_labs;
mod gate_leave;
/// Where the gate has its files on a server.
pub mod gate_paths;
mod images;
mod images_later;
mod join_workers;
mod kernel;
mod kube_proxy;
mod kubeconfig;
mod local_packages;
mod local_places;
mod machines;
mod names;
mod pod_network;
pub mod preflight;
mod prepared_image;
mod prove_clean;
mod proxy_mode;
mod record;
mod reset_host;
mod restore_files;
mod runtime;
mod stop_cluster;
mod sudo_user;
mod values;
mod verify;

pub use admit_workers::AdmitWorkers;
pub use begin_reset::BeginReset;
pub use binaries::Binaries;
pub use clean_network::CleanNetwork;
pub use control_plane::ControlPlane;
pub use coredns::CoreDns;
pub use drain::Drain;
pub use fetch_bundle::FetchBundle;
pub use flannel::Flannel;
pub use gate_agent::{AgentPart, GateAgent};
pub use gate_door::GateDoor;
pub use gate_group::GateGroup;
pub use gate_host::{Enrolment, GateMachines, sshd_drop_in};
pub use gate_labs::GateLabs;
pub use gate_leave::GateLeave;
pub use images::Images;
pub use images_later::ImagesLater;
pub use join_workers::JoinWorkers;
pub use kernel::Kernel;
pub use kube_proxy::KubeProxy;
pub use kubeconfig::Kubeconfig;
pub use local_packages::LocalPackages;
pub use local_places::{
    LocalPlaces, machines_left, must_be_ours, no_engine, place_of, provider_in, running_places, settle, sleeping_engine,
};
pub use machines::{MachineEngine, Machines, ProviderSlot};
pub use names::Names;
pub use pod_network::PodNetwork;
pub use prepared_image::{PreparedImage, remove_unfinished};
pub use prove_clean::ProveClean;
pub use proxy_mode::SetProxyMode;
pub use record::{Claim, Owner, Record};
pub use reset_host::Records;
pub use restore_files::RestoreFiles;
pub use runtime::Runtime;
pub use stop_cluster::StopCluster;
pub use sudo_user::SudoUser;
pub use verify::Verify;
