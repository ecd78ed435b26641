//! Belongs: one file per command: from arguments to a flow or a question, and its data to standard output.
//! Never: what a phase knows.
//! Start here: `up/carry_out.rs`.

mod agent;
mod book;
mod bundle;
mod cp;
mod doctor;
mod hub;
mod kubectl;
mod login;
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

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    args::{Args, Command, ConnectArgs, Global},
    ask::Terminal,
    output::Show,
    settings::Places,
    store::{State, Store, Where},
    targets::{self, Connect},
};
use crate::{
    core::{Class, Code, NodeId, Outcome, Problem, Problems, Secret},
    engine::{Journal, Run},
    machine::{Machine, Provider, Wanted},
    phases::{LocalPlaces, provider_in, running_place},
    profile::Lab,
    transport::{Ask, SshTarget},
};

/// What every command works with.
pub(super) struct Context {
    pub global: Global,
    pub places: Places,
    pub store: Store,
    pub cancel: CancellationToken,
}

/// Runs the command; the number is the exit code of a command that passes another program's on.
pub(super) async fn run(args: Args) -> Result<u8, Problems> {
    let places = Places::from_env();
    let store = Store::of(&places.labs, &args.global.name);
    let cx = Context { global: args.global, places, store, cancel: CancellationToken::new() };
    let stop = cx.cancel.clone();
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    match args.command {
        Command::Up(args) => up::up(&cx, args).await.map(|()| 0),
        Command::Plan(args) => plan::plan(&cx, args).await.map(|()| 0),
        Command::Status(args) => status::status(&cx, args).await.map(|()| 0),
        Command::Doctor(args) => doctor::doctor(&cx, args).await,
        Command::Reset(args) => reset::reset(&cx, args).await.map(|()| 0),
        Command::Down(args) => reset::down(&cx, args).await.map(|()| 0),
        Command::Ssh(args) => ssh::ssh(&cx, args).await,
        Command::Cp(args) => cp::cp(&cx, args).await.map(|()| 0),
        Command::Kubectl(args) => kubectl::kubectl(&cx, args).await,
        Command::Bundle(command) => bundle::bundle(&cx, command).await.map(|()| 0),
        Command::Machine(command) => machine::machine(&cx, command).await.map(|()| 0),
        Command::Profile(command) => profile::profile(command).map(|()| 0),
        Command::Run(command) => Ok(runs::runs(&cx, command).map(|()| 0)?),
        Command::Login(args) => login::login(&cx, args).await.map(|()| 0),
        Command::Book(command) => book::book(&cx, command).await,
        Command::Hub(command) => hub::hub(&cx, command).await.map(|()| 0),
        Command::Agent(args) => agent::agent(&cx, args).await.map(|()| 0),
        Command::Completions { shell } => Ok(meta::completions(shell)),
        Command::Man => Ok(meta::man()?),
    }
}

impl Context {
    /// A journal in the lab's folder, shown as the user asked.
    fn journal(&self) -> Result<Arc<Journal>, Problem> {
        let show = Show::choose(self.global.plain, self.global.output_events.is_some());
        Ok(Arc::new(Journal::create(&self.store.file("runs"), vec![show.listener(self.global.verbose)])?))
    }

    /// A journal that is shown as the user asked and kept nowhere: for what is no run of a lab.
    fn unkept_journal(&self) -> Arc<Journal> {
        let show = Show::choose(self.global.plain, self.global.output_events.is_some());
        Arc::new(Journal::unkept(vec![show.listener(self.global.verbose)]))
    }

    /// Ends a run in its journal; a failed one says where its log is and how to go on.
    fn end<T>(&self, run: &Run, ended: Result<T, Problems>) -> Result<T, Problems> {
        run.ended(match &ended {
            Ok(_) => Outcome::Changed,
            Err(problems) if problems.class() == Class::Cancelled => Outcome::Skipped,
            Err(_) => Outcome::Failed,
        });
        ended.map_err(|problems| with_log(problems, &run.journal))
    }

    fn local_places(&self) -> LocalPlaces {
        LocalPlaces {
            engine: self.places.engine.clone(),
            images: self.places.cache.join("images"),
            suite: None,
            kind: Wanted::default(),
            outbound: false,
        }
    }

    /// The lab's machines, when its engine runs.
    async fn machines(&self, lab: &Lab) -> Result<Vec<Machine>, Problem> {
        let places = self.local_places();
        let Some(place) = running_place(&places).await? else {
            return Err(Problem::new(Code::EngineStart, "the engine of the lab's machines does not run")
                .hint("Start it: kubecamp machine engine start, or kubecamp up --local."));
        };
        provider_in(place, &places)?.list(Some(lab.name())).await
    }

    /// How to log in to the nodes of a lab that exists.
    async fn targets(
        &self,
        lab: &Lab,
        state: &State,
        connect: &ConnectArgs,
    ) -> Result<Vec<(NodeId, SshTarget)>, Problems> {
        match &state.place {
            Where::Hosts(hosts) => targets::of_hosts(&self.store, hosts, &connect.into()).await,
            Where::Local => Ok(targets::of_machines(&self.store, &self.machines(lab).await?)?),
        }
    }
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

impl From<&ConnectArgs> for Connect {
    fn from(args: &ConnectArgs) -> Self {
        Self {
            identity: args.identity.clone(),
            accept_new_host_keys: args.accept_new_host_keys,
            ssh_config: args.ssh_config.clone(),
            jump: args.jump.clone(),
        }
    }
}

/// The sudo password, asked for once, or the first line of a file.
fn sudo_password(connect: &ConnectArgs) -> Result<Option<Secret>, Problem> {
    if let Some(file) = &connect.sudo_password_file {
        return first_line(file).map(Some);
    }
    if !connect.ask_sudo_password {
        return Ok(None);
    }
    let none = || Problem::new(Code::Sudo, "there is no terminal to ask for the sudo password on");
    Terminal.secret("sudo password of the hosts").map(Some).ok_or_else(none)
}

/// The first line of a file that holds a secret.
fn first_line(file: &std::path::Path) -> Result<Secret, Problem> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Problem::new(Code::LocalFile, format!("cannot read {}", file.display())).because(e))?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
