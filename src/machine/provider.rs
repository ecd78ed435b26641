use std::{net::IpAddr, path::PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Tenant;
use crate::core::{Bytes, Code, LabName, NodeId, Problem, Report};

/// A machine to be made: the node it will be, its limits, and who may log in.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// The lab it belongs to.
    pub lab: LabName,
    /// Which machines of that lab's name are its own.
    pub tenant: Tenant,
    /// The node it will be; the machine is called `LAB-NODE`.
    pub node: NodeId,
    /// Cores, a hard limit.
    pub cores: u32,
    /// Memory, a hard limit.
    pub memory: Bytes,
    /// Disk, a hard limit where the storage pool can.
    pub disk: Bytes,
    /// OpenSSH public key line that root accepts.
    pub authorized_key: String,
    /// What its disk begins with.
    pub image: ImageRef,
}

/// What a new machine's disk begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ImageRef {
    /// The plain node image, built on first use.
    #[default]
    Node,
    /// What [`Provider::publish`] kept under this name.
    Prepared(String),
}

/// Whether a machine has a kernel of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A virtual machine with a kernel of its own.
    Vm,
    /// A system container on this computer's kernel.
    Container,
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It runs.
    Running,
    /// It does not run.
    Stopped,
    /// It is in between, or its engine calls it broken.
    Other,
}

/// A machine that exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Its name at the provider, `LAB-NODE`.
    pub name: String,
    /// The lab it belongs to.
    pub lab: LabName,
    /// The node it is.
    pub node: NodeId,
    /// Whether it has its own kernel.
    pub kind: Kind,
    /// Whether it runs.
    pub state: State,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// The network namespace that the address lives in, as `/run/netns/NAME`; `None` is the caller's own.
    pub netns: Option<PathBuf>,
    /// Its SSH host keys as OpenSSH public key lines, read through the provider and so trustworthy; none while it does
    /// not run, or where it runs and cannot tell them.
    pub host_keys: Vec<String>,
}

/// Something that makes machines.
///
/// Every call is idempotent.
#[async_trait]
pub trait Provider: Send + Sync {
    /// One sentence: which engine this is, and whether it makes VMs or containers and why.
    fn describe(&self) -> String;

    /// Makes or starts the machine if needed, gives it the size asked for, and returns once sshd answers on it. Safe to
    /// call for several at once.
    async fn ensure(&self, spec: &MachineSpec, report: &dyn Report) -> Result<Machine, Problem>;

    /// The machines of one lab, or all that kubecamp made (others are never listed).
    async fn list(&self, lab: Option<&LabName>) -> Result<Vec<Machine>, Problem>;

    /// One machine of a lab, asking no other; `None` when there is none.
    async fn get(&self, lab: &LabName, node: &NodeId) -> Result<Option<Machine>, Problem>;

    /// Stops and deletes a machine; no error when there is none.
    async fn remove(&self, lab: &LabName, node: &NodeId) -> Result<(), Problem>;

    /// Stops a machine and keeps it with its disk and addresses; no error when it is stopped already.
    async fn stop(&self, _lab: &LabName, node: &NodeId) -> Result<(), Problem> {
        Err(Problem::new(Code::MachineStart, "this engine cannot stop a machine and keep it").on(node))
    }

    /// Keeps the machine's disk under `name`, replacing a snapshot of that name.
    async fn snapshot(&self, lab: &LabName, node: &NodeId, name: &str) -> Result<(), Problem>;

    /// Puts the machine's disk back to the snapshot `name` and starts it.
    async fn restore(&self, lab: &LabName, node: &NodeId, name: &str) -> Result<(), Problem>;

    /// Stops the machine and keeps its disk as the start of later ones, [`ImageRef::Prepared`]; where one of that name is
    /// there by then, that one stays. The machine itself is gone afterwards. Keys, machine id and addresses are not
    /// carried over.
    async fn publish(&self, lab: &LabName, node: &NodeId, name: &str) -> Result<(), Problem>;

    /// Whether something was published under `name`.
    async fn has_image(&self, name: &str) -> Result<bool, Problem>;

    /// Removes what was published under `name`; no error when there is none.
    async fn drop_image(&self, name: &str) -> Result<(), Problem>;

    /// How much of the disk that all its machines share is free, and how much there is; none where that is not known.
    async fn space(&self) -> Result<Option<(Bytes, Bytes)>, Problem> {
        Ok(None)
    }
}
