//! Belongs: one file per command: from arguments to a flow or a question, and its data to standard output.
//! Never: what a phase knows.
//! Start here: `up/carry_out.rs`.

mod agent;
mod book;
mod bundle;
mod cp;
mod detour;
mod doctor;
mod hub;
mod kubectl;
mod labs;
mod login;
mod logout;
mod machine;
mod make_machines;
mod meta;
mod plan;
mod profile;
mod reset;
mod runs;
mod ssh;
mod status;
mod up;

use std::{ffi::OsStr, path::Path, sync::Arc};

pub use book::class_plan;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Args, Command, ConnectArgs, Global},
    ask::Terminal,
    hints::for_lab,
    output::{self, Format, Show},
    settings::Places,
    stop::Stop,
    store::{Login, State, Store, Where},
    targets::{self, Connect},
};
use crate::{
    core::{Class, Code, LabName, NodeId, Outcome, Problem, Problems, Secret},
    engine::{Journal, Lock, Run, read_journal},
    host::SudoPassword,
    machine::{
        IncusProvider, LocalPlaces, Machine, Provider, State as MachineState, Wanted, no_engine, place_of, provider_in,
    },
    profile::Lab,
    render::{phase_times, summary_text},
    transport::{SshTarget, ssh::must_be_readable},
};

/// What every command works with.
pub(super) struct Context {
    pub global: Global,
    pub places: Places,
    pub store: Store,
    /// The first Ctrl-C, for runs.
    pub cancel: CancellationToken,
    pub stop: Arc<Stop>,
}

/// The end of a command that failed.
pub(super) struct Failed {
    /// How to exit.
    pub exit_code: u8,
    /// Why.
    pub problems: Problems,
}

/// Runs the command and gives the exit code, which is another program's own where the command passes that on.
pub(super) async fn run(args: Args) -> Result<u8, Failed> {
    let places = Places::from_env();
    let store = Store::of(&places.labs, &args.global.name);
    output::problems_of(flag_of(&args.global.name, std::env::var_os("KUBECAMP_LAB").as_deref()));
    let stop = Stop::listen();
    let cx = Context { global: args.global, places, store, cancel: stop.first().clone(), stop: Arc::clone(&stop) };
    let ended = stop.unless_now(command(&cx, args.command)).await;
    ended.map_err(|problems| Failed { exit_code: stop.exit_code(problems.class()), problems })
}

/// The flag that names the lab in what is to be typed; `of_env` is the lab that is meant without one.
fn flag_of(lab: &LabName, of_env: Option<&OsStr>) -> String {
    match of_env.filter(|name| !name.is_empty()) {
        Some(name) if name != lab.as_str() => format!(" --name {lab}"),
        // Also where the variable names it: the next terminal may not have that.
        _ => lab.flag(),
    }
}

async fn command(cx: &Context, command: Command) -> Result<u8, Problems> {
    match command {
        Command::Up(args) => up::up(cx, args).await.map(|()| 0),
        Command::Plan(args) => plan::plan(cx, args).await.map(|()| 0),
        Command::Status(args) => status::status(cx, args).await.map(|()| 0),
        Command::Doctor(args) => doctor::doctor(cx, args).await,
        Command::Reset(args) => reset::reset(cx, args).await.map(|()| 0),
        Command::Down(args) => reset::down(cx, args).await.map(|()| 0),
        Command::Ssh(args) => ssh::ssh(cx, args).await,
        Command::Cp(args) => cp::cp(cx, args).await.map(|()| 0),
        Command::Kubectl(args) => kubectl::kubectl(cx, args).await,
        Command::Bundle(command) => bundle::bundle(cx, command).await.map(|()| 0),
        Command::Machine(command) => machine::machine(cx, command).await.map(|()| 0),
        Command::Profile(command) => profile::profile(command).map(|()| 0),
        Command::Run(command) => Ok(runs::runs(cx, command).map(|()| 0)?),
        Command::Login(args) => login::login(cx, args).await.map(|()| 0),
        Command::Logout(args) => Ok(logout::logout(cx, args).await.map(|()| 0)?),
        Command::Book(command) => book::book(cx, command).await,
        Command::Hub(command) => hub::hub(cx, command).await.map(|()| 0),
        Command::Agent(args) => agent::agent(cx, args).await.map(|()| 0),
        Command::Completions { shell } => Ok(meta::completions(shell)),
        Command::Man { dir } => Ok(meta::man(dir.as_deref())?),
    }
}

impl Context {
    /// Holds the lab for a run that was decided by what was `seen` of it.
    ///
    /// Another run may have changed it meanwhile, while this one asked: then this one would write over what that one made.
    fn lock(&self, seen: Option<&(Lab, State)>) -> Result<Lock, Problem> {
        let lock = Lock::take(self.store.folder())?;
        if self.store.load()?.as_ref() == seen {
            return Ok(lock);
        }
        let what = format!("another run changed the lab {} while this one was being prepared", self.global.name);
        Err(Problem::new(Code::LabBusy, what).hint("Run the same command again: it looks at the lab anew."))
    }

