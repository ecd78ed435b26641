use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Binaries, Images, ImagesLater, Owner, ProviderSlot, Record, Runtime, images::IMPORT_COREDNS};
use crate::{
    bundle::Bundle,
    core::{Blob, Bytes, Code, EventKind, NodeId, PhaseId, Problem, Problems, Quiet, Report, StepId},
    engine::{Change, Check, Crew, Journal, Mode, Need, Phase, Run, Step, Task, View, run_flow},
    machine::{ImageRef, Machine, MachineSpec, Provider},
    profile::{self, Lab},
    transport::{HostKeyPolicy, Identity, SshTarget},
};

/// Makes, once for each bundle, a machine with binaries and images already in it, and keeps it as the start of all
/// later machines.
///
/// It runs the very phases that `up` runs on hosts; on a machine made from it `up` finds them done.
pub struct PreparedImage {
    /// The bundle that goes into it.
    pub bundle: Arc<OnceLock<Arc<Bundle>>>,
    /// The engine.
    pub provider: ProviderSlot,
    /// The private key file and the public line to work on the machine with.
    pub key: (PathBuf, String),
    /// Where the image's name is put, for the machines.
    pub name: Arc<OnceLock<String>>,
}

/// Texts that become part of the image, or decide what does.
const PARTS: &[&str] = &[
    "host/scan.sh",
    "host/lib.sh",
    "node/containerd.toml.tera",
    "node/containerd.service",
    "node/kubelet.service",
    "node/crictl.yaml",
];

/// The lab that the machine to be prepared belongs to while it is made.
const LAB: &str = "kubecamp-prepare";

#[async_trait]
impl Phase for PreparedImage {
    fn id(&self) -> PhaseId {
        PhaseId::new("prepared-image")
    }

    fn title(&self) -> &'static str {
        "put the bundle into the machines' image"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        // Machines that exist already begin as nothing any more.
        if let Some(provider) = self.provider.get()
            && provider.list(Some(view.lab.name())).await?.len() == view.lab.nodes().len()
        {
            return Ok(vec![]);
        }
        let task = Prepare {
            bundle: Arc::clone(&self.bundle),
            provider: Arc::clone(&self.provider),
            key: self.key.clone(),
            name: Arc::clone(&self.name),
        };
        let title = "install binaries and images once, for all machines";
        Ok(vec![Step::new("prepare", title, Check::Never, Change::Task(Arc::new(task)))])
    }
}

struct Prepare {
    bundle: Arc<OnceLock<Arc<Bundle>>>,
    provider: ProviderSlot,
    key: (PathBuf, String),
    name: Arc<OnceLock<String>>,
}

fn missing(what: &str) -> Problem {
    Problem::new(Code::Internal, format!("the machines' image came before {what}"))
}

fn first(problems: Problems) -> Problem {
    problems.into_vec().into_iter().next().unwrap_or_else(|| missing("its problem"))
}

impl Prepare {
    /// The image's name: what goes into it, and how.
    fn image(&self) -> Option<String> {
        let (bundle, provider) = (self.bundle.get()?, self.provider.get()?);
        let scripts: String = PARTS.iter().filter_map(|name| crate::host::template::text(name).ok()).collect();
        let text = format!("{}\n{}\n{}\n{scripts}", bundle.id(), provider.image_key(), env!("CARGO_PKG_VERSION"));
        Some(format!("kubecamp-ready-{}", &Blob::from_bytes(text.into_bytes()).sha256()[..16]))
    }

    fn target(&self, machine: &Machine) -> SshTarget {
        let mut target = SshTarget::new("root", machine.address.map(|a| a.to_string()).unwrap_or_default(), 22);
        target.identities = vec![Identity::File(self.key.0.clone())];
        target.identities_only = true;
        target.agent = None;
        target.netns.clone_from(&machine.netns);
        target.host_keys = HostKeyPolicy::Pinned(machine.host_keys.clone());
        target
    }

