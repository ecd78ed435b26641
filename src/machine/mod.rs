//! Belongs: machines that kubecamp makes itself: the Provider trait, Incus, the private engine, node images.
//! Never: phases, SSH, Kubernetes.
//! Start here: `Provider` in `provider.rs`.

mod provider;

pub use provider::{Kind, Machine, MachineSpec, Provider, State};