    /// A journal in the lab's folder, shown as the user asked. From here on Ctrl-C ends things in order.
    fn journal(&self) -> Result<Arc<Journal>, Problem> {
        self.stop.in_order();
        let show = Show::choose(self.global.plain, self.global.output_events.is_some());
        Ok(Arc::new(Journal::create(&self.store.file("runs"), vec![show.listener(self.global.verbose)])?))
    }

    /// A journal that is shown as the user asked and kept nowhere: for what is no run of a lab.
    fn unkept_journal(&self) -> Arc<Journal> {
        let show = Show::choose(self.global.plain, self.global.output_events.is_some());
        Arc::new(Journal::unkept(vec![show.listener(self.global.verbose)]))
    }

    /// Writes the result of a command that tells events. They are data too, and the only data where they are asked for.
    fn result(&self, text: &str) {
        match self.global.output_events {
            Some(_) => output::say(text.trim_end()),
            None => output::data(text),
        }
    }

    /// The same of a result that is asked for as `format`, and else is this text.
    fn value<T: Serialize>(&self, format: Format, value: &T, text: &str) -> Result<(), Problem> {
        if self.global.output_events.is_some() {
            self.result(text);
            return Ok(());
        }
        output::value(format, value, |_| text.to_owned())
    }

    /// Ends a run in its journal, which has every problem then, and says where its time went; a failed one says also where
    /// its log is and how to go on.
    fn end<T>(&self, run: &Run, ended: Result<T, Problems>) -> Result<T, Problems> {
        let flag = self.global.name.flag();
        let ended = ended.map_err(|problems| {
            let named = problems.into_vec().into_iter().map(|p| for_lab(p, &flag));
            let told: Vec<_> = named.map(|p| run.journal.failure(p)).collect();
            Problems::from(told)
        });
        run.ended(match &ended {
            Ok(_) => Outcome::Changed,
            Err(problems) if problems.class() == Class::Cancelled => Outcome::Skipped,
            Err(_) => Outcome::Failed,
        });
        if let Some(times) = times_text(run, ended.is_err()) {
            output::say(&times);
        }
        ended.map_err(|problems| with_log(problems, &run.journal))
    }

    fn local_places(&self) -> LocalPlaces {
        LocalPlaces {
            engine: self.places.engine.clone(),
            at: None,
            images: self.places.cache.join("images"),
            suite: None,
            kind: Wanted::default(),
            outbound: false,
        }
    }

    /// The machines' provider of a lab that exists, when its engine runs.
    async fn provider(&self, lab: &Lab, state: &State) -> Result<IncusProvider, Problem> {
        let places = LocalPlaces { at: state.engine.clone(), ..self.local_places() };
        let place = place_of(&places, lab.name()).await?.ok_or_else(|| no_engine(&places, lab.name()))?;
        provider_in(place, &places)
    }

    /// The lab's machines, when its engine runs.
    async fn machines(&self, lab: &Lab, state: &State) -> Result<Vec<Machine>, Problem> {
        self.provider(lab, state).await?.list(Some(lab.name())).await
    }

    /// How to log in to the nodes of a lab that exists.
    async fn targets(
        &self,
        lab: &Lab,
        state: &State,
        connect: &ConnectArgs,
    ) -> Result<Vec<(NodeId, SshTarget)>, Problems> {
        match &state.place {
            Where::Hosts(hosts) => targets::of_hosts(&self.store, hosts, &Connect::of(connect, &state.login)?).await,
            Where::Local => Ok(self.machine_targets(lab, state).await?),
        }
    }

    /// The same of each node by itself, for who reports what there is.
    async fn each_target(&self, lab: &Lab, state: &State, connect: &ConnectArgs) -> Result<targets::Found, Problem> {
        match &state.place {
            Where::Hosts(hosts) => {
                Ok(targets::of_each_host(&self.store, hosts, &Connect::of(connect, &state.login)?).await)
            }
            Where::Local => {
                let targets = self.machine_targets(lab, state).await?;
                Ok(targets.into_iter().map(|(node, target)| (node, Ok(target))).collect())
            }
        }
    }

    /// How to log in to the lab's machines that run.
    async fn machine_targets(&self, lab: &Lab, state: &State) -> Result<Vec<(NodeId, SshTarget)>, Problem> {
        let mut machines = self.machines(lab, state).await?;
        // A stopped one keeps its address, and would look like a host that does not answer.
        machines.retain(|m| m.state == MachineState::Running);
        targets::of_machines(&self.store, &machines)
    }

