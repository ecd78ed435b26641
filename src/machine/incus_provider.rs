mod change;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;
use serde_json::json;
use tokio::sync::Mutex;

use super::{
    NodeImage,
    engine::{EngineAt, Nic, Place},
    incus::{Instance, NewInstance, Source},
    ownership::{Owner, machine_name, template_name},
    probe::ssh_answers,
    provider::{ImageRef, Kind, Machine, MachineSpec, Provider, State},
    settings,
};
use crate::core::{Bytes, Code, LabName, NodeId, Problem, Report, Timestamp};

/// How long a machine may take from its start until sshd answers.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long a machine gets to end by itself where its disk matters, in whole seconds.
const GRACE: Duration = Duration::from_secs(30);
/// Lines of its console that a machine which did not come up is shown with.
const CONSOLE_TAIL: usize = 8;
/// How long a list waits for a machine that was asked for its host keys.
const KEYS_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two looks at a booting machine.
const LOOK: Duration = Duration::from_millis(40);
/// How often an address that somebody else took meanwhile is chosen anew.
const ADDRESS_TRIES: usize = 8;

/// Prints the public host keys.
const SHOW_KEYS: &str = "cat /etc/ssh/ssh_host_*_key.pub";

/// The host key that nearly every machine has.
const USUAL_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";

/// What makes the machines of a run, once it was found or started.
pub type ProviderSlot = Arc<OnceLock<Arc<IncusProvider>>>;

/// Machines made by one Incus, the user's or a private one.
pub struct IncusProvider {
    place: Place,
    image: NodeImage,
    /// Why machines are of the kind they are, for [`Provider::describe`].
    why: String,
    /// One import of the node image at a time.
    importing: Mutex<()>,
    /// Addresses chosen by this process, whose machines Incus may not list yet.
    chosen: Mutex<BTreeSet<Ipv4Addr>>,
}

impl IncusProvider {
    /// Machines in `place` that begin as `image`, which also says of what kind they are; `why` says why.
    pub fn new(place: Place, image: NodeImage, why: impl Into<String>) -> Self {
        Self { place, image, why: why.into(), importing: Mutex::new(()), chosen: Mutex::default() }
    }

    /// The network namespace in which the machines' addresses are reached; `None` for this computer's own.
    pub fn netns(&self) -> Option<&Path> {
        self.place.netns.as_deref()
    }

    /// The node image's name, which says what is in it.
    pub fn image_key(&self) -> String {
        self.image.recipe().alias()
    }

    /// What new machines are; those that exist stay what they are.
    pub fn kind(&self) -> Kind {
        self.image.recipe().kind
    }

    /// How the engine is found again.
    pub fn at(&self) -> EngineAt {
        self.place.at()
    }

    /// Whether the machines are in kubecamp's own engine, which nobody else uses.
    pub fn is_private(&self) -> bool {
        self.place.netns.is_some()
    }

    /// The names of all that was published.
    pub async fn images(&self) -> Result<Vec<String>, Problem> {
        let instances = self.place.incus.instances_plain().await?;
        Ok(instances.iter().filter_map(settings::image_of).map(str::to_owned).collect())
    }

    /// Removes the machines with such a name that were made longer ago than `age`, those too whose publication was cut
    /// off: Incus keeps no key with an empty value, so what they belonged to is not told any more.
    pub async fn remove_old(&self, is_one: fn(&str) -> bool, age: Duration) -> Result<(), Problem> {
        let begin = Timestamp::now().as_second().saturating_sub_unsigned(age.as_secs());
        for instance in self.place.incus.instances_plain().await? {
            let is_old = instance.created_at.parse::<Timestamp>().is_ok_and(|made| made.as_second() < begin);
            let is_ours = instance.config.contains_key(settings::LAB) || settings::image_of(&instance).is_some();
            if is_old && is_ours && is_one(&instance.name) {
                self.halt(&instance, &NodeId::here()).await?;
                self.place.incus.delete_instance(&instance.name).await?;
            }
        }
        Ok(())
    }

    /// Builds and imports the node image unless that was done; `ensure` does it too, but later.
    pub async fn prepare(&self, report: &dyn Report) -> Result<(), Problem> {
        self.node_image(report).await.map(drop)
    }

    /// The fingerprint of the node image in Incus, built and imported first if need be.
    async fn node_image(&self, report: &dyn Report) -> Result<String, Problem> {
        let _one = self.importing.lock().await;
        let alias = self.image.recipe().alias();
        if let Some(fingerprint) = self.place.incus.image(&alias).await? {
            return Ok(fingerprint);
        }
        let file = self.image.ensure(report).await?;
        report.note(&NodeId::here(), "importing the node image");
        self.place.incus.import(&file, &alias, |_| {}).await
    }

