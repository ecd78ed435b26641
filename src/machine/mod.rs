//! Belongs: machines that kubecamp makes itself: the Provider trait, Incus, the private engine, node images, where a lab has its own.
//! Never: phases, SSH, Kubernetes.
//! Start here: `Provider` in `provider.rs`.

mod capacity;
mod choice;
mod engine;
mod image;
mod incus;
mod incus_provider;
mod kvm;
mod ownership;
mod places;
mod probe;
mod provider;
mod resize;
mod settings;

pub use capacity::Capacity;
pub use choice::{Choice, Wanted};
pub use engine::{
    AptSource, AptSources, Engine, EngineAt, EngineStatus, Nic, OsRelease, Packages, Place, check_environment,
    users_incus,
};
pub use image::{NodeImage, Recipe};
#[cfg(test)]
pub(crate) use incus_provider::tests::Fake as FakeIncus;
pub use incus_provider::{IncusProvider, ProviderSlot};
pub use kvm::Kvm;
pub use ownership::Tenant;
pub use places::{
    LocalPlaces, machines_left, must_be_ours, no_engine, place_of, provider_in, running_places, settle, sleeping_engine,
};
pub use provider::{ImageRef, Kind, Machine, MachineSpec, Provider, State};
