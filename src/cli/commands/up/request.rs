use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    asked::{lab_of, must_concern, place_of, with_hosts},
    differs::differences,
    room::{disk_after_build, disk_must_hold, must_hold},
    this_arch,
};
use crate::{
    bundle::{Asked, BuildRequest, Bundle, Cache, Mirrors, Source},
    cli::{
        args::UpArgs,
        commands::Context,
        output,
        settings::Config,
        store::{Login, State, Store, Where},
        targets::{self, Connect},
    },
    core::{Arch, Code, NodeId, Problem, Problems},
    engine::{Mode, Phase, Run, run_flow},
    flows::{self, Local, LocalResult, Up},
    machine::{Choice, Engine, EngineAt, LocalPlaces, Packages, Tenant, machines_left, must_be_ours, settle},
    phases::{FetchBundle, Owner},
    profile::Lab,
    transport::SshTarget,
};

/// What the user asked for, checked.
pub(in crate::cli::commands) struct Request {
    pub(super) args: UpArgs,
    pub(in crate::cli::commands) lab: Lab,
    place: Where,
    login: Login,
    pub(super) owner: Owner,
    /// The engine of its machines, once it is known.
    engine: Option<EngineAt>,
    /// Whether machines are to be made that this computer must have the room for.
    must_hold_all: bool,
    pub(in crate::cli::commands) packages: Packages,
    /// The lab as it was when all this was decided.
    pub(super) known: Option<(Lab, State)>,
    /// Whether a bundle is the one that the lab was made from, rather than one named now.
    pub(super) remembered: bool,
    /// The CPU that the bundle is for which the user or the lab names.
    pub(super) bundle_arch: Option<Arch>,
    /// What the sites of a bundle that is still to be made answered.
    asked: Asked,
}

impl Request {
    pub(in crate::cli::commands) fn of(cx: &Context, mut args: UpArgs) -> Result<Self, Problems> {
        let known = cx.store.load()?;
        let (known_lab, known_state) = (known.as_ref().map(|(lab, _)| lab), known.as_ref().map(|(_, state)| state));
        let place = place_of(&args, known_state)?;
        must_concern(&args, &place)?;
        let lab = lab_of(cx, &args, known_lab)?;
        let place = with_hosts(place, &args, &lab, known_state)?;
        // A lab keeps the bundle that it was made from, perhaps a patched one, for as long as its Kubernetes stays.
        let remembered = args.bundle.is_none();
        if remembered {
            let same = known.as_ref().filter(|(old, _)| old.profile().kubernetes == lab.profile().kubernetes);
            args.bundle = same.and_then(|(_, state)| state.bundle.clone());
        }
        args.bundle = args.bundle.map(|file| std::path::absolute(&file).unwrap_or(file));
        let anew = known.as_ref().is_none_or(|(old, _)| old.nodes() != lab.nodes());
        let must_hold_all = anew && !args.allow_undersized;
        if let Some((old, state)) = &known
            && !state.clean
            && (*old != lab || state.place != place)
        {
            let what = format!("the lab {} exists with another profile or on other hosts", lab.name());
            let found = differences((old, &state.place), (&lab, &place));
            let problem = Problem::new(Code::LabDiffers, what).detail(found);
            // Its machines would stay after a reset, and hosts would leave them behind.
            let moves = state.place == Where::Local && place != Where::Local;
            let flag = lab.name().flag();
            let down = format!("Remove its machines first: kubecamp{flag} down. Or choose another --name.");
            return Err(if moves { problem.hint(down) } else { problem }.into());
        }
        if place == Where::Local && must_hold_all {
            must_hold(&lab, &cx.places)?;
        }
        let login = match place {
            Where::Local => Login::default(),
            Where::Hosts(_) => {
                // Other hosts are reached in another way, perhaps.
                let same = known_state.filter(|state| state.place == place);
                Login::of(&args.connect, same.map(|state| &state.login))
            }
        };
        let owner = known.as_ref().map_or_else(Owner::new, |(_, state)| state.owner());
        let engine = known.as_ref().and_then(|(_, state)| state.engine.clone()).filter(|_| place == Where::Local);
        let (packages, bundle_arch, asked) = (Packages::here(), None, Asked::default());
        let mut request = Self {
            args,
            lab,
            place,
            login,
            owner,
            engine,
            must_hold_all,
            packages,
            known,
            remembered,
            bundle_arch,
            asked,
        };
        request.bundle_arch = request.check_bundle()?;
        Ok(request)
    }