    /// The machine's instance, when it exists and is ours.
    async fn find(&self, lab: &LabName, node: &NodeId) -> Result<Option<Instance>, Problem> {
        let name = machine_name(lab, node)?;
        let Some(instance) = self.place.incus.instance(&name).await? else { return Ok(None) };
        if Owner::of(&instance).is_some_and(|o| o.lab == *lab && o.node == *node) {
            return Ok(Some(instance));
        }
        Err(Problem::new(Code::MachineStart, format!("an instance {name} exists and belongs to something else"))
            .on(node)
            .hint("Choose another --name for the lab, or rename that instance."))
    }

    /// The machine's instance, or a problem when there is none.
    async fn must_find(&self, lab: &LabName, node: &NodeId) -> Result<Instance, Problem> {
        let missing = || Problem::new(Code::MachineStart, format!("lab {lab} has no machine {node}")).on(node);
        self.find(lab, node).await?.ok_or_else(missing)
    }

    /// Makes the instance and writes what must be in it before its first start.
    async fn create(&self, spec: &MachineSpec, report: &dyn Report) -> Result<(), Problem> {
        let source = match &spec.image {
            ImageRef::Node => Source::Image { fingerprint: self.node_image(report).await? },
            ImageRef::Prepared(name) => Source::Copy { source: template_name(name)?, instance_only: true },
        };
        let (name, kind) = (machine_name(&spec.lab, &spec.node)?, self.kind());
        for attempt in 1.. {
            let address = self.free_address().await?;
            let new = NewInstance {
                name: name.clone(),
                kind: match kind {
                    Kind::Vm => "virtual-machine",
                    Kind::Container => "container",
                },
                config: settings::node(spec, kind, &self.place.nic, address),
                devices: settings::devices(spec, kind, &self.place.pool, &self.place.nic, address),
                profiles: vec![],
                source: source.clone(),
            };
            match self.place.incus.create(&new).await {
                Ok(()) => break,
                // Another kubecamp chose the same address a moment ago.
                Err(problem) if address_taken(&problem) && attempt < ADDRESS_TRIES => {}
                Err(problem) => return Err(problem.on(&spec.node)),
            }
        }
        Ok(())
    }

    /// The lowest address of the bridge that nobody has; `None` where DHCP decides.
    async fn free_address(&self) -> Result<Option<Ipv4Addr>, Problem> {
        let Nic::Managed { network, gateway, prefix } = &self.place.nic else { return Ok(None) };
        let mut chosen = self.chosen.lock().await;
        let mut used: BTreeSet<Ipv4Addr> = self.place.incus.leases(network).await?.into_iter().collect();
        used.insert(*gateway);
        used.extend(chosen.iter());
        for instance in self.place.incus.instances_plain().await? {
            let fixed = instance.devices.values().filter_map(|d| d.get("ipv4.address")?.parse::<Ipv4Addr>().ok());
            used.extend(fixed);
        }
        let full = || Problem::new(Code::MachineStart, format!("the network {network} has no free address"));
        let free = settings::lowest_free(*gateway, *prefix, &used).ok_or_else(full)?;
        chosen.insert(free);
        Ok(Some(free))
    }