    /// How to log in to one node, asking no other machine; `None` when it has no machine.
    async fn target(
        &self,
        lab: &Lab,
        state: &State,
        node: &NodeId,
        connect: &ConnectArgs,
    ) -> Result<Option<SshTarget>, Problems> {
        let found = match &state.place {
            Where::Hosts(hosts) => {
                let host: Vec<_> = hosts.iter().filter(|(n, _)| n == node).cloned().collect();
                targets::of_hosts(&self.store, &host, &Connect::of(connect, &state.login)?).await?
            }
            Where::Local => {
                let machine = self.provider(lab, state).await?.get(lab.name(), node).await?;
                let machine = machine.filter(|m| m.state == MachineState::Running);
                targets::of_machines(&self.store, machine.as_slice())?
            }
        };
        Ok(found.into_iter().next().map(|(_, target)| target))
    }
}

/// Refuses a node that the lab has not got.
fn must_have(lab: &Lab, node: &NodeId) -> Result<(), Problem> {
    if lab.node(node).is_some() {
        return Ok(());
    }
    let names: Vec<_> = lab.nodes().iter().map(|n| n.name.to_string()).collect();
    let hint = format!("Its nodes are {}.", names.join(", "));
    Err(Problem::new(Code::Usage, format!("the lab has no node {node}")).hint(hint))
}

/// The problem of a node whose machine does not run.
fn stopped(lab: &LabName, node: &NodeId) -> Problem {
    Problem::new(Code::MachineStart, "the machine does not run")
        .on(node)
        .hint(format!("Bring the lab up again: kubecamp up --name {lab}."))
}

/// Where the time of a run went that changed something or failed, when it came so far as to have phases.
fn times_text(run: &Run, failed: bool) -> Option<String> {
    if !failed && run.summary().changed == 0 {
        return None;
    }
    let events = run.journal.path().and_then(|path| read_journal(path).ok()).unwrap_or_default();
    (!phase_times(&events).is_empty()).then(|| summary_text(&events, false))
}

/// The problems with the run log's path and how to continue at the end.
fn with_log(problems: Problems, journal: &Journal) -> Problems {
    let (mut all, log) = (problems.into_vec(), journal.path());
    if let (Some(last), Some(log)) = (all.last_mut(), log) {
        let mut told = last.clone().detail([format!("run log: {}", log.display())]);
        if told.hints.is_empty() {
            told = told.hint(last.code.hint());
        }
        let told_how = last.code == Code::Internal || told.hints.iter().any(|h| h.0.contains("same command again"));
        let again = "Mend it and run the same command again: it continues where it was.";
        *last = if told_how { told } else { told.hint(again) };
    }
    all.into()
}

impl Connect {
    /// What the flags say, and where they are silent what `up` was told.
    ///
    /// A key that a flag names must be there, before any host is asked; one that was told of may be in an agent by now.
    fn of(flags: &ConnectArgs, told: &Login) -> Result<Self, Problem> {
        let login = Login::of(flags, Some(told));
        // ssh reads no file where `none` is named.
        let named = login.identity.as_deref().filter(|file| flags.identity.is_some() && *file != Path::new("none"));
        named.map_or(Ok(()), must_be_readable)?;
        Ok(Self { login, accept_new_host_keys: flags.accept_new_host_keys })
    }
}

/// The sudo password: the first line of a file, asked for now, or when the first host wants one.
async fn sudo_password(connect: &ConnectArgs) -> Result<SudoPassword, Problem> {
    if let Some(file) = &connect.sudo_password_file {
        return first_line(file).map(SudoPassword::given);
    }
    let password = SudoPassword::asked_of(Arc::new(Terminal));
    if connect.ask_sudo_password && password.get().await.is_none() {
        return Err(Problem::new(Code::Sudo, "there is no terminal to ask for the sudo password on"));
    }
    Ok(password)
}

/// The first line of a file that holds a secret.
fn first_line(file: &Path) -> Result<Secret, Problem> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", file.display())).because(e))?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

