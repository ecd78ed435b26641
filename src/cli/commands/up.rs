use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use super::{Context, sudo_password};
use crate::{
    bundle::{BuildRequest, Bundle, Cache, Source},
    cli::{
        args::{PlanArgs, UpArgs},
        ask::confirm,
        output,
        settings::Config,
        store::{State, Where},
        targets,
    },
    core::{Arch, Bytes, Code, EventKind, NodeId, Outcome, Problem, Problems, Report},
    engine::{Crew, Journal, Lock, Mode, Planned, Run, run_flow},
    flows::{self, Local, LocalResult, Up},
    host::{Facts, Viewer},
    inventory,
    machine::{Choice, Engine, Packages},
    phases::{FetchBundle, LocalPlaces, preflight},
    profile::{self, Lab, Layout, Profile},
    render::{summary_text, table},
    transport::SshTarget,
};

/// `kubecamp up`.
pub(super) async fn up(cx: &Context, args: UpArgs) -> Result<(), Problems> {
    let mut request = Request::of(cx, args)?;
    request.check_bundle()?;
    if request.is_local() {
        request.find_packages(cx).await?;
        agree_to_packages(cx, &request.packages).await?;
    }
    let lock = Lock::take(cx.store.folder())?;
    let journal = cx.journal()?;
    if request.is_local() {
        // Machines are found again by their lab's name, so it is there before the first of them.
        cx.store.save(&request.lab, &request.state())?;
    }
    let run = Run::new(request.lab.clone(), Mode::Apply, Arc::clone(&journal), cx.cancel.clone());
    let ended = carry_out(cx, &request, &run).await;
    run.ended(match &ended {
        Ok(()) => Outcome::Changed,
        Err(problems) if problems.class() == crate::core::Class::Cancelled => Outcome::Skipped,
        Err(_) => Outcome::Failed,
    });
    drop(lock);
    finish(cx, &request, &journal, &run, ended)
}

/// Says where the time went and what to do next.
fn finish(
    cx: &Context,
    request: &Request,
    journal: &Journal,
    run: &Run,
    ended: Result<(), Problems>,
) -> Result<(), Problems> {
    let path = cx.store.file("runs").join(format!("{}.ndjson", journal.run()));
    if let Err(problems) = ended {
        let mut all = problems.into_vec();
        if let Some(last) = all.last_mut() {
            *last = last.clone().detail([format!("run log: {}", path.display())]);
        }
        return Err(all.into());
    }
    if run.summary().changed > 0
        && let Ok(events) = crate::engine::read_journal(&path)
    {
        output::say(&summary_text(&events));
    }
    let name = request.lab.name();
    let flag = if name.as_str() == "lab" { String::new() } else { format!(" --name {name}") };
    output::say(&format!(
        "The lab {name} is ready: {} with {} and kube-proxy in {} mode.\nNext:\n  kubecamp{flag} kubectl -- get nodes\n  kubecamp{flag} ssh {}\n  export KUBECONFIG={}\n  kubecamp{flag} reset    gives the machines back clean",
        request.lab.layout(),
        request.lab.profile().network.cni,
        request.lab.profile().proxy.mode,
        request.lab.control_plane().name,
        cx.store.file("kubeconfig").display(),
    ));
    Ok(())
}

async fn carry_out(cx: &Context, request: &Request, run: &Run) -> Result<(), Problems> {
    let result = LocalResult::default();
    let local = request.local_phases(cx, &result, run.mode)?;
    let here = NodeId::here();
    announce(request, run, &local);
    run_flow(run, &local, &[here], &BTreeMap::new(), &BTreeMap::new()).await?;
    let bundle =
        result.bundle.get().cloned().ok_or_else(|| Problem::new(Code::Internal, "the bundle did not get ready"))?;
    let targets = request.targets(cx, &result).await?;
    let password = sudo_password(&request.args.connect)?;
    if let Some(password) = &password {
        run.journal.hide(password);
    }
    let run_id = (run.mode == Mode::Apply).then(|| run.journal.run());
    let crew = Crew::muster(&targets, password.as_ref(), run_id).await?;
    let ended = match fit(request, run, &crew, &bundle).await {
        Ok(()) => change_hosts(cx, request, run, &crew, &bundle, &targets).await,
        refused => refused,
    };
    crew.dismiss().await;
    ended
}

