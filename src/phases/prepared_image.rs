use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Binaries, Images, ImagesLater, Owner, ProviderSlot, Record, Runtime, images::IMPORT_COREDNS};
use crate::{
    bundle::{Bundle, Cache},
    core::{Blob, Bytes, Code, EventKind, LabId, NodeId, PhaseId, Problem, Problems, Quiet, Report, StepId},
    engine::{Change, Check, Crew, Journal, Lock, Mode, Need, Phase, Run, Step, Task, View, run_flow},
    machine::{ImageRef, IncusProvider, Machine, MachineSpec, Provider, Tenant},
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
    /// The bundles that are kept: what was prepared of others is dropped. Preparations wait for each other here.
    pub cache: Cache,
    /// The engine.
    pub provider: ProviderSlot,
    /// The private key file and the public line to work on the machine with.
    pub key: (PathBuf, String),
    /// Where the image's name is put, for the machines.
    pub name: Arc<OnceLock<String>>,
}

/// Texts that become part of the image, or decide what does.
const PARTS: &[&str] = &[
    "host/saved.sh",
    "host/scan.sh",
    "host/lib.sh",
    "node/containerd.toml.tera",
    "node/containerd.service.tera",
    "node/kubelet.service",
    "node/crictl.yaml",
];

/// How the lab is called that a machine belongs to while it is prepared; the mark of the cache follows.
const LAB: &str = "kubecamp-prepare-";
/// Letters of a cache's mark.
const MARK: usize = 12;
/// For how long a machine may be in preparation before a killed run must have left it.
const FORSAKEN: Duration = Duration::from_secs(2 * 3600);
/// How the names of prepared images begin; the beginning of their bundle's id follows.
const READY: &str = "kubecamp-ready-";
/// Letters of the bundle's id: with those of the rest the whole still names a machine.
const OF_ID: usize = 12;
/// How long a run waits for another one that prepares machines.
const TURN_LIMIT: Duration = Duration::from_secs(1800);
/// Pause between two looks at whether that one is done.
const LOOK: Duration = Duration::from_millis(200);

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
            cache: self.cache.clone(),
            provider: Arc::clone(&self.provider),
            key: self.key.clone(),
            name: Arc::clone(&self.name),
        };
        let title = "install binaries and images once, for all machines";
        Ok(vec![Step::new("prepare", title, Check::Never, Change::Task(Arc::new(task)))])
    }
}

/// Whether a machine of `lab` that begins as a prepared image has all that a phase of `up` would bring.
pub fn is_prepared(phase: &PhaseId, lab: &Lab) -> bool {
    match phase.as_str() {
        "binaries" | "images" | "images-later" => true,
        // The profile's mirrors are written on each machine.
        "runtime" => lab.profile().mirrors.is_empty(),
        _ => false,
    }
}

/// The phases that fill the image, the first of `up` that need a bundle among them.
fn filling(bundle: &Arc<Bundle>) -> Vec<Box<dyn Phase>> {
    vec![
        Box::new(Record { owner: Owner::new() }),
        Box::new(Binaries { bundle: Arc::clone(bundle) }),
        Box::new(Runtime { bundle: Arc::clone(bundle) }),
        Box::new(Images { bundle: Arc::clone(bundle) }),
        Box::new(ImagesLater { bundle: Arc::clone(bundle) }),
        Box::new(Settle),
    ]
}