#[cfg(test)]
impl Context {
    /// One for tests, with its labs in this folder.
    fn of_test(labs: &Path) -> Self {
        let args = <Args as clap::Parser>::parse_from(["kubecamp", "status"]);
        let store = Store::of(labs, &args.global.name);
        let (places, cancel) = (Places::from_env(), CancellationToken::new());
        Self { global: args.global, places, store, cancel, stop: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{EventKind, PhaseId};

    #[test]
    fn a_lab_that_another_run_changed_meanwhile_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let state = State::new(Where::Local);
        let refused = |seen: Option<&(Lab, State)>| cx.lock(seen).err().map(|p| p.code);
        assert_eq!(refused(None), None);
        cx.store.save(&lab, &state).unwrap();
        assert_eq!(refused(None), Some(Code::LabBusy), "it was made meanwhile");
        let seen = cx.store.load().unwrap();
        assert_eq!(refused(seen.as_ref()), None);
        cx.store.save(&lab, &State { clean: true, ..state }).unwrap();
        assert_eq!(refused(seen.as_ref()), Some(Code::LabBusy), "it was reset meanwhile");
        cx.store.forget().unwrap();
        assert_eq!(refused(seen.as_ref()), Some(Code::LabBusy), "it is gone");
    }

    #[test]
    fn a_key_that_a_flag_names_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let flags = |file: &Path| ConnectArgs { identity: Some(file.to_owned()), ..ConnectArgs::default() };
        let refused = Connect::of(&flags(&file), &Login::default()).unwrap_err();
        assert!(refused.code == Code::KeyFile && refused.what.contains("/key"), "{refused}");
        Connect::of(&flags(Path::new("none")), &Login::default()).unwrap();
        let told = Login::of(&flags(&file), None);
        Connect::of(&ConnectArgs::default(), &told).unwrap();
        std::fs::write(dir.path().join("key.pub"), "the agent has the other half").unwrap();
        Connect::of(&flags(&file), &Login::default()).unwrap();
    }

    #[test]
    fn hints_mean_the_lab_that_was_named_whatever_the_environment_says() {
        let flag = |lab: &str, of_env: Option<&str>| flag_of(&lab.parse().unwrap(), of_env.map(OsStr::new));
        assert_eq!([flag("lab", None), flag("lab", Some("")), flag("lab", Some("lab"))], ["", "", ""]);
        assert_eq!(flag("lab", Some("team7")), " --name lab");
        assert_eq!(flag("team7", None), " --name team7");
        assert_eq!(flag("team7", Some("team7")), " --name team7");
    }

    #[test]
    fn a_refusal_is_in_the_log_once() {
        let dir = tempfile::tempdir().unwrap();
        let cx = Context::of_test(dir.path());
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let journal = Arc::new(Journal::create(dir.path(), vec![]).unwrap());
        journal.hide(&Secret::new("pa55word"));
        let run = Run::new(lab, crate::engine::Mode::Apply, Arc::clone(&journal), CancellationToken::new());
        let told = journal.failure(Problem::new(Code::StepFailed, "init: pa55word was refused"));
        let refused = Problem::new(Code::HostAuth, "the key pa55word was refused");
        let ended: Result<(), _> = cx.end(&run, Err(vec![told, refused].into()));
        assert_eq!(ended.unwrap_err().iter().count(), 2);
        let events = read_journal(journal.path().unwrap()).unwrap();
        let failures: Vec<_> = events
            .iter()
            .filter_map(|e| match &e.kind {
                EventKind::Failure { problem } => Some((problem.code, problem.what.as_str())),
                _ => None,
            })
            .collect();
        let wanted =
            [(Code::StepFailed, "init: [redacted] was refused"), (Code::HostAuth, "the key [redacted] was refused")];
        assert_eq!(failures, wanted);
        assert!(matches!(events.last().unwrap().kind, EventKind::RunEnded { outcome: Outcome::Failed, .. }));
    }

    #[test]
    fn a_run_that_changed_something_or_failed_says_where_its_time_went() {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::new("lab".parse().unwrap(), crate::profile::load("1x4c12g").unwrap()).unwrap();
        let journal = Arc::new(Journal::create(dir.path(), vec![]).unwrap());
        let run = Run::new(lab, crate::engine::Mode::Apply, Arc::clone(&journal), CancellationToken::new());
        assert_eq!(times_text(&run, true), None, "it came to no phase");
        let (phase, on) = (PhaseId::new("drain"), NodeId::here());
        journal.phase_begins(&phase, &on, "end the workers' pods").ends(Outcome::Changed);
        assert_eq!(times_text(&run, false), None, "it changed nothing");
        assert!(times_text(&run, true).unwrap().contains("\ndrain "));
        run.count(Outcome::Changed);
        assert!(times_text(&run, false).unwrap().starts_with("PHASE "));
    }

    #[test]
    fn a_failed_run_says_where_its_log_is_and_how_to_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path(), vec![]).unwrap();
        let problems = with_log(Problem::new(Code::HostUnreachable, "no answer").into(), &journal);
        let last = problems.iter().last().unwrap();
        assert_eq!(last.detail, [format!("run log: {}", journal.path().unwrap().display())]);
        let hints = last.all_hints();
        assert!(hints[0] == Code::HostUnreachable.hint() && hints[1].contains("same command again"), "{hints:?}");
        let unkept = with_log(Problem::new(Code::Internal, "x").into(), &Journal::unkept(vec![]));
        assert!(unkept.iter().all(|p| p.detail.is_empty()));
    }
}