    /// Waits until sshd answers; returns the machine as it is then.
    async fn until_up(&self, lab: &LabName, node: &NodeId) -> Result<Machine, Problem> {
        let name = machine_name(lab, node)?;
        let end = Instant::now() + BOOT_LIMIT;
        let instance = self.must_find(lab, node).await?;
        let mut address = fixed_address(&instance);
        while Instant::now() < end {
            if address.is_none() {
                address = self.leased_address(&name).await?;
            }
            if let Some(ip) = address
                && ssh_answers(SocketAddr::new(ip, 22), self.place.netns.as_deref()).await
            {
                let host_keys = self.host_keys(&instance).await.map_err(|p| p.on(node))?;
                if !host_keys.is_empty() {
                    return Ok(self.machine(lab, node, &instance, State::Running, Some(ip), host_keys));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        let what = format!("sshd of machine {name} did not answer within {} s", BOOT_LIMIT.as_secs());
        let seen = self.place.incus.instance(&name).await.ok().flatten().map(|i| format!("Incus says: {}", i.status));
        let console = match settings::kind_of(&instance) {
            Kind::Vm => self.place.incus.console(&name).await.unwrap_or_default(),
            Kind::Container => String::new(),
        };
        let last: Vec<_> = console.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
        let last = last[last.len().saturating_sub(CONSOLE_TAIL)..].to_vec();
        Err(Problem::new(Code::MachineStart, what).on(node).detail(seen).detail(last))
    }

    async fn leased_address(&self, name: &str) -> Result<Option<IpAddr>, Problem> {
        let network = self.place.incus.state(name).await?.network.unwrap_or_default();
        let addresses = network.get("eth0").map(|i| i.addresses.clone()).unwrap_or_default();
        Ok(addresses.iter().find(|a| a.family == "inet" && a.scope == "global").and_then(|a| a.address.parse().ok()))
    }

    /// The public host keys, read through Incus and not through the network; none while a virtual machine has not
    /// written its own to the console. Once seen it is kept: the console forgets.
    async fn host_keys(&self, instance: &Instance) -> Result<Vec<String>, Problem> {
        let name = &instance.name;
        if settings::kind_of(instance) == Kind::Vm {
            let kept = instance.config.get(settings::HOST_KEY).filter(|key| !key.is_empty());
            if let Some(key) = kept {
                return Ok(vec![key.clone()]);
            }
            let Some(key) = settings::host_key_on(&self.place.incus.console(name).await?) else { return Ok(vec![]) };
            self.place.incus.patch(name, &json!({"config": {settings::HOST_KEY: key}})).await?;
            return Ok(vec![key]);
        }
        // A command in the machine takes a tenth of a second more than a file out of it.
        let usual = self.place.incus.file(name, USUAL_KEY).await?.unwrap_or_default();
        // Root in there writes what it likes, and a second line would be one of known_hosts, of whatever host.
        if let Some(key) = usual.lines().next().filter(|line| line.starts_with("ssh-ed25519 ")) {
            return Ok(vec![key.trim().to_owned()]);
        }
        let text = self.place.incus.exec(name, SHOW_KEYS, &BTreeMap::new()).await?;
        Ok(text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect())
    }

    fn machine(
        &self,
        lab: &LabName,
        node: &NodeId,
        instance: &Instance,
        state: State,
        address: Option<IpAddr>,
        host_keys: Vec<String>,
    ) -> Machine {
        Machine {
            name: format!("{lab}-{node}"),
            lab: lab.clone(),
            node: node.clone(),
            kind: settings::kind_of(instance),
            state,
            address,
            netns: self.place.netns.clone(),
            host_keys,
        }
    }

    /// What is known of an instance of ours. A machine that cannot tell its keys, because its files are gone or nothing
    /// runs in it any more, is seen without them: it must neither hide the others nor stand in the way of its removal.
    async fn seen(&self, instance: &Instance, owner: Owner) -> Machine {
        let state = match instance.status.as_str() {
            "Running" => State::Running,
            "Stopped" => State::Stopped,
            _ => State::Other,
        };
        let address = match fixed_address(instance) {
            None if state == State::Running => self.leased_address(&instance.name).await.unwrap_or_default(),
            fixed => fixed,
        };
        // A stopped machine's keys can be read too, but that starts a helper for each: leave it.
        let keys = match state {
            State::Running => tokio::time::timeout(KEYS_LIMIT, self.host_keys(instance)).await,
            _ => Ok(Ok(vec![])),
        };
        let keys = keys.ok().and_then(Result::ok).unwrap_or_default();
        self.machine(&owner.lab, &owner.node, instance, state, address, keys)
    }

    async fn halt(&self, instance: &Instance, node: &NodeId) -> Result<(), Problem> {
        if instance.status == "Stopped" {
            return Ok(());
        }
        self.place.incus.stop(&instance.name, None).await.map_err(|p| p.on(node))
    }
}

#[async_trait]
impl Provider for IncusProvider {
    fn describe(&self) -> String {
        let kind = match self.kind() {
            Kind::Vm => {
                "virtual machines, each with a kernel and memory of its own: all of its memory is taken from this \
                 computer, and it starts some seconds later than a container"
            }
            Kind::Container => {
                "system containers, which share this computer's kernel: its modules and settings are what all nodes have"
            }
        };
        format!("{} makes {kind} ({})", self.place.title, self.why)
    }

    async fn ensure(&self, spec: &MachineSpec, report: &dyn Report) -> Result<Machine, Problem> {
        let (lab, node) = (&spec.lab, &spec.node);
        let found = self.find(lab, node).await?;
        if let Some(instance) = &found {
            self.must_be_its(instance, spec)?;
        }
        let stopped = match &found {
            Some(instance) => self.adjust(instance, spec, report).await? || instance.status != "Running",
            None => {
                self.create(spec, report).await?;
                true
            }
        };
        let name = machine_name(lab, node)?;
        if stopped {
            report.note(node, "starting the machine");
            self.place.incus.start(&name).await.map_err(|p| p.on(node))?;
        }
        let machine = self.until_up(lab, node).await?;
        if let Some(instance) = found {
            self.make_its(&instance, spec, report).await.map_err(|p| p.on(node))?;
        }
        Ok(machine)
    }

    async fn list(&self, lab: Option<&LabName>) -> Result<Vec<Machine>, Problem> {
        let instances = self.place.incus.instances().await?;
        let owned =
            instances.iter().filter_map(|i| Some((i, Owner::of(i).filter(|o| lab.is_none_or(|l| *l == o.lab))?)));
        // Asking a machine for its keys takes a tenth of a second: all are asked at once.
        let mut machines = join_all(owned.map(|(instance, owner)| self.seen(instance, owner))).await;
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(machines)
    }

    async fn get(&self, lab: &LabName, node: &NodeId) -> Result<Option<Machine>, Problem> {
        let Some(instance) = self.find(lab, node).await? else { return Ok(None) };
        Ok(Some(self.seen(&instance, Owner { lab: lab.clone(), node: node.clone() }).await))
    }

    async fn remove(&self, lab: &LabName, node: &NodeId) -> Result<(), Problem> {
        let found = match self.place.incus.instance(&machine_name(lab, node)?).await? {
            // Marked as an image and still named as the machine: its publication was cut off.
            Some(half) if settings::image_of(&half).is_some() => Some(half),
            _ => self.find(lab, node).await?,
        };
        let Some(instance) = found else { return Ok(()) };
        self.halt(&instance, node).await?;
        let (incus, name) = (&self.place.incus, &instance.name);
        let mut gone = incus.delete_instance(name).await;
        // The start that a killed run had asked for ended since it was looked at.
        if gone.is_err() && incus.instance(name).await.ok().flatten().is_some_and(|now| now.status == "Running") {
            incus.stop(name, None).await.map_err(|p| p.on(node))?;
            gone = incus.delete_instance(name).await;
        }
        gone.map(drop).map_err(|p| p.on(node))
    }

    async fn stop(&self, lab: &LabName, node: &NodeId) -> Result<(), Problem> {
        let instance = self.must_find(lab, node).await?;
        self.halt(&instance, node).await
    }

    async fn snapshot(&self, lab: &LabName, node: &NodeId, name: &str) -> Result<(), Problem> {
        let instance = self.must_find(lab, node).await?;
        self.place.incus.snapshot(&instance.name, name).await.map_err(|p| p.on(node))
    }

    async fn restore(&self, lab: &LabName, node: &NodeId, name: &str) -> Result<(), Problem> {
        let instance = self.must_find(lab, node).await?;
        let known = self.place.incus.snapshots(&instance.name).await?;
        if !known.iter().any(|s| s == name) {
            let what = format!("machine {} has no snapshot {name}", instance.name);
            return Err(Problem::new(Code::MachineStart, what).on(node).detail(known));
        }
        self.halt(&instance, node).await?;
        let incus = &self.place.incus;
        incus.restore(&instance.name, name).await.map_err(|p| p.on(node))?;
        incus.start(&instance.name).await.map_err(|p| p.on(node))?;
        self.until_up(lab, node).await.map(drop)
    }

    async fn publish(&self, lab: &LabName, node: &NodeId, name: &str) -> Result<(), Problem> {
        let template = template_name(name)?;
        let instance = self.must_find(lab, node).await?;
        // Whoever uses this Incus too may have been faster, and machines may be copied from theirs right now.
        if self.has_image(name).await? {
            return self.remove(lab, node).await;
        }
        // A clean end: what is on its disk now begins every later machine.
        if instance.status != "Stopped" {
            self.place.incus.stop(&instance.name, Some(GRACE)).await.map_err(|p| p.on(node))?;
        }
        let incus = &self.place.incus;
        incus.patch(&instance.name, &json!({"config": settings::template_marks(name)})).await?;
        let renamed = incus.rename(&instance.name, &template).await;
        if renamed.is_err() && self.has_image(name).await? {
            return incus.delete_instance(&instance.name).await.map(drop);
        }
        renamed
    }

    async fn has_image(&self, name: &str) -> Result<bool, Problem> {
        Ok(self.place.incus.instance(&template_name(name)?).await?.is_some_and(|i| settings::image_of(&i).is_some()))
    }

    async fn drop_image(&self, name: &str) -> Result<(), Problem> {
        if self.has_image(name).await? {
            self.place.incus.delete_instance(&template_name(name)?).await?;
        }
        Ok(())
    }

    async fn space(&self) -> Result<Option<(Bytes, Bytes)>, Problem> {
        self.place.space().await.map(Some)
    }
}

/// The address that was chosen when the machine was made.
fn fixed_address(instance: &Instance) -> Option<IpAddr> {
    instance.devices.get("eth0")?.get("ipv4.address")?.parse().ok()
}

fn address_taken(problem: &Problem) -> bool {
    problem.detail.iter().any(|line| line.contains("already") && line.to_lowercase().contains("address"))
}

#[cfg(test)]
pub(crate) mod tests;