struct Prepare {
    bundle: Arc<OnceLock<Arc<Bundle>>>,
    cache: Cache,
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

/// The lab of the one machine that is prepared, for whoever has the turn. It is this cache's alone: other users and
/// computers may have the same Incus, and prepare their own there meanwhile.
fn preparation(cache: &Cache) -> Result<Lab, Problem> {
    let name = format!("{LAB}{}", mark(cache)?).parse().map_err(|_| missing("its name"))?;
    Lab::new(name, profile::load("1x4c12g").map_err(first)?).map_err(first)
}

/// What tells this cache from all others: random, and kept in it.
fn mark(cache: &Cache) -> Result<String, Problem> {
    let file = lock_folder(cache).join("mark");
    if let Some(known) = std::fs::read_to_string(&file).ok().filter(|text| is_mark(text)) {
        return Ok(known);
    }
    let fresh = LabId::random().as_str()[..MARK].to_owned();
    let failed = |e| Problem::new(Code::LocalFile, format!("cannot write {}", file.display())).because(e);
    std::fs::write(&file, &fresh).map_err(failed)?;
    Ok(fresh)
}

fn is_mark(text: &str) -> bool {
    text.len() == MARK && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether an instance of this name is a machine that some cache prepares.
fn is_preparing(instance: &str) -> bool {
    instance.strip_prefix(LAB).and_then(|rest| rest.strip_suffix("-cp")).is_some_and(is_mark)
}

fn lock_folder(cache: &Cache) -> PathBuf {
    cache.root().join("prepare")
}

/// Waits until no other run prepares a machine: they would remove each other's.
async fn turn(cache: &Cache, report: &dyn Report) -> Result<Lock, Problem> {
    let end = Instant::now() + TURN_LIMIT;
    let mut told = false;
    loop {
        match Lock::take(&lock_folder(cache)) {
            Err(problem) if problem.code == Code::LabBusy && Instant::now() < end => {
                if !std::mem::replace(&mut told, true) {
                    report.note(&NodeId::here(), "waiting for another run that prepares machines");
                }
                tokio::time::sleep(LOOK).await;
            }
            taken => return taken,
        }
    }
}

/// Removes the machine that a killed run was preparing; one that a run still prepares is left alone, and so is what
/// others prepare in the same Incus.
pub async fn remove_unfinished(provider: &IncusProvider, cache: &Cache) -> Result<(), Problem> {
    match Lock::take(&lock_folder(cache)) {
        Ok(_turn) => remove_left(provider, &preparation(cache)?).await,
        Err(_) => Ok(()),
    }
}

/// Removes what a killed run of whoever has the turn left, and what killed runs of others left long ago.
async fn remove_left(provider: &IncusProvider, ours: &Lab) -> Result<(), Problem> {
    // Those are not ours to fail for: one that stays only takes room.
    let _ = provider.remove_old(is_preparing, FORSAKEN).await;
    provider.remove(ours.name(), &ours.control_plane().name).await
}

/// Whether the image `name` was prepared of none of the bundles with these ids.
fn is_of_none(name: &str, ids: &[String]) -> bool {
    let of = name.strip_prefix(READY).and_then(|rest| rest.split_once('-'));
    name.starts_with(READY) && !of.is_some_and(|(id, _)| id.len() == OF_ID && ids.iter().any(|i| i.starts_with(id)))
}

impl Prepare {
    /// Drops what was prepared of bundles that are gone, gigabytes each. Only in kubecamp's own engine: the user's
    /// Incus may serve other caches too.
    async fn drop_old(&self, provider: &IncusProvider) -> Result<(), Problem> {
        if !provider.is_private() {
            return Ok(());
        }
        let files = std::fs::read_dir(self.cache.bundles()).into_iter().flatten().flatten().map(|e| e.path());
        let cached = files.filter_map(|file| Some(Bundle::open(&file).ok()?.id().to_owned()));
        let ids: Vec<String> = cached.chain(self.bundle.get().map(|b| b.id().to_owned())).collect();
        for name in provider.images().await?.iter().filter(|name| is_of_none(name, &ids)) {
            provider.drop_image(name).await?;
        }
        Ok(())
    }

    /// The image's name: what goes into it, and how.
    fn image(&self) -> Option<String> {
        let (bundle, provider) = (self.bundle.get()?, self.provider.get()?);
        let scripts: String = PARTS.iter().filter_map(|name| crate::host::template::text(name).ok()).collect();
        let text = format!("{}\n{}\n{}\n{scripts}", bundle.id(), provider.image_key(), env!("CARGO_PKG_VERSION"));
        let all = Blob::from_bytes(text.into_bytes());
        Some(format!("{READY}{}-{}", &bundle.id()[..OF_ID], &all.sha256()[..16]))
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
        let (phases, nodes) = (filling(bundle), [node]);
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
        let _turn = turn(&self.cache, report).await?;
        // Whoever had the turn before may have made it.
        if self.done().await? {
            return Ok(());
        }
        let lab = preparation(&self.cache)?;
        let node = lab.control_plane().name.clone();
        // A half-filled one of an interrupted run is thrown away.
        remove_left(provider, &lab).await?;
        let spec = MachineSpec {
            lab: lab.name().clone(),
            tenant: Tenant { id: LabId::random(), known: true, takes_over: false },
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
        // What stays only takes room.
        let _ = self.drop_old(provider).await;
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
    use serde_json::json;

    use super::*;
    use crate::{
        bundle::{Audience, Kind, Origins, Part, Title, write},
        core::Arch,
        machine::{FakeIncus, Kind as MachineKind},
    };

    fn bundle(folder: &std::path::Path) -> Arc<OnceLock<Arc<Bundle>>> {
        let (plain, out) = (folder.join("plain"), folder.join("a.bundle"));
        std::fs::write(&plain, "bytes").unwrap();
        let part = Part {
            name: "kubelet".into(),
            kind: Kind::Binary,
            version: "v1".into(),
            images: vec![],
            role: Audience::All,
            install: None,
            origin: String::new(),
            licence: String::new(),
            file: plain,
        };
        let packed = part.pack(folder, &[]).unwrap();
        let (arch, source) = (Arch::Amd64, Origins::Modules);
        write(Title { kubernetes: "v1".into(), arch, source, replaced: vec![] }, vec![packed], &out).unwrap();
        let slot = OnceLock::new();
        slot.set(Arc::new(Bundle::open(&out).unwrap())).unwrap();
        Arc::new(slot)
    }

    fn prepare(folder: &std::path::Path, provider: IncusProvider) -> Prepare {
        let slot = OnceLock::new();
        assert!(slot.set(Arc::new(provider)).is_ok());
        Prepare {
            bundle: bundle(folder),
            cache: Cache::new(folder),
            provider: Arc::new(slot),
            key: Default::default(),
            name: Arc::default(),
        }
    }

    #[tokio::test]
    async fn the_second_of_two_waits_and_takes_what_the_first_made() {
        let dir = tempfile::tempdir().unwrap();
        let name = prepare(dir.path(), FakeIncus::default().provider(&dir, MachineKind::Container)).image().unwrap();
        let template = json!({"name": "x", "status": "Stopped", "type": "container",
            "config": {"user.kubecamp.image": name}});
        let fake = FakeIncus::new([(format!("GET /instances/kubecamp-image-{name}"), template)]);
        let other = tempfile::tempdir().unwrap();
        let second = prepare(dir.path(), fake.provider(&other, MachineKind::Container));
        let first = turn(&second.cache, &Quiet).await.unwrap();
        let (made, mut waits) = (Arc::clone(&second.name), Box::pin(second.run(&Quiet)));
        assert!(tokio::time::timeout(2 * LOOK, &mut waits).await.is_err(), "the first has the turn");
        assert!(fake.requests().is_empty(), "nothing is removed meanwhile");
        drop(first);
        waits.await.unwrap();
        assert_eq!(made.get(), Some(&name));
        assert!(fake.requests().iter().all(|asked| asked.starts_with("GET ")), "{:?}", fake.requests());
    }

    #[tokio::test]
    async fn a_killed_runs_machine_goes_and_a_running_ones_stays() {
        let dir = tempfile::tempdir().unwrap();
        let machine = |lab: &str, made: &str| {
            json!({"name": format!("{lab}-cp"), "status": "Running", "type": "container", "created_at": made,
                "config": {"user.kubecamp.lab": lab, "user.kubecamp.node": "cp"}})
        };
        let (now, long_ago) = (crate::core::Timestamp::now().to_string(), "2020-01-02T03:04:05.678901234Z");
        let ours = "kubecamp-prepare-0123456789ab";
        let all = [
            machine(ours, &now),
            machine("kubecamp-prepare-aaaaaaaaaaaa", &now),
            machine("kubecamp-prepare-bbbbbbbbbbbb", long_ago),
            machine("kubecamp-prepare-by-hand", long_ago),
            // Its publication was cut off: Incus drops the keys that are emptied.
            json!({"name": "kubecamp-prepare-cccccccccccc-cp", "status": "Stopped", "type": "container",
                "created_at": long_ago, "config": {"user.kubecamp.image": "v1"}}),
            json!({"name": "kubecamp-prepare-dddddddddddd-cp", "status": "Stopped", "type": "container",
                "created_at": long_ago, "config": {}}),
        ];
        let fake = FakeIncus::new([
            (format!("GET /instances/{ours}-cp"), all[0].clone()),
            ("GET /instances?recursion=1".to_owned(), json!(all)),
        ]);
        let (provider, cache) = (fake.provider(&dir, MachineKind::Container), Cache::new(dir.path()));
        let running = turn(&cache, &Quiet).await.unwrap();
        std::fs::write(lock_folder(&cache).join("mark"), "0123456789ab").unwrap();
        remove_unfinished(&provider, &cache).await.unwrap();
        assert!(fake.requests().is_empty(), "{:?}", fake.requests());
        drop(running);
        remove_unfinished(&provider, &cache).await.unwrap();
        let mut gone = fake.requests();
        gone.retain(|asked| asked.starts_with("DELETE "));
        // Long forsaken ones of others go too, and what others prepare now or call alike stays.
        let labs = ["kubecamp-prepare-bbbbbbbbbbbb", "kubecamp-prepare-cccccccccccc", ours];
        assert_eq!(gone, labs.map(|lab| format!("DELETE /instances/{lab}-cp")));
    }

    #[test]
    fn each_cache_prepares_a_machine_of_its_own() {
        let name = |dir: &tempfile::TempDir| {
            let cache = Cache::new(dir.path());
            let _turn = Lock::take(&lock_folder(&cache)).unwrap();
            preparation(&cache).unwrap().name().to_string()
        };
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(name(&one), name(&one));
        assert_ne!(name(&one), name(&other));
        assert!(is_preparing(&format!("{}-cp", name(&one))) && !is_preparing("kubecamp-prepare-cp"));
    }

    #[test]
    fn only_what_was_prepared_of_a_known_bundle_is_kept() {
        let ids = ["0123456789abcdef".repeat(4)];
        assert!(!is_of_none("kubecamp-ready-0123456789ab-ffff", &ids));
        for old in ["kubecamp-ready-0123456789aa-ffff", "kubecamp-ready-0123456789abcdef", "kubecamp-ready--ffff"] {
            assert!(is_of_none(old, &ids), "{old}");
        }
        assert!(!is_of_none("of-somebody-else", &ids), "nobody else's image is touched");
    }

    #[test]
    fn what_fills_the_image_is_known_to_plans() {
        let dir = tempfile::tempdir().unwrap();
        let phases = filling(bundle(dir.path()).get().unwrap());
        let cache = Cache::new(dir.path());
        let _turn = Lock::take(&lock_folder(&cache)).unwrap();
        let mut lab = preparation(&cache).unwrap();
        let brought = |lab: &Lab| -> Vec<_> {
            phases.iter().map(|phase| phase.id()).filter(|id| is_prepared(id, lab)).map(|id| id.to_string()).collect()
        };
        // Each machine is claimed anew, and nothing is settled there.
        assert_eq!(brought(&lab), ["binaries", "runtime", "images", "images-later"]);
        let mut profile = lab.profile().clone();
        profile.mirrors =
            vec![profile::Mirror { registry: "docker.io".into(), endpoints: vec!["https://m.example".into()] }];
        lab = Lab::new(lab.name().clone(), profile).unwrap();
        assert_eq!(brought(&lab), ["binaries", "images", "images-later"]);
    }

    /// One that is missing would silently not count.
    #[test]
    fn every_part_of_the_image_is_there() {
        for name in PARTS {
            crate::host::template::text(name).unwrap();
        }
    }
}