    async fn fill(
        &self,
        lab: Lab,
        machine: &Machine,
        bundle: &Arc<Bundle>,
        report: &dyn Report,
    ) -> Result<(), Problem> {
        let node = lab.control_plane().name.clone();
        let crew = Crew::muster(&[(node.clone(), self.target(machine))], None, None).await.map_err(first)?;
        let (heard, mut events) = mpsc::unbounded_channel();
        let listener = Arc::new(move |event: &crate::core::Event| {
            let _ = heard.send(event.kind.clone());
        });
        let journal = Arc::new(Journal::unkept(vec![listener]));
        let run = Run::new(lab, Mode::Apply, journal, CancellationToken::new());
        let phases: Vec<Box<dyn Phase>> = vec![
            Box::new(Record { owner: Owner::new() }),
            Box::new(Binaries { bundle: Arc::clone(bundle) }),
            Box::new(Runtime { bundle: Arc::clone(bundle) }),
            Box::new(Images { bundle: Arc::clone(bundle) }),
            Box::new(ImagesLater { bundle: Arc::clone(bundle) }),
            Box::new(Settle),
        ];
        let nodes = [node];
        let ended = {
            let mut flow = Box::pin(run_flow(&run, &phases, &nodes, &crew.hosts, &crew.fleet));
            loop {
                tokio::select! {
                    ended = &mut flow => break ended,
                    Some(kind) = events.recv() => tell(&kind, report),
                }
            }
        };
        crew.dismiss().await;
        ended.map_err(first)
    }
}

/// What happens on the machine is shown as this computer's progress.
fn tell(kind: &EventKind, report: &dyn Report) {
    let here = NodeId::here();
    match kind {
        EventKind::Progress { what, done, total, .. } => report.progress(&here, what, *done, *total),
        EventKind::PhaseStarted { title, .. } => report.progress(&here, title, 0, 0),
        EventKind::Output { line, .. } => report.event(EventKind::Output { on: here, line: line.clone() }),
        _ => {}
    }
}

#[async_trait]
impl Task for Prepare {
    async fn done(&self) -> Result<bool, Problem> {
        let (Some(image), Some(provider)) = (self.image(), self.provider.get()) else { return Ok(false) };
        let there = provider.has_image(&image).await?;
        if there {
            let _ = self.name.set(image);
        }
        Ok(there)
    }

    async fn run(&self, report: &dyn Report) -> Result<(), Problem> {
        let bundle = self.bundle.get().ok_or_else(|| missing("the bundle"))?;
        let provider = self.provider.get().ok_or_else(|| missing("the engine"))?;
        let image = self.image().ok_or_else(|| missing("its parts"))?;
        let name = LAB.parse().map_err(|_| missing("its name"))?;
        let lab = Lab::new(name, profile::load("1x4c12g").map_err(first)?).map_err(first)?;
        let node = lab.control_plane().name.clone();
        // A half-filled one of an interrupted run is thrown away.
        provider.remove(lab.name(), &node).await?;
        let spec = MachineSpec {
            lab: lab.name().clone(),
            node: node.clone(),
            cores: 2,
            memory: Bytes::gib(4),
            disk: Bytes::gib(30),
            authorized_key: self.key.1.clone(),
            image: ImageRef::Node,
        };
        let machine = provider.ensure(&spec, &Quiet).await?;
        self.fill(lab.clone(), &machine, bundle, report).await?;
        provider.publish(lab.name(), &node, &image).await?;
        let _ = self.name.set(image);
        Ok(())
    }
}

/// Leaves the machine unclaimed, its containerd stopped, and a mark that says so.
struct Settle;

#[async_trait]
impl Phase for Settle {
    fn id(&self) -> PhaseId {
        PhaseId::new("settle")
    }

    fn title(&self) -> &'static str {
        "stop containerd"
    }

    async fn steps(&self, view: &View<'_>) -> Result<Vec<Step>, Problem> {
        let change = "systemctl stop kubecamp-containerd && touch /var/lib/kubecamp/prepared && rm -f /var/lib/kubecamp/lab && sync";
        // The last of the steps that run aside, one after the other.
        let images = Need::Step(view.node.clone(), StepId::new(IMPORT_COREDNS));
        Ok(vec![Step::script("settle", "leave the machine unclaimed", Check::Never, change).needs(images)])
    }
}

#[cfg(test)]
mod tests {
    /// One that is missing would silently not count.
    #[test]
    fn every_part_of_the_image_is_there() {
        for name in super::PARTS {
            crate::host::template::text(name).unwrap();
        }
    }
}