    pub(in crate::cli::commands) fn is_local(&self) -> bool {
        self.place == Where::Local
    }

    /// Whether there is no such lab, so that nothing can have machines for it.
    pub(in crate::cli::commands) fn is_new(&self) -> bool {
        self.known.is_none() && !self.args.take_over
    }

    /// Whether its machines are in kubecamp's own engine, so that nobody but kubecamp reaches their addresses.
    pub(super) fn is_private(&self) -> bool {
        matches!(self.engine, Some(EngineAt::Private(_)))
    }

    pub(super) fn state(&self) -> State {
        State {
            format: State::FORMAT,
            id: Some(self.owner.id.clone()),
            place: self.place.clone(),
            login: self.login.clone(),
            engine: self.engine.clone(),
            bundle: self.args.bundle.clone(),
            clean: false,
        }
    }

    /// Which engine makes the machines, and which packages this computer lacks: for machines always, for a bundle where
    /// one must be built.
    pub(in crate::cli::commands) async fn find_packages(&mut self, cx: &Context) -> Result<(), Problem> {
        let packages = Choice::packages(self.args.machines)?;
        let places = LocalPlaces { at: self.engine.take(), ..cx.local_places() };
        let engine = settle(&places, self.lab.name()).await?;
        must_be_ours(&places, self.lab.name(), &self.tenant()).await?;
        let fetch = self.bundle(cx, &LocalResult::default(), this_arch()?)?;
        if self.must_hold_all {
            disk_must_hold(&self.lab, &engine)?;
            if fetch.is_to_be_built()
                && let Some(warning) = disk_after_build(&self.lab, &engine, &cx.places.cache)
            {
                output::say(&warning);
            }
        }
        self.engine = Some(engine);
        let bundle = fetch.lacking_packages().await?;
        self.packages = packages.and(bundle);
        if self.args.outbound {
            self.packages = self.packages.clone().and(Engine::outbound_packages());
        }
        Ok(())
    }

    /// Refuses hosts for a lab that still has machines on this computer: no lab would know of them any more.
    ///
    /// # Errors
    /// `KC-LAB-DIFFERS`.
    pub(in crate::cli::commands) async fn leave_no_machines(&self, cx: &Context) -> Result<(), Problem> {
        let Some((lab, state)) = self.known.as_ref().filter(|(_, state)| state.place == Where::Local) else {
            return Ok(());
        };
        let places = LocalPlaces { at: state.engine.clone(), ..cx.local_places() };
        let left = match machines_left(&places, lab.name(), &state.owner().tenant(false)).await? {
            Some(names) if names.is_empty() => return Ok(()),
            Some(names) => names,
            None => vec!["the engine that they are in does not run, so they cannot be named".to_owned()],
        };
        let what = format!("the lab {} has machines on this computer, which hosts would leave behind", lab.name());
        Err(Problem::new(Code::LabDiffers, what).detail(left).hint(format!(
            "Remove them first: kubecamp down --name {}. Or give the lab on hosts a --name of its own.",
            lab.name()
        )))
    }

    /// Which machines of its name are the lab's. Where it was on hosts until now, it has none yet.
    fn tenant(&self) -> Tenant {
        let was_local = self.known.as_ref().is_some_and(|(_, state)| state.place == Where::Local);
        Owner { known: was_local, ..self.owner.clone() }.tenant(self.args.take_over)
    }

    fn bundle(&self, cx: &Context, result: &LocalResult, arch: Arch) -> Result<FetchBundle, Problem> {
        let mut fetch = FetchBundle {
            file: self.args.bundle.clone(),
            request: BuildRequest {
                kubernetes: self.lab.profile().kubernetes.clone(),
                arch,
                source: Source::Auto,
                replace: vec![],
                out: None,
                mirrors: Mirrors::default(),
                cache: Cache::new(&cx.places.cache),
                asked: self.asked.clone(),
            },
            slot: Arc::clone(&result.bundle),
        };
        // Settings that cannot be read are in nobody's way where nothing is fetched.
        if fetch.is_to_be_built() {
            fetch.request.mirrors = Config::load(&cx.places)?.mirrors;
        }
        Ok(fetch)
    }