/// From here on hosts may change, so the lab is kept; one that was refused before leaves no lab behind.
async fn change_hosts(
    cx: &Context,
    request: &Request,
    run: &Run,
    crew: &Crew,
    bundle: &Arc<Bundle>,
    targets: &[(NodeId, SshTarget)],
) -> Result<(), Problems> {
    cx.store.save(&request.lab, &request.state())?;
    let ended = on_hosts(cx, request, run, crew, bundle, targets).await;
    let kept = keep_records(cx, crew).await;
    ended.and(kept.map_err(Into::into))
}

/// Refuses hosts that do not fit, with every problem of every host.
async fn fit(request: &Request, run: &Run, crew: &Crew, bundle: &Bundle) -> Result<(), Problems> {
    let allow = preflight::Allowances { undersized: request.args.allow_undersized };
    let found = preflight::check(&run.lab, crew, bundle.manifest().arch, allow).await;
    for problem in found.warnings {
        run.journal.event(EventKind::Warning { problem });
    }
    Problems::check(found.problems)
}

/// Keeps each host's record from before `up` here too: a student may delete the host's own.
async fn keep_records(cx: &Context, crew: &Crew) -> Result<(), Problem> {
    let mut records = cx.store.records();
    let missing: Vec<_> = crew.hosts.iter().filter(|(node, _)| !records.contains_key(*node)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for (node, host) in missing {
        let before = Viewer::new(host).read("cat /var/lib/kubecamp/before 2>/dev/null").await;
        if let Some(text) = before.ok().map(|exit| exit.text()).filter(|t| !t.is_empty()) {
            records.insert(node.clone(), text);
        }
    }
    cx.store.keep_records(&records)
}

async fn on_hosts(
    cx: &Context,
    request: &Request,
    run: &Run,
    crew: &Crew,
    bundle: &Arc<Bundle>,
    targets: &[(NodeId, SshTarget)],
) -> Result<(), Problems> {
    let phases = flows::up(&request.up(cx, bundle, targets));
    let nodes: Vec<_> = run.lab.nodes().iter().map(|n| n.name.clone()).collect();
    run_flow(run, &phases, &nodes, &crew.hosts, &crew.fleet).await
}

fn announce(request: &Request, run: &Run, local: &[Box<dyn crate::engine::Phase>]) {
    let mut nodes = vec![NodeId::here()];
    nodes.extend(request.lab.nodes().iter().map(|n| n.name.clone()));
    run.journal.event(EventKind::RunStarted {
        flow: "up".into(),
        lab: request.lab.name().clone(),
        nodes,
        phases: local.iter().map(|p| p.id()).collect(),
    });
}

/// `kubecamp plan`: the same path with nothing changed; machines that do not exist are assumed to be as asked.
pub(super) async fn plan(cx: &Context, args: PlanArgs) -> Result<(), Problems> {
    let mut request = Request::of(cx, args.up)?;
    request.check_bundle()?;
    if request.is_local() {
        request.find_packages(cx).await?;
    }
    let run = Run::new(request.lab.clone(), Mode::Plan, Arc::new(Journal::unkept(vec![])), cx.cancel.clone());
    let result = LocalResult::default();
    let local = request.local_phases(cx, &result, Mode::Plan)?;
    run_flow(&run, &local, &[NodeId::here()], &BTreeMap::new(), &BTreeMap::new()).await?;
    if let Some(bundle) = result.bundle.get() {
        plan_hosts(cx, &request, &run, &result, bundle).await?;
    } else {
        output::say("The steps on the hosts depend on the bundle, which is not built yet: kubecamp bundle build.");
    }
    let planned = run.summary().planned;
    output::value(args.output, &planned, || plan_text(&planned))?;
    Ok(())
}

async fn plan_hosts(
    cx: &Context,
    request: &Request,
    run: &Run,
    result: &LocalResult,
    bundle: &Arc<Bundle>,
) -> Result<(), Problems> {
    let nodes: Vec<_> = run.lab.nodes().iter().map(|n| n.name.clone()).collect();
    if request.is_local() && result.machines.get().is_none() {
        let fleet = run.lab.nodes().iter().map(|n| (n.name.clone(), Facts::assumed(n))).collect();
        return run_flow(run, &flows::up(&request.up(cx, bundle, &[])), &nodes, &BTreeMap::new(), &fleet).await;
    }
    let targets = request.targets(cx, result).await?;
    let crew = Crew::muster(&targets, sudo_password(&request.args.connect)?.as_ref(), None).await?;
    let ended = match fit(request, run, &crew, bundle).await {
        Ok(()) => on_hosts(cx, request, run, &crew, bundle, &targets).await,
        refused => refused,
    };
    crew.dismiss().await;
    ended
}

fn plan_text(planned: &[Planned]) -> String {
    let mut rows = vec![["NODE", "PHASE", "STEP", "CHANGE"].map(str::to_owned).to_vec()];
    for step in planned {
        let mut change = if step.done { "nothing: done already".to_owned() } else { step.title.clone() };
        if !step.done && !step.depends_on.is_empty() {
            let needs: BTreeSet<_> = step.depends_on.iter().cloned().collect();
            change.push_str(&format!(" (depends on {})", needs.into_iter().collect::<Vec<_>>().join(", ")));
        }
        rows.push(vec![step.on.to_string(), step.phase.to_string(), step.step.to_string(), change]);
    }
    let todo = planned.iter().filter(|p| !p.done).count();
    format!("{}{todo} steps would change something, {} are done already\n", table(&rows), planned.len() - todo)
}

/// Without `--yes` the packages are listed and asked for before anything is done.
pub(super) async fn agree_to_packages(cx: &Context, packages: &Packages) -> Result<(), Problem> {
    let missing = packages.missing().await;
    if missing.is_empty() {
        return Ok(());
    }
    let source =
        packages.added_source().map(|(file, why)| format!("\nand the apt source {file} ({why})")).unwrap_or_default();
    let question = format!("kubecamp needs packages on this computer: {}{source}\nInstall them?", missing.join(" "));
    confirm(cx.global.yes, &question)
}

/// What the user asked for, checked.
struct Request {
    args: UpArgs,
    lab: Lab,
    place: Where,
    packages: Packages,
}

impl Request {
    fn of(cx: &Context, args: UpArgs) -> Result<Self, Problems> {
        let known = cx.store.load()?;
        let asked = args.local || !args.host.is_empty() || args.hosts.is_some();
        let place = match (&known, asked) {
            (Some((_, state)), false) => state.place.clone(),
            (None, false) => {
                return Err(Problem::new(Code::Usage, "nothing says where the lab's nodes are")
                    .hint("Use --local for machines on this computer, or --host once per node, or --hosts FILE.")
                    .into());
            }
            _ if args.local => Where::Local,
            _ => Where::Hosts(vec![]),
        };
        let wants_profile = args.layout.is_some()
            || args.profile.is_some()
            || args.proxy_mode.is_some()
            || args.cni.is_some()
            || args.kubernetes.is_some();
        let lab = match &known {
            Some((lab, _)) if !wants_profile => lab.clone(),
            _ => Lab::new(cx.global.name.clone(), profile_of(&args)?)?,
        };
        let place = match place {
            Where::Hosts(hosts) if hosts.is_empty() => Where::Hosts(hosts_of(&args, &lab)?),
            place => place,
        };
        if place == Where::Local && known.is_none() && !args.allow_undersized {
            must_hold(lab.layout())?;
        }
        if let Some((old, state)) = &known
            && !state.clean
            && (*old != lab || state.place != place)
        {
            return Err(Problem::new(
                Code::LabDiffers,
                format!("the lab {} exists with another profile or on other hosts", lab.name()),
            )
            .into());
        }
        Ok(Self { args, lab, place, packages: Packages::here() })
    }

    /// A wrong file is refused before anything else happens; its digests come later, in the phase.
    fn check_bundle(&self) -> Result<(), Problem> {
        let Some(file) = &self.args.bundle else { return Ok(()) };
        Bundle::open(file)?.check_fits(&self.lab.profile().kubernetes, this_arch()?)
    }

    fn is_local(&self) -> bool {
        self.place == Where::Local
    }

    fn state(&self) -> State {
        State { format: 1, place: self.place.clone(), bundle: self.args.bundle.clone(), clean: false }
    }

    /// Which packages this computer lacks: for machines always, for a bundle where one must be built.
    async fn find_packages(&mut self, cx: &Context) -> Result<(), Problem> {
        let bundle = self.bundle(cx, &LocalResult::default())?.lacking_packages().await?;
        self.packages = Choice::packages(self.args.machines)?.and(bundle);
        if self.args.outbound {
            self.packages = self.packages.clone().and(Engine::outbound_packages());
        }
        Ok(())
    }

    fn bundle(&self, cx: &Context, result: &LocalResult) -> Result<FetchBundle, Problem> {
        Ok(FetchBundle {
            file: self.args.bundle.clone(),
            request: BuildRequest {
                kubernetes: self.lab.profile().kubernetes.clone(),
                arch: this_arch()?,
                source: Source::Auto,
                replace: vec![],
                out: None,
                mirrors: Config::load(&cx.places)?.mirrors,
                cache: Cache::new(&cx.places.cache),
            },
            slot: Arc::clone(&result.bundle),
        })
    }

    fn local_phases(
        &self,
        cx: &Context,
        result: &LocalResult,
        mode: Mode,
    ) -> Result<Vec<Box<dyn crate::engine::Phase>>, Problem> {
        let bundle = self.bundle(cx, result)?;
        let packages = self.packages.clone();
        let places = LocalPlaces { kind: self.args.machines, outbound: self.args.outbound, ..cx.local_places() };
        let (machines, key) = if self.is_local() { (Some(places), key(cx, mode)?) } else { (None, Default::default()) };
        Ok(flows::local(Local { bundle, machines, packages, key }, result))
    }

    async fn targets(&self, cx: &Context, result: &LocalResult) -> Result<Vec<(NodeId, SshTarget)>, Problems> {
        match &self.place {
            Where::Hosts(hosts) => targets::of_hosts(&cx.store, hosts, &(&self.args.connect).into()).await,
            Where::Local => {
                let machines = result
                    .machines
                    .get()
                    .ok_or_else(|| Problem::new(Code::Internal, "the machines did not get ready"))?;
                Ok(targets::of_machines(&cx.store, machines)?)
            }
        }
    }

    fn up(&self, cx: &Context, bundle: &Arc<Bundle>, targets: &[(NodeId, SshTarget)]) -> Up {
        let cp = &self.lab.control_plane().name;
        let server = targets.iter().find(|(n, _)| n == cp).map(|(_, t)| t.address.clone()).unwrap_or_default();
        Up { bundle: Arc::clone(bundle), kubeconfig: cx.store.file("kubeconfig"), server }
    }
}

/// The lab's key pair; a plan makes none.
fn key(cx: &Context, mode: Mode) -> Result<(PathBuf, String), Problem> {
    if mode == Mode::Plan && !cx.store.file("key").exists() {
        return Ok(Default::default());
    }
    cx.store.key()
}

fn profile_of(args: &UpArgs) -> Result<Profile, Problems> {
    let name = match (&args.profile, args.layout) {
        (Some(name), _) => name.clone(),
        (None, Some(layout)) => layout.to_string(),
        (None, None) if args.local => largest_layout()?.to_string(),
        (None, None) => match args.host.len() {
            1 => "1x4c12g".to_owned(),
            2 => "2x4c8g".to_owned(),
            _ => "3x2c4g".to_owned(),
        },
    };
    let mut profile = profile::load(&name)?;
    if let Some(mode) = args.proxy_mode {
        profile.proxy.mode = mode;
    }
    if let Some(cni) = args.cni {
        profile.network.cni = cni;
    }
    if let Some(version) = &args.kubernetes {
        profile.kubernetes.clone_from(version);
    }
    Ok(profile)
}

fn hosts_of(args: &UpArgs, lab: &Lab) -> Result<Vec<(NodeId, inventory::HostEntry)>, Problems> {
    let entries = match &args.hosts {
        Some(file) => inventory::load(file)?.hosts,
        None => inventory::entries(&args.host)?,
    };
    let nodes: Vec<_> = lab.nodes().iter().map(|n| n.name.clone()).collect();
    inventory::assign(&lab.layout().to_string(), &nodes, entries)
}

/// This computer's architecture, which its machines have too.
pub(super) fn this_arch() -> Result<Arch, Problem> {
    Arch::from_uname(std::env::consts::ARCH)
        .ok_or_else(|| Problem::new(Code::HostArch, format!("there are no bundles for {}", std::env::consts::ARCH)))
}

/// The largest of the shipped layouts that this computer holds.
pub(super) fn largest_layout() -> Result<Layout, Problem> {
    let (cores, memory) = this_computer();
    Layout::largest_that_fits(cores, memory).ok_or_else(|| {
        Problem::new(Code::MachineCapacity, format!("{cores} cores and {memory} do not hold any of the layouts"))
    })
}

/// Refuses a layout whose machines this computer cannot hold, before anything is made.
fn must_hold(layout: Layout) -> Result<(), Problem> {
    let (cores, memory) = this_computer();
    if layout.fits(cores, memory) {
        return Ok(());
    }
    let what = format!("this computer has {cores} cores and {memory}, too little for machines of layout {layout}");
    Err(Problem::new(Code::MachineCapacity, what)
        .hint("Choose another --layout, use other hosts, or go on all the same with --allow-undersized."))
}

fn this_computer() -> (u32, Bytes) {
    let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    (cores, Bytes(memory_of_this_computer()))
}

fn memory_of_this_computer() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