    pub(super) fn local_phases(
        &self,
        cx: &Context,
        result: &LocalResult,
        mode: Mode,
        arch: Arch,
    ) -> Result<Vec<Box<dyn Phase>>, Problem> {
        let bundle = self.bundle(cx, result, arch)?;
        let packages = self.packages.clone();
        let (at, kind, outbound) = (self.engine.clone(), self.args.machines, self.args.outbound);
        let places = LocalPlaces { at, kind, outbound, ..cx.local_places() };
        let (machines, key) = if self.is_local() { (Some(places), key(cx, mode)?) } else { (None, Default::default()) };
        let tenant = self.tenant();
        Ok(flows::local(Local { bundle, machines, packages, tenant, key }, result))
    }

    /// What happens on this computer: the bundle, and machines where they are asked for.
    pub(in crate::cli::commands) async fn prepare(
        &self,
        cx: &Context,
        run: &Run,
        result: &LocalResult,
        arch: Arch,
    ) -> Result<(), Problems> {
        run_here(run, &self.local_phases(cx, result, run.mode, arch)?).await
    }

    pub(super) async fn targets(
        &self,
        store: &Store,
        result: &LocalResult,
    ) -> Result<Vec<(NodeId, SshTarget)>, Problems> {
        match &self.place {
            Where::Hosts(hosts) => {
                targets::of_hosts(store, hosts, &Connect::of(&self.args.connect, &self.login)?).await
            }
            Where::Local => {
                let machines = result
                    .machines
                    .get()
                    .ok_or_else(|| Problem::new(Code::Internal, "the machines did not get ready"))?;
                Ok(targets::of_machines(store, machines)?)
            }
        }
    }

    pub(in crate::cli::commands) fn up(
        &self,
        cx: &Context,
        bundle: &Arc<Bundle>,
        targets: &[(NodeId, SshTarget)],
    ) -> Up {
        let cp = &self.lab.control_plane().name;
        let server = targets.iter().find(|(n, _)| n == cp).map(|(_, t)| t.address.clone()).unwrap_or_default();
        let owner = self.owner.clone();
        Up { owner, bundle: Arc::clone(bundle), kubeconfig: cx.store.file("kubeconfig"), server }
    }
}

/// Carries out what happens on this computer, or plans it, as the run's mode says.
pub(super) async fn run_here(run: &Run, phases: &[Box<dyn Phase>]) -> Result<(), Problems> {
    run_flow(run, phases, &[NodeId::here()], &BTreeMap::new(), &BTreeMap::new()).await
}

/// The lab's key pair; a plan makes none.
fn key(cx: &Context, mode: Mode) -> Result<(PathBuf, String), Problem> {
    if mode == Mode::Plan && !cx.store.file("key").exists() {
        return Ok(Default::default());
    }
    cx.store.key()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::{
        cli::args::{Args, Command},
        inventory::HostEntry,
        machine::{FakeIncus, Kind},
        profile::{self, Cni, ProxyMode},
    };

    /// A context whose lab has this layout on hosts of the user's.
    fn with_lab(folder: &Path, layout: &str, clean: bool) -> Context {
        let cx = Context::of_test(folder);
        let lab = Lab::new(cx.global.name.clone(), profile::load(layout).unwrap()).unwrap();
        let host = |(node, i): (&profile::NodeSpec, u32)| (node.name.clone(), HostEntry::at(format!("192.0.2.{i}")));
        let hosts = lab.nodes().iter().zip(1..).map(host).collect();
        cx.store.save(&lab, &State { clean, ..State::new(Where::Hosts(hosts)) }).unwrap();
        cx
    }

    /// What `kubecamp up` with these words asks for.
    fn asked(cx: &Context, words: &[&str]) -> Result<Request, Problems> {
        let args = Args::parse_from(["kubecamp", "up"].into_iter().chain(words.iter().copied()));
        let Command::Up(args) = args.command else { panic!("another command") };
        Request::of(cx, args)
    }

    fn refused(cx: &Context, words: &[&str]) -> Code {
        asked(cx, words).err().unwrap().iter().next().unwrap().code
    }

    #[test]
    fn a_flag_changes_one_key_of_a_known_lab_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let cx = with_lab(dir.path(), "2x4c8g", true);
        let (lab, state) = cx.store.load().unwrap().unwrap();
        let mut profiles = std::array::from_fn::<_, 3, _>(|_| lab.profile().clone());
        profiles[0].proxy.mode = ProxyMode::Ipvs;
        profiles[1].network.cni = Cni::Bridge;
        profiles[2].kubernetes = "v1.35.4".into();
        let flags = [["--proxy-mode", "ipvs"], ["--cni", "bridge"], ["--kubernetes", "v1.35.4"]];
        for (words, wanted) in flags.into_iter().zip(profiles) {
            let request = asked(&cx, &words).unwrap();
            assert_eq!(*request.lab.profile(), wanted, "{words:?}");
            let (Where::Hosts(now), Where::Hosts(then)) = (&request.place, &state.place) else { panic!("no hosts") };
            assert!(now.iter().zip(then).all(|(now, then)| now.0 == then.0 && now.1.address == then.1.address));
            assert_eq!(now.len(), then.len());
        }
        cx.store.save(&lab, &State { clean: true, ..State::new(Where::Local) }).unwrap();
        assert_eq!(asked(&cx, &["--local", "--cni", "bridge"]).unwrap().lab.layout(), lab.layout());
    }

    #[tokio::test]
    async fn a_lab_that_was_reset_goes_to_hosts_only_without_its_machines() {
        let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cx = with_lab(dir.path(), "1x4c12g", true);
        let (lab, state) = cx.store.load().unwrap().unwrap();
        let nic = json!({"type": "nic", "nictype": "macvlan"});
        let machine = |lab: &str, id: &str| {
            json!({"name": format!("{lab}-cp"), "status": "Stopped", "type": "container", "config":
                {"user.kubecamp.lab": lab, "user.kubecamp.node": "cp", "user.kubecamp.lab-id": id}})
        };
        let incus = |home: &tempfile::TempDir, machine: serde_json::Value| {
            let fake = FakeIncus::new([
                ("GET ", json!({"auth": "trusted", "environment": {"server_version": "6.0.4"}})),
                ("GET /profiles/default", json!({"devices": {"root": {"path": "/", "pool": "p"}, "eth0": nic}})),
                ("GET /instances?recursion=1", json!([machine])),
                ("GET /instances?recursion=2", json!([machine])),
            ]);
            fake.provider(home, Kind::Container).at()
        };
        let (own, id) = (tempfile::tempdir().unwrap(), state.owner().id);
        let never = EngineAt::Private(home.path().join("never"));
        for (engine, left) in [
            (incus(&own, machine("lab", id.as_str())), Some("lab-cp")),
            (incus(&home, machine("other", id.as_str())), None),
            (EngineAt::Incus(home.path().join("none.socket")), Some("cannot be named")),
            (never, None),
        ] {
            let state = State { place: Where::Local, engine: Some(engine), ..state.clone() };
            cx.store.save(&lab, &state).unwrap();
            let request = asked(&cx, &["--host", "192.0.2.1"]).unwrap();
            let refused = request.leave_no_machines(&cx).await.err();
            assert_eq!(refused.is_some(), left.is_some(), "{:?}", state.engine);
            if let (Some(problem), Some(left)) = (refused, left) {
                assert!(problem.code == Code::LabDiffers && problem.detail[0].contains(left), "{problem}");
                assert!(problem.all_hints()[0].contains("kubecamp down --name lab"), "{problem}");
            }
        }
    }

    #[test]
    fn a_flag_for_nodes_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cx = with_lab(dir.path(), "1x4c12g", true);
        let (lab, state) = cx.store.load().unwrap().unwrap();
        let on_hosts = [&["--outbound"][..], &["--machines", "vm"]];
        let local = [&["--identity", "/key"][..], &["--local", "--jump", "192.0.2.9"]];
        for (place, lines) in [(state.place.clone(), on_hosts), (Where::Local, local)] {
            cx.store.save(&lab, &State { place, ..state.clone() }).unwrap();
            for words in lines {
                let problems = asked(&cx, words).err().unwrap();
                let problem = problems.iter().next().unwrap();
                let flag = words.iter().rfind(|word| word.starts_with("--")).unwrap();
                assert!(problem.code == Code::Usage && problem.what.starts_with(flag), "{words:?}: {problem}");
            }
        }
    }

    #[test]
    fn hosts_of_another_count_name_the_lab_whose_layout_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let cx = with_lab(dir.path(), "2x4c8g", false);
        for (words, named) in
            [(&["--host", "192.0.2.9"][..], true), (&["--host", "a", "--layout", "3x2c4g"][..], false)]
        {
            let problems = asked(&cx, words).err().unwrap();
            let problem = problems.iter().next().unwrap();
            assert_eq!(problem.code, Code::HostCount, "{words:?}");
            let hint = &problem.all_hints()[0];
            assert_eq!(
                hint.contains("The lab lab was made with layout 2x4c8g: give a new one a --name"),
                named,
                "{hint}"
            );
        }
    }

    #[test]
    fn a_lab_that_is_up_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let cx = with_lab(dir.path(), "2x4c8g", false);
        assert_eq!(refused(&cx, &["--cni", "bridge"]), Code::LabDiffers);
        assert_eq!(refused(&cx, &["--layout", "3x2c4g"]), Code::LabDiffers);
        let problems = asked(&cx, &["--cni", "bridge"]).err().unwrap();
        assert_eq!(problems.iter().next().unwrap().detail, ["network.cni: flannel, asked bridge"]);
        // Nor is it asked whether another one had the room.
        let (lab, state) = cx.store.load().unwrap().unwrap();
        let (huge, file) =
            (profile::shipped_text("2x4c8g").unwrap().replace("GiB", "00GiB"), dir.path().join("huge.yaml"));
        std::fs::write(&file, huge.replace("2x4c8g", "2x4c800g")).unwrap();
        cx.store.save(&lab, &State { place: Where::Local, ..state.clone() }).unwrap();
        assert_eq!(refused(&cx, &["--profile", file.to_str().unwrap()]), Code::LabDiffers);
        cx.store.save(&lab, &state).unwrap();
        // It is so already.
        asked(&cx, &["--cni", "flannel", "--proxy-mode", "nftables"]).unwrap();
    }

    #[test]
    fn settings_that_cannot_be_read_stop_only_what_downloads() {
        let dir = tempfile::tempdir().unwrap();
        let mut cx = with_lab(dir.path(), "2x4c8g", true);
        cx.places.cache = dir.path().join("cache");
        cx.places.config = dir.path().join("config.yaml");
        std::fs::write(&cx.places.config, "mirrors: [\n").unwrap();
        let request = asked(&cx, &[]).unwrap();
        let bundle = || request.bundle(&cx, &LocalResult::default(), Arch::Amd64).err().map(|p| p.code);
        assert_eq!(bundle(), Some(Code::ConfigFile));
        let file = Cache::new(&cx.places.cache).bundle(&request.lab.profile().kubernetes, Arch::Amd64);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(bundle(), None);
    }

    #[test]
    fn a_lab_on_machines_comes_to_hosts_after_down_and_not_after_reset() {
        let dir = tempfile::tempdir().unwrap();
        let cx = with_lab(dir.path(), "1x4c12g", false);
        let (lab, state) = cx.store.load().unwrap().unwrap();
        cx.store.save(&lab, &State { place: Where::Local, ..state }).unwrap();
        let problems = asked(&cx, &["--host", "192.0.2.1"]).err().unwrap();
        let problem = problems.iter().next().unwrap();
        assert_eq!(problem.code, Code::LabDiffers);
        assert!(problem.all_hints()[0].contains("kubecamp down."), "{problem:?}");
    }

    #[test]
    fn remembered_hosts_are_counted_for_another_layout() {
        let dir = tempfile::tempdir().unwrap();
        let cx = with_lab(dir.path(), "2x4c8g", true);
        for layout in ["3x2c4g", "1x4c12g"] {
            assert_eq!(refused(&cx, &["--layout", layout]), Code::HostCount, "{layout}");
        }
        // Nodes of other names take the hosts in their order.
        let mine = profile::shipped_text("2x4c8g").unwrap().replace("worker-1", "other");
        let file = dir.path().join("my.yaml");
        std::fs::write(&file, mine).unwrap();
        let request = asked(&cx, &["--profile", file.to_str().unwrap()]).unwrap();
        let Where::Hosts(hosts) = request.place else { panic!("no hosts") };
        let pairs: Vec<_> = hosts.iter().map(|(node, host)| format!("{node}={host}")).collect();
        assert_eq!(pairs, ["cp=192.0.2.1", "other=192.0.2.2"]);
    }
}
